"""Depth of all views as one coloured point cloud in the vehicle frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.errors import InputError, UsageError
from fsmde_edge.frames import DepthSet
from fsmde_edge.rig import Rig


@dataclass(frozen=True, slots=True, kw_only=True)
class PointChoice:
    """Which pixels become points.

    Attributes:
        stride: every so many columns and rows of each view.
        least_confidence: pixels that the network trusts less are left out; in 0..1, 0 for all.
    """

    stride: int = 4
    least_confidence: float = 0.0

    def __post_init__(self) -> None:
        if self.stride < 1:
            raise UsageError(f"a stride of {self.stride} pixels", hint="choose 1 or more")
        if not 0 <= self.least_confidence <= 1:
            raise UsageError(f"a confidence of {self.least_confidence:g}", hint="choose 0 to 1")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cloud:
    """Points, view after view in ring order, row after row.

    Attributes:
        xyz: float32 [N, 3], metres, vehicle frame (x forward, y left, z up).
        rgb: uint8 [N, 3].
    """

    xyz: NDArray[np.float32]
    rgb: NDArray[np.uint8]


class CloudMaker:
    """Turns depth sets into clouds; the rays of a rig are worked out once."""

    def __init__(self, choice: PointChoice = PointChoice()) -> None:
        """Keep the choice."""
        self._choice = choice
        self._rig: Rig | None = None
        self._rays = np.empty(0, np.float32)
        self._centres = np.empty(0, np.float32)

    def cloud(self, images: NDArray[np.uint8], depth_set: DepthSet) -> Cloud:
        """The points of one set.

        A point lies on the ray through its pixel's centre, at the pixel's depth along the optical axis:
        pose · (depth · K⁻¹ (u, v, 1)). Pixels without depth, own car among them, give none.

        Args:
            images: uint8 [V, H, W, 3], RGB.
            depth_set: depth of the same size, with its rig.

        Errors:
            InputError: depth without a rig, or without the confidence that was asked for.
        """
        if depth_set.rig is None:
            raise InputError("depth that does not say which cameras saw it makes no points")
        if depth_set.rig is not self._rig:
            self._learn(depth_set.rig)
        step = self._choice.stride
        depth = depth_set.depth[:, step // 2 :: step, step // 2 :: step]
        taken = np.isfinite(depth) & (depth > 0) & self._trusted(depth_set)
        view = np.nonzero(taken)[0]
        xyz = self._rays[taken] * depth[taken][:, None] + self._centres[view]
        return Cloud(xyz=xyz, rgb=images[:, step // 2 :: step, step // 2 :: step][taken])

    def _trusted(self, depth_set: DepthSet) -> NDArray[np.bool_] | bool:
        least, step = self._choice.least_confidence, self._choice.stride
        if not least:
            return True
        if depth_set.confidence is None:
            raise InputError(
                "this network tells no confidence to choose points by", hint="leave --min-confidence away"
            )
        return np.asarray(depth_set.confidence[:, step // 2 :: step, step // 2 :: step] >= least)

    def _learn(self, rig: Rig) -> None:
        """Rays float32 [V, h, w, 3] in the vehicle frame, one metre along z each, and centres [V, 3]."""
        step = self._choice.stride
        rays = []
        for camera in rig.cameras:
            columns = np.arange(step // 2, camera.width, step) + 0.5
            rows = np.arange(step // 2, camera.height, step) + 0.5
            seen = camera.rays(np.stack(np.meshgrid(columns, rows), axis=-1))
            rays.append(seen @ camera.camera_to_vehicle[:3, :3].T)
        self._rays = np.stack(rays).astype(np.float32)
        self._centres = np.stack([camera.camera_to_vehicle[:3, 3] for camera in rig.cameras]).astype(
            np.float32
        )
        self._rig = rig
