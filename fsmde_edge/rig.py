"""The cameras around a vehicle: intrinsics, distortion, poses, ring order, ego masks, virtual pinholes.

Axes: vehicle x forward, y left, z up, origin on the ground; camera x right, y down, z forward.
Pixel i covers [i, i + 1), so a projected u lies in pixel floor(u).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.errors import InputError

Array = NDArray[np.float64]


class Distortion(Protocol):
    """A lens: maps between ideal and real positions on the plane z = 1."""

    @property
    def is_identity(self) -> bool:
        """Whether the lens does nothing."""

    def distort(self, xy: Array) -> Array:
        """Ideal plane positions [..., 2] to real ones."""

    def undistort(self, xy: Array) -> Array:
        """Real plane positions [..., 2] to ideal ones (x/z, y/z of the ray); NaN where no ray is."""


@dataclass(frozen=True, slots=True)
class NoDistortion:
    """A pinhole."""

    @property
    def is_identity(self) -> bool:
        """Always true."""
        return True

    def distort(self, xy: Array) -> Array:
        """The positions themselves."""
        return xy

    def undistort(self, xy: Array) -> Array:
        """The positions themselves."""
        return xy


@dataclass(frozen=True, slots=True, kw_only=True)
class BrownConrady:
    """Radial-tangential distortion with up to six radial terms (OpenCV's `rational` convention).

    r' = r (1 + k1 r² + k2 r⁴ + k3 r⁶) / (1 + k4 r² + k5 r⁴ + k6 r⁶), plus tangential p1, p2.
    Source: OpenCV, camera calibration and 3D reconstruction, equations of the pinhole model.
    """

    k1: float = 0.0
    k2: float = 0.0
    p1: float = 0.0
    p2: float = 0.0
    k3: float = 0.0
    k4: float = 0.0
    k5: float = 0.0
    k6: float = 0.0

    @property
    def is_identity(self) -> bool:
        """Whether all coefficients are zero."""
        return not any((self.k1, self.k2, self.p1, self.p2, self.k3, self.k4, self.k5, self.k6))

    def distort(self, xy: Array) -> Array:
        """Ideal plane positions [..., 2] to distorted ones."""
        x, y = xy[..., 0], xy[..., 1]
        r2 = x * x + y * y
        radial = self._radial(r2)
        return np.stack(
            (
                x * radial + 2 * self.p1 * x * y + self.p2 * (r2 + 2 * x * x),
                y * radial + self.p1 * (r2 + 2 * y * y) + 2 * self.p2 * x * y,
            ),
            axis=-1,
        )

    def undistort(self, xy: Array) -> Array:
        """Distorted plane positions to ideal ones, by Newton steps with a numeric Jacobian.

        Positions that no ideal ray maps to within 1e-6 (beyond the lens's monotonic range) are NaN.
        """
        guess = np.array(xy, dtype=np.float64)
        step = 1e-6
        for _ in range(20):
            value = self.distort(guess)
            along_x = (self.distort(guess + (step, 0.0)) - value) / step
            along_y = (self.distort(guess + (0.0, step)) - value) / step
            error = xy - value
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                determinant = along_x[..., 0] * along_y[..., 1] - along_y[..., 0] * along_x[..., 1]
                dx = (error[..., 0] * along_y[..., 1] - error[..., 1] * along_y[..., 0]) / determinant
                dy = (error[..., 1] * along_x[..., 0] - error[..., 0] * along_x[..., 1]) / determinant
            guess = guess + np.stack((dx, dy), axis=-1)
        with np.errstate(invalid="ignore", over="ignore"):
            wrong = ~(np.abs(self.distort(guess) - xy).max(axis=-1) < 1e-6)
        guess[wrong] = np.nan
        return guess

    def _radial(self, r2: Array) -> Array:
        above = 1 + r2 * (self.k1 + r2 * (self.k2 + r2 * self.k3))
        below = 1 + r2 * (self.k4 + r2 * (self.k5 + r2 * self.k6))
        return np.asarray(above / below)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fisheye:
    """Kannala-Brandt equidistant fisheye: θ' = θ (1 + k1 θ² + k2 θ⁴ + k3 θ⁶ + k4 θ⁸).

    Source: OpenCV's fisheye model. Rays at 90° and beyond have no position on the plane z = 1.
    """

    k1: float = 0.0
    k2: float = 0.0
    k3: float = 0.0
    k4: float = 0.0

    @property
    def is_identity(self) -> bool:
        """Never: even with zero coefficients the projection is equidistant."""
        return False

    def distort(self, xy: Array) -> Array:
        """Ideal plane positions [..., 2] to fisheye ones."""
        r = np.linalg.norm(xy, axis=-1)
        theta = np.arctan(r)
        scale = np.where(r > 1e-9, self._bent(theta) / np.maximum(r, 1e-9), 1.0)
        return np.asarray(xy * scale[..., None])

    def undistort(self, xy: Array) -> Array:
        """Fisheye positions to ideal ones; NaN for rays at 90° and beyond."""
        bent = np.linalg.norm(xy, axis=-1)
        theta = np.minimum(bent, math.pi / 2)
        for _ in range(20):
            t2 = theta * theta
            slope = 1 + t2 * (3 * self.k1 + t2 * (5 * self.k2 + t2 * (7 * self.k3 + t2 * 9 * self.k4)))
            theta = theta - (self._bent(theta) - bent) / np.where(np.abs(slope) > 1e-9, slope, 1e-9)
        with np.errstate(invalid="ignore", over="ignore"):
            good = (np.abs(self._bent(theta) - bent) < 1e-6) & (theta >= 0) & (theta < math.pi / 2 - 1e-6)
        scale = np.where(bent > 1e-9, np.tan(np.where(good, theta, 0.0)) / np.maximum(bent, 1e-9), 1.0)
        return np.where(good[..., None], xy * scale[..., None], np.nan)

    def _bent(self, theta: Array) -> Array:
        t2 = theta * theta
        return np.asarray(theta * (1 + t2 * (self.k1 + t2 * (self.k2 + t2 * (self.k3 + t2 * self.k4)))))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Camera:
    """One calibrated camera of a rig.

    Attributes:
        name: unique in the rig.
        width, height: picture size in pixels.
        intrinsics: float64 [3, 3], K in pixels of that size.
        camera_to_vehicle: float64 [4, 4], rigid.
        distortion: the lens.
        ego_mask: bool [height, width], True where the world is seen, False on the own vehicle.
    """

    name: str
    width: int
    height: int
    intrinsics: Array
    camera_to_vehicle: Array
    distortion: Distortion = field(default_factory=NoDistortion)
    ego_mask: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        k = _frozen_matrix(self.intrinsics, (3, 3), f"intrinsics of camera {self.name}")
        pose = _frozen_matrix(self.camera_to_vehicle, (4, 4), f"pose of camera {self.name}")
        if self.width < 1 or self.height < 1:
            raise InputError(f"camera {self.name} has a picture size of {self.width}x{self.height}")
        if k[0, 0] <= 0 or k[1, 1] <= 0:
            raise InputError(
                f"camera {self.name} has a focal length that is not positive "
                f"(fx {k[0, 0]:g}, fy {k[1, 1]:g})",
                hint="check its calibration",
            )
        rotation = pose[:3, :3]
        if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-3 or np.linalg.det(rotation) < 0:
            raise InputError(f"the pose of camera {self.name} is not a rotation and a translation")
        if self.ego_mask is not None and self.ego_mask.shape != (self.height, self.width):
            raise InputError(
                f"the ego mask of camera {self.name} has shape {self.ego_mask.shape}, "
                f"its pictures {(self.height, self.width)}"
            )
        object.__setattr__(self, "intrinsics", k)
        object.__setattr__(self, "camera_to_vehicle", pose)

    @property
    def azimuth(self) -> float:
        """Direction of the optical axis in the vehicle's x-y plane, radians counter-clockwise from +x."""
        axis = self.camera_to_vehicle[:3, 2]
        return math.atan2(axis[1], axis[0])

    @property
    def pitch_deg(self) -> float:
        """Elevation of the optical axis above the horizon, in degrees."""
        return math.degrees(math.asin(max(-1.0, min(1.0, float(self.camera_to_vehicle[2, 2])))))

    @property
    def height_m(self) -> float:
        """Height of the optical centre above the vehicle's origin, in metres."""
        return float(self.camera_to_vehicle[2, 3])

    def project(self, points: Array) -> tuple[Array, Array]:
        """Project points of this camera's frame into its picture.

        Args:
            points: float64 [..., 3] in metres.

        Returns:
            (uv float64 [..., 2] in pixels, z float64 [...] in metres). Where z ≤ 0, uv is NaN.
        """
        z = points[..., 2]
        ahead = z > 0
        plane = np.where(ahead[..., None], points[..., :2], np.nan) / np.where(ahead, z, 1.0)[..., None]
        bent = self.distortion.distort(plane)
        k = self.intrinsics
        u = k[0, 0] * bent[..., 0] + k[0, 1] * bent[..., 1] + k[0, 2]
        v = k[1, 1] * bent[..., 1] + k[1, 2]
        return np.stack((u, v), axis=-1), z

    def rays(self, uv: Array) -> Array:
        """Directions [..., 3] with z = 1 of picture positions [..., 2]; NaN where the lens sees none."""
        k = self.intrinsics
        y = (uv[..., 1] - k[1, 2]) / k[1, 1]
        x = (uv[..., 0] - k[0, 2] - k[0, 1] * y) / k[0, 0]
        plane = self.distortion.undistort(np.stack((x, y), axis=-1))
        return np.concatenate((plane, np.ones((*plane.shape[:-1], 1))), axis=-1)

    def inside(self, uv: Array) -> NDArray[np.bool_]:
        """Whether positions [..., 2] lie in the picture."""
        with np.errstate(invalid="ignore"):
            return np.asarray(
                (uv[..., 0] >= 0) & (uv[..., 0] < self.width) & (uv[..., 1] >= 0) & (uv[..., 1] < self.height)
            )

    def scaled(self, width: int, height: int) -> Camera:
        """The same camera after its picture is squashed to another size (no crop).

        K scales per axis: cx by the same factor as fx, since pixel i covers [i, i + 1). A pixel of the
        scaled ego mask is valid only where every pixel that it covers is.
        """
        sx, sy = width / self.width, height / self.height
        k = np.diag((sx, sy, 1.0)) @ self.intrinsics
        mask = None if self.ego_mask is None else shrink_mask(self.ego_mask, width, height)
        return replace(self, width=width, height=height, intrinsics=k, ego_mask=mask)

    def with_ego_mask(self, mask: NDArray[np.bool_] | None) -> Camera:
        """The same camera with another ego mask (bool [height, width], True = world)."""
        return replace(self, ego_mask=mask)


@dataclass(frozen=True, slots=True, eq=False)
class Rig:
    """The cameras of a vehicle in ring order.

    Ring order comes from the poses alone: from the view nearest to vehicle +x, counter-clockwise seen
    from above. A file's camera order is never trusted. Make one with `Rig.of`.
    """

    cameras: tuple[Camera, ...]

    def __post_init__(self) -> None:
        names = [camera.name for camera in self.cameras]
        if not names:
            raise InputError("a rig without cameras")
        if len(set(names)) != len(names):
            raise InputError(f"a rig names a camera twice: {', '.join(names)}")
        if names != [camera.name for camera in ring_order(self.cameras)]:
            raise InputError(f"cameras are not in ring order: {', '.join(names)}")

    @classmethod
    def of(cls, cameras: Iterable[Camera]) -> Rig:
        """A rig of these cameras, put into ring order."""
        return cls(ring_order(tuple(cameras)))

    @property
    def names(self) -> tuple[str, ...]:
        """Camera names, in ring order."""
        return tuple(camera.name for camera in self.cameras)

    def __len__(self) -> int:
        return len(self.cameras)

    def __getitem__(self, name: str) -> Camera:
        for camera in self.cameras:
            if camera.name == name:
                return camera
        raise InputError(f"the rig has no camera {name} (it has {', '.join(self.names)})")

    def neighbours(self, minimum: float = 0.01) -> tuple[tuple[str, str], ...]:
        """Ring-adjacent pairs (a, b), b next counter-clockwise after a, whose pictures overlap.

        Args:
            minimum: least `overlap` in either direction that counts.
        """
        count = len(self.cameras)
        pairs = [] if count < 2 else [(i, (i + 1) % count) for i in range(count if count > 2 else 1)]
        return tuple(
            (self.cameras[i].name, self.cameras[j].name)
            for i, j in pairs
            if max(overlap(self.cameras[i], self.cameras[j]), overlap(self.cameras[j], self.cameras[i]))
            >= minimum
        )

    def scaled(self, width: int, height: int) -> Rig:
        """The rig whose pictures are all squashed to one size."""
        return Rig(tuple(camera.scaled(width, height) for camera in self.cameras))

    def with_ego_masks(self, masks: Mapping[str, NDArray[np.bool_]]) -> Rig:
        """The rig with these ego masks; cameras not named keep theirs."""
        return Rig(tuple(c.with_ego_mask(masks[c.name]) if c.name in masks else c for c in self.cameras))


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualPinhole:
    """The ideal camera that one view of the network sees; a real camera is rectified into it.

    Attributes:
        name: the view's name.
        width, height: network size in pixels.
        fx, fy, cx, cy: intrinsics in network pixels.
        fx_range: the focal lengths (network pixels) that the network is trusted with.
        yaw_deg, pitch_deg, height_m: where the view of the calibration rig looked from.
    """

    name: str
    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    fx_range: tuple[float, float]
    yaw_deg: float
    pitch_deg: float
    height_m: float

    @property
    def intrinsics(self) -> Array:
        """K, float64 [3, 3]."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]], dtype=np.float64)

    @classmethod
    def of(cls, camera: Camera, width: int, height: int, *, fx_slack: float = 2.0) -> VirtualPinhole:
        """The camera's own field of view as an ideal pinhole of the network's size (no crop).

        Args:
            camera: a calibrated camera of any size and lens.
            width, height: network size.
            fx_slack: a view may have a focal length this many times shorter or longer.
        """
        k = camera.scaled(width, height).intrinsics
        fx = float(k[0, 0])
        return cls(
            name=camera.name,
            width=width,
            height=height,
            fx=fx,
            fy=float(k[1, 1]),
            cx=float(k[0, 2]),
            cy=float(k[1, 2]),
            fx_range=(fx / fx_slack, fx * fx_slack),
            yaw_deg=math.degrees(camera.azimuth),
            pitch_deg=camera.pitch_deg,
            height_m=camera.height_m,
        )


def ring_order(cameras: Sequence[Camera]) -> tuple[Camera, ...]:
    """Cameras from the one nearest to vehicle +x, counter-clockwise seen from above."""
    if not cameras:
        return ()
    first = min(cameras, key=lambda c: (round(abs(c.azimuth), 9), c.name)).azimuth
    turn = 2 * math.pi

    def after_first(camera: Camera) -> tuple[float, str]:
        # Rounded, so that two cameras of one direction are told apart by name and not by rounding noise.
        return round((camera.azimuth - first) % turn, 9) % round(turn, 9), camera.name

    return tuple(sorted(cameras, key=after_first))


def overlap(a: Camera, b: Camera, distances: Sequence[float] = (5.0, 20.0, 80.0)) -> float:
    """Share of camera a's picture that camera b sees too, averaged over points at some distances.

    Args:
        a, b: cameras of one rig.
        distances: metres along the rays of a.
    """
    columns = (np.arange(32) + 0.5) * a.width / 32
    rows = (np.arange(20) + 0.5) * a.height / 20
    rays = a.rays(np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2))
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    a_to_b = np.linalg.inv(b.camera_to_vehicle) @ a.camera_to_vehicle
    seen = [
        b.inside(b.project((rays * distance) @ a_to_b[:3, :3].T + a_to_b[:3, 3])[0]).mean()
        for distance in distances
    ]
    return float(np.mean(seen))


def shrink_mask(mask: NDArray[np.bool_], width: int, height: int) -> NDArray[np.bool_]:
    """Squash a mask; a pixel stays True only where every pixel that it covers is True."""

    def spans(old: int, new: int) -> NDArray[np.int64]:
        edges = np.arange(new + 1) * (old / new)
        starts = np.floor(edges[:-1] + 1e-9).astype(np.int64)
        return np.stack((starts, np.maximum(np.ceil(edges[1:] - 1e-9).astype(np.int64), starts + 1)), axis=1)

    bad = np.pad(np.cumsum(np.cumsum(~mask, axis=0, dtype=np.int64), axis=1), ((1, 0), (1, 0)))
    rows, columns = spans(mask.shape[0], height), spans(mask.shape[1], width)
    top, bottom, left, right = rows[:, :1], rows[:, 1:], columns[:, 0], columns[:, 1]
    return np.asarray(bad[bottom, right] - bad[top, right] - bad[bottom, left] + bad[top, left] == 0)


def _frozen_matrix(value: Array, shape: tuple[int, int], what: str) -> Array:
    matrix = np.array(value, dtype=np.float64)
    if matrix.shape != shape or not np.isfinite(matrix).all():
        raise InputError(f"the {what} must be a finite {shape[0]}x{shape[1]} matrix")
    matrix.flags.writeable = False
    return matrix
