"""Stopping a run between two steps, where its state is whole: a step cut short has moved weights and not counted it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stop:
    """A signal handler: while `patient` it notes the first signal in `asked`; all others raise KeyboardInterrupt."""

    def __init__(self) -> None:
        self.asked = self.patient = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Take a signal."""
        if self.asked or not self.patient:
            raise KeyboardInterrupt
        self.asked = True


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Interruption and termination both go to the handler that is given, in a shell's background job, too."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
