"""How far an LRHSI lies beside its MSI: found to a few hundredths of an LR pixel, judged, and mapped over the scene."""

from hsfuse.registration.estimate import Shift, estimate_shift
from hsfuse.registration.field import Drift, LocalShift
from hsfuse.registration.scene import SHIFT_LIMIT, Pair, Verdict, judge, register

__all__ = ["SHIFT_LIMIT", "Drift", "LocalShift", "Pair", "Shift", "Verdict", "estimate_shift", "judge", "register"]
