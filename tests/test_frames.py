from __future__ import annotations

import numpy as np
import pytest

from fsmde_edge.errors import InputError
from fsmde_edge.frames import Clock, DepthSet, Frame, FrameSet, Sample, Stamp
from fsmde_edge.rig import Camera, Rig


def picture(height=4, width=6):
    return np.zeros((height, width, 3), dtype=np.uint8)


def frame(camera="a", ns=0, clock=Clock.RECORDED, image=None):
    return Frame(camera=camera, image=picture() if image is None else image, stamp=Stamp(ns, clock))


def rig(*names, size=(4, 6)):
    k = np.array([[5.0, 0, 3], [0, 5, 2], [0, 0, 1]])
    return Rig.of(
        Camera(name=name, width=size[1], height=size[0], intrinsics=k, camera_to_vehicle=np.eye(4))
        for name in names
    )


@pytest.mark.parametrize(
    "image", [np.zeros((4, 6)), np.zeros((4, 6, 4), dtype=np.uint8), np.zeros((4, 6, 3), dtype=np.float32)]
)
def test_a_picture_must_be_rgb_bytes(image):
    with pytest.raises(InputError, match=r"camera a has shape .*expected \[H, W, 3\]"):
        frame(image=image)


def test_pictures_and_depth_cannot_be_written_through():
    made = frame()
    with pytest.raises(ValueError, match="read-only"):
        made.image[0, 0, 0] = 1
    depth = DepthSet(
        depth=np.zeros((1, 2, 3), dtype=np.float32), cameras=("a",), stamps_ns=(0,), focal=np.ones(1, "f4")
    )
    with pytest.raises(ValueError, match="read-only"):
        depth.depth[0, 0, 0] = 1


def test_a_set_tells_its_cameras_stamps_and_skew():
    made = FrameSet(frames=(frame("a", 5_000_000), frame("b", 2_000_000), frame("c", 3_500_000)))
    assert made.cameras == ("a", "b", "c")
    assert made.stamps_ns == (5_000_000, 2_000_000, 3_500_000)
    assert made.skew_ms == 3.0


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ((), "without frames"),
        ((frame("a"), frame("a")), "twice"),
        ((frame("a"), frame("b", clock=Clock.MONOTONIC)), "different clocks"),
    ],
)
def test_an_impossible_set_is_refused(frames, message):
    with pytest.raises(InputError, match=message):
        FrameSet(frames=frames)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": np.zeros((2, 3), dtype=np.float32)}, "expected"),
        ({"depth": np.zeros((1, 2, 3))}, "float32"),
        ({"cameras": ("a", "b")}, "names 2 cameras"),
        ({"stamps_ns": ()}, "0 stamps"),
        ({"focal": np.ones(3, dtype=np.float32)}, "3 focal"),
        ({"confidence": np.ones((1, 2, 2), dtype=np.float32)}, "confidence"),
    ],
)
def test_an_impossible_depth_set_is_refused(change, message):
    good = {
        "depth": np.zeros((1, 2, 3), dtype=np.float32),
        "cameras": ("a",),
        "stamps_ns": (0,),
        "focal": np.ones(1, dtype=np.float32),
    }
    DepthSet(**good)
    with pytest.raises(InputError, match=message):
        DepthSet(**{**good, **change})


def test_a_sample_goes_with_its_rig():
    frames = FrameSet(frames=(frame("a"), frame("b")), name="scene/0")
    Sample(frame_set=frames, rig=rig("a", "b"), depth={"a": np.zeros((4, 6), dtype=np.float32)})
    with pytest.raises(InputError, match=r"scene/0: .*ring order"):
        Sample(frame_set=FrameSet(frames=(frame("b"), frame("a")), name="scene/0"), rig=rig("a", "b"))
    with pytest.raises(InputError, match="is 6x4, its calibration is for 8x4"):
        Sample(frame_set=frames, rig=rig("a", "b", size=(4, 8)))
    with pytest.raises(InputError, match="depth map of camera b"):
        Sample(frame_set=frames, rig=rig("a", "b"), depth={"b": np.zeros((2, 6), dtype=np.float32)})
