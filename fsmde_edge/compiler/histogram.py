"""Streaming histograms of |x|, and the ranges that calibrators read from them.

The bins cover [0, 2^e) with 2^e the smallest power of two above everything seen. When a larger value comes,
the range doubles and neighbouring bins merge. All edges are exact in binary, so a streamed histogram equals
one made in one go, and memory does not depend on how much was seen.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.errors import InputError

BINS = 4096
LEVELS = 127
"""Positive steps of symmetric INT8."""

PERCENTILES = {"percentile-99.9": 99.9, "percentile": 99.99, "percentile-99.999": 99.999}
CALIBRATORS = ("max", *PERCENTILES, "entropy", "mse")
"""Names of the ranges that `Histogram.thresholds` gives."""

_CHUNK = 1 << 20  # elements at a time: the work buffers stay in cache


class Histogram:
    """How often each magnitude occurred in one tensor, over all frames.

    Attributes:
        counts: int64 [BINS]; bin i covers [i, i + 1) × limit / BINS.
        limit: the end of the last bin, a power of two; 0 before anything but zeros was seen.
        largest: the exact largest |x|.
        negative: whether anything below zero was seen.
        total: sum of |x|, for the mean.
    """

    __slots__ = ("counts", "largest", "limit", "negative", "total")

    def __init__(self) -> None:
        self.counts: NDArray[np.int64] = np.zeros(BINS, dtype=np.int64)
        self.limit = 0.0
        self.largest = 0.0
        self.negative = False
        self.total = 0.0

    @property
    def count(self) -> int:
        """Values seen."""
        return int(self.counts.sum())

    @property
    def mean(self) -> float:
        """Mean of |x|."""
        return self.total / self.count if self.count else 0.0

    def add(self, values: NDArray[np.float32]) -> None:
        """Count a tensor's values.

        Args:
            values: float32, any shape.

        Errors:
            InputError: a value is not finite.
        """
        flat = np.ascontiguousarray(values, dtype=np.float32).reshape(-1)
        if not flat.size:
            return
        low, high = float(flat.min()), float(flat.max())
        if not math.isfinite(low) or not math.isfinite(high):
            raise InputError("the network makes a value that is not finite")
        self.negative |= low < 0
        self._grow(max(-low, high))
        for start in range(0, flat.size, _CHUNK):
            self._count(flat[start : start + _CHUNK])

    def _grow(self, largest: float) -> None:
        self.largest = max(self.largest, largest)
        if largest < self.limit or largest == 0:
            return
        limit = 2.0 ** max(math.frexp(largest)[1], -100)  # |x| below 2^-100 counts as zero
        if self.limit == 0:
            self.limit = limit
        while self.limit < limit:
            merged = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.concatenate((merged, np.zeros(BINS // 2, dtype=np.int64)))
            self.limit *= 2

    def _count(self, chunk: NDArray[np.float32]) -> None:
        if self.limit == 0:
            self.counts[0] += chunk.size
            return
        import cv2

        scaled = np.abs(chunk)
        self.total += float(scaled.sum(dtype=np.float64))
        scaled *= np.float32(BINS / self.limit)
        index = scaled.astype(np.uint16).reshape(-1, 1)
        counts = cv2.calcHist([index], [0], None, [BINS], [0, BINS])
        self.counts += counts.reshape(-1).astype(np.int64)

    def thresholds(self) -> dict[str, float]:
        """The range [-r, r] that each calibrator would give to the tensor, by name (`CALIBRATORS`)."""
        if self.limit == 0:
            return dict.fromkeys(CALIBRATORS, 0.0)
        found = {"max": self.largest}
        found |= {name: self.percentile(percent) for name, percent in PERCENTILES.items()}
        return found | {"entropy": self.entropy(), "mse": self.mse()}

    def percentile(self, percent: float) -> float:
        """The magnitude that `percent` of the values do not exceed, to the width of one bin."""
        cumulative = np.cumsum(self.counts)
        index = int(np.searchsorted(cumulative, cumulative[-1] * (percent / 100.0)))
        return min((index + 1) * self.limit / BINS, self.largest)

    def mse(self) -> float:
        """The range of the least mean squared error after quantisation."""
        width = self.limit / BINS
        used = int(np.flatnonzero(self.counts)[-1]) + 1
        counts, centres = self.counts[:used], (np.arange(used) + 0.5) * width
        ends = np.unique(np.linspace(max(used // 32, 1), used, 192).astype(np.int64))
        errors = []
        for end in ends:
            step = end * width / LEVELS
            quantised = np.minimum(np.rint(centres / step), LEVELS) * step
            errors.append(float(counts @ np.square(centres - quantised)))
        return min(float(ends[int(np.argmin(errors))] * width), self.largest)

    def entropy(self) -> float:
        """The range of the least Kullback–Leibler divergence from the values to their quantised selves.

        The method of S. Migacz, "8-bit Inference with TensorRT" (GTC 2017): values beyond the range count in
        its last bin of the reference, and each level spreads its count over the bins that are not empty. The
        first bin takes its neighbour's count: behind a ReLU it would outweigh everything else.
        """
        used = int(np.flatnonzero(self.counts)[-1]) + 1
        counts = self.counts[:used].astype(np.float64)
        if used <= LEVELS + 1:
            return self.largest
        counts[0] = counts[1]
        ends = np.unique(np.linspace(LEVELS + 1, used, 192).astype(np.int64))
        divergences = [_divergence(counts, int(end)) for end in ends]
        return min(float(ends[int(np.argmin(divergences))]) * self.limit / BINS, self.largest)


def _divergence(counts: NDArray[np.float64], end: int) -> float:
    """KL divergence between the histogram clipped to `end` bins and its version in LEVELS + 1 levels."""
    inside = counts[:end]
    reference = inside.copy()
    reference[-1] += counts[end:].sum()
    starts = np.linspace(0, end, LEVELS + 1, endpoint=False).astype(np.int64)
    filled = inside > 0
    per_level = np.add.reduceat(inside, starts)
    bins_filled = np.maximum(np.add.reduceat(filled.astype(np.float64), starts), 1)
    sizes = np.diff(np.append(starts, end))
    quantised = np.where(filled, np.repeat(per_level / bins_filled, sizes), 0)
    both = (reference > 0) & (quantised > 0)
    if not both.any() or quantised.sum() == 0:
        return math.inf
    p, q = reference / reference.sum(), quantised / quantised.sum()
    lost = p[(reference > 0) & ~both].sum()  # mass that the quantised version cannot hold
    return float(np.sum(p[both] * np.log(p[both] / q[both])) + lost * 30.0)
