"""Which method suits a scene: told by the scene's own reduced-resolution test.

Both images are degraded by the ratio with the observation model, and the LRHSI is the truth (Wald, Ranchin, Mangolini
1997, "Fusion of satellite images of different spatial resolutions", PE&RS 63(6)). Degrading takes noise away, which
would flatter methods that amplify it, so what blurring removed is put back. Every candidate is fitted on this pair
alone and judged on all its pixels.

PSNR and SAM may disagree: the first is ruled by bright pixels, the second by dark ones. The score is the geometric mean
of the RMSE and the SAM, each relative to the smallest among the candidates: 1 where one method is best in both, and ten
percent more of either error costs the same. It is a test at another resolution: finer structure than an LR pixel can
behave otherwise, and the smaller the scene, the less it says; below LEAST_PIXELS it isn't made.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, sqrt
from typing import Self

import torch
from torch import Tensor

from hsfuse.errors import SettingError
from hsfuse.fusers import Fuser, Requirements, TrainingScene, make_fuser
from hsfuse.fusers.frame import noise_adder, reduced_images
from hsfuse.metrics.pixel import angles_degrees
from hsfuse.physics import ObservationModel

log = logging.getLogger(__name__)

#: Methods that `best` tries: all that need no training.
CANDIDATES = ("blend", "glp-ens", "conic", "cnmf", "hysure", "fuse", "glp-reg", "gsa", "glp", "sfim", "bicubic")
#: What is used where a scene is too small to test.
FALLBACK = "blend"
#: Valid LR pixels of the reduced pair below which a test says nothing.
LEAST_PIXELS = 36
#: MSI pixels of the reduced pair that the test takes at most, in whole blocks.
MOST_PIXELS = 128 * 128


@dataclass(frozen=True)
class Score:
    """One method in the test: PSNR in dB (peak: target's maximum), mean angle in degrees, RMSE; lowest `rank` wins."""

    psnr: float
    sam: float
    rmse: float
    rank: float

    def __str__(self) -> str:
        return f"{self.psnr:.2f} dB, {self.sam:.2f} deg, RMSE {self.rmse:.3g}"


@dataclass(frozen=True)
class Choice:
    """The method chosen, the scores of all candidates, best first (none: not tested), and why."""

    name: str
    scores: dict[str, Score]
    reason: str

    def describe(self) -> dict[str, str]:
        """For provenance and reports."""
        table = {f"test of {name}": str(score) for name, score in self.scores.items()}
        return {"choice": self.reason, **table}


def choose_base(
    scene: TrainingScene, model: ObservationModel, candidates: Sequence[str] = CANDIDATES, fallback: str = FALLBACK
) -> Choice:
    """The candidate with the lowest rank in the scene's reduced-resolution test; `fallback` for a scene too small.

    SettingError when there are no candidates.
    """
    if not candidates:
        raise SettingError("there are no methods to choose from")
    pair = reduced_scene(scene, model)
    pixels = 0 if pair is None else int(pair[0].mask.sum())
    if pair is None or pixels < LEAST_PIXELS:
        reason = f"{fallback}, untested: the scene is too small for a test at reduced resolution"
        log.warning("method: %s", reason)
        return Choice(fallback, {}, reason)
    scores = rank({name: measure(make_fuser(name), *pair, model) for name in candidates})
    best = next(iter(scores))
    reason = f"{best}, best of {len(scores)} at reduced resolution"
    log.info("method: %s", reason)
    for name, score in scores.items():
        log.info("  %-8s %s", name, score)
    return Choice(best, scores, reason)


@torch.no_grad()
def reduced_scene(scene: TrainingScene, model: ObservationModel, seed: int = 0) -> tuple[TrainingScene, Tensor] | None:
    """A bounded reduced-resolution pair and its target (n, C, H, W), H = h cut to multiples of s; None: no pixel left.

    An LR pixel of the pair is valid where all pixels that it was made of are.
    """
    s, blocks = model.scale, _some_blocks(scene, model.scale)
    part = TrainingScene(scene.lrhsi[blocks], scene.msi[blocks], scene.mask[blocks])
    if min(part.mask.shape[1:]) < s:
        return None
    target, low, msi = reduced_images(part, model)
    n, h, w = low.shape[0], *low.shape[2:]
    mask = part.mask[:, : h * s, : w * s].reshape(n, h, s, w, s).all(4).all(2)
    return TrainingScene(*noise_adder(scene, model)(low, msi, torch.Generator().manual_seed(seed)), mask), target


def _some_blocks(scene: TrainingScene, s: int) -> Tensor:
    """Indices of blocks spread over the scene, with at most MOST_PIXELS together."""
    n, h, w = scene.mask.shape
    count = max(1, min(n, MOST_PIXELS // max(1, h * w)))
    return torch.linspace(0, n - 1, count).round().long()


@torch.no_grad()
def measure(fuser: Fuser, pair: TrainingScene, target: Tensor, model: ObservationModel) -> Score:
    """Fit on the pair, fuse its blocks one by one, compare with the target where the pair is valid; rank is left 1."""
    fuser.fit(pair, model)
    fused = torch.cat([fuser.predict(x, y) for x, y in zip(pair.lrhsi.split(1), pair.msi.split(1), strict=True)])
    fine = pair.mask.repeat_interleave(model.scale, 1).repeat_interleave(model.scale, 2)
    f, t = (x.transpose(0, 1)[:, fine].double() for x in (fused, target))
    error = (f - t).square().mean(1)
    psnr = 10 * torch.log10(t.max() ** 2 / error.clamp_min(1e-30)).mean()
    angles = angles_degrees(*((a * b).sum(0).cpu().numpy() for a, b in ((f, t), (f, f), (t, t))))
    valid = angles[angles == angles]
    sam = float(valid.mean()) if valid.size else 0.0
    return Score(float(psnr), sam, sqrt(float(error.mean())), 1.0)


def rank(scores: dict[str, Score]) -> dict[str, Score]:
    """The same with ranks, best first: the geometric mean of RMSE and SAM relative to the smallest of each."""
    finite = {name: s for name, s in scores.items() if isfinite(s.rmse) and isfinite(s.sam)} or scores
    rmse, sam = (max(min(getattr(s, what) for s in finite.values()), 1e-12) for what in ("rmse", "sam"))

    def ranked(s: Score) -> Score:
        value = sqrt(max(s.rmse, 1e-12) / rmse * max(s.sam, 1e-12) / sam)
        return Score(s.psnr, s.sam, s.rmse, value if isfinite(value) else float("inf"))

    return dict(sorted(((name, ranked(s)) for name, s in scores.items()), key=lambda item: item[1].rank))


class Best:
    """LRHSI (B, C, h, w), MSI (B, c, H, W) -> HRHSI (B, C, H, W) by the method that the scene's own test prefers."""

    name = "best"
    #: The largest halo of the candidates, since tiles are planned before the choice.
    requirements = Requirements(halo=12)
    choice: Choice
    fuser: Fuser

    def __init__(self, candidates: Sequence[str] = CANDIDATES) -> None:
        self.candidates = candidates

    def fit(self, scene: TrainingScene, model: ObservationModel) -> Self:
        """Test, choose, fit the chosen on the scene itself."""
        self.choice = choose_base(scene, model, self.candidates)
        self.fuser = make_fuser(self.choice.name).fit(scene, model)
        return self

    def predict(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """Fuse tiles with the chosen method."""
        return self.fuser.predict(lrhsi, msi)

    def describe(self) -> dict[str, str]:
        """The choice with its scores, and what the chosen method estimated."""
        return {**self.fuser.describe(), "method": f"{self.name}: {self.choice.name}", **self.choice.describe()}
