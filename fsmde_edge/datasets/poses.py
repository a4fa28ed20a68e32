"""Rigid poses as other people's files write them, as float64 [4, 4]."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.errors import InputError

Pose = NDArray[np.float64]


def pose(quaternion_wxyz: Sequence[float], translation_xyz: Sequence[float]) -> Pose:
    """A pose from a quaternion (w, x, y, z; of any length but zero) and a translation in metres.

    Source: the standard quaternion rotation matrix.
    """
    q = np.array(quaternion_wxyz, dtype=np.float64)
    t = np.array(translation_xyz, dtype=np.float64)
    if q.shape != (4,) or t.shape != (3,) or not np.isfinite(q).all() or not np.isfinite(t).all():
        raise InputError("a pose is not four and three finite numbers")
    length = float(np.linalg.norm(q))
    if length < 1e-9:
        raise InputError("a pose has a quaternion of length zero")
    w, x, y, z = q / length
    matrix = np.eye(4)
    matrix[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    matrix[:3, 3] = t
    return matrix


def inverse(matrix: Pose) -> Pose:
    """The inverse of a rigid pose (rotation transposed, no general solve)."""
    out = np.eye(4)
    out[:3, :3] = matrix[:3, :3].T
    out[:3, 3] = -matrix[:3, :3].T @ matrix[:3, 3]
    return out


def move(matrix: Pose, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points [N, 3] through a pose."""
    return np.asarray(points @ matrix[:3, :3].T + matrix[:3, 3])
