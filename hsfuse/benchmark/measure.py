"""A small process between the benchmark and a case: runs its command and writes down what it took.

On Linux a process starts with the peak memory of the one that started it. Started from here, with next to nothing
loaded, a command's peak is its own. Run as a script, without the package: FILE COMMAND...
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

#: ru_maxrss is in KiB on Linux and in bytes on macOS.
_UNITS_PER_MIB = 2**20 if sys.platform == "darwin" else 2**10


def main() -> int:
    """Run, write {"code", "peak_mib", "seconds", "cpu"} to the file."""
    target, *command = sys.argv[1:]
    start = time.monotonic()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    taken = {
        "code": process.returncode,
        "peak_mib": round(usage.ru_maxrss / _UNITS_PER_MIB, 1),
        "seconds": round(time.monotonic() - start, 2),
        "cpu": round(usage.ru_utime + usage.ru_stime, 2),
    }
    Path(target).write_text(json.dumps(taken), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
