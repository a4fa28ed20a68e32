"""`run --cameras` over fakes: what it prints and writes, and how bad input and faults end."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from fsmde_edge.bundle import open_bundle
from fsmde_edge.capture.v4l2 import fake
from fsmde_edge.capture.v4l2.structs import Capabilities, Request
from fsmde_edge.capture.video import rig_of_pinholes
from fsmde_edge.cli.main import main
from fsmde_edge.datasets.rigfile import save_rig


@pytest.fixture
def rig_file(small_bundle, tmp_path) -> Path:
    """A rig of six cameras of 320x180 that are the bundle's views."""
    rig = rig_of_pinholes(open_bundle(small_bundle).manifest.views).scaled(320, 180)
    save_rig(tmp_path / "rig.yaml", rig)
    return tmp_path / "rig.yaml"


def soon(action: Callable[[], object], after: float = 0.6) -> None:
    threading.Timer(after, action).start()


def test_six_cameras_become_depth_and_the_report_says_how(live, tmp_path, small_bundle):
    out = tmp_path / "depth"
    said = live("--frames", 5, "--out", out, "--format", "npz", "--size", "320x180")
    assert (said.code, said.err) == (0, "")
    names = open_bundle(small_bundle).manifest.cameras
    assert f"the devices are the bundle's views, in this order: {names[0]} /dev/video0, " in said.out
    assert "5 frame sets" in said.out
    assert "  skew       p50" in said.out
    for number, camera in enumerate(names):
        assert f"{camera}  /dev/video{number}  UYVY 320x180 at 50/s, 115200 bytes a set" in said.out
    assert said.out.count("memory userptr, copies 0, 0 bytes copied (no copy, and the driver takes it)") == 6
    assert said.out.count("drops: ") == 6
    made = np.load(out / "000004.npz")
    assert made["valid"].all()
    assert made["depth"].shape == (6, 96, 160)
    assert (made["depth"] > 0).mean() > 0.5
    assert np.ptp(made["stamps_ns"]) < 1e9


def test_memory_that_is_asked_for_is_what_runs(live):
    said = live("--frames", 2, "--memory", "copy")
    assert said.code == 0
    assert said.out.count("memory copy, copies 1") == 6


def test_a_rig_file_names_devices_sizes_and_offsets(live, rig_file):
    text = rig_file.read_text()
    for number in range(6):  # reversed: names count, not the order in the file
        text = text.replace("- name:", f"- device: /dev/video{5 - number}\n  offset_ms: -400\n  NAME:", 1)
    rig_file.write_text(text.replace("NAME:", "name:"))
    said = live("--frames", 2, cameras=str(rig_file))
    assert (said.code, said.err) == (0, "")
    assert "without --rig" not in said.out
    assert "/dev/video5  UYVY 320x180" in said.out
    (line,) = [line for line in said.out.splitlines() if line.startswith("  age") and "CAMERA_01" in line]
    assert float(line.split()[2]) > 350  # the offset is part of the age


def test_a_rig_file_without_devices(live, rig_file):
    live("--frames", 2, cameras=str(rig_file)).refuses(3, "does not say which device camera", "device:")


def test_a_rig_file_twice(live, rig_file):
    live("--rig", rig_file, cameras=str(rig_file)).refuses(2, "name it once")


def test_a_size_beside_a_rig(live, rig_file):
    live("--rig", rig_file, "--size", "64x32").refuses(2, "--size does not go with a rig")


def test_a_device_that_is_not_there(live, tmp_path):
    said = live("--out", tmp_path / "o", cameras="/dev/video0-4,/dev/video77")
    said.refuses(5, "/dev/video77", "fsmde-edge cameras lists what is there")
    assert not (tmp_path / "o").exists()


def test_a_busy_device(live, plugged):
    fd = plugged[3].opened()
    live().refuses(5, "/dev/video3", "fuser -v /dev/video3")
    plugged[3].closed()
    os.close(fd)


def test_a_device_that_is_no_camera(live, monkeypatch):
    def output_alone(_self, answer) -> None:
        answer.device_caps = Capabilities.STREAMING
        answer.capabilities = answer.device_caps | Capabilities.DEVICE_CAPS

    monkeypatch.setitem(fake._ANSWERS, Request.QUERYCAP, output_alone)
    live().refuses(5, "/dev/video0", "another kind of video node")


def test_four_cameras_for_six_views(live):
    live(cameras="/dev/video0-3").refuses(2, "4 devices are named, the rig has 6 cameras")


def test_a_rig_of_other_cameras_than_the_bundles(live, small_bundle, tmp_path):
    rig = rig_of_pinholes(open_bundle(small_bundle).manifest.views[:4])
    save_rig(tmp_path / "four.yaml", rig)
    live("--rig", tmp_path / "four.yaml", cameras="/dev/video0-3").refuses(3, "6 views", "4 cameras")


def test_a_camera_twice(live):
    live(cameras="/dev/video0-4,/dev/video0").refuses(2, "/dev/video0 is named twice")


def test_an_unknown_pixel_format(live):
    live("--pixel-format", "H264").refuses(5, "the pixel format H264 is not known")


def test_a_pixel_format_that_the_camera_does_not_give(live):
    live("--pixel-format", "BGR3").refuses(5, "does not give BGR3", "its driver would give YUYV")


def test_a_size_that_the_camera_does_not_give(live):
    live("--size", "123x45").refuses(5, "does not give")


def test_a_bus_without_bandwidth(live, plugged):
    plugged[2].always[Request.STREAMON] = errno.ENOSPC
    live().refuses(5, "/dev/video2", "no bandwidth left", "another port")


def test_a_memory_mode_that_the_driver_refuses(live, plugged):
    plugged[1].always[Request.REQBUFS] = errno.EINVAL
    live("--memory", "userptr").refuses(5, "/dev/video1", "with memory userptr", "leave --memory out")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--tolerance", "0"), "--tolerance"),
        (("--tolerance", "nan"), "--tolerance"),
        (("--max-age", "-5"), "--max-age"),
        (("--size", "640"), "--size"),
        (("--rate", "1e9"), "--rate"),
        (("--buffers", "2"), "--buffers"),
        (("--memory", "magic"), "--memory"),
        (("--missing", "guess"), "--missing"),
        (("--source", "synthetic"), "--source"),
        (("--scenes", "a"), "--scenes does not go with --cameras"),
    ],
)
def test_options_out_of_range(live, options, word):
    live(*options).refuses(2, word)


def test_a_camera_option_beside_a_recording(small_bundle, capfd):
    given = ["run", str(small_bundle), "--source", "synthetic", "--missing", "mask"]
    assert main(given) == 2
    assert "--missing goes with --cameras" in capfd.readouterr().err


def test_neither_cameras_nor_a_recording(small_bundle, capfd):
    assert main(["run", str(small_bundle)]) == 2
    assert "--source --cameras" in capfd.readouterr().err


def test_a_camera_unplugged_while_it_runs_is_masked_and_told_of(live, plugged, tmp_path):
    out = tmp_path / "depth"
    soon(plugged[2].unplug)
    soon(plugged[2].plug, 1.6)
    soon(lambda: os.kill(os.getpid(), signal.SIGINT), 3.0)
    said = live("--missing", "mask", "--out", out, "--format", "npz")
    assert said.code == 0
    lost, back = said.err.splitlines()
    assert "is lost: /dev/video2" in lost
    assert back.endswith("is back")
    assert "sets lacked a view" in said.out
    assert said.out.count("  lost from ") == 1
    valid = [np.load(file)["valid"].tolist() for file in sorted(out.iterdir())]
    assert valid[0] == valid[-1] == [True] * 6
    assert [True, True, False, True, True, True] in valid
    masked = next(file for file in sorted(out.iterdir()) if not np.load(file)["valid"].all())
    assert not np.load(masked)["depth"][2].any()


def test_all_cameras_unplugged_ends_in_exit_5_with_what_there_was(live, plugged, tmp_path):
    soon(lambda: [camera.unplug() for camera in plugged], 1.0)
    said = live("--patience", 1, "--out", tmp_path / "o")
    assert said.code == 5
    assert "6 of 6 cameras are lost" in said.err.splitlines()[-1]
    assert list((tmp_path / "o").iterdir())
    assert said.out.count("  lost from ") == 6


def test_no_camera_ever_gives_a_picture(live, plugged):
    for camera in plugged:
        camera.silent = True
    said = live("--patience", 0.5)
    said.refuses(5, "no frame set came for 0.5 s")


def test_depth_that_comes_late_is_never_shown_as_current(live, tmp_path):
    out = tmp_path / "depth"
    said = live("--frames", 2, "--max-age", 0.001, "--out", out, "--format", "npz")
    assert said.code == 0
    assert "2 sets were older than --max-age: their depth is marked invalid" in said.out
    late = np.load(out / "000001.npz")
    assert not late["valid"].any()
    assert not late["depth"].any()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_set_and_exits_well(live, number, tmp_path):
    soon(lambda: os.kill(os.getpid(), number), 1.5)
    started = time.monotonic()
    said = live("--out", tmp_path / "o")
    assert (said.code, said.err) == (0, "")
    assert "stopped by a signal" in said.out
    assert time.monotonic() - started < 20
    assert all(len(list(folder.iterdir())) == 6 for folder in (tmp_path / "o").iterdir())


def test_a_signal_ends_the_wait_for_cameras_that_give_nothing(live, plugged):
    for camera in plugged:
        camera.silent = True
    soon(lambda: os.kill(os.getpid(), signal.SIGINT), 1.5)
    said = live()
    assert said.code == 0
    assert "0 frame sets, stopped by a signal" in said.out


@pytest.mark.parametrize("missing", ["mask", "drop"])
def test_a_broken_jpeg_costs_its_view_or_its_set_as_missing_says(live, plugged, tmp_path, missing):
    picture = np.random.default_rng(0).integers(0, 256, (32, 64, 3), np.uint8)
    whole = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 20])[1].tobytes()
    assert len(whole) < 4096
    for camera in plugged:
        camera.formats = ("MJPG",)
        camera.__post_init__()
        camera.paints = lambda _: whole
    plugged[2].paints = lambda number: b"no picture" if 10 < number < 14 or number % 2 else whole
    out = tmp_path / "depth"
    given = ("--frames", 8, "--missing", missing, "--guard", "off", "--out", out, "--format", "npz")
    said = live(*given, "--pixel-format", "MJPG", "--size", "64x32")
    assert (said.code, said.err) == (0, "")
    assert "sets held a picture that cannot be decoded" in said.out
    valid = [np.load(file)["valid"].tolist() for file in sorted(out.iterdir())]
    masked = [True, True, False, True, True, True]
    assert (masked in valid) is (missing == "mask")
    assert all(views in ([True] * 6, masked) for views in valid)
