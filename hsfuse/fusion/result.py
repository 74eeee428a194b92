"""What a fusion says about itself: to people, to machines, and in the file."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from hsfuse.core.notes import Note, masked_words, recorded, records, texts, unreached
from hsfuse.core.options import FuseOptions
from hsfuse.core.package import __version__, file_sha256
from hsfuse.core.values import counted
from hsfuse.io import open_cube, output_files, read_provenance
from hsfuse.methods import Method

if TYPE_CHECKING:  # what is finished is told without torch
    from hsfuse.fusion.tiles import TileGrid
    from hsfuse.pair import ScenePair


@dataclass(frozen=True)
class FusionResult:
    """Where the fused cube is and how it was made; `provenance` is what the file carries too.

    `notes` and `warnings` are texts, `records` both of them with their codes and values. `seconds` tell how long it
    took to "estimate" (opening the images, too), to "fit" and to "fuse" (writing, too).
    `valid_share` isn't known where an earlier run has `done` it already; where it is less than 1, `masked` is the
    share that either image masks.
    """

    output: Path
    shape: tuple[int, int, int]
    valid_share: float | None
    provenance: dict[str, Any]
    notes: list[str]
    warnings: list[str]
    seconds: dict[str, float]
    dry_run: bool = False
    done: bool = False
    records: tuple[Note, ...] = ()
    masked: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of_finished(cls, output: Path, options: FuseOptions) -> Self:
        """Of an output that an earlier run has finished, as its file says; InputError where that can't be read."""
        with open_cube(output_files(output, options.format)[0]) as reader:
            provenance, shape = read_provenance(reader.tags), (reader.count, *reader.grid.shape)
        told = recorded(provenance)
        notes, warnings = texts(told, "note"), texts(told, "warning")
        return cls(output, shape, None, provenance, notes, warnings, {}, options.dry_run, True, tuple(told))

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "output": str(self.output)}

    def text(self) -> str:
        """For people: a few lines."""
        bands, rows, cols = self.shape
        state = " (dry run)" if self.dry_run else " (done already, by the same plan)" if self.done else ""
        lines = [f"{self.output}: {counted(bands, 'band')}, {rows} x {cols} pixels{state}"]
        if self.dry_run:
            inputs = self.provenance["inputs"] | {"to come": self.provenance["expected"]}
            return "\n".join([*lines, *(f"  {k}: {v}" for k, v in inputs.items())])
        method = self.provenance["method"]
        lines += [
            f"  {key}: {method[key]}"
            for key in ("method", "base", "scene regression", "weights", "adaptation")
            if method.get(key)
        ]
        if self.valid_share is not None:
            why = masked_words(self.masked)
            lines.append(
                f"  valid pixels: {self.valid_share:.1%} of the fused cube" + (f" (masked: {why})" if why else "")
            )
        if told := unreached(self.provenance.get("unreached") or 0.0):
            lines.append(f"  {told}")
        if self.seconds:
            lines.append("  seconds: " + ", ".join(f"{what} {s:.1f}" for what, s in self.seconds.items()))
        return "\n".join(lines)


def provenance_of(pair: ScenePair, options: FuseOptions, tiles: TileGrid, device: str) -> dict[str, Any]:
    """All that is needed to say how the file is made, and to make it again; `method_of` adds what was fitted."""
    from hsfuse.pair.sensors import sensing

    weights = None
    if options.model not in ("auto", "none"):
        from hsfuse.nets.weights import find_model

        weights = file_sha256(find_model(options.model).path)
    return {
        "hsfuse": __version__,
        "command": options.command,
        "inputs": pair.summary(),
        "settings": {**options.of_pair(), "phase": pair.model.phase},
        "srf": _response(pair),
        "psf_kernel": pair.model.psf.record(),
        "sensors": sensing(pair, options.psf_told),
        "scale": pair.ratio,
        "unreached": pair.unreached,
        "quantity": None if pair.hsi.quantity == "unknown" else pair.hsi.quantity,
        "weights_sha256": weights,
        "tiles": {"stride": tiles.stride, "overlap": tiles.overlap, "halo": tiles.halo},
        "seed": options.seed,
        "device": device,
        "fusing": _fusing(options),
        "registration": None if pair.shift is None else _shift(pair),
        "radiometry": None if pair.radiometry is None else pair.radiometry.describe(pair.msi_names),
        **noted(pair),
    }


def _response(pair: ScenePair) -> dict[str, Any]:
    """The response, and which of its bands each of the MSI's is; with its curves where no file has them."""
    names = dict(zip(pair.msi_bands, pair.msi_names, strict=True))
    told = {"name": pair.response.name, "sha256": pair.response.sha256, "bands": list(pair.msi_names)}
    told["msi_bands"] = [names.get(i, "-") for i in range(pair.msi.count)]
    return told if pair.response.sha256 else told | {"response": pair.response.record()}


def noted(pair: ScenePair) -> dict[str, Any]:
    """What was said of the pair: as texts for people, and as records for whoever decides something by it."""
    both = records([*pair.notes, *pair.warnings])
    return {"notes": texts(pair.notes), "pair_warnings": texts(pair.warnings), "records": both}


def method_of(fuser: Method, device: str) -> dict[str, Any]:
    """What the provenance says of a fitted method, and how the scans of its network run, if one has a part in it."""
    scan = None
    if fuser.scans:  # else Numba isn't loaded
        from hsfuse.nets.scan import choose_backend

        scan = choose_backend(device)
    return {
        "method": fuser.describe(),
        "parts": fuser.parts,
        "uses_msi": fuser.uses_msi,
        "adaptation": fuser.history(),
        "weights_sha256": fuser.weights_sha256,
        "scan": scan,
    }


def _fusing(options: FuseOptions) -> dict[str, Any]:
    """What it takes to fuse another pair the same way."""
    kept = ("method", "base", "model", "tile", "overlap", "ensemble", "clip")
    effort = "best" if options.adapts else options.effort
    return {key: getattr(options, key) for key in kept} | {"effort": effort, "adapt": options.adapting()}


def _shift(pair: ScenePair) -> dict[str, Any]:
    """What registration found, what it left, and where, in LR pixels; the motion corrected, in pixels of the MSI."""
    assert pair.shift is not None
    left = pair.residual
    shift, rest = (
        {key: getattr(s, key) for key in ("dy", "dx", "sd", "spread", "windows")}
        for s in (pair.shift, left or pair.shift)
    )
    local = [{key: round(value, 3) for key, value in asdict(window).items()} for window in (left or pair.shift).field]
    motion = pair.motion.record() | {"words": pair.shift.describe(), "amounts": pair.shift.amounts}
    return shift | {"corrected": left is not None, **motion, "residual": rest, "field": local}
