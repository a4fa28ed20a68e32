"""Whether a latency grows while hours pass: Theil–Sen's slope with Sen's interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

BLOCKS, FEWEST = 30, 8
"""Blocks of equal length whose medians count (neighbouring sets are no independent witnesses), and the
fewest that give an interval."""

QUANTILE = 1.96
"""Of the normal distribution, for an interval of 95 %."""

MATTERS = 0.02
"""Growth over the whole time, as a share of the median, below which it does not matter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """How an age changed.

    Attributes:
        slope: milliseconds a minute.
        low, high: its interval of 95 %.
        minutes: that were watched.
        median: of the age, milliseconds.
    """

    slope: float
    low: float
    high: float
    minutes: float
    median: float

    @property
    def grows(self) -> bool:
        """Surely, and by more than `MATTERS` of the median over the time that was watched."""
        return self.low > 0 and self.slope * self.minutes > MATTERS * self.median

    def __str__(self) -> str:
        verdict = "the age GROWS" if self.grows else "the age does not grow"
        return (
            f"{verdict}: {self.slope:+.4f} ms a minute [{self.low:+.4f}, {self.high:+.4f}] over "
            f"{self.minutes:.1f} min, median {self.median:.1f} ms"
        )


def drift_of(seconds: Sequence[float], ages: Sequence[float]) -> Drift | None:
    """The drift of ages over time; None where `FEWEST` blocks are not filled.

    Args:
        seconds: when each age was seen, rising.
        ages: in seconds.

    Source of the slope and its interval: Sen, Estimates of the regression coefficient based on Kendall's
    tau (1968), without ties.
    """
    times, values = np.asarray(seconds) / 60, np.asarray(ages) * 1e3
    count = min(BLOCKS, len(values))
    if count < FEWEST:
        return None
    blocks = [np.median(each) for each in np.array_split(values, count)]
    middles = [np.median(each) for each in np.array_split(times, count)]
    slopes = _slopes(np.array(middles), np.array(blocks))
    spread = QUANTILE * math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    low = max(0, math.floor((len(slopes) - spread) / 2) - 1)
    high = min(len(slopes) - 1, math.ceil((len(slopes) + spread) / 2))
    return Drift(
        slope=float(np.median(slopes)),
        low=float(slopes[low]),
        high=float(slopes[high]),
        minutes=float(times[-1] - times[0]),
        median=float(np.median(values)),
    )


def _slopes(times: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of the lines through all pairs of points, sorted."""
    pairs = [(i, j) for i, j in combinations(range(len(times)), 2) if times[j] > times[i]]
    return np.sort([(values[j] - values[i]) / (times[j] - times[i]) for i, j in pairs])
