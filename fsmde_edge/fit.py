"""A real rig brought into a bundle's virtual pinholes: what fits, what is lost, and what is refused."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.bundle import Manifest
from fsmde_edge.errors import InputError
from fsmde_edge.preprocess import source_positions
from fsmde_edge.rig import Camera, Rig, VirtualPinhole


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """One camera beside the view that it is rectified into.

    Attributes:
        camera, view: their names.
        fx: the camera's own focal length once its picture is squashed to network size, in network pixels.
        ratio: `fx` over the view's.
        allowed: the ratios that the network is trusted with.
        camera_hfov, view_hfov: degrees along the middle row; infinite from 180° on.
        lost: share of the camera's picture that lies outside the view.
        empty: share of the view that the camera does not see.
    """

    camera: str
    view: str
    fx: float
    ratio: float
    allowed: tuple[float, float]
    camera_hfov: float
    view_hfov: float
    lost: float
    empty: float

    @property
    def fits(self) -> bool:
        """Whether the focal length is one that the network is trusted with."""
        return self.allowed[0] <= self.ratio <= self.allowed[1]


def refuse_other_count(rig: Rig, manifest: Manifest) -> None:
    """A bundle is for one number of views.

    Errors:
        InputError: the rig has another.
    """
    if len(rig) != len(manifest.views):
        raise InputError(
            f"the bundle has {len(manifest.views)} views ({', '.join(manifest.cameras)}), the source "
            f"{len(rig)} cameras ({', '.join(rig.names)})",
            hint="give a source with as many cameras, or build a bundle for this rig",
        )


def fit_rig(rig: Rig, manifest: Manifest) -> tuple[Fit, ...]:
    """Each camera beside its view; they meet in ring order, and names need not agree.

    Errors:
        InputError: another number of cameras than views.
    """
    refuse_other_count(rig, manifest)
    return tuple(_fit(camera, view) for camera, view in zip(rig.cameras, manifest.views, strict=True))


def fitted_pinholes(rig: Rig, manifest: Manifest) -> tuple[VirtualPinhole, ...]:
    """The bundle's views, named after the cameras that fill them.

    Errors:
        InputError: another number of cameras, or a focal length that the network is not trusted with.
    """
    refuse_other_count(rig, manifest)
    pairs = list(zip(rig.cameras, manifest.views, strict=True))
    for camera, view in pairs:
        own = VirtualPinhole.of(camera, view.width, view.height)
        refuse_focal(camera.name, own.fx, view)
    return tuple(replace(view, name=camera.name) for camera, view in pairs)


def refuse_focal(camera: str, fx: float, view: VirtualPinhole) -> None:
    """A network is trusted with a range of focal lengths.

    Errors:
        InputError: this one lies outside.
    """
    low, high = view.fx_range
    if not low <= fx <= high:
        raise InputError(
            f"camera {camera} has a focal length of {fx:.0f} network pixels; the bundle's "
            f"view {view.name} is trusted from {low:.0f} to {high:.0f}",
            hint="build a bundle with calibration frames of this rig",
        )


def world_mask(camera: Camera, pinhole: VirtualPinhole) -> NDArray[np.bool_]:
    """Where a view shows the world: neither beyond the camera's picture nor on the own vehicle."""
    u, v, seen = source_positions(camera, pinhole, 1)
    if camera.ego_mask is None:
        return seen
    column, row = (np.where(seen, axis, 0).astype(np.intp) for axis in (u, v))
    return seen & camera.ego_mask[row, column]


def _fit(camera: Camera, view: VirtualPinhole) -> Fit:
    own = VirtualPinhole.of(camera, view.width, view.height)
    low, high = view.fx_range
    return Fit(
        camera=camera.name,
        view=view.name,
        fx=own.fx,
        ratio=own.fx / view.fx,
        allowed=(low / view.fx, high / view.fx),
        camera_hfov=_camera_hfov(camera),
        view_hfov=math.degrees(math.atan(view.cx / view.fx) + math.atan((view.width - view.cx) / view.fx)),
        lost=_lost(camera, view),
        empty=float(1 - source_positions(camera, view, 1)[2].mean()),
    )


def _camera_hfov(camera: Camera) -> float:
    row = float(np.clip(camera.intrinsics[1, 2], 0, camera.height))
    left, right = camera.rays(np.array([[0.0, row], [float(camera.width), row]]))[:, 0]
    angle = math.degrees(math.atan(right) - math.atan(left))
    return angle if math.isfinite(angle) else math.inf


def _lost(camera: Camera, view: VirtualPinhole) -> float:
    """Share of a grid of picture positions whose rays miss the view, as those from 90° on always do."""
    columns = (np.arange(96) + 0.5) * camera.width / 96
    rows = (np.arange(60) + 0.5) * camera.height / 60
    rays = camera.rays(np.stack(np.meshgrid(columns, rows), axis=-1))
    x, y = view.fx * rays[..., 0] + view.cx, view.fy * rays[..., 1] + view.cy
    with np.errstate(invalid="ignore"):
        kept = (x >= 0) & (x < view.width) & (y >= 0) & (y < view.height)
    return float(1 - kept.mean())
