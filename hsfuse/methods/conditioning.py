"""What makes a correcting network's task the same on every scene: error-aligned axes, and inputs in units of the error.

The base's error is far from equal in all directions of the subspace: what the MSI sees is all but known, the rest
isn't, and which is which depends on sensor and scene. `aligned` turns the subspace's axes to the principal axes of the
error at reduced resolution, most uncertain first, so that a correction of channel k goes as far as that axis is
uncertain and leaves alone what the MSI has settled. `conditioned` gives the network the parts that the base is made of
in units of that error, where noise and missed detail have the same size on every scene, and says how noisy the scene
is.

The base that such networks correct is `blend`. Trained to correct the regression alone and added to `blend` they were
worth half as much, and only a quarter of what they added was worth having: the one's errors aren't the other's.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from hsfuse.methods.adapt import Judge, change
from hsfuse.methods.blend import MEMBERS, Blend, Blended, blocks, middles
from hsfuse.methods.denoise import denoise
from hsfuse.methods.frame import SceneFrame, Seen, fit_frame, noise_adder, reduced, reduced_images, reducible
from hsfuse.methods.problem import mix, msi_noise
from hsfuse.methods.regression import DIMENSION, EnsembleGLP, RegressionGLP
from hsfuse.methods.subspace import DARK, SpectralSubspace
from hsfuse.nets.srlf import Observation
from hsfuse.physics.model import ObservationModel
from hsfuse.physics.sample import PairSample
from hsfuse.physics.solve import principal_axes, solve_spd

log = logging.getLogger(__name__)

#: What the LRHSI has outside the subspace, relative to all of a band, is rounding below this.
ROUNDING = 1e-5
#: Least unit of the base's error, relative to the coefficients: less is rounding, and 0 where the base has no error.
LEAST_STEP = 1e-7
#: The method whose errors networks for any sensor learn to correct.
KNOWN_BASE = "blend"
#: LR pixels from which on a scene regression is fitted: it has 96 coefficients per axis, and 9 more for each MSI band;
#: and how many pixels wide the LRHSI still has to be at reduced resolution.
LEARNED_FROM, LEAST_WIDTH = 300, 4
#: MSI pixels at most on which it is seen what pixels show at full resolution.
SAMPLE = 192 * 192
#: Longest feature in deviations; sides of the windows in which the MSI's detail is seen, and of what it is detail of.
LONGEST, WINDOW, AROUND = 5.0, 3, 7
#: Parts of the scene of which each is foretold from the others, in cells of so many ratios of LR pixels a side.
PARTS, CELL = 4, 2
#: Ratio above which less of what the parts left out bear out is used, in proportion: they are at reduced resolution.
FAR = 4
#: What the MSI's fine detail has at least of the power of noise to be seen clearly: noise alone has 1.
CLEAR = 1.5
#: On all axes but the first, a map counts so many times where it is no louder at full resolution than QUIET times what
#: it is where it was learned, in power, and less by the square of how much louder: the detail of finer pixels ought to
#: be weaker. On the first, on which the error is largest, it is hardly ever wrong.
COUNTS, QUIET = 1.3, 0.7


class Doubts(NamedTuple):
    """How little kinds of features are believed: the guide's six parts; middle, sides and corners of the MSI's window.

    How often features at full resolution count beside those at reduced resolution, times the ratio; and pixels of no
    error that the ridge amounts to, on other axes than the feature's own and on its own.
    """

    unseen: tuple[float, ...]
    ridge: tuple[float, ...]
    own: tuple[float, ...]


#: Learned at ratio 4 by gradient through the solution, from 69 draws of scenes for training.
LEARNED = Doubts(
    (0.0125, 0.074, 13.2, 0.53, 0.096, 5.9, 0.053, 0.053, 0.053),
    (215.0, 3840.0, 176.0, 271.0, 882.0, 178.0, 2.73, 32.5, 1080.0),
    (96.8, 22.7, 101.7, 93.9, 93.0, 144.4),
)
#: Chosen by hand; below a ratio of LEAST_LEARNED it is .03 dB better.
CHOSEN = Doubts((0.0625, *[0.25] * 5, *[0.0625] * 3), (72.0, *[288.0] * 5, *[72.0] * 3), (72.0, *[288.0] * 5))
LEAST_LEARNED = 3


def aligned(base: RegressionGLP, scene: PairSample) -> RegressionGLP:
    """The same fitted base on axes along which its errors at reduced resolution are uncorrelated, largest first.

    As it is where the scene is too narrow to be reduced.
    """
    if not reducible(scene, base.model.ratio):
        return base
    target, low, msi = reduced(scene, base)
    error = (base.inject(low, base.regress(msi)) - target).permute(1, 0, 2, 3).flatten(1).double()
    axes = principal_axes(error @ error.T / error.shape[1])[1]
    basis = base.subspace.basis.double() @ axes
    axes = axes * basis.gather(0, basis.abs().argmax(0, keepdim=True)).sign()
    turned = copy(base)
    basis = (base.subspace.basis.double() @ axes).float()
    spread = ((basis.T @ scene.spectra()) ** 2).mean(1).sqrt()
    spread = spread.clamp_min(max(ROUNDING * float(spread.max()), DARK))
    turned.subspace = SpectralSubspace(basis, spread)
    turned.weights = [((axes.T @ w.double()).float(), (axes.T @ b.double()).float()) for w, b in base.weights]
    turned.residual_share = torch.where(_negligible(scene, base.subspace), 1.0, base.residual_share)
    return turned


def _negligible(scene: PairSample, subspace: SpectralSubspace) -> Tensor:
    """(C,) bands whose part outside the subspace is rounding: it looks like noise, but there is none."""
    inside = scene.lrhsi.permute(1, 0, 2, 3)[:, scene.mask].norm(dim=1)
    outside = subspace.residual(scene.lrhsi).permute(1, 0, 2, 3)[:, scene.mask].norm(dim=1)
    return outside < ROUNDING * inside


def noise_share(base: RegressionGLP) -> float:
    """How much of what the LRHSI has outside the subspace is noise, 0 to 1, as told by its spatial correlation."""
    inside = base.subspace.dimension >= base.residual_share.numel()
    return 0.0 if inside else 1 - float(base.residual_share.mean())


def guides(dimension: int) -> int:
    """Guide channels that `conditioned` makes for K coefficients."""
    return 2 * (2 + MEMBERS) * dimension + 2


def conditioned(frame: SceneFrame, seen: Seen, regression: Tensor, blended: Blended) -> Observation:
    """The observation with a guide (B, 12 K + 2, H, W): all that is known of how the blend came to be.

    These are the MSI's detail, the interpolated LR residual, which together are the regression, how far the blend is
    from that, and its other members from the blend: all divided by the frame's step, the regression's error, and
    compressed by asinh: linear below it, logarithmic above. They come once as they are and once times the scene's share
    of noise, then that share itself: what is to be smoothed in a noisy scene is to be sharpened in a clean one. The
    last channel is how large errors seem to be at a pixel.
    """
    unit, step = frame.unit[:, None, None], frame.step[:, None, None].clamp_min(LEAST_STEP)
    detail, model, share = seen.obs.guide, seen.obs.model, noise_share(frame.base)
    fine = detail - model.upsample(model.spatial(detail))
    apart = (member / unit - seen.base for member in blended.members[1:])
    parts = torch.cat([x / step for x in (fine, regression - detail, seen.base - regression, *apart)], 1).asinh()
    guide = torch.cat([parts, share * parts, torch.full_like(blended.amount, share), blended.amount.log()], 1)
    return replace(seen.obs, guide=guide)


@dataclass(frozen=True)
class SceneRegression:
    """What a scene's reduced resolution teaches of the blend's errors: a linear map W (F, K) of what a pixel shows.

        error_k / step_k = w_k' f,   w_k = inv(<f f'>_low + s U <f f'>_full U + R_k) <f e_k>_low

    f (F,) are the guide's parts and the MSI's detail in a small window, in deviations `scale` (F,) of these at full
    resolution; <> are means over pixels, weighted by how small errors seem there. The errors at reduced resolution are
    known, the LRHSI being the truth, those at full resolution aren't; f is known at both. What is larger at full
    resolution than where it was learned is trusted less, the more so the further apart the two are: ridge regression
    (Hoerl, Kennard 1970, Technometrics 12(1)), without <f f'>_full, did harm. U and R_k are diagonal, by the kinds of
    features (`Doubts`), the ridge R_k by whether they are of axis k. The scene is reduced four times, the LRHSI's
    pixels lying elsewhere. Of what W says that is left out which the MSI sees clearly (`unseen`).

    `others` (PARTS, F, K) are learned without a part of the scene each, where reduced resolution has `cell` pixels to a
    cell's side: what the scene regression says of pixels from which it hasn't learned.
    """

    deviation: Tensor  # (c,) of the MSI's bands
    scale: Tensor
    weights: Tensor
    others: Tensor
    cell: int
    left: tuple[float, float] = (1.0, 1.0)  # of the blend's error and angle, by `others`
    left_out: bool = False  # whether it is at reduced resolution and speaks by `others`

    def __call__(self, guide: Tensor, msi: Tensor) -> Tensor:
        """The error of the blend in steps: guide (B, g, H, W), MSI without its noise (B, c, H, W) -> (B, K, H, W)."""
        f = self.features(guide, msi)
        if not self.left_out:
            return mix(self.weights.T, f)
        part = parts_of(f.shape[-2:], self.cell).to(f.device)
        return torch.stack([mix(w.T, f) * (part == number) for number, w in enumerate(self.others)]).sum(0)

    def features(self, guide: Tensor, msi: Tensor) -> Tensor:
        """f: (B, g, H, W), (B, c, H, W) -> (B, F, H, W)."""
        raw = pixel_features(guide, msi, self.deviation)
        return (raw / self.scale[:, None, None]).clamp(-LONGEST, LONGEST)


def pixel_features(guide: Tensor, msi: Tensor, deviation: Tensor) -> Tensor:
    """What a pixel shows: guide (B, g, H, W), MSI (B, c, H, W), its bands' deviation (c,) -> (B, F, H, W)."""
    bands = msi / deviation[:, None, None]
    wide, near = AROUND // 2, WINDOW // 2
    around = functional.avg_pool2d(functional.pad(bands, [wide] * 4, mode="replicate"), AROUND, 1)
    detail = functional.pad(bands - around, [near] * 4, mode="replicate")
    windows = functional.unfold(detail, WINDOW).unflatten(-1, msi.shape[-2:])
    return torch.cat([guide[:, : (guide.shape[1] - 2) // 2], windows], 1)


@torch.no_grad()
def fit_scene_regression(frame: ConditionedFrame, scene: PairSample) -> tuple[SceneRegression | None, str]:
    """The scene regression of a scene, and in words what it foretells of parts that it wasn't learned from.

    None, and nothing or why, where there are too few pixels, or where left-out parts get worse by it, in error or in
    angle.
    """
    s = frame.base.model.ratio
    if int(scene.mask.sum()) < LEARNED_FROM or min(scene.lrhsi.shape[2:]) < LEAST_WIDTH * s:
        return None, ""
    windows = list(blocks(middles(scene, s, SAMPLE)))
    if len(windows) == 1:  # a scene of one tile, perhaps
        frame.blend.keep(*windows[0])
    full = [frame.see(*block) for block in windows]
    deviation = torch.cat([each.msi for each in full]).std((0, 2, 3)).clamp_min(DARK)
    raw = torch.cat([pixel_features(each.obs.guide, each.msi, deviation) for each in full])
    scale, none = raw.std((0, 2, 3)), raw.new_zeros(0)
    scene_regression = SceneRegression(deviation, torch.where(scale > LEAST_STEP, scale, 1.0), none, none, CELL * s)
    at_full = [_certainty(each) * scene_regression.features(each.obs.guide, each.msi) for each in full]
    g = torch.cat([maps.movedim(1, 0).flatten(1) for maps in at_full], 1).double()
    axes, few = frame.unit.numel(), len(phases(s))
    often, ridge, own = (torch.tensor(each).to(g) for each in (LEARNED if s >= LEAST_LEARNED else CHOSEN))
    kind = kinds_of(len(g), axes).to(g.device)
    root = often[kind].sqrt()
    common = s * root[:, None] * (g @ g.T / g.shape[1]) * root
    about = torch.arange(len(own) * axes).view(len(own), -1).T.to(g.device)
    ridges = (few * ridge[kind]).expand(axes, -1).scatter(1, about, (few * own).expand(axes, -1))

    f, weight, start, wanted, part, cell = _at_reduced(frame, scene, scene_regression)
    step, unit = frame.step.clamp_min(LEAST_STEP)[:, None].double(), frame.unit[:, None].double()
    need, every = (wanted - start) / step, range(PARTS)
    xs, ys = ([(weight * maps)[:, part == number] for number in every] for maps in (f, need))
    within = torch.stack([x @ x.T for x in xs])
    across = torch.stack([x @ y.T for x, y in zip(xs, ys, strict=True)])
    counts = torch.stack([(part == number).sum() for number in every])

    @cache
    def learned(unseen: frozenset[int]) -> Tensor:
        """The map (F, K) that all parts but some teach."""
        seen = [number for number in every if number not in unseen]
        count = counts[seen].sum().clamp_min(1)
        matrix = (within[seen].sum(0) + torch.diag_embed(ridges)) / count + common
        return solve_spd(matrix, (across[seen].sum(0) / count).T[..., None])[..., 0].T

    def foretold(*unseen: int) -> Tensor:
        """What the others say of each part (K, P), some having no say."""
        said = torch.zeros_like(need)
        for number in every:
            said[:, part == number] = learned(frozenset((number, *unseen))).T @ f[:, part == number]
        return said

    scale, clear = step * unit, seen_clearly(frame, scene)

    def believed(weights: Tensor, said: Tensor, where: Tensor) -> Tensor:
        """A map (F, K) as far as what is foretold (K, P) comes true on some pixels, and the MSI hasn't seen it."""
        far, near = ((weights.T @ maps).square().mean(1) for maps in (g, weight * f))
        times = COUNTS * (QUIET * near / far.clamp_min(1e-30)).clamp(0, 1).square()
        times = torch.cat([torch.ones_like(times[:1]), times[1:]])
        hidden = unseen(clear, (need * scale)[:, where]) * scale.T / scale
        return min(1, FAR / s) * borne_out(said, need, cell, where) * times * weights @ hidden.T

    others = [believed(learned(frozenset((number,))), foretold(number), part != number) for number in every]
    said = torch.zeros_like(need)
    for number in every:
        said[:, part == number] = others[number].T @ f[:, part == number]
    errors = Judge((start * unit).T, (wanted * unit).T).errors((said * scale).T)
    parts = "on parts of the scene that it didn't learn from"
    what = f"{parts} the error is {change(errors.error)} that of {KNOWN_BASE}, the angle {change(errors.angle)}"
    used = max(errors.error, errors.angle) <= 1
    log.info("scene regression %s: %s", "used" if used else "not used", what)
    if not used:
        return None, f"not used: {what}"
    weights, left = believed(learned(frozenset()), foretold(), part >= 0).float(), (errors.error, errors.angle)
    return replace(scene_regression, weights=weights, others=torch.stack(others).float(), left=left), f"used: {what}"


def seen_clearly(frame: ConditionedFrame, scene: PairSample) -> Tensor:
    """What the MSI sees of coefficients on the frame's axes where its fine detail stands out of its noise: (r, K).

    These are combinations of its bands: of ten, some tell nothing that others don't, but noise.
    """
    problem, model, msi = frame.blend.agreement.problem, frame.base.model, scene.msi.double()
    sd = problem.noise_y.to(msi).sqrt()[:, None]
    fine = (msi - model.upsample(model.spatial(msi))).movedim(1, 0).flatten(1) / sd
    power, bands = principal_axes(fine @ fine.T / fine.shape[1])
    return (bands[:, power > CLEAR].T / sd.T) @ problem.response.to(msi) @ frame.turn.to(msi).T


def unseen(response: Tensor, errors: Tensor) -> Tensor:
    """What of a change is left (K, K) when that is taken out which the MSI has seen: response Q (r, K), errors (K, P).

        I - C Q' inv(Q C Q') Q,   C = <e e'>

    What the blend lacks of what the MSI sees is noise, which no map foretells, and nothing that is learned at another
    resolution is as sure as what is seen at this one.

    >>> unseen(torch.tensor([[1.0, 1.0]]).double(), torch.eye(2).double()).round(decimals=3)
    tensor([[ 0.5000, -0.5000],
            [-0.5000,  0.5000]], dtype=torch.float64)
    """
    everything = torch.eye(len(errors)).to(errors)
    if not len(response):
        return everything
    seen = errors @ (response @ errors).T
    return everything - solve_spd(response @ seen, seen.T).T @ response


def phases(s: int) -> tuple[tuple[int, int], ...]:
    """LR pixels that a scene begins with when it is reduced."""
    return (0, 0), (s // 2, s // 2), (0, s // 2), (s // 2, 0)


def _at_reduced(frame: ConditionedFrame, scene: PairSample, scene_regression: SceneRegression) -> tuple[Tensor, ...]:
    """Of all valid pixels at reduced resolution, in every phase: f (F, P), their weights (1, P), what the blend has and
    should have (K, P), in double precision, their parts and their cells (P,)."""
    model, device = frame.base.model, scene.mask.device
    n, *shape = scene.mask.shape
    part = parts_of(shape, scene_regression.cell).to(device).expand(scene.mask.shape)
    cell = cells_of((n, *shape), scene_regression.cell).to(device)
    add_noise, random = noise_adder(scene, model), torch.Generator().manual_seed(0)
    drawn = []
    for first in phases(model.ratio):
        target, lrhsi, msi = reduced_images(scene, model, first)
        rows, cols = (slice(start, start + size) for start, size in zip(first, target.shape[2:], strict=True))
        valid, noisy = scene.mask[:, rows, cols], add_noise(lrhsi, msi, random)
        low = [frame.see(*block) for block in zip(*(image.split(1) for image in noisy), strict=True)]
        maps = (
            torch.cat([scene_regression.features(each.obs.guide, each.msi) for each in low]),
            torch.cat([_certainty(each) for each in low]),
            torch.cat([each.base for each in low]),
            frame.subspace.project(target) / frame.unit[:, None, None],
        )
        places = (every[:, rows, cols][valid] for every in (part, cell))
        drawn.append((*(each.movedim(1, 0)[:, valid].double() for each in maps), *places))
    return tuple(torch.cat(each, -1) for each in zip(*drawn, strict=True))


def kinds_of(features: int, axes: int) -> Tensor:
    """Which of its nine kinds each feature is of: (F,)."""
    parts = 6 * axes
    place = torch.tensor([8, 7, 8, 7, 6, 7, 8, 7, 8])
    return torch.cat([torch.arange(parts) // axes, place.repeat((features - parts) // 9)])


def borne_out(foretold: Tensor, need: Tensor, cell: Tensor, where: Tensor) -> Tensor:
    """Share (K,) of what is foretold (K, P) of what is needed (K, P) that is used, judged on some of the pixels.

    On each axis the least-squares factor between both, cut to 0..1, times 1 - (its error / it)^2: the shrinkage that
    leaves the least error of a factor so uncertain. Errors of a cell's pixels, (P,) which, go together.
    """
    z, wanted, cell = foretold[:, where], need[:, where], cell[where]
    power = z.square().sum(1).clamp_min(1e-30)
    factor = (z * wanted).sum(1) / power
    left = z * (factor[:, None] * z - wanted)
    sums = torch.zeros(len(z), int(cell.max()) + 1 if len(cell) else 1).to(left).index_add_(1, cell, left)
    error = sums.square().sum(1).sqrt() / power
    sure = 1 - (error / factor.clamp_min(1e-12)).square()
    return factor.clamp(0, 1) * sure.clamp(0, 1)


def _certainty(seen: Seen) -> Tensor:
    """How small errors seem to be at a pixel: (B, 1, H, W)."""
    return (-seen.obs.guide[:, -1:]).exp()


def parts_of(shape: Sequence[int], cell: int) -> Tensor:
    """Which of PARTS each pixel belongs to: (h, w); cells of one part don't touch at a side."""
    rows, cols = (torch.arange(n) // cell for n in shape)
    return (rows[:, None] + 2 * cols) % PARTS


def cells_of(shape: Sequence[int], cell: int) -> Tensor:
    """Which cell each pixel of n blocks belongs to: (n, h, w)."""
    n, h, w = shape
    rows, cols = (torch.arange(size) // cell for size in (h, w))
    down, across = -(-h // cell), -(-w // cell)
    return (torch.arange(n)[:, None, None] * down + rows[:, None]) * across + cols


@dataclass(frozen=True)
class ConditionedFrame(SceneFrame):
    """Frame on error-aligned axes: the network sees the blend, what it was made of, and the scene regression of it."""

    blend: Blend = field(kw_only=True)
    scene_regression: SceneRegression | None = field(kw_only=True, default=None)
    taught: str = field(kw_only=True, default="")  # what the scene regression foretells, in words

    def see(self, lrhsi: Tensor, msi: Tensor) -> Seen:
        """What the network starts from on LRHSI (B, C, h, w) and MSI (B, c, H, W)."""
        clean = msi if self.noise is None else denoise(msi, self.noise)
        blended = self._turned(self.blend.blended(lrhsi, msi))
        seen = self.seen(lrhsi, clean, blended.fused, self.blend.outside_low(lrhsi))
        regression = self.base.coefficients(lrhsi, clean) / self.unit[:, None, None]
        obs = conditioned(self, seen, regression, blended)
        if self.scene_regression is not None:
            unit = self.unit[:, None, None]
            said = self.step[:, None, None] * self.scene_regression(obs.guide, clean) * unit
            left = self.blend.agreement.left_open(mix(self.turn.T, said), blended.amount)
            obs = replace(obs, known=mix(self.turn, left) / unit)
        return replace(seen, obs=obs)

    def left_out(self) -> ConditionedFrame:
        """The same at reduced resolution, where each part is told what the scene regression of the others foretells."""
        return (
            self
            if self.scene_regression is None
            else replace(self, scene_regression=replace(self.scene_regression, left_out=True))
        )

    def start(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """The blend's coefficients (B, K, H, W) alone, on this frame's axes."""
        return mix(self.turn, self.blend.coefficients(lrhsi, msi))

    def _turned(self, blended: Blended) -> Blended:
        """On this frame's axes, which span the same subspace."""
        members = torch.einsum("jk,mbkhw->mbjhw", self.turn, blended.members)
        return replace(blended, fused=mix(self.turn, blended.fused), members=members)

    @property
    def turn(self) -> Tensor:
        """Coefficients of the blend's subspace to this frame's axes (K, K)."""
        return self.subspace.basis.T @ self.blend.subspace.basis.to(self.subspace.basis)


def conditioned_frame(scene: PairSample, model: ObservationModel) -> ConditionedFrame:
    """Frame of a scene on the axes of the regression's errors, with the scene regression."""
    frame = plain_frame(scene, model)
    scene_regression, taught = fit_scene_regression(frame, scene)
    return replace(frame, scene_regression=scene_regression, taught=taught)


def plain_frame(scene: PairSample, model: ObservationModel) -> ConditionedFrame:
    """The same without the scene regression."""
    noise = msi_noise(scene).float()
    clean = replace(scene, msi=denoise(scene.msi, noise))
    frame = fit_frame(clean, aligned(EnsembleGLP(DIMENSION).fit(clean, model), clean))
    blend = Blend().fit(scene, model)
    return ConditionedFrame(**{**vars(frame), "noise": noise, "fuser": blend}, blend=blend)
