"""`hsfuse view`: a cube in the browser, any pixel and any bands of it."""

from __future__ import annotations

import logging
import threading
import webbrowser
from pathlib import Path

import click

from hsfuse.cli import options

_log = logging.getLogger("hsfuse.view")


@click.command(no_args_is_help=True)
@click.argument("fused", type=options.PATH)
@click.option(
    "--report",
    type=options.PATH,
    help="Report of FUSED to show; default: that of its name beside it (.html), else a page of the cube alone.",
)
@click.option(
    "--port", type=options.Whole(0, 65535), default=0, show_default=True, help="Port to listen on; 0: any free one."
)
@click.option("--no-browser", is_flag=True, help="Only print the address.")
@options.verbosity
def view(fused: Path, report: Path | None, port: int, no_browser: bool) -> None:
    """Show a FUSED cube in the browser: its report with any pixel's spectrum and any three bands.

    Nobody but this machine can ask (127.0.0.1). The cube is read where you look, so that its size doesn't matter.
    Ctrl-C ends it.
    """
    from hsfuse.assessment.report.serve import CubeView, serve
    from hsfuse.core.errors import InputError
    from hsfuse.io import open_cube

    def ready(address: str) -> None:
        click.echo(address)
        _log.info("Ctrl-C ends it")
        if not no_browser:
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()

    with open_cube(fused, role="raster") as reader:
        beside = reader.path.with_suffix(".html")
        try:
            shown = CubeView(reader, report or (beside if beside.is_file() else None))
        except InputError as error:
            if report is not None:
                raise
            _log.info("%s; the cube is shown without it", error)
            shown = CubeView(reader)
        try:
            serve(shown, port, ready)
        except KeyboardInterrupt:
            _log.info("ended")
