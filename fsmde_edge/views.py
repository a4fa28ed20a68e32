"""How a bundle sees a rig: which virtual pinhole each camera is brought to, and where its own car is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.bundle import Manifest
from fsmde_edge.errors import InputError
from fsmde_edge.frames import FrameSet
from fsmde_edge.preprocess import own_pinholes, preprocess_set
from fsmde_edge.rig import Rig, VirtualPinhole


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Views:
    """A rig, matched to a bundle.

    Attributes:
        rig: the cameras, in ring order.
        pinholes: what each becomes.
        world: bool [V, H, W] at network size, False on the own vehicle.
    """

    rig: Rig
    pinholes: tuple[VirtualPinhole, ...]
    world: NDArray[np.bool_]

    def prepare(self, frame_set: FrameSet) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """The network's input: images uint8 [V, H, W, 3] and focal float32 [V]."""
        return preprocess_set(frame_set, self.rig, self.pinholes)


def views_for(rig: Rig, manifest: Manifest) -> Views:
    """Match a rig to a bundle: each camera keeps its own field of view, at network size.

    Cameras meet the bundle's views in ring order; their names need not agree.

    Raises:
        InputError: another number of cameras, or a focal length that the network is not trusted with.
    """
    if len(rig) != len(manifest.views):
        raise InputError(
            f"the bundle has {len(manifest.views)} views ({', '.join(manifest.cameras)}), the source "
            f"{len(rig)} cameras ({', '.join(rig.names)})",
            hint="give a source with as many cameras, or build a bundle for this rig",
        )
    height, width = manifest.size
    pinholes = own_pinholes(rig, width, height)
    for pinhole, view in zip(pinholes, manifest.views, strict=True):
        low, high = view.fx_range
        if not low <= pinhole.fx <= high:
            raise InputError(
                f"camera {pinhole.name} has a focal length of {pinhole.fx:.0f} network pixels; the bundle's "
                f"view {view.name} is trusted from {low:.0f} to {high:.0f}",
                hint="build a bundle with calibration frames of this rig",
            )
    masks = [camera.scaled(width, height).ego_mask for camera in rig.cameras]
    everywhere = np.ones((height, width), dtype=np.bool_)
    world = np.stack([everywhere if mask is None else mask for mask in masks])
    return Views(rig=rig, pinholes=pinholes, world=world)
