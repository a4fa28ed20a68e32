"""`run` as monitoring, systemd and people see it: guard, --health, --watch-accuracy, watchdog."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from fsmde_edge.cli.main import main
from fsmde_edge.inference.session import Session

PATIENCE = 60.0


def stop() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def looked(tmp_path):
    """The health file; its states, in order, as they come; and what plans things to do at one of them."""
    path, states, plans, done = tmp_path / "health.json", [], [], threading.Event()

    def look() -> None:
        while not done.wait(0.02):
            if path.exists():
                state = json.loads(path.read_text())  # whole at any time
                if not states or states[-1] != state:
                    states.append(state)
                if plans and plans[0][0](state):
                    plans.pop(0)[1]()

    thread = threading.Thread(target=look)
    thread.start()
    yield path, states, lambda when, what: plans.append((when, what))
    done.set()
    thread.join()


def test_a_frozen_camera_is_told_of_masked_and_reported(live, plugged, tmp_path):
    plugged[3].paints = lambda _: bytes(range(256)) * 500
    said = live("--frames", 14, "--out", tmp_path / "o", "--format", "npz")
    assert said.code == 0
    assert said.err == "camera CAMERA_09 gives a frozen picture; its depth is marked invalid\n"
    (line,) = [line for line in said.out.splitlines() if "gave a frozen picture" in line]
    assert line.endswith("to the end: 5 sets, 9 to 13")
    valid = [np.load(file)["valid"].tolist() for file in sorted((tmp_path / "o").iterdir())]
    assert valid == [[True] * 6] * 9 + [[True, True, True, False, True, True]] * 5
    assert not np.load(tmp_path / "o" / "000013.npz")["depth"][3].any()


def test_a_covered_lens_is_named(live, plugged):
    plugged[0].paints = None  # one colour all over
    said = live("--frames", 2)
    assert "camera CAMERA_01 gives a picture that shows nothing (covered lens" in said.err
    assert "CAMERA_01 gave a picture that shows nothing" in said.out


@pytest.mark.parametrize(("guard", "lines"), [("tell", 1), ("off", 0)])
def test_the_guard_may_only_tell_or_be_off(live, plugged, guard, lines, tmp_path):
    plugged[0].paints = None
    said = live("--frames", 1, "--guard", guard, "--out", tmp_path / "o", "--format", "npz")
    assert len(said.err.splitlines()) == lines
    assert np.load(tmp_path / "o" / "000000.npz")["valid"].all()


def test_a_recording_is_guarded_too(small_bundle, capfd, monkeypatch):
    real = Session.infer

    def broken(self, images, focal):
        result = real(self, images, focal)
        result.depth[2] = np.nan
        return result

    monkeypatch.setattr(Session, "infer", broken)
    assert main(["run", str(small_bundle), "--source", "synthetic", "--frames", "2"]) == 0
    said = capfd.readouterr()
    assert said.err.splitlines()[0].startswith("camera CAMERA_07 gives depth that is not a number; its depth")
    assert "CAMERA_07 gave depth that is not a number" in said.out


def test_health_tells_of_a_lost_camera_while_it_is_lost_and_of_the_end(live, plugged, looked):
    path, states, plan = looked
    plan(lambda state: state["state"] == "running", plugged[2].unplug)
    plan(lambda state: state["cameras"]["CAMERA_07"]["state"] == "lost", lambda: None)
    plan(lambda state: state["state"] == "running", stop)
    said = live("--missing", "mask", "--health", path)
    assert said.code == 0
    last = json.loads(path.read_text())
    assert (last["version"], last["state"], last["why"], last["pid"]) == (
        1,
        "stopped",
        "a signal",
        os.getpid(),
    )
    assert last["sets"] > 0
    assert last["last_minute"]["sets"] == last["sets"]
    assert 0 < last["last_minute"]["age_ms"]["p50"] <= last["last_minute"]["age_ms"]["max"]
    assert last["last_minute"]["skew_ms"]["p99"] < 1000
    lost = last["cameras"]["CAMERA_07"]
    assert lost["state"] == "lost"
    assert lost["lost_since"]["monotonic_ns"] > last["started"]["monotonic_ns"]
    assert "/dev/video2" in lost["why"]
    assert lost["outages"] == 1
    assert last["cameras"]["CAMERA_01"]["state"] == "streaming"
    assert set(last["cameras"]["CAMERA_01"]["drops"]) >= {"gap", "late", "error flag", "slow consumer"}
    seen = [state["state"] for state in states]
    assert "running" in seen  # a slow disk skips states, and the last one came as the run ended
    running = [state["updated"]["monotonic_ns"] for state in states if state["state"] == "running"]
    assert min(np.diff(running)) > 0.9e9  # at most once a second


def test_health_tells_of_a_run_that_waits_and_of_one_that_failed(live, plugged, looked):
    path, states, plan = looked
    plan(lambda state: state["sets"] > 0, lambda: [camera.unplug() for camera in plugged])
    said = live("--patience", 5, "--health", path)
    assert said.code == 5
    last = json.loads(path.read_text())
    assert last["state"] == "failed"
    assert "6 of 6 cameras are lost" in last["why"]
    assert "waiting" in [state["state"] for state in states]


def test_a_health_file_that_cannot_be_written_is_refused_before_the_run(live, tmp_path):
    (tmp_path / "file").write_text("")
    live("--health", tmp_path / "file" / "h.json", "--frames", 1).refuses(3, "choose a folder")


def test_a_recordings_health(small_bundle, tmp_path, capfd):
    path = tmp_path / "h.json"
    given = ["run", str(small_bundle), "--source", "synthetic", "--frames", "2", "--health", str(path)]
    assert main(given) == 0
    state = json.loads(path.read_text())
    assert (state["state"], state["why"], state["sets"]) == (
        "stopped",
        "as many frame sets as were asked for",
        2,
    )
    assert state["last_minute"]["age_ms"] is None
    assert state["accuracy"] is None
    assert state["guard"] == []


def test_accuracy_is_watched_and_told_at_the_end(live, tmp_path):
    path = tmp_path / "h.json"
    said = live("--watch-accuracy", 0.01, "--frames", 6, "--health", path, "--guard", "off")
    assert said.code == 0
    assert said.out.count("  off FP32   mean") == 6
    view = json.loads(path.read_text())["accuracy"]["views"]["CAMERA_01"]
    assert view["sets"] >= 1
    assert 0 < view["deviation"] < 1


@pytest.mark.parametrize("text", ["0", "-1", "often", "nan"])
def test_an_interval_that_is_none(live, text):
    live("--watch-accuracy", text).refuses(2, "--watch-accuracy")


class Systemd:
    """The socket that systemd would listen to."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(0.05)
        self.heard: list[tuple[float, str]] = []
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._listen)
        self.thread.start()

    def _listen(self) -> None:
        while not self.done.is_set():
            try:
                said = self.socket.recv(4096).decode()
            except TimeoutError:
                continue
            self.heard.append((time.monotonic(), said))

    def close(self) -> None:
        self.done.set()
        self.thread.join()
        self.socket.close()

    def times(self, word: str) -> list[float]:
        return [when for when, said in self.heard if said.startswith(word)]


@pytest.fixture
def systemd(tmp_path, monkeypatch):
    with closing(Systemd(tmp_path / "notify")) as listener:
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "400000")
        yield listener


def test_systemd_hears_ready_status_food_and_the_end(live, systemd):
    said = live("--frames", 20)
    assert said.code == 0
    systemd.close()
    assert len(systemd.times("READY=1")) == 1
    assert systemd.times("WATCHDOG=1")
    assert systemd.heard[-1][1] == "STOPPING=1\nSTATUS=stopped: as many frame sets as were asked for"
    assert any(said.startswith("STATUS=starting: 0 sets") for _, said in systemd.heard)


def test_ready_comes_after_the_first_depth(live, plugged, systemd):
    for camera in plugged:
        camera.silent = True
    said = live("--patience", 1.5)
    assert said.code == 5
    systemd.close()
    assert systemd.times("READY=1") == []
    assert len(systemd.times("WATCHDOG=1")) > 5  # it moves while it waits
    assert systemd.heard[-1][1].startswith("STOPPING=1\nSTATUS=failed: ")


def test_a_hang_in_inference_starves_the_watchdog(live, systemd, monkeypatch):
    real, span = Session.infer, []

    def hangs(self, images, focal):
        if not span and systemd.times("READY=1"):
            span.append(time.monotonic())
            time.sleep(3.0)
            span.append(time.monotonic())
        return real(self, images, focal)

    monkeypatch.setattr(Session, "infer", hangs)
    assert live("--frames", 20).code == 0
    systemd.close()
    begun, ended = span
    food = systemd.times("WATCHDOG=1")
    assert any(when < begun for when in food)
    assert any(when > ended for when in food)
    assert not [when for when in food if begun + 1 < when < ended]


def test_a_second_signal_leaves_a_hang_at_once(live, tmp_path, monkeypatch):
    came = []

    def hangs(*_):
        stop()
        came.append("the first signal is taken note of")
        stop()
        time.sleep(PATIENCE)
        came.append("nobody waits for this")

    monkeypatch.setattr(Session, "infer", hangs)
    said = live("--health", tmp_path / "h.json")
    assert (said.code, came) == (0, ["the first signal is taken note of"])
    assert said.err == "fsmde-edge: stopped before there was a result\n"
    state = json.loads((tmp_path / "h.json").read_text())
    assert (state["state"], state["why"]) == ("stopped", "a second signal")
