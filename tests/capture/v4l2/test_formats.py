from __future__ import annotations

import pytest

from fsmde_edge.capture.v4l2.errors import CameraError
from fsmde_edge.capture.v4l2.fake import FakeCamera, FakeKernel
from fsmde_edge.capture.v4l2.formats import KNOWN, choose, code_of, number_of
from fsmde_edge.capture.v4l2.ioctls import open_node, set_layout

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
    format = KNOWN[code]
    assert format.size(format.stride(64), 48) == 64 * 48 * BYTES[code]
    padded = format.stride(64) + 32
    assert format.size(padded, 48) == padded * 48 * (
        BYTES[code] if code in ("NV12",) else 2 if code == "NV16" else 1
    )


def test_motion_jpeg_has_no_size():
    assert KNOWN["MJPG"].compressed
    assert KNOWN["MJPG"].size(0, 1080) == 0


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
