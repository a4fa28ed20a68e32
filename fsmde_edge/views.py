"""How a bundle sees a rig: which virtual pinhole each camera is brought to, and where its own car is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.bundle import Manifest
from fsmde_edge.errors import InputError
from fsmde_edge.fit import fitted_pinholes, refuse_focal, refuse_other_count, world_mask
from fsmde_edge.frames import FrameSet
from fsmde_edge.preprocess import own_pinholes, preprocess_set
from fsmde_edge.preprocessing.prepare import How, Preparation, open_preparation
from fsmde_edge.preprocessing.raw import RawLayout
from fsmde_edge.rig import NoDistortion, Rig, VirtualPinhole


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Views:
    """A rig, matched to a bundle.

    Attributes:
        rig: the cameras, in ring order.
        pinholes: what each becomes.
        world: bool [V, H, W] at network size, False on the own vehicle.
        preparation: what makes the network's images; the definition itself if None.
        seen_by: the pinholes as cameras of the vehicle: poses are the rig's, ego masks are `world`.
    """

    rig: Rig
    pinholes: tuple[VirtualPinhole, ...]
    world: NDArray[np.bool_]
    preparation: Preparation | None = None
    seen_by: Rig = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "seen_by", _ideal_rig(self.rig, self.pinholes, self.world))

    def prepare(
        self, frame_set: FrameSet, broken: Callable[[int], object] | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """The network's input: images uint8 [V, H, W, 3] and focal float32 [V].

        Args:
            frame_set: of the rig's cameras.
            broken: is told of a view whose picture cannot be decoded, which is black then (see
                `Preparation.images`).

        Raises:
            InputError: a picture of another size than its calibration; or one that cannot be decoded.
        """
        if self.preparation is None:
            return preprocess_set(frame_set, self.rig, self.pinholes)
        for frame, camera in zip(frame_set.frames, self.rig.cameras, strict=False):
            if frame.size != (camera.width, camera.height):
                raise InputError(
                    f"a picture of camera {camera.name} is {frame.size[0]}x{frame.size[1]}, its "
                    "calibration is for "
                    f"{camera.width}x{camera.height}",
                    where=frame_set.name or None,
                )
        pictures = [frame.raw for frame in frame_set.frames]
        return self.preparation.images(pictures, broken=broken), np.array(
            [p.fx for p in self.pinholes], dtype=np.float32
        )


def views_for(
    rig: Rig,
    manifest: Manifest,
    *,
    how: How | None = None,
    threads: int = 1,
    fit: bool = False,
    layouts: Sequence[RawLayout] | None = None,
) -> Views:
    """Match a rig to a bundle: each camera keeps its own field of view, at network size.

    Cameras meet the bundle's views in ring order; their names need not agree.

    Args:
        rig: the source's cameras.
        manifest: the bundle's.
        how: what prepares pictures; None for the definition, bit by bit what `build` calibrated with.
        threads: views that are prepared at once.
        fit: rectify each camera into the bundle's own view instead: the picture's edges may be lost.
        layouts: of the cameras' pictures, in ring order; RGB without gaps if None.

    Raises:
        InputError: another number of cameras, or a focal length that the network is not trusted with.
    """
    height, width = manifest.size
    if fit:
        pinholes = fitted_pinholes(rig, manifest)
        world = np.stack([world_mask(*pair) for pair in zip(rig.cameras, pinholes, strict=True)])
    else:
        refuse_other_count(rig, manifest)
        pinholes = own_pinholes(rig, width, height)
        for pinhole, view in zip(pinholes, manifest.views, strict=True):
            refuse_focal(pinhole.name, pinhole.fx, view)
        world = _squashed_masks(rig, width, height)
    preparation = None
    if how is not None:
        preparation = open_preparation(rig.cameras, pinholes, layouts=layouts, how=how, threads=threads)
    return Views(rig=rig, pinholes=pinholes, world=world, preparation=preparation)


def _ideal_rig(rig: Rig, pinholes: Sequence[VirtualPinhole], world: NDArray[np.bool_]) -> Rig:
    return Rig(
        tuple(
            replace(
                camera,
                width=pinhole.width,
                height=pinhole.height,
                intrinsics=pinhole.intrinsics,
                distortion=NoDistortion(),
                ego_mask=None if mask.all() else mask,
            )
            for camera, pinhole, mask in zip(rig.cameras, pinholes, world, strict=True)
        )
    )


def _squashed_masks(rig: Rig, width: int, height: int) -> NDArray[np.bool_]:
    masks = [camera.scaled(width, height).ego_mask for camera in rig.cameras]
    everywhere = np.ones((height, width), dtype=np.bool_)
    return np.stack([everywhere if mask is None else mask for mask in masks])
