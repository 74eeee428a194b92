"""Quality of fused cubes, with and without a reference; every metric has an entry in `CATALOGUE`."""

from hsfuse.metrics.catalogue import CATALOGUE
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
from hsfuse.metrics.info import MetricInfo
from hsfuse.metrics.noreference import NoReferenceMetrics, d_lambda, d_lambda_khan, d_s, d_sr, qnr
from hsfuse.metrics.reference import ReferenceMetrics
from hsfuse.metrics.result import MetricResult
from hsfuse.metrics.windows import Tile, tiles

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
