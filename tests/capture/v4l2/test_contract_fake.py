"""The contract, over the fake."""

from __future__ import annotations

import errno

import numpy as np
import pytest
from camera_contract import CameraContract

from fsmde_edge.capture.v4l2.fake import FakeCamera, FakeKernel
from fsmde_edge.capture.v4l2.structs import Request


class FakeStage:
    def __init__(self) -> None:
        self.paths = ("/dev/fake0", "/dev/fake1")
        self.size = (64, 32)
        self.kernel = FakeKernel([FakeCamera(path, rate=100.0) for path in self.paths])

    def fail_once(self, path, call):
        self.kernel.cameras[path].refuse[Request[call]] = errno.EINVAL

    def lose(self, path):
        self.kernel.cameras[path].unplug()

    def come_back(self, path):
        self.kernel.cameras[path].plug()

    def break_stream(self, path):
        self.kernel.cameras[path].break_stream()

    def mark_error(self, path):
        self.kernel.cameras[path].mark_error = 1

    def shows(self, captured, pixels):
        return bool((pixels.view(np.uint32) == captured.sequence).all())


@pytest.fixture
def stage():
    stage = FakeStage()
    stage.kernel.run()
    yield stage
    stage.kernel.stop()


class TestFake(CameraContract):
    pass
