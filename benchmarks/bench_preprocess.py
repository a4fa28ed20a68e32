"""The definition of resizing and rectifying, beside OpenCV's, for one DDAD picture to one network input."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from fsmde_edge.preprocess import preprocess, resize
from fsmde_edge.rig import BrownConrady, Camera, VirtualPinhole

RAW, NETWORK = (1936, 1216), (640, 384)


@pytest.fixture(scope="module")
def picture():
    """Blurred noise, uint8 [1216, 1936, 3]: smooth enough that no branch is unlike a photograph's."""
    noise = np.random.default_rng(0).integers(0, 256, (RAW[1], RAW[0], 3), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (9, 9), 3)


@pytest.fixture(scope="module")
def camera():
    """DDAD's front-left focal length with a lens."""
    k = np.array([[1060.0, 0, 968], [0, 1060.0, 608], [0, 0, 1]])
    lens = BrownConrady(k1=-0.2, k2=0.05, p1=0.0, p2=0.0, k3=0.0)
    return Camera(
        name="CAMERA_05",
        width=RAW[0],
        height=RAW[1],
        intrinsics=k,
        camera_to_vehicle=np.eye(4),
        distortion=lens,
    )


@pytest.fixture(scope="module")
def pinhole(camera):
    """Its own field of view at network size."""
    return VirtualPinhole.of(camera, *NETWORK)


@pytest.mark.benchmark(group=f"resize {RAW} to {NETWORK}")
class BenchResize:
    """Area averages of 3.025 x 3.17 pixels."""

    def test_opencv_inter_area(self, benchmark, picture):
        """The peer."""
        benchmark(cv2.resize, picture, NETWORK, interpolation=cv2.INTER_AREA)

    def test_definition(self, benchmark, picture):
        """Ours, which the peer equals within one grey level."""
        made = benchmark(resize, picture, *NETWORK)
        peer = cv2.resize(picture, NETWORK, interpolation=cv2.INTER_AREA)
        assert np.abs(made.astype(np.int16) - peer).max() <= 1


@pytest.mark.benchmark(group=f"rectify {RAW} into {NETWORK}")
class BenchRectify:
    """Brown-Conrady distortion into a virtual pinhole; positions are part of the work on both sides."""

    def test_opencv_undistort_then_area(self, benchmark, picture, camera):
        """The peer: undistort at full size, then average; not the same arithmetic."""
        coefficients = np.array([camera.distortion.k1, camera.distortion.k2, 0, 0, 0])

        def peer():
            flat = cv2.undistort(picture, camera.intrinsics, coefficients)
            return cv2.resize(flat, NETWORK, interpolation=cv2.INTER_AREA)

        benchmark(peer)

    def test_definition(self, benchmark, picture, camera, pinhole):
        """Ours."""
        benchmark.pedantic(preprocess, (picture, camera, pinhole), rounds=5, warmup_rounds=1)
