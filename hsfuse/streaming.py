"""Tile by tile from disk to disk, in memory that doesn't grow with the scene's height."""

from __future__ import annotations

import json
from math import lcm
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from hsfuse.cube import BoolArray, FloatArray
from hsfuse.errors import SettingError
from hsfuse.fusers import Fuser
from hsfuse.io import CubeWriter
from hsfuse.patches import fill_invalid
from hsfuse.scene import ScenePair
from hsfuse.tiling import Blender, Span, TileGrid, lr_mask_to_hr, tile_pairs, window_of

#: Largest side of a GeoTIFF tile that the writer is asked for.
LARGEST_BLOCK = 256


def plan_tiles(pair: ScenePair, halo: int, tile: int, overlap: int) -> TileGrid:
    """Tiles in whole LR pixels and whole blocks of the output file, as near to `tile` and `overlap` as that allows."""
    s = pair.scale
    if tile < 4 * s or overlap < 0:
        raise SettingError(f"a tile of {tile} with overlap {overlap} pixels: wanted at least {4 * s}, 0")
    whole = lcm(16, s)
    stride = tile // whole * whole or tile // s * s
    overlap = min(-(-overlap // s) * s, stride)
    return TileGrid(pair.alignment.full, s, stride, overlap, halo * s)


def write_fused(
    pair: ScenePair,
    fuser: Fuser,
    tiles: TileGrid,
    output: Path,
    *,
    dtype: str,
    driver: str,
    overwrite: bool,
    provenance: dict[str, Any],
    device: str,
) -> float:
    """Fuse all tiles into the file; returns the share of valid pixels."""
    scale, offset = storage_scale(pair, dtype)
    blender = Blender(tiles, len(pair.hsi_bands))
    tags = {"PROVENANCE": json.dumps(provenance, default=str)}
    valid = 0
    with (
        CubeWriter(
            output,
            pair.alignment.hr_grid,
            pair.spectrum,
            bands=len(pair.hsi_bands),
            dtype=dtype,
            scale=scale,
            offset=offset,
            driver=driver,
            tags=tags,
            overwrite=overwrite,
            block=_block(tiles),
        ) as writer,
        tqdm(total=len(tiles), desc="fusing", unit="tile", disable=None, leave=False) as bar,
    ):
        for rows, cols in tile_pairs(tiles):
            data, mask = fuse_tile(pair, fuser, rows, cols, device)
            done = blender.add(rows, cols, data)
            mask = mask[: done.shape[1], : done.shape[2]]
            valid += int(mask.sum())
            writer.write(window_of(rows.finished, cols.finished), np.ascontiguousarray(done), mask)
            bar.update()
    return valid / (tiles.shape[0] * tiles.shape[1])


def fuse_tile(pair: ScenePair, fuser: Fuser, rows: Span, cols: Span, device: str) -> tuple[FloatArray, BoolArray]:
    """Fused support of one tile (C, n, m) and its mask (n, m).

    Reflectance is not negative; where the LRHSI itself is below zero, the fused pixels under it may be as low.
    """
    s = pair.scale
    low = pair.read_lr(window_of(rows.read, cols.read, s))
    high = pair.read_hr(window_of(rows.read, cols.read))
    mask = lr_mask_to_hr(low.mask, s) & high.mask
    inner = _inside(rows), _inside(cols)
    if not mask[inner].any():
        return np.zeros((low.data.shape[0], *mask[inner].shape), np.float32), mask[inner]
    x = torch.from_numpy(fill_invalid(low.data, low.mask))[None].to(device)
    y = torch.from_numpy(fill_invalid(high.data, high.mask))[None].to(device)
    with torch.inference_mode():
        predicted = fuser.predict(x, y)[0][(slice(None), *inner)]
    fused: FloatArray = np.ascontiguousarray(predicted.cpu().numpy())
    np.maximum(fused, _floor(low.data, s)[:, *inner], out=fused)
    return fused, mask[inner]


def _floor(lrhsi: FloatArray, s: int) -> FloatArray:
    """Smallest value that a fused pixel may have, from its own LR pixel so that tiles don't matter: (C, s h, s w)."""
    if lrhsi.min() >= 0:
        return np.broadcast_to(np.float32(0), (1, lrhsi.shape[1] * s, lrhsi.shape[2] * s))
    return np.minimum(lrhsi, 0).repeat(s, 1).repeat(s, 2)


def _inside(span: Span) -> slice:
    """The support inside what was read."""
    return slice(span.support[0] - span.read[0], span.support[1] - span.read[0])


def storage_scale(pair: ScenePair, dtype: str) -> tuple[float, float]:
    """Scale and offset on disk: the HSI's own where its type is kept, 1e-4 where floats become integers, else 1, 0."""
    if dtype == pair.hsi.dtype:
        return pair.hsi.scale, pair.hsi.offset
    if np.issubdtype(np.dtype(dtype), np.integer):
        integer_input = np.issubdtype(np.dtype(pair.hsi.dtype), np.integer)
        return (pair.hsi.scale, pair.hsi.offset) if integer_input else (1e-4, 0.0)
    return 1.0, 0.0


def _block(tiles: TileGrid) -> int:
    """Side of the file's blocks: a multiple of 16 that divides the stride, so that no block is written twice."""
    sides = [n for n in range(16, LARGEST_BLOCK + 1, 16) if tiles.stride % n == 0]
    return sides[-1] if sides else LARGEST_BLOCK
