"""The arithmetic of symmetric INT8: one scale, zero point 0, round half to even, saturate.

    Q(x) = clip(round(x / s), -128, 127)        DQ(q) = q × s

As ONNX defines QuantizeLinear and DequantizeLinear. Scales are numbers that float16 holds exactly, so that
the float32 and the float16 form of a network have the same integers and the same meaning.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LEVELS = 127
SMALLEST_SCALE = 2.0**-20
"""Below it float16 would keep less than four bits of a scale; ranges under 0.00012 are as good as zero."""
LARGEST_SCALE = 65504.0


def scale_of(limit: float) -> float:
    """The smallest float16 scale whose 127 steps reach `limit`, at least `SMALLEST_SCALE`.

    Args:
        limit: largest |x| to hold, not negative.
    """
    wanted = min(max(limit / LEVELS, SMALLEST_SCALE), LARGEST_SCALE)
    scale = np.float16(wanted)
    return float(scale if float(scale) >= wanted else np.nextafter(scale, np.float16(np.inf)))


def channel_scales(weight: NDArray[np.float32], axis: int) -> tuple[float, ...]:
    """One scale for each output channel of a weight."""
    others = tuple(i for i in range(weight.ndim) if i != axis)
    return tuple(scale_of(float(limit)) for limit in np.abs(weight).max(axis=others))


def quantise(
    values: NDArray[np.float32], scale: float | tuple[float, ...], *, axis: int = 0
) -> NDArray[np.int8]:
    """Float to integers.

    Args:
        values: float32, any shape.
        scale: one number, or one for each index of `axis`.
    """
    steps = _spread(scale, values.ndim, axis)
    return np.asarray(np.clip(np.rint(values / steps), -LEVELS - 1, LEVELS), dtype=np.int8)


def dequantise(
    integers: NDArray[np.int8], scale: float | tuple[float, ...], *, axis: int = 0
) -> NDArray[np.float32]:
    """Integers to float; the inverse of `quantise` on what it returns."""
    return integers.astype(np.float32) * _spread(scale, integers.ndim, axis)


def _spread(scale: float | tuple[float, ...], rank: int, axis: int) -> NDArray[np.float32]:
    steps = np.asarray(scale, dtype=np.float32)
    if steps.ndim == 0:
        return steps
    return steps.reshape([-1 if i == axis else 1 for i in range(rank)])
