from __future__ import annotations

import pytest

from fsmde_edge.capture.v4l2.errors import CameraError
from fsmde_edge.capture.v4l2.fake import FakeCamera, FakeKernel
from fsmde_edge.capture.v4l2.formats import KNOWN, choose, code_of, colour_of, number_of
from fsmde_edge.capture.v4l2.ioctls import open_node, set_layout
from fsmde_edge.preprocessing.colour import Colour
from fsmde_edge.preprocessing.raw import RawLayout

BYTES = {
    "UYVY": 2,
    "YUYV": 2,
    "NV12": 1.5,
    "NV16": 2,
    "RGB3": 3,
    "BGR3": 3,
    "GREY": 1,
    "RGGB": 1,
    "RG10": 2,
    "BA12": 2,
}


@pytest.mark.parametrize("code", BYTES)
def test_a_picture_takes_the_bytes_that_its_format_says(code):
    layout = RawLayout(code=code, width=64, height=48)
    assert layout.size == layout.buffer == 64 * 48 * BYTES[code]
    padded = layout.stride + 32
    rows = {"NV12": 1.5, "NV16": 2}.get(code, 1)
    assert RawLayout(code=code, width=64, height=48, stride=padded).size == padded * 48 * rows


def test_motion_jpeg_has_no_size():
    assert KNOWN["MJPG"].compressed
    assert RawLayout(code="MJPG", width=1920, height=1080, buffer=1 << 20).size == 0


@pytest.mark.parametrize("code", [*KNOWN, "Y16 ", "pgCC"])
def test_codes_and_numbers(code):
    assert code_of(number_of(code)) == code.rstrip()
    assert code_of(number_of(code) | 1 << 31) == f"{code.rstrip()}-BE"


def test_the_best_of_what_is_offered():
    assert choose(["MJPG", "YUYV", "XXXX"], path="/dev/video0").code == "YUYV"
    with pytest.raises(CameraError, match=r"offers no pixel format that is known \(XXXX\)"):
        choose(["XXXX"], path="/dev/video0")


def test_a_layout_that_cannot_hold_the_picture_is_refused(monkeypatch):
    node = open_node("/dev/fake0", FakeKernel([FakeCamera("/dev/fake0")]))
    monkeypatch.setattr(FakeCamera, "_size", lambda _self: 64 * 32)
    with pytest.raises(CameraError, match="2048 bytes in rows of 128 hold YUYV 64x32, which they cannot"):
        set_layout(node, KNOWN["YUYV"], 64, 32)
    node.close()


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ((0, 0, 0), Colour()),
        ((8, 0, 0), Colour()),
        ((3, 0, 0), Colour(matrix="bt709")),
        ((8, 2, 1), Colour(matrix="bt709", full_range=True)),
        ((3, 1, 2), Colour()),
        ((7, 0, 0), Colour(full_range=True)),
        ((7, 0, 2), Colour()),
    ],
)
def test_colours_are_those_that_the_driver_says_or_v4l2_means(said, meant):
    assert colour_of(*said) == meant


def test_a_size_that_chroma_cannot_have_is_the_cameras_error(monkeypatch):
    monkeypatch.setattr("fsmde_edge.capture.v4l2.fake.SIZES", ((64, 32), (63, 32)))
    node = open_node("/dev/fake0", FakeKernel([FakeCamera("/dev/fake0", formats=("GREY", "YUYV"))]))
    monkeypatch.setattr(FakeCamera, "_layout", lambda _self: RawLayout(code="GREY", width=126, height=32))
    with pytest.raises(CameraError, match="YUYV of 63x32: chroma comes in pairs; choose another size"):
        set_layout(node, KNOWN["YUYV"], 63, 32)
    node.close()
