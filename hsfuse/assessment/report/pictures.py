"""Arrays as pictures: percentile stretch, colour maps, PNG and JPEG bytes."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from math import log
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Bytes = NDArray[np.uint8]

#: Percentiles that become black and white.
PERCENTILES = (1.0, 99.0)
#: Median, from black (0) to white (1), below which a picture is brightened, and the least power for that.
DARK, LEAST_POWER = 0.25, 0.35
#: Pictures with more pixels than this are JPEG: PNG keeps single pixels crisp but is several times larger.
PNG_PIXELS = 200 * 200
_INVALID = 128
_NAN_INDEX = 255


def stretch_limits(pictures: Sequence[Floats]) -> tuple[Floats, Floats]:
    """Black and white level per channel (3,) for pictures (3, h, w) to be shown alike; NaN doesn't count."""
    values = np.concatenate([p.reshape(p.shape[0], -1) for p in pictures], axis=1)
    values = values[:, np.isfinite(values).all(axis=0)]
    if values.shape[1] == 0:
        return np.zeros(3), np.ones(3)
    low, high = np.percentile(values, PERCENTILES, axis=1)
    return low, np.where(high > low, high, low + 1)


def power_of(pictures: Sequence[Floats], limits: tuple[Floats, Floats]) -> float:
    """The power of values from 0 to 1 that makes dark pictures (3, h, w), such as of water, visible; 1 for others.

    It brings the median to `DARK`, as far as `LEAST_POWER` does.
    """
    low, high = (level[:, None, None] for level in limits)
    scaled = np.concatenate([np.clip((p - low) / (high - low), 0, 1).mean(axis=0).ravel() for p in pictures])
    known = scaled[np.isfinite(scaled)]
    median = float(np.median(known)) if known.size else 1.0
    return 1.0 if median >= DARK else round(max(LEAST_POWER, log(DARK) / log(max(median, 1e-6))), 2)


def to_rgb(picture: Floats, limits: tuple[Floats, Floats], power: float = 1.0) -> Bytes:
    """Picture (3, h, w) as 8 bits (h, w, 3) between the limits, raised to a power; invalid pixels are grey."""
    low, high = (level[:, None, None] for level in limits)
    scaled = np.clip((picture - low) / (high - low), 0, 1) ** power * 255
    valid = np.isfinite(scaled).all(axis=0)
    return np.moveaxis(np.where(valid, np.round(np.nan_to_num(scaled)), _INVALID).astype(np.uint8), 0, 2)


def map_uri(values: Floats, limits: tuple[float, float], name: str) -> str:
    """Map (h, w) through a matplotlib colour map as a data: address for HTML; NaN is transparent."""
    from PIL import Image

    low, high = limits
    scaled = (values - low) / (high - low if high > low else 1)
    index = np.round(np.nan_to_num(np.clip(scaled, 0, 1)) * (_NAN_INDEX - 1)).astype(np.uint8)
    image = Image.fromarray(np.where(np.isfinite(values), index, np.uint8(_NAN_INDEX)))
    image.putpalette(
        np.concatenate([_palette(name), [[0, 0, 0]]]).astype(np.uint8).tobytes()
    )  # makes it a palette image
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True, transparency=_NAN_INDEX)
    return _uri("image/png", out.getvalue())


def _palette(name: str) -> Bytes:
    """The colours (255, 3) of a map from its low to its high end, evenly spaced."""
    from matplotlib import colormaps

    return colormaps[name](np.linspace(0, 1, _NAN_INDEX), bytes=True)[:, :3]


def palette_hex(name: str) -> str:
    """The colours of a map from low to high as hexadecimal digits, six a colour."""
    return _palette(name).astype(np.uint8).tobytes().hex()


def colour_stops(name: str, count: int = 16) -> list[str]:
    """Colours of a matplotlib colour map from low to high, as CSS."""
    from matplotlib import colormaps

    return [f"#{r:02x}{g:02x}{b:02x}" for r, g, b, _ in colormaps[name](np.linspace(0, 1, count), bytes=True)]


def encode(pixels: Bytes) -> tuple[str, bytes]:
    """Pixels (h, w, 3) as (media type, bytes): PNG when small, else JPEG."""
    from PIL import Image

    out = io.BytesIO()
    image = Image.fromarray(pixels)
    if pixels.shape[0] * pixels.shape[1] <= PNG_PIXELS:
        image.save(out, "PNG", optimize=True)
        return "image/png", out.getvalue()
    image.save(out, "JPEG", quality=88)
    return "image/jpeg", out.getvalue()


def data_uri(pixels: Bytes) -> str:
    """Pixels (h, w, 3) as a data: address for HTML."""
    return _uri(*encode(pixels))


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
