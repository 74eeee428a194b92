"""`hsfuse fuse`: the main job."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import click

from hsfuse.cli import options
from hsfuse.cli.console import print_json

_log = logging.getLogger("hsfuse.fuse")

#: Options that say what the sensors are.
_SENSORS = ("srf", "msi_bands", "mtf", "psf_sigma", "psf_size", "phase", "psf")


def creation_options(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> dict[str, str]:
    """`KEY=VALUE` pairs as a mapping."""
    pairs = dict(part.partition("=")[::2] for part in value)
    if any("=" not in part for part in value):
        raise click.BadParameter("wanted KEY=VALUE, such as COMPRESS=ZSTD")
    return pairs


@click.command(no_args_is_help=True)
@options.hsi
@options.msi
@options.srf_of_msi
@click.option(
    "-o", "--output", type=options.PATH, required=True, help="Fused cube: .tif, .dat/.img/.bsq for ENVI, or .zarr."
)
@options.msi_bands
@click.option("--method", default="srlf", show_default=True, help="srlf, or a training-free method such as glp-ens.")
@click.option(
    "--model",
    default="auto",
    show_default=True,
    help="Weights to start from: auto (what fits), none (from scratch), a name of `hsfuse models list`, or a file.",
)
@click.option(
    "--base",
    default="blend",
    show_default=True,
    help="Training-free method that SRLF-Net corrects.",
)
@options.mtf
@options.psf_sigma
@options.psf_size
@options.psf
@options.phase
@options.register
@options.register_limit
@options.match_radiometry
@options.drop_absorption
@options.hsi_nodata
@options.msi_nodata
@options.choice("--adapt", ["on", "off"], "Train on the scene.", "on")
@click.option("--adapt-steps", type=click.IntRange(0), help="Training steps at most; default 160, from scratch 300.")
@click.option("--adapt-minutes", type=click.FloatRange(0), help="Training time at most; default 3.")
@options.choice(
    "--consistency",
    ["on", "off"],
    "End with steps that bring the fused cube nearer to both inputs, as far as their noise says.",
    "on",
)
@click.option("--save-model", type=options.PATH, help="Keep the fitted weights in this .safetensors file.")
@click.option("--tile", type=int, default=96, show_default=True, help="Side of a tile in MSI pixels.")
@click.option("--overlap", type=int, default=16, show_default=True, help="MSI pixels over which tiles blend.")
@click.option(
    "--ensemble",
    type=click.IntRange(0, 8),
    default=0,
    help="Average over this many turned and mirrored runs; default 8 up to 1024 x 1024 MSI pixels, above that 1.",
)
@options.device
@options.choice("--clip", ["none", "zero"], "zero: raise negative fused values to 0.", "none")
@options.choice("--dtype", ["float32", "int16", "uint16"], "Type on disk; default: the HSI's.")
@click.option("--scale", type=click.FloatRange(0, min_open=True), help="Reflectance per number on disk, such as 1e-4.")
@click.option(
    "--format",
    "driver",
    type=click.Choice(["auto", "GTiff", "COG", "ENVI", "Zarr"]),
    default="auto",
    help="Default: by suffix.",
)
@click.option(
    "--co", "options", multiple=True, metavar="KEY=VALUE", callback=creation_options, help="GDAL's creation option."
)
@click.option("--overviews", is_flag=True, help="Add overviews to a GeoTIFF; a COG has them always.")
@click.option("--bands", metavar="LIST", help="Write only these bands of the HSI, such as 1-50,120 or 450-900nm.")
@options.choice("--bad-bands", ["drop", "nodata"], "Leave bad bands out, or write them as nodata.", "drop")
@click.option("--qa", type=options.PATH, help="Write a raster of quality layers, too: distortion and expected error.")
@click.option("--stac", is_flag=True, help="Write a STAC item beside the output.")
@click.option(
    "--resume",
    is_flag=True,
    help="Keep what is done when interrupted, and go on with it (GeoTIFF); leave alone what is finished.",
)
@click.option("--report", type=options.PATH, help="Write a self-contained HTML report of the result, too.")
@options.seed
@click.option("--dry-run", is_flag=True, help="Say what would be done, and stop.")
@options.overwrite
@options.json_output
@options.verbosity
def fuse(as_json: bool, report: Path | None, **values: Any) -> None:
    """Fuse an LRHSI with an MSI into an HRHSI on the MSI's grid.

    By default SRLF-Net corrects a training-free base twice: as it has learned from other sensors' scenes, then as it
    learns from this one, within --adapt-steps and --adapt-minutes. The latter counts as far as the scene's own held-out
    blocks bear it out.
    """

    settings = _settings(values)
    result = fuse_and_report(values["hsi"], values["msi"], values["output"], settings, report)
    if as_json:
        print_json(result.to_dict())
    else:
        click.echo(result.text())


def _settings(values: dict[str, Any]) -> Any:
    from hsfuse.fusion import FuseSettings
    from hsfuse.fusion.storage import OutputSettings
    from hsfuse.methods.adapt import AdaptSettings
    from hsfuse.pair import SceneSettings

    v = values
    understood = [*_SENSORS, "register", "register_limit", "match_radiometry", "drop_absorption"]
    understood += ["hsi_nodata", "msi_nodata"]
    stored = ["dtype", "scale", "options", "overviews", "bands", "bad_bands", "qa", "stac", "resume", "overwrite"]
    fused = ["method", "model", "base", "save_model", "tile", "overlap", "ensemble", "device", "dry_run", "clip"]
    return FuseSettings(
        scene=SceneSettings(**{key: v[key] for key in understood}),
        adapt=AdaptSettings(
            steps=0 if v["adapt"] == "off" else v["adapt_steps"],
            minutes=v["adapt_minutes"],
            consistency_step=v["consistency"] == "on",
            seed=v["seed"],
        ),
        output=OutputSettings(format=v["driver"], **{key: v[key] for key in stored}),
        command=" ".join(["hsfuse", *sys.argv[1:]]),
        **{key: v[key] for key in fused},
    )


def fuse_and_report(hsi: str | Path, msi: Any, output: str | Path, settings: Any, report: Path | None) -> Any:
    """`run_fusion`, then an HTML report of the result against its inputs."""
    from hsfuse import fusion
    from hsfuse.assessment import assess
    from hsfuse.assessment.report import check_report_path, write_report

    if report is not None:
        several = [msi] if isinstance(msi, str | Path) else list(msi)
        theirs = settings.output.overwrite or (settings.output.resume and Path(output).exists())
        check_report_path(report, theirs, [hsi, *several, output])
    result = fusion.run_fusion(hsi, msi, output, settings)
    if report is not None and not settings.dry_run and not (result.done and report.exists()):
        scene = settings.scene
        made = assess(output, hsi=hsi, msi=msi, srf=scene.srf, msi_bands=scene.msi_bands, qa=settings.output.qa)
        told = {text.rstrip(".").lower() for text in result.warnings}
        for warning in made.warnings:
            if warning.rstrip(".").lower() not in told:
                _log.warning("%s", warning)
        write_report([made], report, overwrite=settings.output.overwrite)
    return result
