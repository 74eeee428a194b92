"""Stripes: what one detector of a band adds to its whole column, or one scan to its whole row.

A pushbroom sensor's detectors each see one column, a turned or whiskbroom sensor's scans each are one row. Every band
errs on its own, so stripes lie outside the few directions in which a scene's spectra vary: what these leave of the
spectra, averaged along each line, is the stripe and little noise (compare Gomez-Chova et al. 2008, "Correction of
systematic spatial noise in push-broom hyperspectral sensors", Applied Optics 47(28)). The directions are those of
spectra within lines, which no stripe changes. What changes slowly from line to line may be the ground's, a smile or
illumination: these have patterns that bands share, which stay. Within the ground's directions lines' means are taken
out by the share that stripes, as they are beyond them, have of their variance. What an MSI shows of the same lines,
too, is the ground's, however narrow its strips are and whatever their spectra.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d

from hsfuse.calibration.spectra import FloatArray, band_noise, clean_spectra, noise_edge, varies

#: Spectra from which the directions are found, most of these, and fewest lines and pixels along them to judge by.
SPECTRA, MOST_DIRECTIONS, LEAST_SIDE = 6000, 40, 8
#: In so few bands of so few pixels what the ground's directions leave of lines is as often ground as stripes.
FEW_BANDS, FEW_PIXELS = 48, 48 * 48
#: Lines over which what changes slowly is smoothed by parabolas (Savitzky, Golay 1964).
SLOW = 15
#: Patterns of slow changes that bands share are the ground's where they are so many times what stripes alone have, and
#: below that as far as they are beyond it. On more than so many times those lines white noise's patterns are counted.
SHARED, MANY = 2.0, 4
#: A band has stripes where the variance of its lines' means is so many times what noise leaves of it; they are taken
#: out where so large a share of the bands has any.
CLEAR, LEAST_SHARE = 2.5, 0.25
#: Detectors of different bands err on their own: where lines of all bands have fewer patterns than this share of what
#: independent ones would have, they are the ground's.
LEAST_RANK = 0.5
#: Lines' patterns of which another image shows more than this share, and so many standard deviations, are the ground's.
SHOWN, CLEAR_SD = 0.5, 2.0
#: Share of the correlation between both halves of the lines that stripes would give, and the ground doesn't.
LASTING = 0.8


@dataclass(frozen=True, eq=False)
class Stripes:
    """`values` (C, n) that are added to lines beyond the ground's directions, 0 for a band without, and what likely is
    `within` these (C, n); `times` (C,) by how much lines' means vary in place of what noise would make them, in lines
    of `pixels`."""

    values: FloatArray
    within: FloatArray
    times: FloatArray
    pixels: float

    @property
    def clear(self) -> NDArray[np.bool_]:
        """Which bands have stripes: (C,) bool."""
        return self.times > CLEAR

    def __bool__(self) -> bool:
        """Whether enough bands have them."""
        return bool(self.clear.mean() >= LEAST_SHARE)

    @property
    def share(self) -> float:
        """Share of the noise's variance that stripes are, in the median of the bands that have any."""
        beyond = self.times[self.clear] - 1
        return float(np.median(beyond / (beyond + self.pixels)))

    def shown_by(self, matrix: FloatArray, own: FloatArray, lines: FloatArray, runs: Sequence[slice]) -> Shared:
        """How much of these stripes under R `matrix` (c, C) an MSI shows, from means of lines (c, n).

        `own` are those of R x LRHSI with its stripes, `lines` the MSI's. What the MSI shows is a multiple of `own` less
        what no ground is; so it is regressed on these and the stripes, in what changes fast within `runs` of lines.
        """
        inside = np.concatenate([np.arange(lines.shape[1])[run] for run in runs])
        seen, whole, shown = (_fast(image, list(runs))[:, inside] for image in (matrix @ self.values, own, lines))
        shown = shown * (whole.std(1) / np.maximum(shown.std(1), 1e-30))[:, None]  # each band has a gain of its own
        design, target = np.stack([whole.ravel(), seen.ravel()]), shown.ravel()
        moment = design @ design.T
        if not np.linalg.det(moment) > 1e-9 * moment[0, 0] * moment[1, 1] or not target.any():
            return Shared(0.0, np.inf, 0.0)
        gain, less = np.linalg.solve(moment, design @ target)
        left = float(np.square(target - np.array([gain, less]) @ design).sum())
        sd = np.sqrt(left / max(target.size - 2, 1) * np.linalg.inv(moment)[1, 1])
        fit = 1 - left / float(target @ target)
        return Shared(1 + less / gain, sd / gain, fit) if gain > 0 else Shared(0.0, np.inf, fit)


@dataclass(frozen=True)
class Shared:
    """The `share` (+- `sd`) of stripes' variance that another image shows, too; `fit`: how well it was told (R^2)."""

    share: float
    sd: float
    fit: float

    @property
    def is_ground(self) -> bool:
        """Whether it clearly is more than the detectors'."""
        return self.share > max(SHOWN, CLEAR_SD * self.sd)


#: Whole rows (C, h, w) and their mask (h, w).
Strip = tuple[NDArray[np.floating], NDArray[np.bool_]]


@dataclass(frozen=True)
class _Ground:
    """The directions `axes` (C, k) of an image's spectra in units of the `noise` (C, 1)."""

    axes: FloatArray
    noise: FloatArray

    @classmethod
    def of(cls, spectra: FloatArray) -> _Ground:
        """Of spectra (C, n) within lines."""
        noise = band_noise(spectra)[:, None]
        kept = min(MOST_DIRECTIONS, clean_spectra(spectra).basis.shape[1], len(spectra) // 2)
        return cls(np.linalg.svd(spectra / noise, full_matrices=False)[0][:, :kept], noise)

    def split(self, data: NDArray[np.floating], mask: NDArray[np.bool_]) -> FloatArray:
        """What the directions leave of a strip (C, h, w), then what is along them: (C + k, h, w) in noise units.

        It is 0 where the mask is.
        """
        flat = data.reshape(len(data), -1) / self.noise
        along = self.axes.T @ flat
        parts: FloatArray = np.concatenate([flat - self.axes @ along, along]).reshape(-1, *data.shape[1:]) * mask
        return parts


@dataclass
class _Lines:
    """Sums over the first and second half of each line, (2, C, n), and their pixels (2, n); `runs` are neighbours.

    `along` (k, n) are those along the ground's directions, of both halves.
    """

    sums: FloatArray
    along: FloatArray
    counts: NDArray[np.integer]
    runs: list[slice]

    @property
    def mean(self) -> FloatArray:
        """(C, n)."""
        return self.sums.sum(0) / np.maximum(self.counts.sum(0), 1)

    def halves(self) -> FloatArray:
        """Means of both halves, (2, C, n)."""
        return self.sums / np.maximum(self.counts, 1)[:, None]


def estimate_stripes(
    strips: Callable[[], Iterable[Strip]], every: Callable[[], Iterable[Strip]] | None = None
) -> tuple[Stripes | None, Stripes | None]:
    """Along columns and along rows, from strips that are given twice; None for too small an image, or too few bands.

    Where the strips aren't all of the image, `every` gives those, from which stripes along rows are then taken.
    """
    seen = [(_within(data, mask), len(mask)) for data, mask in strips()]
    found = np.concatenate([spectra for spectra, _ in seen], 1).astype(np.float64)
    if found.shape[1] < LEAST_SIDE * LEAST_SIDE or found.shape[0] < LEAST_SIDE or not varies(found):
        return None, None
    if found.shape[0] < FEW_BANDS and found.shape[1] < FEW_PIXELS:
        return None, None
    ground = _Ground.of(found[:, :: max(1, found.shape[1] // SPECTRA)])
    columns, rows, squares = _summed(strips(), ground, sum(height for _, height in seen), every is not None)
    down, right = (_judged(lines, ground, squares) for lines in (columns, rows))
    if right and every is not None:
        whole = _summed(every(), ground, 1, False)[1]
        values, within = _values(whole, ground, right.times)
        right = replace(right, values=values, within=within)
    return down, right


def _summed(strips: Iterable[Strip], ground: _Ground, height: int, gaps: bool) -> tuple[_Lines, _Lines, FloatArray]:
    """Columns and rows of what the directions leave, and its squares' sum (C,)."""
    column_sums, column_counts, row_sums, row_counts, squares, runs, done = [], [], [], [], [], [], 0
    for data, mask in strips:
        parts, late = ground.split(data, mask), done + np.arange(len(mask)) >= height / 2
        column_sums.append(np.stack([parts[:, half].sum(1) for half in (~late, late)]))
        column_counts.append(np.stack([mask[half].sum(0) for half in (~late, late)]))
        middle = mask.shape[1] // 2
        row_sums.append(np.stack([half.sum(2) for half in np.split(parts, [middle], 2)]))
        row_counts.append(np.stack([half.sum(1) for half in np.split(mask, [middle], 1)]))
        runs.append(slice(done, done + len(mask)))
        squares.append((parts[: len(data)] ** 2).sum((1, 2)))
        done += len(mask)
    bands, some = len(ground.noise), runs if gaps else [slice(0, done)]
    sums = (
        (np.sum(column_sums, 0), np.sum(column_counts, 0)),
        (np.concatenate(row_sums, 2), np.concatenate(row_counts, 1)),
    )
    columns, rows = (
        _Lines(of[:, :bands], of[:, bands:].sum(0), counts, run)
        for (of, counts), run in zip(sums, ([slice(None)], some), strict=True)
    )
    return columns, rows, np.sum(squares, 0)


def _judged(lines: _Lines, ground: _Ground, squares: FloatArray) -> Stripes | None:
    """The stripes of lines, none of them clear unless each band has its own, and all along a line."""
    counts = lines.counts.sum(0)
    if min(counts.size, len(ground.noise)) < LEAST_SIDE or np.median(counts) < LEAST_SIDE:
        return None
    mean, fast = lines.mean, _fast(lines.mean, lines.runs)
    within = (squares - (mean**2 * counts).sum(1)) / counts.sum()
    times = (fast**2 * counts).mean(1) / np.maximum(within, 1e-12)
    clear = times > CLEAR
    free = max(2, int(clear.sum()) - ground.axes.shape[1])  # ranks that the directions leave
    few = _rank(fast[clear]) < LEAST_RANK * free * counts.size / (free + counts.size)
    if few or not _lasting(lines, times):
        times = np.minimum(times, CLEAR)
    return Stripes(*_values(lines, ground, times), times, float(np.median(counts)))


def _values(lines: _Lines, ground: _Ground, times: FloatArray) -> tuple[FloatArray, FloatArray]:
    """What stripes add to each line beyond the ground's directions and within them, (C, n) each."""
    mean, clear = lines.mean, times > CLEAR
    values, within = np.zeros_like(mean), np.zeros_like(mean)
    if clear.any():
        fast = _fast(mean, lines.runs)[clear]
        own = fast + _own(mean[clear] - fast, fast.std(1, keepdims=True), lines.runs)
        values[clear] = ground.noise[clear] * own * (1 - 1 / times[clear])[:, None]
        within = _within_ground(lines, ground, np.where(clear, times, 0))
    enough = lines.counts.sum(0) >= LEAST_SIDE
    return np.where(enough, values, 0), np.where(enough, within, 0)


def _within_ground(lines: _Lines, ground: _Ground, times: FloatArray) -> FloatArray:
    """What of lines' fast changes along the ground's directions is likely the stripes': (C, n) (Wiener 1949).

    Stripes vary there as they do beyond, 0 in a band whose `times` (C,) are; all else that varies is the ground's.
    """
    bands, kept = ground.axes.shape
    along = _fast(lines.along / np.maximum(lines.counts.sum(0), 1), lines.runs)
    size = np.square(_fast(lines.mean, lines.runs)).mean(1) * bands / max(bands - kept, 1) * (times > 0)
    stripes = (ground.axes**2 * size[:, None]).sum(0)
    both = np.maximum(np.square(along).mean(1) * (1 + np.sqrt(2 / along.shape[1])), stripes)
    return np.asarray(ground.noise * size[:, None] * (ground.axes @ (along / np.maximum(both, 1e-30)[:, None])))


def _own(slow: FloatArray, fast: FloatArray, runs: list[slice]) -> FloatArray:
    """Of slow changes (C, n) what each band has for itself, where stripes' fast ones deviate by (C, 1).

    As far as they stand out of what independent stripes have, the bands' common patterns are the ground's, a smile's or
    the light's.
    """
    number, n = slow.shape
    kept = float((PARABOLA**2).sum())  # of white stripes' variance
    if n > MANY * SLOW:
        unit = np.maximum(fast * np.sqrt(kept / (1 - kept)), 1e-30)
        alone = slow / unit
        white, modes = alone / np.sqrt(n), max(1.0, kept * n)
    else:
        without = _fast(np.eye(n), runs).T
        left, sizes, _ = np.linalg.svd(np.eye(n) - without)
        modes = max(1, int((sizes > 0.5).sum()))
        unit = np.maximum(fast / np.sqrt(np.square(without).sum() / n), 1e-30)
        alone = slow / unit
        white = alone @ (left[:, :modes] / sizes[:modes]) / np.sqrt(modes)
    values, patterns = np.linalg.eigh(white @ white.T)
    edge = noise_edge(number, modes)
    ground = np.where(values > SHARED * edge, 1.0, np.maximum(1 - edge / np.maximum(values, 1e-30), 0))
    shared = patterns[:, ground > 0]
    return slow - unit * (shared @ (ground[ground > 0, None] * (shared.T @ alone)))


def _parabola(width: int) -> FloatArray:
    """(width, width): values to those of the parabola through them."""
    powers = np.vander(np.linspace(-1, 1, width), 3)
    return np.asarray(powers @ np.linalg.pinv(powers))


#: Weights of the value in the middle.
PARABOLA = _parabola(SLOW)[SLOW // 2]


def _fast(lines: FloatArray, runs: list[slice]) -> FloatArray:
    """What changes from one line to the next; near the ends of a run less the parabola of the outermost lines.

    scipy.signal has this filter; to import it takes a second of processor time.
    """
    fast = np.zeros_like(lines)
    for run in runs:
        some = lines[:, run]
        width = min(SLOW, some.shape[1] - 1 + some.shape[1] % 2)
        if width >= LEAST_SIDE - 1:
            parabola, half = _parabola(width), width // 2
            slow = correlate1d(some, parabola[half], axis=1)
            slow[:, :half] = some[:, :width] @ parabola[:half].T
            slow[:, -half:] = some[:, -width:] @ parabola[-half:].T
            fast[:, run] = some - slow
    return fast


def _lasting(lines: _Lines, times: FloatArray) -> bool:
    """Whether both halves of the lines have the same, as far as noise lets them: detectors do, the ground not.

    With stripes of variance (t - 1) n, n that of the noise of a line's mean, halves correlate by (t - 1) / (t + 1).
    """
    clear = times > CLEAR
    if not clear.any():
        return False
    one, other = (_fast(half, lines.runs)[clear] for half in lines.halves())
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    found = (one * other).sum(1) / np.maximum(lengths, 1e-30)
    expected = (times[clear] - 1) / (times[clear] + 1)
    return bool(found.mean() >= LASTING * expected.mean())


def _within(data: NDArray[np.floating], mask: NDArray[np.bool_]) -> NDArray[np.floating]:
    """Valid spectra (C, n) of a strip (C, h, w) less their columns' and rows' means, in which its stripes are."""
    out = data
    for axis in (1, 2):
        count = np.maximum(mask.sum(axis - 1, keepdims=True), 1)
        out = out - (out * mask).sum(axis, keepdims=True) / count
    return out[:, mask]


def _rank(lines: FloatArray) -> float:
    """How many patterns lines (k, n) of bands have in effect: k n / (k + n) where each band errs on its own."""
    if len(lines) < 2:
        return 0.0
    unit = lines / (np.linalg.norm(lines, axis=1, keepdims=True) + 1e-30)
    energy = np.linalg.svd(unit, compute_uv=False) ** 2
    return float(energy.sum() ** 2 / (energy**2).sum())
