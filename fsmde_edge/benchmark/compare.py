"""Two benches, row by row: a ratio with an interval over runs, and a verdict."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from fsmde_edge.benchmark.record import Measurement

ERROR = 0.025
"""Chance that the ratio lies beyond one end of its interval, at most: 95 % between them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """How many times as long B took as A.

    Attributes:
        row: what was compared.
        a, b: medians over runs, milliseconds (sets a second for throughput).
        ratio: of the typical run of B to that of A (Hodges–Lehmann).
        interval: 95 % or more; None where there are too few runs for that.
        more_is_better: of a rate.
    """

    row: str
    a: float
    b: float
    ratio: float
    interval: tuple[float, float] | None
    more_is_better: bool = False

    @property
    def verdict(self) -> str:
        """B is faster or slower than A, no difference was seen, or the runs are too few to say."""
        if self.interval is None:
            return "too few runs to say"
        low, high = self.interval
        if low <= 1 <= high:
            return "no difference seen"
        return "B is faster" if (high < 1) is not self.more_is_better else "B is slower"


def differences(a: Measurement, b: Measurement) -> list[str]:
    """What makes two benches no measurement of the same thing; nothing where they are one."""
    found = [] if a.bundle == b.bundle else [f"bundles ({a.bundle[:12]} and {b.bundle[:12]})"]
    if a.pipeline is not None and b.pipeline is not None:
        one, other = a.pipeline, b.pipeline
        if one.fed.digest != other.fed.digest:
            found.append(f"pictures ({_fed(a)} and {_fed(b)})")
        if one.precision != other.precision:
            found.append(f"models ({one.precision} and {other.precision})")
        if one.warmup != other.warmup or one.seconds != other.seconds:
            found.append("lengths of runs")
    return found


def compare(a: Measurement, b: Measurement) -> list[Ratio]:
    """Every row that both have.

    A run is one witness: sets of one run follow each other and share its fate.
    """
    rows: list[Ratio] = []
    theirs = dict(_rows(b))
    for row, values in _rows(a):
        other = theirs.get(row)
        if other and values:
            rows.append(_ratio(row, values, other, more_is_better=row.startswith("throughput")))
    return rows


def _rows(record: Measurement) -> Iterator[tuple[str, Sequence[float]]]:
    for name, latency in record.latency.items():
        yield f"{name} alone, p50", (latency.p50,)
    if record.pipeline is not None:
        for rate in record.pipeline.rates:
            for name, values in rate.runs.items():
                yield f"{rate.hz:g} Hz, {name}", values
        if record.pipeline.throughput is not None and record.pipeline.throughput.hz is not None:
            yield "throughput", (record.pipeline.throughput.hz,)


def _ratio(row: str, a: Sequence[float], b: Sequence[float], *, more_is_better: bool) -> Ratio:
    ratio, interval = hodges_lehmann(np.log(a).tolist(), np.log(b).tolist())
    return Ratio(
        row=row,
        a=float(np.median(a)),
        b=float(np.median(b)),
        ratio=math.exp(ratio),
        interval=None if interval is None else (math.exp(interval[0]), math.exp(interval[1])),
        more_is_better=more_is_better,
    )


def hodges_lehmann(a: Sequence[float], b: Sequence[float]) -> tuple[float, tuple[float, float] | None]:
    """How far b lies above a, with an interval of at least 95 % that needs no distribution.

    Source: Hodges and Lehmann, Estimates of location based on rank tests (1963); the interval inverts the
    exact rank-sum test of Mann and Whitney.

    Returns:
        (median of all differences, interval); None for the interval where no order statistic is far enough
        out: it takes four values of each.
    """
    gaps = sorted(y - x for x in a for y in b)
    outside = _outside(len(a), len(b))
    middle = float(np.median(gaps))
    return middle, None if outside is None else (gaps[outside], gaps[-1 - outside])


def _outside(m: int, n: int) -> int | None:
    """How many of the differences may be left out at each end; None if not even the whole range is enough."""
    counts = _rank_sums(m, n)
    whole, below, left = sum(counts.values()), 0, -1
    for statistic in range(m * n + 1):
        below += counts.get(statistic, 0)
        if below > ERROR * whole:
            break
        left = statistic
    return None if left < 0 else left


@cache
def _rank_sums(m: int, n: int) -> Mapping[int, int]:
    """Mann–Whitney's U of two samples from one distribution: value to number of orders that give it."""
    if m == 0 or n == 0:
        return {0: 1}
    found: dict[int, int] = {}
    for shift, smaller in ((n, _rank_sums(m - 1, n)), (0, _rank_sums(m, n - 1))):
        for value, count in smaller.items():
            found[value + shift] = found.get(value + shift, 0) + count
    return found


def _fed(record: Measurement) -> str:
    fed = record.pipeline.fed if record.pipeline is not None else None
    return "none" if fed is None else f"{fed.what}, {fed.layouts[0]}"
