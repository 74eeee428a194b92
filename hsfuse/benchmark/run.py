"""Run the cases of a benchmark: simulate a pair, fuse it with every method, assess, keep the row, go on."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from hsfuse.benchmark.cases import Case
from hsfuse.benchmark.config import BenchmarkConfig
from hsfuse.benchmark.markdown import render
from hsfuse.benchmark.mismatch import TRUTH_HSI, TRUTH_MSI, TRUTH_PSF, TRUTH_SRF, simulate_mismatch
from hsfuse.benchmark.page import render_page
from hsfuse.benchmark.process import run_hsfuse
from hsfuse.benchmark.reference import reference_file
from hsfuse.benchmark.results import SECONDS, Outcome, ResultFile, Row, csv_text, write_csv
from hsfuse.core.errors import HsfuseError, OutputError
from hsfuse.fusion import pick_device
from hsfuse.io.files import write_whole

if TYPE_CHECKING:
    from hsfuse.benchmark.simulate import SimulatedPair

log = logging.getLogger(__name__)

RESULTS = "results.jsonl"
OUTPUTS = ("results.csv", "table.md", "report.html")


@dataclass(frozen=True)
class BenchmarkResult:
    """The rows in the order of the configuration, and the files that hold them."""

    rows: tuple[Row, ...]
    files: dict[str, Path]

    @property
    def failed(self) -> tuple[Row, ...]:
        """Rows with an error."""
        return tuple(row for row in self.rows if row.outcome.error is not None)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "rows": csv_text(self.rows),
            "failed": len(self.failed),
            "files": {name: str(path) for name, path in self.files.items()},
        }


def run_benchmark(
    config: BenchmarkConfig,
    outdir: str | Path,
    *,
    fresh: bool = False,
    keep: bool = False,
    command: str = "",
) -> BenchmarkResult:
    """Run what isn't done yet of a benchmark, and write results.jsonl, results.csv, table.md and report.html.

    A case whose row is in OUTDIR/results.jsonl is not run again unless it failed; `fresh` forgets all rows. Each fusion
    is a process of its own. A case that fails is a row with its error. `keep` keeps pairs and fused cubes in
    OUTDIR/work. Raises OutputError for a folder that can't be used, SettingError for a device that isn't there.
    """
    cases = [replace(case, device=pick_device(case.device)) for case in config.cases]
    folder = _folder(Path(outdir))
    results = ResultFile(folder / RESULTS, fresh=fresh)
    todo = [case for case in cases if not results.done(case)]
    if known := len(cases) - len(todo):
        log.info("%d of %d cases are done already", known, len(cases))
    try:
        with tqdm(total=len(cases), initial=known, unit="case", disable=None) as bar:
            for case, outcome in _outcomes(todo, folder / "work", keep):
                results.add(case, outcome)
                bar.update()
    finally:
        rows = results.rows(cases)
        _write(rows, folder, config, command)
    return BenchmarkResult(tuple(rows), {name: folder / name for name in (RESULTS, *OUTPUTS)})


def _folder(path: Path) -> Path:
    """The output folder; OutputError when it holds files of the same names that no benchmark has written."""
    if path.exists() and not path.is_dir():
        raise OutputError(f"{path} is a file; name a folder for the results")
    if not path.parent.is_dir():
        raise OutputError(f"the folder {path.parent} doesn't exist; make it first")
    strange = [path / name for name in OUTPUTS if (path / name).exists() and not (path / RESULTS).exists()]
    if strange:
        raise OutputError(f"{strange[0]} exists and isn't a benchmark's; name another folder")
    path.mkdir(exist_ok=True)
    return path


def _write(rows: list[Row], folder: Path, config: BenchmarkConfig, command: str) -> None:
    if not rows:
        return
    write_csv(rows, folder / OUTPUTS[0])
    write_whole(folder / OUTPUTS[1], render(rows, "all"))
    write_whole(folder / OUTPUTS[2], render_page(rows, config.source, command))


def _outcomes(cases: list[Case], work: Path, keep: bool) -> Iterator[tuple[Case, Outcome]]:
    """Every case's outcome; a pair is made once for all methods on it."""
    for key, same in groupby(cases, key=lambda case: case.pair_key):
        group = list(same)
        with _work_folder(work, key, keep) as folder:
            try:
                pair = _simulate(group[0], folder)
            except Exception as error:
                yield from ((case, _failure(case, error)) for case in group)
                continue
            yield from ((case, _outcome(case, pair, folder, keep)) for case in group)


@contextmanager
def _work_folder(work: Path, key: str, keep: bool) -> Iterator[Path]:
    folder = work / key
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
            if not any(work.iterdir()):
                work.rmdir()


def _simulate(case: Case, folder: Path) -> SimulatedPair:
    from hsfuse.benchmark.simulate import simulate

    reference = reference_file(case.scene, folder)
    how: dict[str, Any] = {
        "srf": case.sensor.srf, "ratio": case.ratio, "msi_bands": case.sensor.msi_bands,
        "snr_hsi": case.noise.snr_hsi, "snr_msi": case.noise.snr_msi, "seed": case.seed,
    }  # fmt: skip
    if case.mismatch is not None:
        return simulate_mismatch(reference, folder, case.mismatch, **how)
    if reference != case.scene.reference:
        how["nodata"] = "none"  # what was cut has been looked at for fill
    return simulate(reference, folder, overwrite=True, **case.psf.settings(case.ratio), **how)


def _outcome(case: Case, pair: SimulatedPair, folder: Path, keep: bool) -> Outcome:
    """Fuse and assess; whatever goes wrong is the outcome."""
    fused = folder / f"{case.key}.tif"
    arguments = fuse_arguments(case, pair, fused)
    command = " ".join(["hsfuse", *arguments])
    try:
        done = run_hsfuse(arguments, folder)
        metrics = _assess(case, pair, fused)
    except Exception as error:
        return _failure(case, error, command)
    finally:
        if not keep:
            fused.unlink(missing_ok=True)
    taken = done.result["seconds"] | {"wall": done.seconds, "cpu": done.cpu_seconds}
    seconds = {what: taken[what] for what in SECONDS}
    device = str(done.result["provenance"]["device"])
    log.info("%s, %s: %.2f dB in %.1f s", case.group, case.method.label, float(metrics["psnr"] or 0), done.seconds)
    return Outcome(metrics, seconds, done.peak_mib, device, None, command)


def fuse_arguments(case: Case, pair: SimulatedPair, fused: Path) -> list[str]:
    """`hsfuse`'s arguments for the case, which knows the response, the PSF, and that both images fit together.

    Of a mismatch it knows what a user would, the response of the sensor's name and no more, or the truth.
    """
    fitting = {"--register": "off", "--match-radiometry": "off"}
    named: dict[str, Any] = {"--hsi": pair.lrhsi, "--msi": pair.msi, "--srf": case.sensor.srf}
    if case.mismatch is None:
        psf = case.psf.settings(case.ratio)
        named |= fitting | {f"--{key.replace('_', '-')}": value for key, value in psf.items()}
    elif case.method.told == "truth":
        at = pair.lrhsi.parent
        named = {"--hsi": at / TRUTH_HSI, "--msi": at / TRUTH_MSI, "--srf": at / TRUTH_SRF, "--psf": at / TRUTH_PSF}
        named |= fitting
    named |= {"--msi-bands": ",".join(pair.msi_bands), "--seed": case.seed, "--device": case.device, "-o": fused}
    words = [str(word) for item in named.items() for word in item]
    return ["fuse", *words, *case.method.arguments(), "--overwrite", "--json", "--quiet"]


def _assess(case: Case, pair: SimulatedPair, fused: Path) -> dict[str, float | None]:
    from hsfuse.assessment import assess

    how: dict[str, Any] = {"reference": pair.reference, "peak": case.scene.peak, "ratio": case.ratio}
    if case.mismatch is None:  # else a response or a place that isn't so would be assessed with
        inputs = {"hsi": pair.lrhsi, "msi": pair.msi, "srf": case.sensor.srf, "msi_bands": pair.msi_bands}
        how |= inputs | case.psf.settings(case.ratio)
    metrics: dict[str, float | None] = assess(fused, **how).to_dict()["metrics"]
    return metrics


def _failure(case: Case, error: Exception, command: str = "") -> Outcome:
    lines = str(error).strip().splitlines() or [""]
    text = lines[0] if isinstance(error, HsfuseError) else f"{type(error).__name__}: {lines[0]}"
    log.warning("%s, %s: %s", case.group, case.method.label, text)
    log.debug("the error in full", exc_info=error)
    return Outcome(error=text, command=command)
