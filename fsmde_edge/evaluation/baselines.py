"""What a depth network must beat: constants, and a flat ground plane known from the calibration alone.

Networks are median-scaled per image (as in Zhou et al., CVPR 2017): the score asks for structure alone. The
ground plane is metric as it is, and gets the best of three scores per image: median-scaled like a network,
unscaled, and scaled by the medians over the returns below its horizon (those above say nothing about scale).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.evaluation.sampling import at_pixels, lidar_pixels
from fsmde_edge.frames import Sample
from fsmde_edge.rig import Camera

Values = NDArray[np.float64]

RANGE = (0.1, 80.0)
"""Ground truth counts between these metres."""


@dataclass(slots=True, eq=False)
class Rivals:
    """Collects Abs Rel of each image, median-scaled, for depth maps and for the baselines.

    The baselines: `median` (each image's own ground-truth median as a constant), `constant` (each image's
    Abs-Rel-optimal constant), `ground` (a flat ground plane seen by the calibrated camera, the range's end
    above its horizon; the best of three scalings).
    """

    _abs_rel: dict[str, list[float]] = field(default_factory=dict)

    def add(self, sample: Sample, depths: Mapping[str, NDArray[np.float32]]) -> None:
        """Score one frame set.

        Args:
            sample: pictures, rig and LiDAR.
            depths: name to float32 [V, h, w], in ring order.
        """
        for i, camera in enumerate(sample.rig.cameras):
            if camera.name not in sample.depth:
                continue
            u, v, truth = _valid(sample.depth[camera.name], camera)
            if truth.size == 0:
                continue
            size = (camera.height, camera.width)
            scores = {
                name: _median_scaled(at_pixels(depth[i], u, v, size), truth) for name, depth in depths.items()
            }
            scores["median"] = _abs_rel(np.full_like(truth, np.median(truth)), truth)
            scores["constant"] = _abs_rel(np.full_like(truth, best_constant(truth)), truth)
            scores["ground"] = _ground(ground_plane(camera, u, v), truth)
            for name, score in scores.items():
                self._abs_rel.setdefault(name, []).append(score)

    def result(self) -> dict[str, float]:
        """Name to mean Abs Rel over images; empty without LiDAR."""
        return {name: float(np.mean(scores)) for name, scores in self._abs_rel.items()}


def best_constant(truth: Values) -> float:
    """The constant of least mean |c − g| / g: the median of g weighted by 1 / g."""
    ordered = np.sort(truth)
    weights = np.cumsum(1 / ordered)
    return float(ordered[np.searchsorted(weights, weights[-1] / 2)])


def ground_plane(camera: Camera, u: Values, v: Values) -> Values:
    """Depth of the plane z = 0 of the vehicle frame along pixels' rays, the range's end above the horizon."""
    rays = camera.rays(np.stack((u, v), axis=-1)) @ camera.camera_to_vehicle[:3, :3].T
    down = -rays[:, 2]
    depth = np.full(len(u), RANGE[1])
    below = down > camera.height_m / RANGE[1]
    depth[below] = camera.height_m / down[below]
    return depth


def _valid(truth: NDArray[np.float32], camera: Camera) -> tuple[Values, Values, Values]:
    inside = (truth > RANGE[0]) & (truth < RANGE[1])
    if camera.ego_mask is not None:
        inside &= camera.ego_mask
    return lidar_pixels(np.where(inside, truth, np.float32(0)))


def _median_scaled(depth: Values, truth: Values) -> float:
    scaled = depth * (np.median(truth) / max(float(np.median(depth)), 1e-6))
    return _abs_rel(np.clip(scaled, *RANGE), truth)


def _ground(plane: Values, truth: Values) -> float:
    below = plane < RANGE[1]
    if not below.any():
        return _abs_rel(plane, truth)
    scaled = np.where(below, plane * (np.median(truth[below]) / np.median(plane[below])), plane)
    as_network = _median_scaled(plane, truth)
    return min(as_network, _abs_rel(plane, truth), _abs_rel(np.clip(scaled, *RANGE), truth))


def _abs_rel(depth: Values, truth: Values) -> float:
    return float(np.mean(np.abs(depth - truth) / truth))
