"""Latency as medians and tails, measured side by side so that a noisy machine troubles both alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
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

    def as_dict(self) -> dict[str, float]:
        """Name to value."""
        return asdict(self)


def side_by_side(
    calls: Mapping[str, Callable[[], object]], *, runs: int, warmup: int = 3
) -> dict[str, Latency]:
    """Time several calls in turn, A B A B ….

    Args:
        calls: name to what is timed.
        runs: counted runs of each.
        warmup: runs of each before counting.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(warmup + runs):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn >= warmup:
                seconds[name].append(time.perf_counter() - start)
    return {name: Latency.of(values) for name, values in seconds.items()}
