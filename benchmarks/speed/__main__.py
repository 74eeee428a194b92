"""`python -m benchmarks.speed`: how fast SRLF-Net runs here; `--json` for programs."""

from __future__ import annotations

import click

from benchmarks.speed import SpeedSettings, run_speed, speed_text
from hsfuse.cli import options
from hsfuse.cli.console import print_json, told_errors


@click.command()
@click.option("--bands", type=click.IntRange(1), default=31, show_default=True, help="Bands of the network.")
@click.option("--ratio", type=click.IntRange(2), default=8, show_default=True, help="Ratio of the GSDs.")
@click.option("--turns", type=click.IntRange(1), default=3, show_default=True, help="Each time is the best of so many.")
@options.option_of("device")
@options.json_output
@options.verbosity
def speed(bands: int, ratio: int, turns: int, device: str, as_json: bool) -> None:
    """Measure how fast SRLF-Net runs here: scan, tile, scene, training step, memory, and the machine's ceilings."""
    with told_errors():
        report = run_speed(SpeedSettings(bands=bands, ratio=ratio, turns=turns, device=device))
    if as_json:
        print_json(report.to_dict())
    else:
        click.echo(speed_text(report))


if __name__ == "__main__":
    speed()
