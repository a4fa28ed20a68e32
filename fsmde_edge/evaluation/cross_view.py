"""Cross-view consistency: does the surround agree with itself where two cameras see one point?

The formulas are ours: the paper that we follow names the property, its formulas are not public to us.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.evaluation.sampling import at_pixels, lidar_pixels
from fsmde_edge.frames import Sample
from fsmde_edge.rig import Camera

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossView:
    """Agreement over the overlaps of a rig.

    Attributes:
        overlap_accuracy: Abs Rel over LiDAR pixels that project into a ring neighbour's picture too;
            None where there are none.
        depth_consistency: mean 2 |ra − rb| / (ra + rb) over the same points, ra and rb the predicted
            distances of the point from the vehicle's origin, by either camera; 0 is perfect.
        points: how many.
    """

    overlap_accuracy: float | None
    depth_consistency: float | None
    points: int


def cross_view(
    depths: Sequence[NDArray[np.float32]], samples: Sequence[Sample], *, max_depth: float
) -> CrossView:
    """Measure over frame sets.

    Args:
        depths: per sample float32 [V, h, w], metres, in ring order.
        samples: the same instants, with rig and LiDAR.
        max_depth: LiDAR counts between 0.1 m and this.
    """
    relative, disagreement = [], []
    for depth, sample in zip(depths, samples, strict=True):
        order = {name: i for i, name in enumerate(sample.rig.names)}
        for first, second in sample.rig.neighbours():
            for a, b in ((first, second), (second, first)):
                if a in sample.depth:
                    seen = _shared(sample.rig[a], sample.rig[b], sample.depth[a], max_depth)
                    error, differ = _compare(
                        depth[order[a]], depth[order[b]], seen, sample.rig[a], sample.rig[b]
                    )
                    relative.append(error)
                    disagreement.append(differ)
    points = sum(part.size for part in relative)
    if points == 0:
        return CrossView(overlap_accuracy=None, depth_consistency=None, points=0)
    return CrossView(
        overlap_accuracy=float(np.concatenate(relative).mean()),
        depth_consistency=float(np.concatenate(disagreement).mean()),
        points=points,
    )


def pool(parts: Sequence[CrossView]) -> CrossView:
    """Means over all points of several frame sets."""
    points = sum(part.points for part in parts)
    if points == 0:
        return CrossView(overlap_accuracy=None, depth_consistency=None, points=0)

    def mean(name: str) -> float:
        return float(sum((getattr(part, name) or 0.0) * part.points for part in parts) / points)

    return CrossView(
        overlap_accuracy=mean("overlap_accuracy"), depth_consistency=mean("depth_consistency"), points=points
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Shared:
    """LiDAR points seen by two cameras: pixel positions in both [N, 2], depth in the first [N]."""

    in_a: Values
    in_b: Values
    truth: Values


def _shared(a: Camera, b: Camera, truth: NDArray[np.float32], max_depth: float) -> _Shared:
    u, v, metres = lidar_pixels(truth)
    uv = np.stack((u, v), axis=-1)
    keep = (metres > 0.1) & (metres < max_depth) & _world(a, uv)
    uv, metres = uv[keep], metres[keep]
    points = a.rays(uv) * metres[:, None]
    a_to_b = np.linalg.inv(b.camera_to_vehicle) @ a.camera_to_vehicle
    in_b, _ = b.project(points @ a_to_b[:3, :3].T + a_to_b[:3, 3])
    seen = b.inside(in_b)
    seen[seen] = _world(b, in_b[seen])
    return _Shared(in_a=uv[seen], in_b=in_b[seen], truth=metres[seen])


def _world(camera: Camera, uv: Values) -> NDArray[np.bool_]:
    if camera.ego_mask is None:
        return np.ones(len(uv), dtype=np.bool_)
    column, row = np.floor(uv).astype(np.intp).T
    return np.asarray(camera.ego_mask[row, column])


def _compare(
    depth_a: NDArray[np.float32], depth_b: NDArray[np.float32], seen: _Shared, a: Camera, b: Camera
) -> tuple[Values, Values]:
    of_a = at_pixels(depth_a, seen.in_a[:, 0], seen.in_a[:, 1], (a.height, a.width))
    of_b = at_pixels(depth_b, seen.in_b[:, 0], seen.in_b[:, 1], (b.height, b.width))
    range_a, range_b = _range(a, seen.in_a, of_a), _range(b, seen.in_b, of_b)
    return np.abs(of_a - seen.truth) / seen.truth, 2 * np.abs(range_a - range_b) / (range_a + range_b)


def _range(camera: Camera, uv: Values, depth: Values) -> Values:
    points = camera.rays(uv) * depth[:, None]
    pose = camera.camera_to_vehicle
    return np.asarray(np.linalg.norm(points @ pose[:3, :3].T + pose[:3, 3], axis=-1))
