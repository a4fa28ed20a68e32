"""One thread that drives cameras of one kind: what all kinds share, from outages to the thread's end."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from fsmde_edge.capture.v4l2.inbox import Outlet
from fsmde_edge.capture.v4l2.loss import Cause

FIRST_WAIT, LONGEST_WAIT = 0.1, 5.0
"""Seconds until a lost camera is tried again, at first and at most; doubled each time."""

LOOK = 0.05
"""Seconds between two looks at what no event tells."""


@dataclass(slots=True)
class Outage:
    """A time without a camera, in nanoseconds on CLOCK_MONOTONIC."""

    since_ns: int
    why: str
    until_ns: int | None = None
    """When its next picture came; None while it is away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraReport:
    """What a camera did.

    Attributes:
        name, path: which.
        layout, rate: what it gives, pictures a second where known.
        memory, reason: how its pictures come, and why so.
        copies, copied: a CPU's copies of each picture, and the bytes of all.
        frames: pictures given out.
        drops: cause to count.
        outages: times without it.
    """

    name: str
    path: str
    layout: str
    rate: float | None
    memory: str
    reason: str
    copies: int
    copied: int
    frames: int
    drops: Mapping[str, int]
    outages: tuple[Outage, ...]


@dataclass(slots=True, eq=False)
class Tended(ABC):
    """A camera's fortune: when it was heard, whether it is lost, and when it is tried again."""

    heard_ns: int = 0
    lost: bool = False
    retry_ns: int = 0
    wait: float = FIRST_WAIT
    outages: list[Outage] = field(default_factory=list)

    @property
    @abstractmethod
    def name(self) -> str:
        """The camera's."""

    @property
    @abstractmethod
    def drops(self) -> Counter[Cause]:
        """What was lost before the outlet."""

    @abstractmethod
    def report(self, drops: Mapping[str, int], outages: tuple[Outage, ...]) -> CameraReport:
        """What it did, with what is not its own to know."""

    @abstractmethod
    def close(self) -> None:
        """End the camera; may be called twice."""

    @property
    def trouble(self) -> str | None:
        """Why it gives nothing; None while it does."""
        newest = self.outages[-1] if self.outages else None
        return None if newest is None or newest.until_ns is not None else newest.why

    def hear(self, now_ns: int) -> None:
        """A picture came: whatever was, is over."""
        self.heard_ns, self.wait = now_ns, FIRST_WAIT
        if self.outages and self.outages[-1].until_ns is None:
            self.outages[-1].until_ns = now_ns

    def fail(self, why: str) -> None:
        """An outage begins, unless it is in one."""
        if self.trouble is None:
            self.outages.append(Outage(time.monotonic_ns(), why))

    def lose(self) -> None:
        """Close it until it is tried again, later each time."""
        self.close()
        self.lost = True
        self.retry_ns = time.monotonic_ns() + round(self.wait * 1e9)
        self.wait = min(2 * self.wait, LONGEST_WAIT)


Each = TypeVar("Each", bound=Tended)


class TendingThread(ABC, Generic[Each]):
    """Drives all cameras until it is stopped, and puts their pictures into an outlet. Owns the cameras."""

    def __init__(self, tended: Sequence[Each], outlet: Outlet) -> None:
        """Take over cameras that are ready.

        Args:
            tended: in ring order.
            outlet: gets the pictures; closed here.
        """
        self._tended, self._outlet = list(tended), outlet
        self._stopping = False
        self._failure: BaseException | None = None
        self._look_ns = 0
        self._thread = threading.Thread(target=self._guarded, name="capture", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, close the cameras and the outlet; may be called twice.

        Raises:
            Whatever ended the thread before, if anything did.
        """
        self._stopping = True
        self._rouse()
        if self._thread.ident is None:
            self._close()
        else:
            self._thread.join()
        self._free()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def away(self) -> dict[str, str | None]:
        """Camera → why it gives nothing; None for those that do."""
        return {tended.name: tended.trouble for tended in self._tended}

    def reports(self) -> list[CameraReport]:
        """What each camera did so far."""
        found = []
        for tended in self._tended:
            behind = self._outlet.drops.get(tended.name, {})
            drops = {str(cause.value): tended.drops[cause] + behind.get(cause, 0) for cause in Cause}
            found.append(tended.report(drops, tuple(replace(outage) for outage in tended.outages)))
        return found

    @abstractmethod
    def _run(self) -> None:
        """Take pictures until `_stopping`; `_between` belongs into every turn."""

    @abstractmethod
    def _rouse(self) -> None:
        """Let a thread that waits look at `_stopping`; after `_free` it does nothing."""

    @abstractmethod
    def _look_after(self, now_ns: int) -> None:
        """What no event tells; every `LOOK` seconds."""

    def _free(self) -> None:
        """Give up what the thread waited on; may be called twice."""

    def _between(self) -> float:
        """Between two turns: the outlet's time, and a look where one is due; seconds to wait at most."""
        now = time.monotonic_ns()
        due = self._outlet.tick(now)
        if now >= self._look_ns:
            self._look_after(now)
            self._look_ns = now + round(LOOK * 1e9)
        return LOOK if due is None else min(LOOK, max(0, due - now) / 1e9)

    def _guarded(self) -> None:
        try:
            self._run()
        except BaseException as error:
            self._failure = error
        finally:
            self._close()

    def _close(self) -> None:
        for tended in self._tended:
            tended.close()
        self._outlet.close()
