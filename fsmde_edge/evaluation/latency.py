"""Latency as medians and tails, measured side by side so that a noisy machine troubles both alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Milliseconds over repeated runs."""

    p50: float
    p90: float
    p99: float
    runs: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Latency:
        """Percentiles of measured times."""
        p50, p90, p99 = np.percentile(np.asarray(seconds) * 1e3, (50, 90, 99))
        return cls(p50=float(p50), p90=float(p90), p99=float(p99), runs=len(seconds))

    def __str__(self) -> str:
        return f"p50 {self.p50:7.1f} ms  p90 {self.p90:7.1f} ms  p99 {self.p99:7.1f} ms"

    def as_dict(self) -> dict[str, float]:
        """Name to value."""
        return asdict(self)


def side_by_side(
    calls: Mapping[str, Callable[[], object]], *, runs: int, warmup: int = 3, stoppable: bool = False
) -> dict[str, Latency]:
    """Time several calls in turn, A B A B ….

    Args:
        calls: name to what is timed.
        runs: counted runs of each.
        warmup: runs of each before counting.
        stoppable: Ctrl-C ends the measurement, and the turns that were whole count.

    Returns:
        Name to latency; empty where no turn counted.
    """
    turns: list[list[float]] = []
    with suppress(*([KeyboardInterrupt] if stoppable else [])):
        for _ in range(warmup + runs):
            turns.append([_seconds(call) for call in calls.values()])
    counted = turns[warmup:]
    return {name: Latency.of([turn[i] for turn in counted]) for i, name in enumerate(calls) if counted}


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
