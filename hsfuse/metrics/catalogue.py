"""What each metric is: title, formula, source, range, unit and direction, by the key it has in every result."""

from __future__ import annotations

from hsfuse.metrics.info import MetricInfo
from hsfuse.metrics.noreference_entries import NO_REFERENCE
from hsfuse.metrics.reference_entries import REFERENCE

_CONSISTENT = ("rmse", "relative_rmse", "sam", "sam_median", "sam_p95", "cc", "dd")
_INPUTS = {
    "hsi_": ("with the LRHSI", "fused cube degraded to the LRHSI's grid against the LRHSI"),
    "msi_": ("with the MSI", "MSI synthesised from the fused cube by the SRF against the MSI"),
}


def _consistency(base: MetricInfo, prefix: str) -> MetricInfo:
    """The entry of a pixelwise metric used as consistency with one input."""
    which, what = _INPUTS[prefix]
    return MetricInfo(
        prefix + base.key,
        f"Consistency {which}: {base.title}",
        base.formula.replace("fused", "synthesised").replace("reference", "observed"),
        f"Wald, Ranchin and Mangolini 1997, PE&RS 63(6), first property; {base.source}",
        base.range,
        base.unit,
        base.direction,
        f"{what[0].upper()}{what[1:]}. {base.note}".strip(),
    )


_ENTRIES = {info.key: info for info in REFERENCE + NO_REFERENCE}

CATALOGUE: dict[str, MetricInfo] = _ENTRIES | {
    prefix + key: _consistency(_ENTRIES[key], prefix) for prefix in _INPUTS for key in _CONSISTENT
}
