"""The highest rate at which hardly a set is missed, by search."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

ALLOWED = 0.05
"""Share of sets that may be missed."""

PROBES, CLOSE = 8, 1.03
"""Rates that are tried at most; how near each other the rates that hold and that do not must come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """What a search found.

    Attributes:
        hz: the highest rate that held; None where none did.
        probes: each rate that was tried, and the share of sets that were missed.
    """

    hz: float | None
    probes: tuple[tuple[float, float], ...]


def search_throughput(missed: Callable[[float], float], *, guess: float) -> Throughput:
    """Bracket from a guess, then bisect geometrically; `PROBES` rates at most.

    Args:
        missed: runs at a rate (Hz); the share of sets that were missed. Noise may make it uneven: what
            held counts as held.
        guess: a rate in Hz to begin with.
    """
    good, bad = 0.0, math.inf
    probes: list[tuple[float, float]] = []
    rate = guess
    while len(probes) < PROBES and bad > good * CLOSE:
        share = missed(rate)
        probes.append((rate, share))
        if share <= ALLOWED:
            good = max(good, rate)
        else:
            bad = min(bad, rate)
        rate = math.sqrt(good * bad) if good and bad < math.inf else rate * (math.sqrt(2) if good else 0.5)
    return Throughput(hz=good or None, probes=tuple(probes))
