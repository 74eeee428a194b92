"""Options of the commands: those of `fuse` made from the fields of `FuseOptions`, and what else several commands share.

A command takes them as decorators. `json_output` gives `as_json`; `verbosity` (-q, -v) gives nothing because it sets
the log level itself. `log_file` is for `start_log_file`, once the command knows its files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from math import isfinite, isinf
from pathlib import Path
from typing import Any, TypeVar

import click

from hsfuse.cli.console import log_to_file, start_logging
from hsfuse.core.errors import HsfuseError, SettingError
from hsfuse.core.options import ESTIMATED, GROUPS, OPTIONS, FuseOptions, kept_value, kind_of, parse_nodata
from hsfuse.core.values import Range, check_text, check_value
from hsfuse.io.files import as_path, split_paths

F = TypeVar("F", bound=Callable[..., Any])


class PathType(click.Path):
    """A path; an address stays as it is written."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path."""
        name = super().convert(value, param, ctx)
        return as_path(name if isinstance(name, Path) else str(name))


PATH = PathType()
#: Words for --srf that name no response, and for --model that name no weights.
WITHOUT_SRF, WITHOUT_WEIGHTS = ("auto", "estimate"), ("auto", "none")


def parse_bands(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """`B2,B3,B4,B8` as a tuple."""
    return None if value is None else tuple(part.strip() for part in value.split(","))


def parse_files(
    context: click.Context, parameter: click.Parameter, value: tuple[Path, ...]
) -> Path | tuple[Path, ...] | None:
    """Paths of one image's bands."""
    return split(value)


def split(value: tuple[Path, ...]) -> Path | tuple[Path, ...] | None:
    """One file or product as its path; several, or a list with commas, as the paths of one image's bands."""
    paths = tuple(path for text in value for path in split_paths(text))
    return paths[0] if len(paths) == 1 else paths or None


def known_method(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """A name of `METHODS`, else a usage error."""
    from hsfuse.methods import METHODS

    if value is not None and value not in METHODS:
        raise click.BadParameter(f"there is no {parameter.name} {value!r}; known are {', '.join(METHODS)}")
    return value


def usage_error(check: Callable[[str], object]) -> Callable[..., str | None]:
    """A callback that lets a value pass which `check` has nothing against; what it raises is a usage error."""

    def callback(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
        try:
            if value is not None:
                check(value)
        except HsfuseError as error:
            raise click.BadParameter(str(error)) from None
        return value

    return callback


@usage_error
def known_srf(value: str) -> None:
    """A sensor of the library or a file that is there; what a file holds is looked at later."""
    if value not in WITHOUT_SRF and not Path(value).is_file():
        from hsfuse.physics import load_srf

        load_srf(value)


@usage_error
def known_model(value: str) -> None:
    """A name of trained weights, or the path of a file, be it there or not."""
    if value not in WITHOUT_WEIGHTS and not Path(value).suffix and Path(value).name == value:
        from hsfuse.nets.weights import find_model

        find_model(value)


@usage_error
def known_psf(value: str) -> None:
    """A kind of PSF or a file that is there."""
    FuseOptions.of({"psf": value}).psf_file  # noqa: B018  raises


@usage_error
def known_nodata(value: str) -> None:
    """A number, or none."""
    parse_nodata(value, "the value")


@usage_error
def known_bands(value: str) -> None:
    """A list of bands as it is to be written; whether the HSI has them is looked at later."""
    from hsfuse.fusion.storage import parse_ranges

    parse_ranges(value)


def parse_pairs(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> dict[str, str]:
    """`KEY=VALUE` options as a mapping; several may stand in one, with commas between them."""
    parts = [part.strip() for text in value for part in re.split(r",(?=\w+=)", text)]
    if any("=" not in part for part in parts):
        raise click.BadParameter("wanted KEY=VALUE, such as COMPRESS=ZSTD")
    return dict(part.partition("=")[::2] for part in parts)


def _read_config(context: click.Context, parameter: click.Parameter, value: Path | None) -> None:
    """Options of a TOML file, by their names with - or _, as defaults of the command line."""
    if value is None:
        return
    context.meta["hsfuse.config"] = value
    from hsfuse.io.toml import read_toml

    known = {name: p for p in context.command.params for name in (p.name, *_long_names(p)) if name}
    found: dict[str, Any] = {}
    for key, entry in read_toml(value).items():
        option = known.get(key.replace("-", "_"))
        if option is None or option.name is None:
            near = get_close_matches(key.replace("-", "_"), known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise click.BadParameter(f"{value}: there is no option {key!r}{hint}", context, parameter)
        if option.name in found:
            raise click.BadParameter(f"{value}: {key!r} is there twice, with - and with _", context, parameter)
        check_text(f"{value}: {key}", entry)
        try:
            found[option.name] = _as_words(f"{value}: {key}", option, entry)
            if not isinstance(option.type, PathType):  # files are looked for later, some only where nothing is given
                option.type_cast_value(context, found[option.name])
        except SettingError as error:
            raise click.BadParameter(str(error), context, parameter) from None
        except click.BadParameter as error:
            raise click.BadParameter(f"{value}: {key}: {error.message}", context, parameter) from None
    context.default_map = {**(context.default_map or {}), **found}


def _long_names(parameter: click.Parameter) -> list[str]:
    return [opt.lstrip("-").replace("-", "_") for opt in parameter.opts]


def _as_words(told: str, option: click.Parameter, entry: Any) -> Any:
    """A value of a TOML file as it would be given in words; SettingError where the option can't be that."""
    name, several = str(option.name), option.multiple or option.nargs != 1
    listed = entry if isinstance(entry, list) else [entry]
    if all(isinstance(one, str) for one in listed) and (several or listed is not entry):
        return listed if several else entry  # words, which are looked at as those of the command line
    if name in OPTIONS:
        entry = kept_value(name, entry, told)
        if isinstance(entry, Mapping):
            return [f"{key}={value}" for key, value in entry.items()]
        return ",".join(entry) if isinstance(entry, tuple) else entry
    hint = bool if getattr(option, "is_flag", False) else Path if isinstance(option.type, PathType) else int
    check_value(told, entry, hint, None)
    return entry


def start_log_file(path: Path | None, read: Iterable[Path], made: Iterable[Path]) -> None:
    """Send all notes to a file, too, where one is wanted that is none of those that are read or made.

    OutputError for one that is, a usage error for one that can't be written.
    """
    if path is None:
        return
    from hsfuse.io.files import check_log

    config = click.get_current_context().meta.get("hsfuse.config")
    check_log(path, [*read, *([] if config is None else [config])], made)
    try:
        log_to_file(path)
    except OSError as error:
        raise click.BadParameter(f"{path} can't be written ({error.strerror})", param_hint="--log-file") from None


def _log_level(context: click.Context, parameter: click.Parameter, value: int) -> None:
    """Count -q down and -v up, whichever comes first on the line."""
    meta = context.meta
    meta["hsfuse.verbosity"] = meta.get("hsfuse.verbosity", 0) + (value if parameter.name == "verbose" else -value)
    start_logging(meta["hsfuse.verbosity"])


#: Options whose words are looked at before anything else, so that a wrong one is a usage error.
CALLBACKS = {
    "method": known_method,
    "base": known_method,
    "srf": known_srf,
    "model": known_model,
    "psf": known_psf,
    "bands": known_bands,
    "hsi_nodata": known_nodata,
    "msi_nodata": known_nodata,
}


def _sensors() -> list[str]:
    from hsfuse.physics import list_srfs

    return [*WITHOUT_SRF, *(name for record in list_srfs() for name in (*record.presumed_for, record.name))]


def _methods() -> list[str]:
    from hsfuse.methods import METHODS

    return list(METHODS)


def _weights() -> list[str]:
    from hsfuse.nets.weights import list_models

    return [*WITHOUT_WEIGHTS, *(record.path.stem for record in list_models())]


def completed(names: Callable[[], list[str]]) -> Callable[..., Any]:
    """What a shell offers for an option or argument: the names that begin as what is typed, else files."""
    from click.shell_completion import CompletionItem

    def items(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
        found = [CompletionItem(name) for name in names() if name.startswith(typed)]
        return found or [CompletionItem(typed, type="file")]

    return items


#: What a shell completes of the options above; a PSF is a word or a file.
COMPLETED = {
    "method": completed(_methods),
    "base": completed(_methods),
    "srf": completed(_sensors),
    "model": completed(_weights),
    "psf": completed(lambda: [*ESTIMATED, "assumed"]),
}


class GroupedOption(click.Option):
    """An option that knows its group in the help, whether the short help has it, and names that aren't shown."""

    def __init__(
        self, *names: Any, group: str = "", common: bool = True, former: tuple[str, ...] = (), **spelled: Any
    ) -> None:
        super().__init__(*names, **spelled)
        self.group, self.common, self.former = group, common, former

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Names and help, without the former names."""
        opts, self.opts = self.opts, [name for name in self.opts if name not in self.former]
        try:
            return super().get_help_record(ctx)
        finally:
            self.opts = opts


class GroupedCommand(click.Command):
    """A command with its options in groups; --help shows the common ones, --help-all every one."""

    def __init__(self, *arguments: Any, examples: str = "", **spelled: Any) -> None:
        super().__init__(*arguments, **spelled)
        self.examples = examples

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """A section for each group, then examples."""
        whole = ctx.meta.get("hsfuse.help_all", False)
        for group in GROUPS:
            told = [
                record
                for one in self.get_params(ctx)
                if isinstance(one, click.Option)
                if getattr(one, "group", "running") == group and (whole or getattr(one, "common", True))
                if (record := one.get_help_record(ctx)) is not None
            ]
            if told:
                with formatter.section(group.capitalize()):
                    formatter.write_dl(told)
        with formatter.section("Examples"):
            formatter.write(f"{self.examples}\n")
        if not whole:
            formatter.write(f"\nAll options: hsfuse {self.name} --help-all\n")


def _help_all(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        context.meta["hsfuse.help_all"] = True
        click.echo(context.get_help())
        context.exit()


def option_of(name: str, text: str = "", *, recorded: bool = False, **changed: Any) -> Any:
    """An option of `fuse` as its field in `FuseOptions` has it: type, default, help; `text` is another help.

    `recorded`: by default it is what a fused file records, else the field's default.
    """
    told, (kind, span, words) = OPTIONS[name], kind_of(name)
    default = getattr(FuseOptions, name, None)
    shown = told.default or ("" if default is None or kind is bool else str(default))
    spelled: dict[str, Any] = {}
    if recorded:
        own = f", else {shown}" if shown else ""
        shown, default = f"as recorded{own}", None
    if words:
        spelled["type"] = click.Choice(words, case_sensitive=False)
    elif kind in (int, float):
        spelled["type"] = _number(kind, span)
    elif kind is Path:
        spelled["type"] = PATH
    elif kind is bool:
        spelled["is_flag"] = True
    elif kind is tuple:
        spelled["callback"] = parse_bands
    elif name in CALLBACKS:
        spelled |= {"callback": CALLBACKS[name], "shell_complete": COMPLETED.get(name)}
    elif kind is Mapping:
        spelled |= {"multiple": True, "callback": parse_pairs}
    help_text = text or told.help
    if shown:
        help_text = f"{help_text.removesuffix('.')}; default: {shown}."
    spelled |= {"default": default, "help": help_text, "metavar": told.metavar, "common": told.common} | changed
    own = told.name or f"--{name.replace('_', '-')}"
    return click.option(own, *told.also, name, cls=GroupedOption, group=told.group, former=told.also, **spelled)


def grouped(group: str, *names: str, **spelled: Any) -> Any:
    """An option that isn't of `FuseOptions`, in a group of the help."""
    return click.option(*names, cls=GroupedOption, group=group, **spelled)


class Number(click.FloatRange):
    """A number, in a range where there is one; NaN and infinity are none."""

    name = "float"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number, else a usage error."""
        number = float(super().convert(value, param, ctx))
        if not isfinite(number):
            self.fail(f"{value!r} is not a number that can be used; wanted a finite one.", param, ctx)
        return number


class Whole(click.IntRange):
    """A whole number in a range."""

    name = "integer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number, else a usage error."""
        try:
            int(value)
        except ValueError:
            self.fail(f"{value!r} is not a whole number.", param, ctx)
        return int(super().convert(value, param, ctx))


def _number(kind: Any, span: Range | None) -> Any:
    if span is None:
        return Number() if kind is float else kind
    of: Any = Whole if kind is int else Number
    return of(span.low, None if isinf(span.high) else span.high, min_open=span.above, max_open=span.below)


def options_of(*names: str, **changed: Any) -> Callable[[F], F]:
    """Several options of `fuse`, in their order."""

    def decorate(command: F) -> F:
        for name in reversed(names):
            command = option_of(name, **changed)(command)
        return command

    return decorate


hsi = click.option(
    "--hsi",
    type=PATH,
    required=True,
    help="LRHSI with wavelengths: ENVI, GeoTIFF, other raster, or a product's folder.",
)


def msi(text: str, **spelled: Any) -> Any:
    """--msi, one file or several that are one image's bands."""
    return click.option("--msi", type=PATH, multiple=True, callback=parse_files, metavar="PATH", help=text, **spelled)


srf = click.option(
    "--srf",
    required=True,
    callback=known_srf,
    shell_complete=COMPLETED["srf"],
    help="Sensor of the MSI (see `hsfuse srf list`), or a CSV.",
)


def ratio(text: str, **spelled: Any) -> Any:
    """--ratio of the GSDs; --scale, its name before, isn't shown."""
    return click.option(
        "--ratio", "--scale", "ratio", cls=GroupedOption, former=("--scale",), help=text, **({"type": int} | spelled)
    )


overwrite = option_of("overwrite")
help_all = click.option(
    "--help-all", is_flag=True, is_eager=True, expose_value=False, callback=_help_all, help="All options."
)
config = click.option(
    "--config",
    type=PATH,
    is_eager=True,
    expose_value=False,
    callback=_read_config,
    metavar="FILE.toml",
    help="Read options from a TOML file; those of the command line go before.",
)
log_file = click.option("--log-file", type=PATH, help="Write all notes to this file, too.")
json_output = click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
_quiet = click.option(
    "-q", "--quiet", count=True, expose_value=False, callback=_log_level, help="No notes; twice: no warnings either."
)
_verbose = click.option(
    "-v", "--verbose", count=True, expose_value=False, callback=_log_level, help="Also say the details."
)


def verbosity(command: Any) -> Any:
    """-q and -v, counted."""
    return _quiet(_verbose(command))
