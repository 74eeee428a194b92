"""The one observation model: how an HRHSI becomes an LRHSI and an MSI.

    LRHSI  X = (x * K) decimated by s        (per band)
    MSI    Y = R x                           (per pixel)

Simulation, network, loss, classical methods and metrics all use the `ObservationModel` below, so that blur, decimation
and response are written once.

Letters used throughout hsfuse
    B  batch          C  hyperspectral bands      H, W  high-resolution rows, columns
    s  ratio    c  multispectral bands      h, w  low-resolution rows, columns (H / s, W / s)
    R  SRF (c, C)     K  subspace dimension       E     subspace basis (C, K)
    X  LRHSI          Y  MSI                      x     HRHSI
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import ceil, inf, pi, sqrt
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hsfuse.core.errors import SettingError
from hsfuse.physics.optics import centred_phase, centred_taps, elliptic_gaussian, footprint, gaussian, keys_weights

#: A PSF whose taps lie half a pixel beside its middle has at least this width; at any ratio it has it at this MTF.
LEAST_SIGMA, LARGEST_MTF = 0.02, 0.999
#: An LR pixel is valid when at least this share of its PSF's weight lies on valid pixels.
MIN_PSF_WEIGHT = 0.99


@dataclass(frozen=True)
class Psf:
    """A point spread function: `kernel` (k, k) on HR pixels, sum 1, its centre on the LR pixel's centre."""

    kernel: NDArray[np.float64]
    label: str = "free kernel"

    def __post_init__(self) -> None:
        if self.kernel.ndim != 2 or self.kernel.shape[0] != self.kernel.shape[1] or self.kernel.sum() <= 0:
            raise SettingError(f"the PSF kernel has shape {self.kernel.shape}, wanted square with a positive sum")
        object.__setattr__(self, "kernel", self.kernel / self.kernel.sum())

    def __repr__(self) -> str:
        return f"Psf({self.label})"

    @property
    def size(self) -> int:
        """Taps along one axis."""
        return self.kernel.shape[0]

    def record(self) -> dict[str, Any]:
        """For JSON: the label and the separable terms, [row taps, column taps] each."""
        terms = [[taps.round(9).tolist() for taps in pair] for pair in self.separable_terms()]
        return {"label": self.label, "terms": terms}

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Psf:
        """What `record` has written; SettingError for anything else."""
        try:
            kernel = sum(np.outer(*(np.asarray(taps, np.float64) for taps in pair)) for pair in record["terms"])
            return cls(np.asarray(kernel), str(record["label"]))
        except (KeyError, TypeError, ValueError) as error:
            raise SettingError(f"the record of a PSF can't be read: {error}") from error

    def separable_terms(self) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Pairs (column taps, row taps) whose outer products sum to the kernel, by SVD; one pair for a Gaussian."""
        return self._terms

    @cached_property
    def _terms(self) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        u, d, vt = np.linalg.svd(self.kernel)
        rank = int((d > 1e-12 * d[0]).sum())
        return [(u[:, i] * sqrt(d[i]), vt[i] * sqrt(d[i])) for i in range(rank)]

    def with_few_terms(self, error: float = 1e-3) -> Psf:
        """The PSF of the fewest separable terms whose kernel is off by at most a share `error` (root of squares).

        A turned Gaussian has about twenty, of which five are enough for any estimate's accuracy.

        >>> taps = np.outer([1, 2, 1], [1, 2, 1]) / 16 + 1e-5 * np.random.default_rng(0).normal(size=(3, 3))
        >>> len(Psf(taps).separable_terms()), len(Psf(taps).with_few_terms().separable_terms())
        (3, 1)
        """
        u, d, vt = np.linalg.svd(self.kernel)
        left = np.sqrt(np.cumsum(d[::-1] ** 2)[::-1] / (d**2).sum())  # by the terms from each one on
        rank = max(1, int((left > error).sum()))
        return Psf((u[:, :rank] * d[:rank]) @ vt[:rank], self.label)

    @cached_property
    def centre(self) -> tuple[float, float]:
        """Its centre of gravity (y, x) in HR pixels from the middle; exactly 0 where that is rounding."""
        taps = centred_taps(self.size)
        return round(float(self.kernel.sum(1) @ taps), 6) + 0.0, round(float(self.kernel.sum(0) @ taps), 6) + 0.0

    def mtf(self, s: int) -> tuple[float, float]:
        """MTF at the LR Nyquist frequency 1 / (2 s), along columns (y) and along rows (x)."""
        wave = np.exp(-1j * pi * centred_taps(self.size) / s)
        return float(abs(self.kernel.sum(1) @ wave)), float(abs(self.kernel.sum(0) @ wave))


def gaussian_psf(sigma: float, s: int, phase: float | None = None, size: int | None = None) -> Psf:
    """Gaussian PSF of width `sigma` HR pixels; `size` taps, by default four sigma to each side.

    The taps sit on HR pixel centres, so their number is even where the phase falls between two pixels.

    >>> psf = gaussian_psf(sigma=1.7, s=4)
    >>> psf.size, round(float(psf.kernel.sum()), 6)
    (14, 1.0)
    >>> [round(value, 2) for value in psf.mtf(4)]
    [0.41, 0.41]
    """
    if not 0 < sigma < inf:
        raise SettingError(f"the PSF's sigma is {sigma:g} pixels, wanted a positive number")
    if size is None:
        size = _taps(sigma, s, phase)
    g = gaussian(centred_taps(size), sigma)
    if g.sum() ** 2 == 0:
        raise SettingError(
            f"a PSF of sigma {sigma:.3g} MSI pixels is so narrow that it falls between their centres; wanted at least "
            f"{LEAST_SIGMA:g}: an MTF of at most {LARGEST_MTF:g}"
        )
    return Psf(np.outer(g, g), f"Gaussian, sigma {sigma:.4g} HR pixels, {size} x {size} taps")


def _taps(sigma: float, s: int, phase: float | None) -> int:
    """Four sigma to each side, an odd number where the phase is a whole pixel."""
    phase = centred_phase(s) if phase is None else phase
    return 2 * ceil(4 * sigma) + round(2 * phase + 1) % 2


def elliptic_psf(sigma_y: float, sigma_x: float, theta_deg: float, s: int, phase: float | None = None) -> Psf:
    """Gaussian PSF of two widths in HR pixels; `theta_deg` turns its x axis from rows' direction towards +y (down).

    Taps as for `gaussian_psf`, by the larger width. SettingError unless both widths are positive.
    """
    if not 0 < min(sigma_y, sigma_x) <= max(sigma_y, sigma_x) < inf:
        raise SettingError(f"the PSF's widths are {sigma_y:g} and {sigma_x:g} pixels, wanted positive numbers")
    size = _taps(max(sigma_y, sigma_x), s, phase)
    t = centred_taps(size)
    cos, sin = np.cos(np.radians(theta_deg)), np.sin(np.radians(theta_deg))
    kernel = elliptic_gaussian(np.array([[cos, sin], [-sin, cos]]) * [sigma_y, sigma_x], t, t)
    label = f"Gaussian, sigma {sigma_y:.4g} (y) and {sigma_x:.4g} (x) HR pixels turned by {theta_deg:.4g} degrees"
    return Psf(kernel, f"{label}, {size} x {size} taps")


def box_psf(s: int, phase: float | None = None, sigma: float = 0.0) -> Psf:
    """A square detector of one LR pixel, blurred by a Gaussian of `sigma` HR pixels (0: a plain mean of the pixels)."""
    if not 0 <= sigma < inf:
        raise SettingError(f"the blur of a box PSF has a sigma of {sigma:g} pixels, wanted 0 or more")
    odd = round(2 * (centred_phase(s) if phase is None else phase) + 1) % 2
    size = 2 * ceil((s - odd) / 2 + 4 * sigma) + odd
    rows = footprint(centred_taps(size), s, sigma)
    blur = f", blurred by a Gaussian of sigma {sigma:.4g} HR pixels" if sigma else ""
    return Psf(np.outer(rows, rows), f"box of one LR pixel{blur}, {size} x {size} taps")


def _symmetric(index: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Fold indices outside 0..n-1 back by mirroring with the border pixel repeated."""
    index = np.mod(index, 2 * n)
    return np.where(index < n, index, 2 * n - 1 - index)


def decimation_matrix(n: int, taps: NDArray[np.float64], s: int, phase: float) -> NDArray[np.float64]:
    """Blur and decimation along one axis as a matrix (n / s, n), symmetric border."""
    if n % s:
        raise SettingError(f"{n} pixels can't be decimated by {s}")
    first = phase - (len(taps) - 1) / 2
    if abs(first - round(first)) > 1e-9:
        raise SettingError(
            f"a PSF of {len(taps)} taps can't be centred at phase {phase:g}: with ratio {s} and a centred phase the "
            f"number of taps must be {'odd' if s % 2 else 'even'}"
        )
    rows = np.arange(n // s)
    columns = _symmetric(rows[:, None] * s + round(first) + np.arange(len(taps)), n)
    matrix = np.zeros((n // s, n))
    np.add.at(matrix, (rows[:, None], columns), taps[None])
    return matrix


def interpolation_matrix(n: int, s: int, phase: float) -> NDArray[np.float64]:
    """Cubic convolution from n LR to n s HR pixels as a matrix (n s, n), border pixel repeated (Keys 1981)."""
    position = (np.arange(n * s) - phase) / s
    base = np.floor(position).astype(np.int64)
    matrix = np.zeros((n * s, n))
    for k, weight in enumerate(keys_weights(position - base), -1):
        np.add.at(matrix, (np.arange(n * s), np.clip(base + k, 0, n - 1)), weight)
    return matrix


#: Rows of a matrix for an axis that are applied together, in LR pixels and at least in HR pixels: what of it is zero is
#: mostly left out, and products stay large enough to be quick. Columns that are decimated go together in wider bands.
BAND, LEAST_BAND, WIDER = 8, 32, 2
#: Where the part of a matrix that isn't zero begins and ends, and that part, for columns turned.
Band = tuple[slice, Tensor]
#: What single precision leaves uncertain of a sum of matrices, relative to its largest part.
SINGLE = 1e-7


def _band(rows: Tensor, axis: int) -> Band:
    used = rows.any(0).nonzero()[:, 0].tolist() or [0]
    place = slice(used[0], used[-1] + 1)
    return place, (rows[:, place].T if axis else rows[:, place]).contiguous()


def _along_rows(terms: list[tuple[list[Band], Tensor]]) -> Tensor:
    """`_along` rows of images (B, H, C W), which are long: nothing is copied. Without gradients."""
    heights = [len(part) for _, part in terms[0][0]]
    like = terms[0][1]
    made = like.new_empty(len(like), sum(heights), like.shape[2])
    for number, (bands, x) in enumerate(terms):
        for (place, part), rows in zip(bands, made.split(heights, 1), strict=True):
            rows.baddbmm_(part.expand(len(x), -1, -1), x[:, place], beta=min(number, 1))
    return made


def _along(axis: int, terms: list[tuple[list[Band], Tensor]]) -> Tensor:
    """The sum of matrices, band by band, along rows (0) or columns (1) of as many images (.., H, W)."""

    def applied(band: Band, x: Tensor) -> Tensor:
        place, part = band
        return x[..., place] @ part if axis else part @ x[..., place, :]

    images = [x for _, x in terms]
    rows = zip(*[bands for bands, _ in terms], strict=True)
    return torch.cat(
        [sum(map(applied, bands[1:], images[1:]), applied(bands[0], images[0])) for bands in rows], axis - 2
    )


class ObservationModel(nn.Module):
    """HRHSI (B, C, H, W) to LRHSI (B, C, h, w) and MSI (B, c, H, W); linear, without trainable parameters.

    `srf` is R (c, C), `psf` the kernel, `ratio` s, `phase` the HR coordinate of LR pixel 0's centre (default centred:
    (s - 1) / 2; the CAVE protocol's is 0). Borders are mirrored with the border pixel repeated. Blur and decimation
    are products with one small matrix per axis and separable term of the PSF, so that the adjoint is exact.
    `msi_weights` (c,), at most 1 (default), say how far each MSI band's values are believed: its noise counts as
    1 / weight times as large, for instance where the LRHSI covers a part of the band's response only.

    >>> model = ObservationModel(np.full((1, 3), 1 / 3), gaussian_psf(1.7, 4), ratio=4)
    >>> lrhsi, msi = model(torch.full((1, 3, 32, 24), 0.2))
    >>> tuple(lrhsi.shape), tuple(msi.shape)
    ((1, 3, 8, 6), (1, 1, 32, 24))
    >>> bool(torch.allclose(lrhsi, torch.tensor(0.2)))  # a flat field stays flat
    True
    """

    srf: Tensor
    msi_weights: Tensor

    def __init__(
        self,
        srf: NDArray | Tensor,
        psf: Psf,
        ratio: int,
        phase: float | None = None,
        msi_weights: NDArray | Tensor | None = None,
    ) -> None:
        super().__init__()
        if ratio < 2:
            raise SettingError(f"the ratio is {ratio}, wanted a whole number of at least 2")
        self.ratio = int(ratio)
        self.phase = centred_phase(self.ratio) if phase is None else float(phase)
        self.psf = psf
        self._terms = psf.separable_terms()
        decimation_matrix(self.ratio, self._terms[0][0], self.ratio, self.phase)  # raises on a parity that can't be
        self.register_buffer("srf", torch.as_tensor(srf, dtype=torch.float32))
        weights = np.ones(len(self.srf)) if msi_weights is None else np.asarray(msi_weights)
        self.register_buffer("msi_weights", torch.as_tensor(weights, dtype=torch.float32), persistent=False)
        self._matrices: dict[tuple, Any] = {}

    @property
    def symmetric(self) -> bool:
        """Whether turned and mirrored images obey the same model: phase centred, kernel as symmetric as the square."""
        k = self.psf.kernel
        return self.phase == centred_phase(self.ratio) and np.allclose(k, k.T) and np.allclose(k, k[::-1])

    def with_srf(self, srf: NDArray | Tensor) -> ObservationModel:
        """The same blur and decimation, whose matrices both keep, with another response, e.g. R E of a subspace."""
        weights = self.msi_weights.cpu() if len(srf) == len(self.msi_weights) else None
        other = ObservationModel(srf, self.psf, self.ratio, self.phase, weights).to(self.srf.device)
        other._matrices = self._matrices
        return other

    def spatial(self, x: Tensor, by_rows: bool = False) -> Tensor:
        """Blur and decimate: (B, C, H, W) -> (B, C, h, w).

        `by_rows`, without gradients: (B, H, C, W) -> (B, h, C, w). What is done to some rows at a time finds them
        together in memory so.
        """
        return self._apply_axes(x, "down", by_rows=by_rows)

    def blur(self, x: Tensor) -> Tensor:
        """What LR pixels anywhere would see: (B, C, H, W) -> (B, C, H, W).

        Value i along an axis is of one whose centre lies at the HR coordinate i + `blur_phase`, as `phase` is LR pixel
        0's.
        """
        return self._apply_axes(x, "blur")

    @property
    def blur_phase(self) -> float:
        """0 where the PSF's taps lie about an HR pixel, -1/2 where they lie about the border of two."""
        return 0.0 if self.psf.size % 2 else -0.5

    def spatial_adjoint(self, y: Tensor, by_rows: bool = False) -> Tensor:
        """Transpose of `spatial`: (B, C, h, w) -> (B, C, H, W), `by_rows` (B, h, C, w) -> (B, H, C, W)."""
        return self._apply_axes(y, "down", transpose=True, by_rows=by_rows)

    def leading_matrix(self, axis: int, n: int) -> NDArray[np.float64]:
        """Blur and decimation of n pixels along an axis by the PSF's leading separable term: (n / s, n)."""
        return decimation_matrix(n, self._terms[0][axis], self.ratio, self.phase)

    def leading_axes(self, axis: int, low: Tensor) -> tuple[Tensor, Tensor]:
        """Eigenvalues (n,) and eigenvectors (n, n) of that matrix times its transpose, for an LR image (.., h, w)."""
        n = low.shape[axis - 2]
        keys = [("axes", part, axis, n, low.dtype, low.device) for part in (0, 1)]
        if keys[1] not in self._matrices:
            matrix = torch.as_tensor(self.leading_matrix(axis, n * self.ratio))
            values, vectors = torch.linalg.eigh(matrix @ matrix.T)
            with torch.inference_mode(False):
                self._matrices.update(zip(keys, (values.clamp_min(0).to(low), vectors.to(low)), strict=True))
        return self._matrices[keys[0]], self._matrices[keys[1]]

    def gram(self, low: Tensor) -> list[tuple[Tensor, Tensor]]:
        """S S' for LR images (.., h, w) as matrices along rows (h, h) and columns (w, w), pairs of which are summed.

        Of a PSF of several separable terms every two have a product; as few pairs are made of these as differ from
        them by no more than single precision.
        """
        sizes = low.shape[-2:]
        key = ("gram", *sizes, low.dtype, low.device)
        if key not in self._matrices:
            sides = []
            for axis, n in enumerate(sizes):
                terms = [decimation_matrix(n * self.ratio, t[axis], self.ratio, self.phase) for t in self._terms]
                sides.append(np.stack([(a @ b.T).ravel() for a in terms for b in terms], 1))
            (rows, left), (cols, right) = map(np.linalg.qr, sides)
            u, d, vt = np.linalg.svd(left @ right.T, full_matrices=False)
            kept = d > SINGLE * d[0]
            found = (rows @ u[:, kept] * d[kept], cols @ vt[kept].T)
            with torch.inference_mode(False):
                pairs = [torch.as_tensor(m.T).unflatten(1, (n, n)).to(low) for m, n in zip(found, sizes, strict=True)]
                self._matrices[key] = list(zip(*pairs, strict=True))
        return self._matrices[key]

    def spatial_squared(self, x: Tensor) -> Tensor:
        """`spatial` with squared weights, as independent pixels' variances add up: (B, C, H, W) -> (B, C, h, w)."""
        terms = [
            [self._matrix("down", term, axis, n, x.dtype, x.device) for axis, n in enumerate(x.shape[-2:])]
            for term in range(len(self._terms))
        ]
        pairs = [(y * other_y, x_ * other_x) for y, x_ in terms for other_y, other_x in terms]
        return torch.stack([rows @ x @ cols.T for rows, cols in pairs]).sum(0)

    def upsample(self, y: Tensor) -> Tensor:
        """Cubic interpolation at the model's phase and the PSF's centre: (B, C, h, w) -> (B, C, H, W)."""
        return self._apply_axes(y, "up")

    def spectral(self, x: Tensor) -> Tensor:
        """Apply the response: (B, C, H, W) -> (B, c, H, W)."""
        return torch.einsum("kc,bchw->bkhw", self.srf.to(x.dtype), x)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """HRHSI (B, C, H, W) -> (LRHSI (B, C, h, w), MSI (B, c, H, W))."""
        return self.spatial(x), self.spectral(x)

    def _apply_axes(self, x: Tensor, kind: str, transpose: bool = False, by_rows: bool = False) -> Tensor:
        """One matrix per axis for each term, summed; first along the axis by which less is left for the other."""
        first = int(transpose or kind == "up")
        terms, sides = range(1 if kind == "up" else len(self._terms)), (x.shape[1 if by_rows else -2], x.shape[-1])

        def along(axis: int, images: dict[int, Tensor]) -> Tensor:
            together = by_rows and axis == 0
            parts = [
                (self._bands(kind, term, axis, sides[axis], x, transpose), image.flatten(2) if together else image)
                for term, image in images.items()
            ]
            return _along_rows(parts).unflatten(2, (x.shape[2], -1)) if together else _along(axis, parts)

        return along(1 - first, {term: along(first, {term: x}) for term in terms})

    def _bands(self, kind: str, term: int, axis: int, n: int, like: Tensor, transpose: bool) -> list[Band]:
        """A matrix for an axis of n pixels as its bands; one on a GPU and for small images."""
        n *= self.ratio if transpose else 1
        key = (kind, term, axis, n, like.dtype, like.device, transpose)
        if key not in self._matrices:
            matrix = self._matrix(*key[:-1])
            matrix = matrix.T if transpose else matrix
            block = max(BAND, LEAST_BAND // self.ratio)
            if transpose or kind == "up":
                block *= self.ratio
            elif axis:
                block *= WIDER
            if like.device.type != "cpu" or len(matrix) <= 2 * block:
                block = len(matrix)
            with torch.inference_mode(False):
                self._matrices[key] = [_band(part, axis) for part in matrix.split(block)]
        return self._matrices[key]

    def _matrix(self, kind: str, term: int, axis: int, n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        key = (kind, term, axis, n, dtype, device)
        if key not in self._matrices:
            if kind == "up":
                matrix = interpolation_matrix(n, self.ratio, self.phase + self.psf.centre[axis])
            else:
                every = (self.ratio, self.phase) if kind == "down" else (1, self.blur_phase)
                matrix = decimation_matrix(n, self._terms[term][axis], *every)
            with torch.inference_mode(False):  # kept for training, too, whoever asks first
                self._matrices[key] = torch.as_tensor(matrix, dtype=dtype, device=device)
        return self._matrices[key]

    def extra_repr(self) -> str:
        """What torch's modules show of themselves."""
        return f"{self.srf.shape[1]} HSI bands, {self.describe()}"

    def describe(self) -> str:
        """One line for people and provenance."""
        return f"ratio {self.ratio}, phase {self.phase:g}, PSF {self.psf.label}, {self.srf.shape[0]} MSI bands"
