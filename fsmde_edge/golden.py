"""Golden frames: what a right engine, and a right preprocessing, must give."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.bundle import Golden, reading
from fsmde_edge.frames import Frame, RawFrame
from fsmde_edge.preprocess import preprocess
from fsmde_edge.rig import BrownConrady, Camera, Distortion, Fisheye, NoDistortion, VirtualPinhole

CROP = (122, 194)
"""Height and width of the raw pictures of the vectors: odd ratios to their results on purpose."""

RESULT = (48, 80)
_LENSES: Mapping[str, Distortion] = {
    "none": NoDistortion(),
    "brown-conrady": BrownConrady(k1=-0.28, k2=0.07, p1=0.001, p2=-0.0005, k3=-0.006),
    "fisheye": Fisheye(k1=0.02, k2=-0.004, k3=0.001, k4=0.0),
}


def make_golden(
    *,
    images: NDArray[np.uint8],
    focal: NDArray[np.float32],
    depth: Mapping[str, NDArray[np.float32]],
    frame: Frame | RawFrame,
) -> Golden:
    """Golden frames of one frame set, with preprocessing vectors cut from one of its pictures.

    Args:
        images, focal: network input of the set.
        depth: precision to exact depth.
        frame: any raw picture; one smaller than 194×122 is mirrored at its edges.
    """
    picture = _crop(frame.image)
    cameras = [_camera(name, lens) for name, lens in _LENSES.items()]
    prepared = [preprocess(picture, camera, _view(camera)) for camera in cameras]
    return Golden(
        images=images,
        focal=focal,
        depth=depth,
        pictures=(picture,) * len(cameras),
        prepared=tuple(prepared),
        cameras=tuple(_plain(name, camera) for name, camera in zip(_LENSES, cameras, strict=True)),
    )


Implementation = Callable[[NDArray[np.uint8], Camera, VirtualPinhole], NDArray[np.uint8]]
"""Something that does what `preprocess` does."""


def check_preprocessing(golden: Golden, implementation: Implementation = preprocess) -> int:
    """The largest difference in grey levels between the vectors and this machine's preprocessing.

    Args:
        golden: with the vectors.
        implementation: what is checked; the definition unless given.

    Raises:
        BundleError: the vectors are none of ours.
    """
    worst = 0
    with reading(Path("golden", "preprocess.npz")):
        for values, picture, expected in zip(golden.cameras, golden.pictures, golden.prepared, strict=True):
            camera = _camera(str(values["lens"]), _LENSES[str(values["lens"])])
            made = implementation(picture, camera, _view(camera))
            worst = max(worst, int(np.abs(made.astype(np.int16) - expected).max()))
    return worst


def _crop(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    missing = [max(0, wanted - size) for wanted, size in zip(CROP, image.shape[:2], strict=True)]
    image = np.pad(image, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="symmetric")
    top, left = (image.shape[0] - CROP[0]) // 2, (image.shape[1] - CROP[1]) // 2
    return np.ascontiguousarray(image[top : top + CROP[0], left : left + CROP[1]])


def _camera(name: str, lens: Distortion) -> Camera:
    height, width = CROP
    k = np.array([[120.0, 0, width / 2 + 1.5], [0, 119.0, height / 2 - 2.25], [0, 0, 1]])
    return Camera(
        name=name, width=width, height=height, intrinsics=k, camera_to_vehicle=np.eye(4), distortion=lens
    )


def _view(camera: Camera) -> VirtualPinhole:
    return VirtualPinhole.of(camera, RESULT[1], RESULT[0])


def _plain(name: str, camera: Camera) -> Mapping[str, Any]:
    lens = camera.distortion
    coefficients = {} if isinstance(lens, NoDistortion) else {s: getattr(lens, s) for s in lens.__slots__}  # type: ignore[attr-defined]
    return {"lens": name, "coefficients": coefficients, "intrinsics": camera.intrinsics.tolist()}
