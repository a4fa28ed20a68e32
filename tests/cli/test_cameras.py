from __future__ import annotations

import json

import pytest

from fsmde_edge.capture import devices
from fsmde_edge.capture.v4l2.fake import FakeCamera, FakeKernel
from fsmde_edge.cli.main import main


@pytest.fixture
def plugged(monkeypatch):
    def plug(*cameras: FakeCamera) -> None:
        monkeypatch.setattr(devices, "LinuxKernel", lambda: FakeKernel(cameras))

    return plug


def test_cameras_are_listed_with_a_line_to_paste(plugged, capsys):
    plugged(FakeCamera("/dev/video0"), FakeCamera("/dev/video2", formats=("UYVY", "ABCD")))
    assert main(["cameras"]) == 0
    out = capsys.readouterr().out
    assert "/dev/video0  Fake camera (fake, fake:/dev/video0)" in out
    assert "UYVY  320x180 at 30, 64x32 at 30" in out
    assert "not taken: ABCD" in out
    assert out.splitlines()[-1].endswith("--cameras /dev/video0,/dev/video2")


def test_cameras_as_json(plugged, capsys):
    plugged(FakeCamera("/dev/video0"))
    assert main(["cameras", "--json"]) == 0
    (camera,) = json.loads(capsys.readouterr().out)["cameras"]
    assert camera["path"] == "/dev/video0"
    assert {"format": "YUYV", "width": 64, "height": 32, "rate": 30.0} in camera["modes"]


def test_no_camera_is_one_line_and_exit_5(plugged, capsys):
    plugged()
    assert main(["cameras"]) == 5
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert "no camera that streams is plugged in" in error
