"""`hsfuse train`: new weights from reference cubes."""

from __future__ import annotations

from pathlib import Path

import click

from hsfuse.cli import options


@click.command(no_args_is_help=True)
@click.argument("config", type=options.PATH)
@click.option("--data", type=options.PATH, default=Path(), help="Folder below which the configuration's patterns look.")
@click.option("--steps", type=options.Whole(min=1), help="Steps of the optimiser; default: the configuration's.")
@click.option("--seed", type=options.Whole(min=0), help="Seed of all randomness; default: the configuration's.")
@options.option_of("device")
@click.option("--resume", is_flag=True, help="Continue the run whose state lies beside the output.")
@click.option("-o", "--output", type=options.PATH, help="Weights to write; default: the run's name in this folder.")
@options.overwrite
@options.verbosity
def train(
    config: Path,
    data: Path,
    steps: int | None,
    seed: int | None,
    device: str,
    resume: bool,
    output: Path | None,
    overwrite: bool,
) -> None:
    """Train SRLF-Net as CONFIG.toml says and save weights with their card.

    Beside the weights lie NAME.state, from which --resume continues bit for bit on the same device, NAME.csv with the
    curves and NAME.png, a picture of them. Interrupting saves all after the present step; interrupting again stops at
    once. With more --steps, --resume makes a run longer. Several processes or GPUs share each batch under `torchrun
    --nproc-per-node N -m hsfuse train ...`.
    """
    from hsfuse.fusion.device import check_device
    from hsfuse.io.toml import read_toml

    check_device(device)
    read_toml(config)  # what is no TOML is told before torch is loaded
    from hsfuse.training import load_config
    from hsfuse.training import train as run

    settings = load_config(config).with_changes(steps, seed)
    target = output or Path(f"{settings.name}.safetensors")
    card = run(settings, target, data=data, device=device, resume=resume, overwrite=overwrite)
    click.echo(f"{target}: {card.steps} steps")
