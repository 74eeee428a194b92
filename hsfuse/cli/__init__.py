"""The command line: one group whose commands are imported only when they run.

`hsfuse --help` and `hsfuse srf list` so never wait for torch. Errors become one line and an exit code in `console`.
"""

from __future__ import annotations

import atexit
import gc
import os
import signal
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import click

from hsfuse.cli.console import interrupt, start_logging, told_errors
from hsfuse.core.package import __version__

#: name -> (module, attribute, one-line help); the order is that of `hsfuse --help`.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "fuse": ("hsfuse.cli.fuse", "fuse", "Fuse an LRHSI with an MSI into an HRHSI on the MSI's grid."),
    "batch": ("hsfuse.cli.batch", "batch", "Fuse many scenes, by a table of jobs."),
    "assess": ("hsfuse.cli.assess", "assess", "Say how good fused cubes are, with or without a reference."),
    "view": ("hsfuse.cli.view", "view", "Show a fused cube in the browser: any pixel's spectrum, any bands."),
    "simulate": ("hsfuse.cli.simulate", "simulate", "Make an LRHSI and an MSI from a reference cube."),
    "train": ("hsfuse.cli.train", "train", "Train SRLF-Net on reference cubes and save a model."),
    "benchmark": ("hsfuse.cli.benchmark", "benchmark", "Compare methods on reference cubes."),
    "models": ("hsfuse.cli.models", "models", "List and describe trained models."),
    "srf": ("hsfuse.cli.srf", "srf", "List, show and check spectral response functions."),
    "info": ("hsfuse.cli.info", "info", "Say what raster files hold: grid, bands, wavelengths, provenance."),
}


#: Objects newly made, less those gone, from which on Python looks for garbage: torch's modules alone leave some hundred
#: thousand, amid which it would look a thousand times, for a tenth of a small fusion.
SELDOM = 100_000


class LazyGroup(click.Group):
    """A group that knows its commands' names and help without importing them."""

    def make_context(self, *given: Any, **more: Any) -> click.Context:
        """Interrupted before a command begins, it ends as within one."""
        with told_errors():
            return super().make_context(*given, **more)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now; None when there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        return getattr(import_module(module), attribute)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is meant; a usage error names the one that it is like."""
        near = get_close_matches(args[0], COMMANDS, 1)
        if args[0] not in COMMANDS and near and not args[0].startswith("-"):
            ctx.fail(f"No such command {args[0]!r}. (Did you mean {near[0]!r}?)")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands from the literals above."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; what goes wrong becomes one line and an exit code."""
        be_quick()
        with told_errors():
            return super().invoke(ctx)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "HSFUSE"})
@click.version_option(__version__, prog_name="hsfuse")
def main() -> None:
    """Fuse hyperspectral and multispectral images into a georeferenced high-resolution hyperspectral image.

    Results go to stdout; notes, progress and errors go to stderr.
    Exit codes: 0 done, 1 an input or output that can't be used, 2 usage, 3 a limit missed, 4 some jobs failed,
    130 interrupted, 70 a bug.
    """
    start_logging()


def run() -> None:
    """The command line as a process of its own; once its command has ended all is done, and it isn't disturbed."""
    signal.signal(signal.SIGTERM, interrupt)
    try:
        main(prog_name="hsfuse")
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)


def be_quick() -> None:
    """What makes a command quicker, and isn't for a library to decide of the program that uses it."""
    gc.set_threshold(SELDOM)
    atexit.register(gc.freeze)  # what goes with the process needn't be looked through at its end
    os.environ.setdefault("OPENBLAS_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))  # NumPy's systems are small
