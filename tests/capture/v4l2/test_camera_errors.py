from __future__ import annotations

import errno

import pytest

from fsmde_edge.capture.v4l2.errors import HINTS, CameraError, camera_error
from fsmde_edge.capture.v4l2.fake import FakeCamera, FakeKernel
from fsmde_edge.capture.v4l2.ioctls import open_node, request_buffers
from fsmde_edge.capture.v4l2.structs import Capabilities, MemoryKind, Request
from fsmde_edge.errors import DeviceError

DOCUMENTED = (
    "EACCES", "EAGAIN", "EBUSY", "EFAULT", "EINVAL", "EIO", "ENODEV", "ENOENT", "ENOLINK", "ENOMEM", "ENOSPC",
    "ENOTTY", "ENXIO", "EPERM", "EPIPE", "ERANGE",
)  # fmt: skip
"""What the kernel's V4L2 pages say that open and our ioctls may answer."""


@pytest.mark.parametrize("name", DOCUMENTED)
def test_every_documented_refusal_has_a_next_step(name):
    error = camera_error(OSError(getattr(errno, name), "no"), "/dev/video3", "start it")
    assert getattr(errno, name) in HINTS
    assert str(error).startswith("/dev/video3: cannot start it (")
    assert error.exit_code == DeviceError.exit_code
    assert len(str(error).splitlines()) == 1


def test_no_bandwidth_on_a_usb_bus_is_explained():
    error = camera_error(OSError(errno.ENOSPC, "no"), "/dev/video0", "start it")
    assert "USB bus has no bandwidth left" in error.hint


@pytest.mark.parametrize("number", [errno.EBUSY, errno.ENODEV, errno.ENOSPC, errno.EIO])
def test_a_failing_request_becomes_one_line_and_keeps_its_number(number):
    kernel = FakeKernel([camera := FakeCamera("/dev/fake0")])
    node = open_node("/dev/fake0", kernel)
    camera.refuse[Request.REQBUFS] = number
    with pytest.raises(CameraError, match=r"/dev/fake0: cannot make 4 MMAP buffers") as caught:
        request_buffers(node, 4, MemoryKind.MMAP)
    assert caught.value.number == number
    assert isinstance(caught.value.__cause__, OSError)
    node.close()


def test_what_cannot_be_opened_or_asked_is_closed_and_told():
    kernel = FakeKernel([camera := FakeCamera("/dev/fake0")])
    with pytest.raises(CameraError, match=r"/dev/fake9: cannot open it .*fsmde-edge cameras lists"):
        open_node("/dev/fake9", kernel)
    camera.refuse[Request.QUERYCAP] = errno.ENOTTY
    with pytest.raises(CameraError, match="this is no V4L2 camera"):
        open_node("/dev/fake0", kernel)
    open_node("/dev/fake0", kernel).close()  # it was closed: it can be opened


class MetadataKernel(FakeKernel):
    """Answers as a webcam's node for metadata does."""

    def ioctl(self, fd, request, argument):
        metadata_capture = 0x00800000
        argument.device_caps = Capabilities.STREAMING | metadata_capture
        argument.capabilities = Capabilities.DEVICE_CAPS | argument.device_caps
        return 0


def test_a_node_that_streams_no_pictures_is_told_apart():
    kernel = MetadataKernel([FakeCamera("/dev/fake0")])
    with pytest.raises(CameraError, match="another kind of video node") as caught:
        open_node("/dev/fake0", kernel)
    assert caught.value.number == 0
    assert kernel.cameras["/dev/fake0"].opened() >= 0  # it was closed
