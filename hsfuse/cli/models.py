"""`hsfuse models`: the trained weights that come with hsfuse."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from hsfuse.cli import options
from hsfuse.cli.console import print_json, table

if TYPE_CHECKING:
    from hsfuse.nets.weights import ModelRecord

_HEADS = ("name", "kind", "ratio", "K", "base", "steps", "KB")


@click.group(no_args_is_help=True)
def models() -> None:
    """List and describe trained models."""


@models.command("list")
@options.json_output
def list_command(as_json: bool) -> None:
    """All weights of the collection."""
    from hsfuse.nets.weights import list_models

    records = list_models()
    if as_json:
        print_json([_facts(record) for record in records])
        return
    click.echo(table(_HEADS, [_row(record) for record in records]))


@models.command()
@click.argument("name", callback=options.known_model, shell_complete=options.COMPLETED["model"])
@options.json_output
def show(name: str, as_json: bool) -> None:
    """The card of weights, NAME of the collection or a path: what they are and what they were made from."""
    from hsfuse.nets.weights import find_model

    facts = _facts(find_model(name))
    if as_json:
        print_json(facts)
        return
    for line in _lines(facts):
        click.echo(line)


@models.command()
@click.argument("name", callback=options.known_model, shell_complete=options.COMPLETED["model"])
def path(name: str) -> None:
    """The file of weights, NAME of the collection."""
    from hsfuse.nets.weights import find_model

    click.echo(find_model(name).path)


def _row(record: ModelRecord) -> tuple[str, ...]:
    card = record.card
    size = f"{record.path.stat().st_size / 1000:.0f}"
    return record.path.stem, card.kind, f"x{card.scale}", str(card.config.channels), card.base, str(card.steps), size


def _facts(record: ModelRecord) -> dict[str, Any]:
    return {"path": str(record.path), "bytes": record.path.stat().st_size, **asdict(record.card)}


def _lines(facts: dict[str, Any], indent: str = "") -> list[str]:
    """Nested facts as indented `key: value` lines."""
    out = []
    for key, value in facts.items():
        if isinstance(value, dict):
            out += [f"{indent}{key}:", *_lines(value, indent + "  ")]
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
            out.append(f"{indent}{key}: {shown}")
    return out
