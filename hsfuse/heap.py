"""The C library's heap: by itself it grows over tiles, as blocks of many sizes come and go."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any


def give_back_freed_memory() -> None:
    """Return to the system what glibc's malloc keeps of freed blocks (malloc_trim(3)); elsewhere nothing.

    Between tiles that costs nothing that can be measured; having each large block mapped by itself instead (mallopt's
    M_MMAP_THRESHOLD) makes a fusion half as slow again.
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> Any:
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
