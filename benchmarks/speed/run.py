"""The measurements of `hsfuse benchmark speed`."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.speed.ceilings import Ceilings, measure_ceilings
from benchmarks.speed.timing import peak_mib, race, resident_mib
from hsfuse.core.errors import SettingError
from hsfuse.nets.scan import BACKENDS, VARIABLE, available_backends, choose_backend
from hsfuse.nets.srlf import Observation, SRLFConfig, SRLFNet
from hsfuse.nets.ss2d import SS2D
from hsfuse.physics.model import ObservationModel, gaussian_psf

#: The backend that all are compared with: plain torch, which runs anywhere.
BASELINE = "chunked"
#: Full-resolution scans of each stage.
SCANS = 3


@dataclass(frozen=True)
class SpeedSettings:
    """What to measure: the network of `bands` at `ratio`, on `device`, each time the best of `turns`.

    Sides in HR pixels: `tile` of inference, `patch` and `batch` of a training step, `scene` fused in tiles, and
    `memory_tiles` whose peak memory is taken. Backends are compared on one map of `patch`.
    """

    bands: int = 31
    ratio: int = 8
    tile: int = 128
    patch: int = 64
    batch: int = 4
    scene: int = 256
    memory_tiles: tuple[int, ...] = (64, 128, 256)
    turns: int = 3
    device: str = "cpu"

    def __post_init__(self) -> None:
        sides = (self.tile, self.patch, self.scene, *self.memory_tiles)
        if any(side < 2 * self.ratio or side % self.ratio for side in sides) or self.scene % self.tile:
            raise SettingError(
                f"sides {', '.join(map(str, sides))} at ratio {self.ratio}: wanted multiples of the ratio, at least "
                "twice it, the scene a multiple of the tile"
            )
        if min(self.bands, self.batch, self.turns) < 1 or self.ratio < 2:
            raise SettingError("bands, batch and turns must be at least 1, the ratio at least 2")


@dataclass(frozen=True)
class ScanSpeed:
    """One backend on one map: seconds, 10^9 state updates a second, and how many times faster than the baseline."""

    backend: str
    forward_s: float
    both_s: float
    rate: float
    both_rate: float
    forward_ratio: float
    both_ratio: float
    exp_share: float | None  # of the ceiling of all threads


@dataclass(frozen=True)
class SpeedReport:
    """Everything measured; ratios are to the baseline backend, above 1 where faster."""

    settings: SpeedSettings
    machine: dict[str, Any]
    ceilings: Ceilings
    scans: tuple[ScanSpeed, ...]
    backend: str
    tile_s: float
    scan_share: float  # of a tile's time, full-resolution scans alone
    scene_s: float
    million_pixel_bands: float  # a second, whole scene
    step_s: float
    inference_ratio: float  # whole network, one patch
    training_ratio: float
    memory_mib: dict[int, float | None]  # tile side -> peak above the process at rest

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and words, for JSON."""
        return asdict(self)


def run_speed(settings: SpeedSettings) -> SpeedReport:
    """Measure scan, tile, scene, training step and memory.

    SettingError when `device` can't be used, or HSFUSE_SCAN names a backend that doesn't work there.
    """
    device = _device(settings.device)
    backend = choose_backend(device)
    memory = _memory(settings, device)
    ceilings = measure_ceilings(device, settings.turns)
    scans = tuple(_scans(settings, device, ceilings.exp_all_threads))
    calls = {
        "tile": _inference(settings, device, settings.tile),
        "scan": _scan_call(settings, device, settings.tile, backend),
        "scene": _scene(settings, device),
        "step": _training_step(settings, device, settings.batch),
    }
    times = race(calls, settings.turns, device)
    return SpeedReport(
        settings, _machine(device), ceilings, scans, backend,
        tile_s=times["tile"], scan_share=times["scan"] * SCANS * SRLFConfig.stages / times["tile"],
        scene_s=times["scene"], million_pixel_bands=settings.bands * settings.scene**2 / 1e6 / times["scene"],
        step_s=times["step"],
        inference_ratio=_ratio(_inference(settings, device, settings.patch), backend, settings.turns, device),
        training_ratio=_ratio(_training_step(settings, device, 1), backend, settings.turns, device),
        memory_mib=memory,
    )  # fmt: skip


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda"):
        raise SettingError(f"device {name!r} is unknown: wanted auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise SettingError("there is no NVIDIA GPU that torch can use here; choose device cpu")
    return torch.device(name)


def _machine(device: torch.device) -> dict[str, Any]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {"device": device.type, "name": name, "threads": torch.get_num_threads(), "torch": torch.__version__}


@contextmanager
def _forced(backend: str) -> Iterator[None]:
    """HSFUSE_SCAN set for a while."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = backend
    try:
        yield
    finally:
        os.environ.pop(VARIABLE)
        if before is not None:
            os.environ[VARIABLE] = before


def _ratio(call: Callable[[], object], backend: str, turns: int, device: torch.device) -> float:
    """How many times faster a call is with `backend` than with the baseline."""

    def forced(name: str) -> None:
        with _forced(name):
            call()

    best = race({name: partial(forced, name) for name in (backend, BASELINE)}, turns, device, cold=BASELINE)
    return best[BASELINE] / best[backend]


def _scan_arguments(settings: SpeedSettings, device: torch.device, side: int) -> list[Tensor]:
    """Arguments of `scan2d` as a fresh SS2D block makes them."""
    block = SS2D(settings.bands).to(device)
    u = torch.randn(1, side, side, block.conv.out_channels, device=device)
    proj = torch.einsum("bhwd,kpd->bhwkp", u, block.x_proj)
    return [x.detach() for x in (u, proj, block.dt_weight, block.dt_bias, block.a_log, block.skip)]


def _scan_call(settings: SpeedSettings, device: torch.device, side: int, name: str) -> Callable[[], object]:
    return partial(torch.no_grad()(BACKENDS[name].scan), *_scan_arguments(settings, device, side))


def _scans(settings: SpeedSettings, device: torch.device, exp_rate: float | None) -> Iterator[ScanSpeed]:
    """All backends that work here but the sequential one."""
    names = [name for name in available_backends(device) if name != "reference"]
    arguments = _scan_arguments(settings, device, settings.patch)
    leaves = [x.requires_grad_() for x in arguments]

    def both(name: str) -> None:
        torch.autograd.grad(BACKENDS[name].scan(*leaves).sum(), leaves)

    forward = race(
        {n: partial(torch.no_grad()(BACKENDS[n].scan), *arguments) for n in names}, settings.turns, device, BASELINE
    )
    with_gradients = race({n: partial(both, n) for n in names}, settings.turns, device, BASELINE)
    updates = 4 * arguments[0].numel() * arguments[4].shape[2] / 1e9
    for name in names:
        a, b = forward[name], with_gradients[name]
        share = updates / a / exp_rate if exp_rate else None
        ratios = forward[BASELINE] / a, with_gradients[BASELINE] / b
        yield ScanSpeed(name, a, b, updates / a, updates / b, *ratios, share)


def _network(
    settings: SpeedSettings, device: torch.device, batch: int, side: int
) -> tuple[SRLFNet, Tensor, Observation]:
    """A network with random weights, and images for it."""
    bands, s = settings.bands, settings.ratio
    model = ObservationModel(torch.rand(3, bands) / bands, gaussian_psf(0.5 * s, s), s).to(device)
    maps = [torch.rand(batch, n, side, side, device=device) for n in (bands, 3, 3)]
    low = torch.rand(batch, bands, side // s, side // s, device=device)
    net = SRLFNet(SRLFConfig(bands, 3, s), identity=False).to(device)
    return net, maps[0], Observation(low, maps[1], maps[2], model, torch.ones(bands, device=device))


def _inference(settings: SpeedSettings, device: torch.device, side: int) -> Callable[[], object]:
    net, base, obs = _network(settings, device, 1, side)
    return partial(torch.no_grad()(net.eval()), base, obs)


def _scene(settings: SpeedSettings, device: torch.device) -> Callable[[], None]:
    """A whole scene, tile by tile."""
    call = _inference(settings, device, settings.tile)

    def scene() -> None:
        for _ in range((settings.scene // settings.tile) ** 2):
            call()

    return scene


def _training_step(settings: SpeedSettings, device: torch.device, batch: int) -> Callable[[], None]:
    net, base, obs = _network(settings, device, batch, settings.patch)
    optimiser = torch.optim.Adam(net.train().parameters())

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        net(base, obs).abs().mean().backward()
        optimiser.step()

    return step


def _memory(settings: SpeedSettings, device: torch.device) -> dict[int, float | None]:
    """Peak of each tile size in MiB, above what the process holds when all is loaded; small tiles first."""
    sides = sorted(settings.memory_tiles)
    _inference(settings, device, 2 * settings.ratio)()
    rest = resident_mib(device)
    peaks = {side: peak_mib(_inference(settings, device, side), device) for side in sides}
    return {side: None if peak is None or rest is None else max(peak - rest, 0.0) for side, peak in peaks.items()}
