"""What speaks for a cube and against it: the pair first, the weakest bands by name, what no MSI band sees."""

import re
from dataclasses import replace
from pathlib import Path
from string import Formatter

import numpy as np
import pytest
from assessed_scene import make_scene, write
from rasterio.windows import Window

import hsfuse
from hsfuse.assessment import Assessment, assess
from hsfuse.assessment.checks import CARE, TOPICS, by_estimate, checks, overall, weakest
from hsfuse.assessment.indices import unseen
from hsfuse.assessment.report.citation import methods_paragraph
from hsfuse.assessment.report.sensors import sensor_lines
from hsfuse.assessment.report.words import VERDICTS, other_warnings
from hsfuse.assessment.result import BandGain, Curve, Expected, ResponseCurves
from hsfuse.core.notes import TEMPLATES, note, warning
from hsfuse.io import open_cube
from hsfuse.physics.srf_bands import blind_ranges, range_words


def curve(values, nm=None, name="cc"):
    nm = 400.0 + 10 * np.arange(len(values)) if nm is None else np.asarray(nm, float)
    return Curve(name, name, "", "", nm, np.asarray(values, float))


def named(found):
    return [(run.low, run.high) for run in found[0]]


def by_topic(a):
    return {check.topic: check for check in checks(a)}


def test_the_weakest_range_is_named_and_single_noisy_bands_are_not():
    values = np.full(60, 0.97)
    values[20:28] = 0.55
    values[[5, 40]] = 0.1
    found = weakest(curve(values))
    assert named(found) == [(600.0, 670.0)]
    assert found[0][0].value == pytest.approx(0.55)
    assert found[1] == pytest.approx(0.97)


def test_weak_runs_end_at_the_next_detector_and_at_gaps():
    nm = [*range(900, 1000, 10), *range(905, 1005, 10), *range(1200, 1300, 10)]
    values = np.full(30, 0.99)
    values[5:15] = 0.6
    assert named(weakest(curve(values, nm))) == [(950.0, 990.0), (905.0, 945.0)]
    values[15:25] = 0.6
    assert {high for _, high in named(weakest(curve(values, nm)))} <= {990.0, 995.0, 1240.0}
    assert named(weakest(curve(values[::-1], nm[::-1]))) != []


def test_absorption_and_undefined_bands_are_not_called_weak():
    nm = np.arange(1300.0, 1500, 10)
    values = np.where((nm >= 1350) & (nm <= 1450), 0.2, 0.98)
    values[0] = np.nan
    found = weakest(curve(values, nm))
    assert all(run.value == pytest.approx(0.98) for run in found[0])
    assert weakest(curve([np.nan, np.nan])) is None


@pytest.mark.parametrize(
    ("low", "verdict", "word"), [(0.95, "good", "good"), (0.7, "look", "keep in mind"), (0.3, "poor", "poor")]
)
def test_weak_bands_have_a_verdict_that_follows(low, verdict, word):
    values = np.full(60, 0.98)
    values[20:28] = low
    check = by_topic(Assessment("f.tif", (60, 9, 9), {}, curves=(curve(values),)))["Weakest bands"]
    assert (check.verdict, VERDICTS[check.verdict]) == (verdict, word)
    assert f"600 to 670 nm, correlation {low:.2f}" in check.text


def test_a_few_bands_at_the_end_of_a_sensor_do_not_condemn_a_cube():
    values = np.full(100, 0.98)
    values[:3] = 0.2
    check = by_topic(Assessment("f.tif", (100, 9, 9), {}, curves=(curve(values),)))["Weakest bands"]
    assert check.verdict == "look"


def test_without_a_reference_the_lrhsi_tells_the_weakest_bands():
    values = np.full(60, 0.98)
    values[20:28] = 0.7
    check = by_topic(Assessment("f.tif", (60, 9, 9), {}, curves=(curve(values, name="hsi_cc"),)))["Weakest bands"]
    assert check.text.startswith("Blurred back to the LRHSI, the weakest: 600 to 670 nm")
    assert "Weakest bands" not in by_topic(Assessment("f.tif", (60, 9, 9), {}))


def response(seen):
    weights = np.where(seen, 1.0, 0.0)[None]
    return ResponseCurves(("B1",), 400.0 + 10 * np.arange(len(seen)), weights, (1.0,))


@pytest.mark.parametrize(("inside", "verdict"), [(0.97, "good"), (0.8, "look"), (0.5, "poor")])
def test_what_no_msi_band_sees_is_judged_by_a_truth(inside, verdict):
    seen = np.arange(60) < 20
    values = np.where(seen, 0.99, inside)
    unseen = warning("unseen", ranges="600 to 990 nm")
    a = Assessment("f.tif", (60, 9, 9), {}, curves=(curve(values),), response=response(seen), notes=(unseen,))
    check = by_topic(a)["Inferred bands"]
    assert check.verdict == verdict
    assert f"{inside:.2f} on average" in check.text
    assert "fine detail in 600 to 990 nm (with the red edge) is inferred" in check.text
    assert other_warnings(a) == []


def test_the_verdict_says_what_to_be_careful_of_in_plain_words():
    values = np.where(np.arange(60) < 35, 0.99, 0.8)
    a = Assessment(
        "f.tif", (60, 9, 9), {"relative_rmse": 0.05},
        curves=(curve(values),), response=response(np.arange(60) < 35), valid_pixels=81,
    )  # fmt: skip
    assert overall(checks(a)) == (
        "Usable with care: values are 5% off the truth; detail in 750 to 990 nm is weak; detail in 42% of the bands is "
        "inferred, not measured."
    )
    swapped = replace(a, metrics={}, pair_warnings=(warning("bands-swapped", bands="B2 and B3", advice="swap them"),))
    assert overall(checks(swapped)).endswith("looked into this: bands of the MSI may be swapped.")
    values = {"fits": "sentinel2a", "alike": "", "fitted": 16, "misfit": 180, "chance": 16, "bands": ""}
    another = replace(swapped, pair_warnings=(warning("sensor-another", response="landsat8", **values),))
    assert overall(checks(another)).endswith(
        "looked into this: the MSI seems not to be landsat8's, and fits sentinel2a: fuse again with --srf sentinel2a."
    )


def test_expected_error_is_good_only_above_a_rank_correlation_of_a_half():
    for rank, verdict in ((0.6, "good"), (0.5, "look"), (0.4, "look")):
        check = by_topic(Assessment("f.tif", (3, 9, 9), {}, expected=Expected(0.1, 0.1, rank)))["Expected error"]
        assert check.verdict == verdict
        assert ("says little" in check.text) == (verdict == "look")
    assert "Expected error" not in by_topic(Assessment("f.tif", (3, 9, 9), {}, expected=Expected(0.1)))


def test_a_misfit_between_noise_and_alarm_is_kept_in_mind():
    """Three levels, one rule for the verdict and for the words in the chapter on the sensors."""
    misfit = {"fits": True, "part": "", "explained": {"PSF": 0.1, "place": 0.65, "response": 0.0, "radiometry": 0.0}}
    for times, share, verdict, said in (
        (1.1, 0.2, "good", "by 1.10 times their noise, which is within 1.6 times it: the model fits, whatever"),
        (1.9, 0.01, "good", "what is beyond it is 1% of the detail's contrast, which is within 8%: the model fits"),
        (2.11, 0.0989, "look", "place explains 65% of that"),
    ):
        found = misfit | {"times_noise": times, "share_of_contrast": share}
        a = Assessment("f.tif", (9, 9, 9), {}, sensors={"check": {"misfit": found, "response": []}})
        check = by_topic(a)["The model of the sensors"]
        assert check.verdict == verdict
        assert said in check.text
        assert dict(sensor_lines(a))["The model"] == check.text
        assert ("the model fits" in check.text) == (verdict == "good")
    loud = found | {"fits": False, "part": "place"}
    a = Assessment("f.tif", (9, 9, 9), {}, sensors={"check": {"misfit": loud, "response": []}})
    assert "The model of the sensors" not in by_topic(a)  # the warning about the pair says it
    assert "doesn't fit; place explains most" in dict(sensor_lines(a))["The model"]


def test_figures_that_rest_on_an_estimated_response_say_so():
    told = ResponseCurves(("band 1",), np.array([400.0, 500.0]), np.ones((1, 2)), (1.0,), "s")
    figures = {"metrics": {"msi_relative_rmse": 0.01}, "msi_gains": {"band 1": 1.0}}
    for by_pair in (False, True):
        a = Assessment("f.tif", (2, 9, 9), response=replace(told, estimated=by_pair), **figures)
        texts = [by_topic(a)[topic].text for topic in ("Agreement with the MSI", "Radiometry")]
        assert [" estimated from this pair" in text for text in texts] == [by_pair] * 2
        assert dict(sensor_lines(a))["Response"].startswith("Estimated from the pair" if by_pair else "s; not held")
        assert by_estimate(a).startswith("The MSI's response is estimated from this pair" if by_pair else "")
        assert bool(by_estimate(a)) == by_pair
        assert ("spectral responses estimated from the pair" in methods_paragraph(a)[0]) == by_pair


def test_what_speaks_against_the_pair_is_the_first_check_and_told_once():
    a = Assessment(
        "f.tif", (3, 9, 9), {},
        notes=(note("told", text="sound"), warning("told", text="W")),
        pair_warnings=(warning("inconsistent", image="MSI", error=0.5), warning("told", text="the bands are swapped")),
        valid_pixels=81,
    )  # fmt: skip
    found = checks(a)
    assert found[0].text.startswith("The fused cube doesn't give the MSI back")
    assert found[1].text == "The bands are swapped"
    assert [c.verdict for c in found[:2]] == ["poor", "look"]  # of a text alone nobody knows what it means
    assert found[2].topic != found[0].topic
    assert overall(found).endswith("the pair of images.")
    assert other_warnings(a) == ["W"]


@pytest.mark.parametrize(
    ("left", "taken", "verdict", "said"),
    [
        (1.01, None, "good", "Both sensors see the same brightness, band by band."),
        (1.01, 6.71, "good", "taken out: by up to a factor of 6.71 (MSI band B2) before."),
        (1.2, None, "look", "by up to +20% (MSI band B2), not corrected."),
        (
            0.6,
            1.4,
            "poor",
            "by up to -40% (MSI band B2), once gain and offset are taken out: by up to +40% (MSI band B2) before.",
        ),
    ],
)
def test_of_radiometry_counts_what_is_left(left, taken, verdict, said):
    taken_out = () if taken is None else (BandGain("B2", taken, 0.0, 1.0), BandGain("B3", 1.0, 0.0, 1.0))
    a = Assessment("f.tif", (3, 9, 9), {}, msi_gains={"B2": left, "B3": 1.0}, radiometry=taken_out)
    check = by_topic(a)["Radiometry"]
    assert (check.verdict, check.text[-len(said) :]) == (verdict, said)
    assert "up to 5%, poor from 30%" in check.limits
    lit = by_topic(replace(a, sensors={"light": 0.0234}))["Radiometry"]
    assert lit.text == f"{check.text} A smooth factor between them, 2.3% RMS, was taken out of the MSI."


def test_every_warning_of_a_pair_is_named_in_the_verdict():
    """By what it is about: "the pair of images" says nothing."""
    rooms = [*(Path(hsfuse.__file__).parent / room for room in ("pair", "io"))]
    code = re.compile(r"warning\(\s*\"([a-z-]+)\"")
    found = {one for room in rooms for file in room.glob("*.py") for one in code.findall(file.read_text())}
    assert len(found) > 25
    assert found <= {*CARE, *TOPICS}
    for one, text in CARE.items():
        fields = {name for _, name, _, _ in Formatter().parse(text) if name}
        assert fields <= {name for _, name, _, _ in Formatter().parse(TEMPLATES[one]) if name}


def test_the_verdict_names_bands_that_were_left_out():
    empty = warning("msi-bands-empty", bands="B3, B8A")
    other = warning("images-differ", times=2.0, share=0.1, where=0.12)
    told = overall(checks(Assessment("f.tif", (9, 9, 9), {}, pair_warnings=(empty, other))))
    assert "the two images show different things in about 12% of the scene" in told
    alone = overall(checks(Assessment("f.tif", (9, 9, 9), {}, pair_warnings=(empty,), valid_pixels=81)))
    assert alone == "Usable with care: empty MSI bands were left out (B3, B8A)."


def test_agreement_that_is_undefined_is_told():
    found = by_topic(Assessment("f.tif", (3, 9, 9), {"msi_relative_rmse": None, "hsi_relative_rmse": 0.01}))
    assert found["Agreement with the MSI"].verdict == "poor"
    assert found["Agreement with the LRHSI"].verdict == "good"


def test_an_empty_msi_is_the_first_thing_told(tmp_path):
    scene = make_scene(tmp_path)
    with open_cube(scene.path("msi.tif"), role="raster") as reader:
        msi = reader.read(Window(0, 0, *reader.grid.shape[::-1]))
    write(scene.path("zero.tif"), 0 * msi.data, msi.grid, msi.spectrum)
    a = assess(scene.path("truth.tif"), **{**scene.observed, "msi": scene.path("zero.tif")}, window=8)
    assert a.checks[0].verdict == "poor"
    assert "constant" in a.checks[0].text
    assert by_topic(a)["Agreement with the MSI"].verdict == "poor"


def test_gaps_from_40_nm_on_are_named_and_the_red_edge_by_name():
    nm = np.arange(400.0, 1000, 10)
    srf = np.where((nm < 640) | ((nm > 660) & (nm < 700)) | ((nm > 740) & (nm < 900)), 1.0, 0.0)[None]
    assert blind_ranges(nm, srf) == [(700.0, 740.0), (900.0, 990.0)]
    assert range_words(697, 764) == "the red edge (697 to 764 nm)"
    assert range_words(600, 1000) == "600 to 1000 nm (with the red edge)"
    assert range_words(735, 1000) == "735 to 1000 nm"
    assert range_words(918, 2489) == "918 to 2489 nm"


def test_indices_from_bands_that_no_msi_band_sees_are_known():
    nm, seen = 400.0 + 10 * np.arange(60), np.ones(60, bool)
    seen[(nm > 695) & (nm < 765)] = False
    given = response(seen)
    assert unseen("NDRE", given) == (715,)
    assert unseen("red edge, nm", given) == (700, 740)
    assert unseen("NDVI", given) == ()
    assert unseen("NDRE", None) == unseen("another", given) == ()


def test_a_model_that_does_not_fit_is_the_verdict_with_its_part():
    loud = warning("model-misfit", times=2.5, share=0.2, part="PSF", explained=0.9, advice="see --psf")
    other = warning("response-contradicted", response="ikonos", bands="B2 lies elsewhere")
    found = checks(Assessment("f.tif", (9, 9, 9), {}, pair_warnings=(loud, other)))
    verdicts = {check.topic: check.verdict for check in found}
    assert verdicts["The model of the sensors doesn't fit (PSF)"] == "poor"
    assert verdicts["The response"] == "look"
    assert "the model of the sensors doesn't fit (PSF)" in overall(found)
