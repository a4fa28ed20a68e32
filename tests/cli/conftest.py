"""Six fake cameras, and a small bundle that runs on them."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from fsmde_edge.capture import devices, tending
from fsmde_edge.capture.v4l2 import camera as camera_module
from fsmde_edge.capture.v4l2.fake import FakeCamera, FakeKernel
from fsmde_edge.cli.main import main

NODES = tuple(f"/dev/video{number}" for number in range(6))


NOISE = random.Random(0).randbytes(4099) * 30


def noise(number: int) -> bytes:
    """A picture with something in it that moves."""
    return NOISE[number % 4099 :]


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    def refuses(self, code: int, *words: str) -> None:
        """Exactly one line on stderr, with these words, and this exit code."""
        (line,) = self.err.splitlines()
        assert line.startswith("fsmde-edge: ")
        for word in words:
            assert word in line
        assert self.code == code


@pytest.fixture(autouse=True)
def hearing():
    """Ctrl-C is heard, whatever was inherited: `nohup make test &` ignores it."""
    inherited = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, inherited)


@pytest.fixture
def plugged(monkeypatch):
    """Six fake cameras that take pictures by themselves."""
    cameras = [FakeCamera(path, rate=50.0, paints=noise) for path in NODES]
    kernel = FakeKernel(cameras)
    monkeypatch.setattr(devices, "LinuxKernel", lambda: kernel)
    monkeypatch.setattr(camera_module, "LinuxKernel", lambda: kernel)
    monkeypatch.setattr(tending, "FIRST_WAIT", 0.02)
    monkeypatch.setattr(tending, "LONGEST_WAIT", 0.08)
    kernel.run()
    yield cameras
    kernel.stop()


@pytest.fixture
def live(plugged, small_bundle, capfd) -> Callable[..., Said]:
    """Runs the small bundle on the cameras."""

    def run(*arguments: object, cameras: str = "/dev/video0-5") -> Said:
        capfd.readouterr()
        given = ["run", small_bundle, "--cameras", *cameras.split(), "--threads", 1, *arguments]
        code = main([str(argument) for argument in given])
        return Said(code, *capfd.readouterr())

    return run
