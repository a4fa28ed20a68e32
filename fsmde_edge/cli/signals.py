"""SIGTERM and SIGHUP end a command as Ctrl-C does: what is half-written is removed, and one line says so."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGTERM, signal.SIGHUP)


class Ended(BaseException):
    """The system wants this program to end.

    Attributes:
        signal: which of `ENDING` it sent.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.signal = signal.Signals(number)


@contextmanager
def ending_in_order() -> Iterator[None]:
    """Raise `Ended` in the main thread for signals that would end it at once; ignored ones stay ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    own = os.getpid()
    taken = [number for number in ENDING if signal.getsignal(number) is signal.SIG_DFL]

    def end(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)  # a second one ends it at once
        if os.getpid() != own:  # a child that was forked: it has nothing to put in order
            os.kill(os.getpid(), number)
            return
        raise Ended(number)

    for number in taken:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)
