"""One scene to be fused: its files and how, and what can be told of them before a pixel is read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from html import unescape
from pathlib import Path
from typing import Any

from hsfuse.core.errors import HsfuseError, InputError, OutputError, SettingError
from hsfuse.core.notes import recorded, texts
from hsfuse.core.options import OPTIONS, FuseOptions, kind_of
from hsfuse.io.files import check_inputs, check_output, check_path, check_report_path, driver_of, is_virtual
from hsfuse.io.finished import MAY_BE_FILES, answers, damage, files_of, goes_on, is_fresh, provenance_in

#: What a report's head has of the warnings in it, and how much of the file is looked through for that.
TOLD, MOST_HEAD = re.compile('<meta name="hsfuse-warnings" content="([^"]*)">'), 2**17


@dataclass(frozen=True)
class Job:
    """One scene: `where` it stands in a table, its files, and how it is fused."""

    where: str
    hsi: Path
    msi: tuple[Path, ...]
    output: Path
    options: FuseOptions
    report: Path | None = None
    figures: Path | None = None

    @property
    def read(self) -> list[Path]:
        """All files that it reads: its images, and what its options name."""
        named = [Path(getattr(self.options, name)) for name in MAY_BE_FILES]
        return [self.hsi, *self.msi, *(path for path in named if path.is_file())]

    @property
    def made(self) -> list[Path]:
        """All files that it makes."""
        beside = [path for path in (self.report, self.figures) if path is not None]
        return [*files_of(self.output, self.options), *beside]

    @property
    def _named(self) -> dict[str, Path | None]:
        """What it is told to make, by the options' names."""
        made = {"output": self.output, "report": self.report, "figures": self.figures}
        return made | {name: getattr(self.options, name) for name in OPTIONS if kind_of(name)[0] is Path}

    def check_paths(self) -> None:
        """InputError for the first of its paths that no file can have."""
        made = self._named
        read = [("HSI", self.hsi), *(("MSI", path) for path in self.msi)]
        for role, path in (*read, *made.items()):
            if path is not None and not ((role, path) in read and is_virtual(path)):
                check_path(role, path)

    def _check_names(self) -> None:
        """OutputError where two options name one file to be made."""
        seen: dict[Path, str] = {}
        for name, path in self._named.items():
            if path is not None and (other := seen.setdefault(path.resolve(), name)) != name:
                one, two = (f"--{option.replace('_', '-')}" for option in (other, name))
                raise OutputError(f"{one} and {two} name one file, {path}; give each a file of its own")

    def look_ahead(self, seen: set[Any]) -> None:
        """SettingError for tiles or creation options that its images can't have; nothing where they are among `seen`.

        Images that can't be read are left to the job's own process, which tells it.
        """
        from hsfuse.fusion.storage import look_ahead

        options = replace(self.options, resume=self.options.resume and goes_on(self.output, self.options))
        made = tuple(sorted(options.creation_options.items()))
        choice = (options.tile, made, options.dtype, driver_of(self.output, options.format))
        if choice in seen or (options.tile == FuseOptions.tile and not made):
            return
        try:
            look_ahead(self.hsi, self.msi, self.output, options)
        except SettingError:
            seen.add(choice)
            raise
        except HsfuseError:
            return
        seen.add(choice)

    def check(self) -> None:
        """Raise an HsfuseError for what keeps it from being run and needs no pixels to be told."""
        from hsfuse.methods import check_names

        self.check_paths()
        self._check_names()
        options, inputs = self.options, [self.hsi, *self.msi]
        check_names(options)
        check_inputs("HSI", [self.hsi])
        check_inputs("MSI", self.msi)
        if self.hsi in self.msi:
            raise InputError(f"--hsi and --msi name one file, {self.hsi}; name the HSI and the MSI")
        replaced = options.overwrite or options.resume
        check_output(self.output, overwrite=replaced, driver=options.format, protected=inputs)
        for path in (self.report, self.figures):
            if path is not None:
                theirs = options.overwrite or (options.resume and self.output.exists())
                check_report_path(path, theirs, [*inputs, self.output])

    def look(self) -> None:
        """HsfuseError for what its files say before a pixel is read: device, grids, bands, what is there already."""
        from hsfuse.fusion.device import check_device
        from hsfuse.fusion.storage import look_ahead

        check_device(self.options.device)
        look_ahead(self.hsi, self.msi, self.output, self.options)

    def state(self) -> str:
        """ "finished"; "cube" where it is damaged or only what goes with it is missing; else "". Without torch."""
        if not self._answers():
            return ""
        told = [path for path in (self.report, self.figures) if path is not None]
        whole = all(path.exists() for path in self.made) and all(is_fresh(path, self.output) for path in told)
        return "finished" if whole and not damage(self.output, self.options) else "cube"

    def warned(self) -> list[str]:
        """What was warned of as its finished output was made and assessed, as its files have it."""
        said = texts(recorded(provenance_in(self.output, self.options)), "warning")
        return list(dict.fromkeys([*said, *_assessed(self.figures, self.report)]))

    def damage(self) -> str:
        """What its finished output has lost since, in words; "" where it is whole, or there is none."""
        whole = self._answers() and all(path.exists() for path in files_of(self.output, self.options))
        return damage(self.output, self.options) if whole else ""

    def _answers(self) -> bool:
        provenance = provenance_in(self.output, self.options)
        return answers(provenance, self.hsi, self.msi, self.output, self.options)

    def as_run(self) -> Job:
        """Itself with the options that its process is given: what begins anew isn't gone on with."""
        options = self.options
        resume = options.resume and goes_on(self.output, options)
        again = options.overwrite or (options.resume and not resume and self.state() == "cube")
        return replace(self, options=replace(options, resume=resume, overwrite=again))

    def arguments(self) -> list[str]:
        """What `hsfuse` is given to do it."""
        words = [f"--hsi={self.hsi}", *(f"--msi={path}" for path in self.msi), f"--output={self.output}"]
        words += [f"--{name}={path}" for name in ("report", "figures") if (path := getattr(self, name)) is not None]
        words += _spelled(self.as_run().options)
        return ["fuse", *words]


def _assessed(figures: Path | None, report: Path | None) -> list[str]:
    """What was warned of as an output was assessed: of the figures' file, else of the report's head; [] of neither."""
    with suppress(OSError, ValueError, KeyError):
        if figures is not None:
            return list(map(str, json.loads(figures.read_text(encoding="utf-8"))["warnings"]))
        if report is not None:
            with report.open(encoding="utf-8") as file:
                found = TOLD.search(file.read(MOST_HEAD))
            return list(map(str, json.loads(unescape(found[1])))) if found else []
    return []


def _spelled(options: FuseOptions) -> list[str]:
    """Options that aren't the default, as words of the command line."""
    plain, words = FuseOptions(), []
    for name, option in OPTIONS.items():
        value, own = getattr(options, name), option.name or f"--{name.replace('_', '-')}"
        if value == getattr(plain, name):
            continue
        if isinstance(value, bool):
            words.append(own)
        elif isinstance(value, Mapping):
            words += [f"{own}={key}={entry}" for key, entry in value.items()]
        else:
            words.append(f"{own}={','.join(value) if isinstance(value, tuple) else value}")
    return words
