from __future__ import annotations

import itertools
import json
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from fsmde_edge.capture import devices
from fsmde_edge.capture.v4l2 import camera as camera_module
from fsmde_edge.capture.v4l2 import fake
from fsmde_edge.capture.v4l2.fake import FakeCamera, FakeKernel
from fsmde_edge.capture.video import rig_of_pinholes
from fsmde_edge.cli.main import main
from fsmde_edge.datasets.rigfile import Plugged, load_plugged, load_rig, save_rig, set_offsets
from fsmde_edge.rig import VirtualPinhole


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


@pytest.fixture
def triggered(monkeypatch):
    """Cameras that one thread exposes; the last stamps late by a constant."""

    def wire(count: int, *, late_ms: float = 0.0, drift_ns: int = 0) -> None:
        cameras = [FakeCamera(f"/dev/video{number}") for number in range(count)]
        kernel = FakeKernel(cameras)
        monkeypatch.setattr(devices, "LinuxKernel", lambda: kernel)
        monkeypatch.setattr(camera_module, "LinuxKernel", lambda: kernel)
        done = threading.Event()

        def trigger() -> None:
            for tick in itertools.count():
                if done.wait(0.02):
                    return
                now = time.monotonic_ns()
                for camera in cameras:
                    late = round(late_ms * 1e6) + drift_ns * tick if camera is cameras[-1] else 0
                    with stamping(now + late):
                        camera.expose()

        thread = threading.Thread(target=trigger)
        thread.start()
        stops.append((done, thread))

    stops: list = []
    yield wire
    for done, thread in stops:
        done.set()
        thread.join()


@contextmanager
def stamping(now_ns: int):
    """What the fake stamps with, for one picture."""
    real = fake.time
    fake.time = SimpleNamespace(monotonic_ns=lambda: now_ns)
    try:
        yield
    finally:
        fake.time = real


@pytest.fixture
def rig_file(tmp_path):
    rig = surround_rig(3)
    plugged = {name: Plugged(f"/dev/video{number}", 0.0) for number, name in enumerate(rig.names)}
    save_rig(tmp_path / "rig.yaml", rig, plugged)
    return tmp_path / "rig.yaml"


def surround_rig(count: int):
    return rig_of_pinholes(
        VirtualPinhole(
            name=f"c{number}", width=64, height=32, fx=40.0, fy=40.0, cx=32.0, cy=16.0, fx_range=(1.0, 99.0),
            yaw_deg=number * 360 / count, pitch_deg=0.0, height_m=1.5,
        )
        for number in range(count)
    )  # fmt: skip


def test_offsets_are_learnt_and_written_beside_everything_else(triggered, rig_file, capsys):
    rig_file.write_text(f"# by hand\n{rig_file.read_text()}")
    triggered(3, late_ms=4.0)
    assert main(["cameras", "--sync", "--rig", str(rig_file), "--seconds", "2"]) == 0
    found = {name: each.offset_ms for name, each in load_plugged(rig_file).items()}
    first, middle, last = load_rig(rig_file).names
    assert found[first] == 0
    assert found[middle] == pytest.approx(0, abs=0.001)
    assert found[last] == pytest.approx(-4, abs=0.001)
    assert rig_file.read_text().startswith("# by hand\n")
    assert load_plugged(rig_file)[last].device == "/dev/video2"
    out = capsys.readouterr().out
    assert f"wrote offset_ms into {rig_file}" in out
    assert "stamps cannot tell exposures that begin apart" in out


def test_an_offset_that_the_first_camera_has_is_everyones(triggered, rig_file):
    set_offsets(rig_file, {load_rig(rig_file).names[0]: -2.5})
    triggered(3, late_ms=4.0)
    assert main(["cameras", "--sync", "--rig", str(rig_file), "--seconds", "2"]) == 0
    assert [each.offset_ms for each in load_plugged(rig_file).values()] == pytest.approx([-2.5, -2.5, -6.5])


def test_cameras_that_drift_are_refused_and_the_file_stays(triggered, rig_file, capsys):
    before = rig_file.read_bytes()
    triggered(3, drift_ns=30_000)
    assert main(["cameras", "--sync", "--rig", str(rig_file), "--seconds", "2"]) == 5
    (line,) = capsys.readouterr().err.splitlines()
    assert "are not triggered together: they drift apart" in line
    assert "wire them to one trigger" in line
    assert rig_file.read_bytes() == before


def test_without_a_rig_offsets_are_only_shown(triggered, capsys):
    triggered(2, late_ms=-3.0)
    assert main(["cameras", "--sync", "--cameras", "/dev/video0-1", "--seconds", "2"]) == 0
    out = capsys.readouterr().out
    assert "/dev/video1  offset_ms    3.000" in out
    assert "nothing was written" in out


@pytest.mark.parametrize(
    ("given", "word"),
    [
        (("--sync",), "give --rig FILE or --cameras"),
        (("--sync", "--cameras", "/dev/video0"), "compares cameras, and one is named"),
        (("--sync", "--cameras", "/dev/video0-1", "--json"), "--json does not go with --sync"),
        (("--seconds", "3"), "--seconds goes with --sync"),
        (("--sync", "--cameras", "/dev/video0-1", "--seconds", "nan"), "--seconds"),
    ],
)
def test_what_does_not_go_together(triggered, capsys, given, word):
    triggered(2)
    assert main(["cameras", *given]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert word in line
