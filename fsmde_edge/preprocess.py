"""The one definition of the way from a camera's picture to the network's input.

Training, calibration, evaluation and running all come through here; every faster implementation must
equal it, and each bundle carries golden vectors made by it.

1. A camera without distortion is squashed to the network's size: each output pixel is the exact average
   over the area that it covers (when shrinking) or the bilinear value at its centre (when enlarging).
2. Any other camera is rectified into its virtual pinhole first: on a grid n times as fine as the output,
   n the smallest whole number that samples no coarser than the source, bilinear; then averaged n by n.
3. Values are rounded half up to uint8.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.errors import InputError
from fsmde_edge.frames import FrameSet
from fsmde_edge.rig import Camera, Rig, VirtualPinhole


def preprocess_set(
    frame_set: FrameSet, rig: Rig, pinholes: tuple[VirtualPinhole, ...]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Turn a frame set into the network's input.

    Args:
        frame_set: pictures in ring order.
        rig: the cameras that took them.
        pinholes: one a view, all of one size, in the same order.

    Returns:
        (images uint8 [V, H, W, 3], focal float32 [V] in network pixels).
    """
    if not len(frame_set.frames) == len(rig) == len(pinholes):
        raise InputError(
            f"{len(frame_set.frames)} pictures, {len(rig)} cameras and {len(pinholes)} "
            "views do not go together",
            where=frame_set.name or None,
        )
    images = np.stack(
        [
            preprocess(frame.image, camera, pinhole)
            for frame, camera, pinhole in zip(frame_set.frames, rig.cameras, pinholes, strict=True)
        ]
    )
    return images, np.array([pinhole.fx for pinhole in pinholes], dtype=np.float32)


def own_pinholes(rig: Rig, width: int, height: int) -> tuple[VirtualPinhole, ...]:
    """Each camera's own field of view at network size: what a view is where no bundle says otherwise."""
    return tuple(VirtualPinhole.of(camera, width, height) for camera in rig.cameras)


def preprocess(image: NDArray[np.uint8], camera: Camera, pinhole: VirtualPinhole) -> NDArray[np.uint8]:
    """One picture to one network input.

    Args:
        image: uint8 [camera.height, camera.width, 3], RGB.
        camera: the camera that took it.
        pinhole: the view to make.

    Returns:
        uint8 [pinhole.height, pinhole.width, 3]; black where the camera sees nothing.
    """
    if image.shape != (camera.height, camera.width, 3):
        raise InputError(
            f"a picture of camera {camera.name} has shape {image.shape}, expected "
            f"{(camera.height, camera.width, 3)}"
        )
    if is_plain_resize(camera, pinhole):
        return resize(image, pinhole.width, pinhole.height)
    return _rectify(image, camera, pinhole)


def is_plain_resize(camera: Camera, pinhole: VirtualPinhole) -> bool:
    """Whether the view is the camera's own picture squashed to size, within 0.01 network pixels."""
    if not camera.distortion.is_identity:
        return False
    k = camera.scaled(pinhole.width, pinhole.height).intrinsics
    return bool(np.abs(k - pinhole.intrinsics).max() < 0.01)


def resize(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Squash a picture to a size: exact area average when shrinking, bilinear when enlarging.

    Args:
        image: uint8 [H, W, C].

    Returns:
        uint8 [height, width, C].
    """
    if image.shape[:2] == (height, width):
        return np.array(image)
    rows, columns = axis_weights(image.shape[0], height), axis_weights(image.shape[1], width)
    channels = image.shape[2]
    tall = (rows @ image.reshape(image.shape[0], -1).astype(np.float32)).reshape(height, -1, channels)
    # One product of two matrices, not one for each row: that is many times as slow.
    wide = columns @ tall.transpose(1, 0, 2).reshape(image.shape[1], -1)
    return np.ascontiguousarray(_to_uint8(wide.reshape(width, height, channels).transpose(1, 0, 2)))


@lru_cache(maxsize=32)
def axis_weights(old: int, new: int) -> NDArray[np.float32]:
    """Resampling along one axis as a matrix float32 [new, old]; every row sums to 1."""
    scale = old / new
    if new < old:
        edges = np.arange(new + 1) * scale
        pixels = np.arange(old)
        cover = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
        return np.asarray(np.maximum(cover, 0) / scale, dtype=np.float32)
    centres = np.clip((np.arange(new) + 0.5) * scale - 0.5, 0, old - 1)
    below = np.minimum(np.floor(centres).astype(np.int64), max(old - 2, 0))
    weights = np.zeros((new, old), dtype=np.float32)
    weights[np.arange(new), below] = 1 - (centres - below)
    weights[np.arange(new), np.minimum(below + 1, old - 1)] += (centres - below).astype(np.float32)
    return weights


def _rectify(image: NDArray[np.uint8], camera: Camera, pinhole: VirtualPinhole) -> NDArray[np.uint8]:
    fine = oversampling(camera, pinhole)
    u, v, seen = source_positions(camera, pinhole, fine)
    sampled = np.where(seen[..., None], _bilinear(image, u, v), np.float32(0))
    blocks = sampled.reshape(pinhole.height, fine, pinhole.width, fine, 3)
    return _to_uint8(blocks.mean(axis=(1, 3), dtype=np.float32))


def oversampling(camera: Camera, pinhole: VirtualPinhole) -> int:
    """The smallest n for which n-times-finer output pixels step at most one source pixel at the centre."""
    ratio = float(max(camera.intrinsics[0, 0] / pinhole.fx, camera.intrinsics[1, 1] / pinhole.fy))
    return max(1, math.ceil(ratio - 1e-6))


def source_positions(
    camera: Camera, pinhole: VirtualPinhole, fine: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Where each fine output pixel's centre lies in the source picture, and whether it is in it."""
    columns = (np.arange(pinhole.width * fine) + 0.5) / fine
    rows = (np.arange(pinhole.height * fine) + 0.5) / fine
    x, y = np.meshgrid((columns - pinhole.cx) / pinhole.fx, (rows - pinhole.cy) / pinhole.fy)
    uv, _ = camera.project(np.stack((x, y, np.ones_like(x)), axis=-1))
    return uv[..., 0], uv[..., 1], camera.inside(uv)


def _bilinear(
    image: NDArray[np.uint8], u: NDArray[np.float64], v: NDArray[np.float64]
) -> NDArray[np.float32]:
    height, width = image.shape[:2]
    x = np.clip(np.nan_to_num(u - 0.5), 0, width - 1)
    y = np.clip(np.nan_to_num(v - 0.5), 0, height - 1)
    left, top = np.floor(x).astype(np.intp), np.floor(y).astype(np.intp)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    fx, fy = (x - left).astype(np.float32)[..., None], (y - top).astype(np.float32)[..., None]
    upper = image[top, left] * (1 - fx) + image[top, right] * fx
    lower = image[bottom, left] * (1 - fx) + image[bottom, right] * fx
    return np.asarray(upper * (1 - fy) + lower * fy, dtype=np.float32)


def _to_uint8(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.asarray(np.clip(np.floor(values + np.float32(0.5)), 0, 255), dtype=np.uint8)
