"""LiDAR into a picture: the one definition of sparse ground truth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.rig import Camera


def sparse_depth(points: NDArray[np.float64], camera: Camera) -> NDArray[np.float32]:
    """Depth along z where a point falls, 0 elsewhere.

    A point lands in pixel (floor(u), floor(v)) if z > 0 and the pixel is in the picture; where several
    do, the last one in cloud order stays (no z-buffer), as DDAD's published ground truth is made.

    Args:
        points: float64 [N, 3] in the camera's frame, metres, in cloud order.
        camera: projects them.

    Returns:
        float32 [camera.height, camera.width], metres.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # points in the plane z = 0 project to infinity
        uv, z = camera.project(points)
    seen = camera.inside(uv)
    column, row = np.floor(uv[seen]).astype(np.int64).T
    depth = np.zeros((camera.height, camera.width), dtype=np.float32)
    depth[row, column] = z[seen]  # NumPy assigns in order: a repeated index keeps its last value
    return depth
