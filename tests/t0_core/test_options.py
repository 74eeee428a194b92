"""The options of `fuse`: what they may be, by which names, and that none is told without a word about it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hsfuse.core.errors import SettingError
from hsfuse.core.options import GROUPS, OPTIONS, FuseOptions, kind_of


def test_every_option_has_a_group_a_help_and_a_kind():
    assert set(OPTIONS) == set(vars(FuseOptions())) - {"command", "pace"}
    for name, option in OPTIONS.items():
        assert option.group in GROUPS
        assert option.help.endswith(".")
        assert kind_of(name)[0] in (str, int, float, bool, tuple, Path) or name == "creation_options"


@pytest.mark.parametrize(("given", "said"), [
    ({"scale": 4}, "scale is the storage step .*, got 4; the ratio of the GSDs is found from the grids"),
    ({"scale": -1.0}, "scale is -1.0, wanted a number above 0"), ({"ensemble": 9}, "from 0 to 8"),
    ({"register": "no"}, 'register is "no", wanted one of "auto"'),
    ({"seed": 0.5}, "seed is 0.5, wanted a whole number"),
    ({"adapt_minutes": float("nan")}, "of at least 0"), ({"stac": "yes"}, "true or false"),
    ({"tle": 3}, "fuse has no option 'tle'; did you mean 'tile'"), ({"xyz": 3}, "known are "),
])  # fmt: skip
def test_what_makes_no_sense_is_told(given, said):
    with pytest.raises(SettingError, match=said):
        FuseOptions.of(given)


def test_values_are_taken_as_callers_write_them():
    found = FuseOptions.of(
        {"msi_bands": ["B2", "B3"], "qa": "q.tif", "srf": Path("s.csv"), "adapt": False, "scale": 4.0}
    )
    assert (found.msi_bands, found.qa, found.srf, found.adapt) == (("B2", "B3"), Path("q.tif"), "s.csv", "off")
    assert FuseOptions(msi_bands="B2, B3").msi_bands == ("B2", "B3")


def test_former_names_still_work():
    found = FuseOptions.of({"steps": 3, "minutes": 1.5, "consistency_step": False})
    assert (found.adapt_steps, found.adapt_minutes, found.consistency) == (3, 1.5, "off")


def test_options_change_others_only_where_given():
    base = FuseOptions(method="gsa", mtf=0.2)
    assert FuseOptions.of({"mtf": 0.25}, base) == FuseOptions(method="gsa", mtf=0.25)
    with pytest.raises(SettingError, match="creation_options"):
        FuseOptions.of({}, {"COMPRESS": "LZW"})


def test_effort_says_whether_a_network_is_trained_unless_something_else_does():
    assert not FuseOptions().adapts
    assert not FuseOptions(effort="fast").adapts
    assert FuseOptions(effort="best").adapts
    for asked in ({"adapt": "on"}, {"adapt_minutes": 1.0}, {"adapt_steps": 5}, {"model": "none"}, {"base": "glp-reg"}):
        assert FuseOptions.of(asked).adapts
        assert not FuseOptions.of({**asked, "adapt": "off"}).adapts
    assert not FuseOptions(effort="best", adapt_steps=0).adapts
    assert FuseOptions(adapt="off", adapt_steps=9).steps == 0
