from __future__ import annotations

import pytest

from fsmde_edge.capture.devices import expand, find_devices, name_cameras
from fsmde_edge.capture.v4l2.fake import FakeCamera, FakeKernel
from fsmde_edge.capture.v4l2.structs import Request
from fsmde_edge.errors import UsageError


@pytest.fixture
def kernel():
    return FakeKernel([FakeCamera(f"/dev/video{i}") for i in (0, 1, 2, 9, 10, 11)])


@pytest.fixture
def by_path(tmp_path):
    folder = tmp_path / "by-path"
    folder.mkdir()
    (folder / "pci-0000:00:14.0-usb-0:1-2").symlink_to("/dev/video9")
    return folder


def test_ranges_lists_globs_and_names(kernel, by_path):
    assert expand(["/dev/video0-2"], kernel) == ["/dev/video0", "/dev/video1", "/dev/video2"]
    assert expand(["/dev/video2,/dev/video0", "/dev/cam"], kernel) == [
        "/dev/video2",
        "/dev/video0",
        "/dev/cam",
    ]
    assert expand(["/dev/video1*"], kernel) == ["/dev/video1", "/dev/video10", "/dev/video11"]
    assert expand(["/dev/video*"], kernel)[-3:] == ["/dev/video9", "/dev/video10", "/dev/video11"]
    name = str(by_path / "pci-0000:00:14.0-usb-0:1-2")
    assert expand([name], kernel, by_path=by_path) == [name]  # no range, though it looks like one


def test_a_glob_leaves_out_what_streams_no_pictures_but_not_what_is_in_use(kernel):
    held = kernel.open("/dev/video10")
    assert "/dev/video10" in expand(["/dev/video1*"], kernel)
    kernel.close(held)


@pytest.mark.parametrize(
    ("specs", "what"),
    [
        (["/dev/video5-0"], "is no range of cameras"),
        (["/dev/video0-999"], "is no range of cameras"),
        (["/dev/nothing*"], r"no camera matches /dev/nothing\*"),
        (["/dev/video0-2", "/dev/video1"], "the camera /dev/video1 is named twice"),
        ([","], "no camera is named"),
    ],
)
def test_what_names_no_cameras_is_a_usage_error(kernel, specs, what):
    with pytest.raises(UsageError, match=what):
        expand(specs, kernel)


def test_two_names_of_one_camera_are_found_out(kernel, by_path):
    with pytest.raises(UsageError, match="is named twice; leave out one; the other is /dev/video9"):
        expand(["/dev/video9", str(by_path / "pci-0000:00:14.0-usb-0:1-2")], kernel, by_path=by_path)


def test_devices_become_cameras_in_ring_order_or_by_name(kernel):
    ring = ("front", "left", "right")
    by_order = {"front": "/dev/video0", "left": "/dev/video1", "right": "/dev/video2"}
    assert name_cameras(["/dev/video0-2"], ring, kernel) == by_order
    named = name_cameras(["right=/dev/video2", "left=/dev/video1,front=/dev/video0"], ring, kernel)
    assert list(named.items()) == list(by_order.items())


@pytest.mark.parametrize(
    ("specs", "what"),
    [
        (["/dev/video0-1"], "2 devices are named, the rig has 3 cameras"),
        (["front=/dev/video0", "/dev/video1,/dev/video2"], "some cameras are named and some are not"),
        (["front=/dev/video0,back=/dev/video1,left=/dev/video2"], "the rig has no camera back"),
        (["front=/dev/video0,left=/dev/video1"], "2 devices are named, the rig has 3 cameras"),
    ],
)
def test_names_that_do_not_fit_the_rig(kernel, specs, what):
    with pytest.raises(UsageError, match=what):
        name_cameras(specs, ("front", "left", "right"), kernel)


def test_devices_are_described_and_what_fails_is_told(kernel, by_path):
    kernel.cameras["/dev/video1"].formats = ("UYVY", "XYZ1")
    kernel.cameras["/dev/video2"].refuse[Request.ENUM_FMT] = 5
    devices, troubles = find_devices(kernel, by_path=by_path)
    found = {device.path: device for device in devices}
    assert list(found) == ["/dev/video0", "/dev/video1", "/dev/video10", "/dev/video11", "/dev/video9"]
    assert found["/dev/video9"].best_name.endswith("usb-0:1-2")
    assert found["/dev/video0"].best_name == "/dev/video0"
    assert {mode.format for mode in found["/dev/video1"].modes} == {"UYVY"}
    assert found["/dev/video1"].others == ("XYZ1",)
    assert found["/dev/video1"].modes[0].rate == 30
    (trouble,) = troubles
    assert trouble.startswith("/dev/video2: cannot list its pixel formats")
