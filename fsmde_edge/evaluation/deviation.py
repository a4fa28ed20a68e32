"""How far two depths are apart, and how far they may be where both ran the same model exactly."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

GOLDEN_DEVIATION = 1e-3
"""Mean deviation from golden depth that other machines may have. Sums in another order differ in the last
bits (some 1e-6), and may tip a value that lies on the edge between two integers of INT8: one step of one
activation, seldom, which the mean over a view does not show. Another model differs by per cents."""


def mean_deviation(depth: NDArray[np.float32], expected: NDArray[np.float32], *, metric: bool) -> float:
    """Mean |d − e| / |e| (without metres, over the mean |e|); infinite where a value is not a number."""
    if depth.shape != expected.shape:
        return math.inf
    over = np.abs(expected) if metric else np.abs(expected).mean()
    found = float(np.mean(np.abs(depth - expected) / np.maximum(over, 1e-6)))
    return found if math.isfinite(found) else math.inf
