"""Sets that a clock publishes whether or not anybody is ready for them: an open loop.

No thread publishes anything: which set is the newest follows from the time alone, so that nothing is measured
but the one who asks. Latency counts from the instant at which a set was due, as its exposure would be: a busy
consumer cannot make its own numbers better (no coordinated omission).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Published:
    """A set that was taken.

    Attributes:
        index: its running number.
        instant_ns: when it was published.
    """

    index: int
    instant_ns: int


class PacedSets:
    """The newest set whenever one is asked for; older ones that nobody took are missed. Iterate once."""

    def __init__(
        self,
        rate_hz: float,
        sets: int,
        *,
        now_ns: Callable[[], int] = time.monotonic_ns,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Make it.

        Args:
            rate_hz: sets a second.
            sets: how many are published in all.
            now_ns, sleep: the clock (CLOCK_MONOTONIC) and how to wait some seconds on it.
        """
        self.period_ns, self.sets = round(1e9 / rate_hz), sets
        self._now, self._sleep = now_ns, sleep

    def __iter__(self) -> Iterator[Published]:
        """Begin to publish; ends one period after the last set, taken or not."""
        begun, last = self._now(), -1
        while last < self.sets - 1:
            newest = (self._now() - begun) // self.period_ns
            if newest >= self.sets:
                return
            if newest == last:
                self._sleep(max(0, begun + (last + 1) * self.period_ns - self._now()) / 1e9)
                continue
            last = newest
            yield Published(newest, begun + newest * self.period_ns)
