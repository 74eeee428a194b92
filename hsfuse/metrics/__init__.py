"""Quality of fused cubes, with and without a reference; every metric has an entry in `CATALOGUE`.

Functions take whole cubes (C, H, W), the fused one first; `ReferenceMetrics` and `NoReferenceMetrics` take pieces.

>>> import numpy as np
>>> from hsfuse import metrics
>>> truth = np.full((3, 16, 16), 0.5)
>>> round(metrics.psnr(truth + 0.05, truth), 3), round(metrics.sam_degrees(2 * truth, truth), 3)
(26.021, 0.0)
"""

from hsfuse.metrics.catalogue import CATALOGUE, MetricInfo
from hsfuse.metrics.functions import (
    cc,
    cc_per_band,
    dd,
    ergas,
    psnr,
    psnr_global,
    psnr_per_band,
    q2n,
    relative_rmse,
    rmse,
    rmse_map,
    rmse_per_band,
    sam_degrees,
    sam_map,
    scc,
    scc_per_band,
    ssim,
    ssim_per_band,
    uiqi,
    uiqi_per_band,
)
from hsfuse.metrics.noreference import NoReferenceMetrics, d_lambda, d_lambda_khan, d_s, d_sr, qnr
from hsfuse.metrics.reference import ReferenceMetrics
from hsfuse.metrics.windows import MetricResult, Tile, tiles

__all__ = [
    "CATALOGUE",
    "MetricInfo",
    "MetricResult",
    "NoReferenceMetrics",
    "ReferenceMetrics",
    "Tile",
    "cc",
    "cc_per_band",
    "d_lambda",
    "d_lambda_khan",
    "d_s",
    "d_sr",
    "dd",
    "ergas",
    "psnr",
    "psnr_global",
    "psnr_per_band",
    "q2n",
    "qnr",
    "relative_rmse",
    "rmse",
    "rmse_map",
    "rmse_per_band",
    "sam_degrees",
    "sam_map",
    "scc",
    "scc_per_band",
    "ssim",
    "ssim_per_band",
    "tiles",
    "uiqi",
    "uiqi_per_band",
]
