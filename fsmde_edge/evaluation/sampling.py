"""Reading depth maps of one size at pixels of another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def at_pixels(depth: NDArray[np.float32], u: Values, v: Values, size: tuple[int, int]) -> Values:
    """Bilinear values of a depth map, as if it had been resized to `size` first.

    Args:
        depth: float [h, w].
        u, v: float [N], positions in a picture of `size`; the centre of pixel (i, j) is (j + 0.5, i + 0.5).
        size: (height, width) of that picture.

    Returns:
        float64 [N]; positions beyond the outermost centres take the border's value.
    """
    height, width = depth.shape
    x = np.clip(u * (width / size[1]) - 0.5, 0, width - 1)
    y = np.clip(v * (height / size[0]) - 0.5, 0, height - 1)
    left, top = np.floor(x).astype(np.intp), np.floor(y).astype(np.intp)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    fx, fy = x - left, y - top
    values = depth.astype(np.float64, copy=False)
    upper = values[top, left] * (1 - fx) + values[top, right] * fx
    lower = values[bottom, left] * (1 - fx) + values[bottom, right] * fx
    return np.asarray(upper * (1 - fy) + lower * fy)


def lidar_pixels(truth: NDArray[np.float32]) -> tuple[Values, Values, Values]:
    """Pixel centres u, v and depth of all returns in a sparse map (0 = none)."""
    # On a mask and flat: ten times as fast as numpy.nonzero on floats.
    rows, columns = np.divmod(np.flatnonzero(truth > 0), truth.shape[1])
    u, v = (index.astype(np.float64) + 0.5 for index in (columns, rows))
    return u, v, truth[rows, columns].astype(np.float64)
