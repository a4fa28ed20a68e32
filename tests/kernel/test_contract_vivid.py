"""The contract, over the kernel's own driver."""

from __future__ import annotations

import numpy as np
import pytest
from camera_contract import CameraContract
from vivid import (
    BEFORE_NUMBER,
    CELL,
    DISCONNECT,
    ERROR_NEXT,
    FATAL,
    QBUF_ERROR,
    REQBUFS_ERROR,
    STREAMON_ERROR,
    TEXT_LEFT,
    TEXT_TOP,
    show_numbers,
    tell,
)

from fsmde_edge.capture.v4l2.ioctls import open_node, set_control
from fsmde_edge.capture.v4l2.kernel import LinuxKernel

FAILURES = {"REQBUFS": REQBUFS_ERROR, "QBUF": QBUF_ERROR, "STREAMON": STREAMON_ERROR}


class VividStage:
    def __init__(self) -> None:
        self.paths = ("/dev/video0", "/dev/video1")
        self.size = (320, 180)
        self.kernel = LinuxKernel()
        self.glyphs: dict[str, bytes] = {}
        self.kept = {}
        for path in self.paths:
            show_numbers(path)

    def fail_once(self, path, call):
        tell(path, FAILURES[call])

    def lose(self, path):
        """Disconnected, and not to be opened again while a second descriptor is open."""
        self.kept[path] = open_node(path, self.kernel)
        set_control(self.kept[path], DISCONNECT, 1)

    def come_back(self, path):
        self.kept.pop(path).close()

    def break_stream(self, path):
        tell(path, FATAL)

    def mark_error(self, path):
        tell(path, ERROR_NEXT)

    def shows(self, captured, pixels):
        """Each digit of the number has its own glyph, always the same, and unlike every other digit's."""
        luma = pixels.reshape(self.size[1], -1)[:, ::2] > 128
        for place, digit in enumerate(str(captured.sequence)):
            left = TEXT_LEFT + CELL[0] * (BEFORE_NUMBER + place)
            glyph = luma[TEXT_TOP : TEXT_TOP + CELL[1], left : left + CELL[0]].tobytes()
            if self.glyphs.setdefault(digit, glyph) != glyph or not any(glyph):
                return False
        return len(set(self.glyphs.values())) == len(self.glyphs)


@pytest.fixture
def stage():
    stage = VividStage()
    yield stage
    for node in stage.kept.values():
        node.close()


class TestVivid(CameraContract):
    def test_every_digit_was_told_apart(self, stage):
        from camera_contract import running

        with running(stage) as run:
            for captured in run.pictures("left", 12):
                assert stage.shows(captured, np.frombuffer(captured.lease.view(), np.uint8))
                captured.lease.release()
        assert len(stage.glyphs) >= 8
