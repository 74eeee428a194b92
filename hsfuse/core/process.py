"""Commands of hsfuse that ran in processes of their own: why one ended, in a line."""

from __future__ import annotations

import signal


def reason(code: int, said: str) -> str:
    """One line: the command's own last word on stderr, or how it was ended."""
    if code < 0:
        name = signal.Signals(-code).name
        return f"ended by {name}" + ("; perhaps memory ran out" if name == "SIGKILL" else "")
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = lines[-1] if lines else f"exit code {code}"
    if "this is a bug in hsfuse" in last and len(lines) > 1:
        last = lines[-2]  # the exception, at the end of its traceback
    return last.removeprefix("hsfuse: ").removeprefix("error: ")
