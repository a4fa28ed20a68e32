"""In the guest: every fault that the kernel's virtual cameras (or fakes) can show, on the real `run`.

    python tools/kernel/fault_run.py BUNDLE FOLDER [NAME ...]

Only the network is replaced, by one that answers at once: in the guest it would take seconds a set, and
faults of cameras do not reach it. Each fault gets a process of its own, which runs until the fault was seen
and lived through; its health file says when. Writes FOLDER/faults.json.
"""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "kernel"))

import numpy as np
from numpy.typing import NDArray
from vivid import (
    DISCONNECT,
    DROPPED_PERCENT,
    ERROR_NEXT,
    FATAL,
    QBUF_ERROR,
    REQBUFS_ERROR,
    STREAMON_ERROR,
    WRAP_SEQUENCE,
    named,
    opened,
    tell,
)

from fsmde_edge import runtime
from fsmde_edge.bundle import Bundle
from fsmde_edge.capture import live
from fsmde_edge.capture.v4l2 import camera as camera_module
from fsmde_edge.capture.v4l2.camera import Settings, open_cameras
from fsmde_edge.capture.v4l2.fake import FakeCamera, FakeKernel
from fsmde_edge.capture.v4l2.ioctls import open_node, set_control
from fsmde_edge.capture.v4l2.kernel import LinuxKernel
from fsmde_edge.capture.v4l2.structs import Request
from fsmde_edge.cli import run as cli_run
from fsmde_edge.cli.main import main as command_line
from fsmde_edge.finalise import serve
from fsmde_edge.inference import backends
from fsmde_edge.inference.session import Inference, Session
from fsmde_edge.watch import watch

NODES = tuple(f"/dev/video{number}" for number in range(6))
HIT = NODES[2]
"""The camera that most faults befall."""

PATIENCE = 90.0
WARM = (runtime, serve, watch, live, cli_run)
"""Loaded once, before the processes part: an emulated machine takes half a minute for it."""

BLACK, NO_TEXT = 5, 2


class Golden(Session):
    """Answers with the bundle's golden depth."""

    def __init__(self, depth: NDArray[np.float32]) -> None:
        views, height, width = depth.shape
        super().__init__(
            backend="golden", precision="fp32", detail="golden depth", shape=(views, height, width)
        )
        self._depth = depth

    def _infer(self, images: Any, focal: Any) -> Inference:  # noqa: ARG002
        return Inference(depth=self._depth)

    def _close(self) -> None: ...


def golden(bundle: Bundle, **_: Any) -> backends.Choice:
    """In the place of `open_session`."""
    return backends.Choice(session=Golden(bundle.golden().depth["fp32"]), reason="for faults of cameras")


class Run:
    """A `run` in a process of its own, and what is seen of it."""

    def __init__(
        self, bundle: str, folder: Path, options: tuple[str, ...], prepare: Callable[[], None]
    ) -> None:
        self.out, self.err, self.health = (folder / name for name in ("out", "err", "health.json"))
        for path in (self.out, self.err, self.health):
            path.unlink(missing_ok=True)
        self.pid = os.fork()
        if self.pid:
            return
        for number, path in ((1, self.out), (2, self.err)):
            os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY), number)
        sys.stdout = os.fdopen(1, "w", buffering=1)
        sys.stderr = os.fdopen(2, "w", buffering=1)
        prepare()
        backends.open_session = golden
        given = ["run", bundle, "--cameras", "/dev/video0-5", "--size", "320x180", "--rate", "10"]
        given += ["--max-age", "1e6", "--threads", "1", "--health", str(self.health), *options]
        code = command_line(given)
        sys.stdout.flush()
        os._exit(code)

    @property
    def state(self) -> dict[str, Any]:
        """What its health file says; nothing before it is there."""
        try:
            return dict(json.loads(self.health.read_text()))
        except FileNotFoundError:
            return {}

    @property
    def said(self) -> str:
        """Its standard error so far."""
        return self.err.read_text() if self.err.exists() else ""

    def until(self, what: Callable[[], object]) -> None:
        """Wait for something, or for the process's end."""
        give_up = time.monotonic() + PATIENCE
        while not what() and time.monotonic() < give_up:
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return
            time.sleep(0.05)

    def sets(self, more: int) -> None:
        """Wait for so many more sets."""
        goal = self.state.get("sets", 0) + more
        self.until(lambda: self.state.get("sets", 0) >= goal)

    def camera(self, path: str = HIT) -> dict[str, Any]:
        """What the health file says of a camera."""
        return next((each for each in self.state.get("cameras", {}).values() if each["path"] == path), {})

    def says(self, word: str) -> None:
        """Wait for a word on stderr."""
        self.until(lambda: word in self.said)

    def signal(self, number: int) -> None:
        """Send it one."""
        os.kill(self.pid, number)

    def end(self) -> int:
        """Stop it if it goes on; its exit code."""
        give_up = time.monotonic() + PATIENCE
        while time.monotonic() < give_up:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.05)
        os.kill(self.pid, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@dataclass(frozen=True)
class Fault:
    """A fault: what it is, how it is made, and which line shows it.

    Attributes:
        what, how: for people.
        act: makes it, once the run has its first sets, and waits until it was lived through.
        options: of `run`, besides.
        shows: pattern of the line to quote, first on stderr, then in the report.
        before: makes it before the run begins instead.
        on: vivid, or a fake where vivid cannot do it.
        stops: whether SIGINT is to end the run after it.
    """

    what: str
    how: str
    shows: str
    act: Callable[[Run], None] = lambda _: None
    options: tuple[str, ...] = ("--missing", "mask")
    before: Callable[[], None] = lambda: None
    on: str = "vivid"
    prepare: Callable[[], None] = field(default=lambda: None)
    stops: bool = True


def unplug_and_plug(run: Run) -> None:
    """As a cable that is pulled and put back."""
    kept = open_node(HIT, LinuxKernel())  # while it is open the device stays away
    set_control(kept, DISCONNECT, 1)
    run.says("is lost")
    run.sets(3)
    kept.close()
    run.says("is back")
    run.sets(3)


def unplug(paths: tuple[str, ...]) -> Callable[[Run], None]:
    """Until the run ends."""

    def act(run: Run) -> None:
        kept = [open_node(path, LinuxKernel()) for path in paths]
        for node in kept:
            set_control(node, DISCONNECT, 1)
        run.says("fsmde-edge:")
        for node in kept:
            node.close()

    return act


def inject(control: int, seen: Callable[[Run], object] = lambda _: True) -> Callable[[Run], None]:
    """What one of vivid's buttons does, until it was seen."""

    def act(run: Run) -> None:
        tell(HIT, control)
        run.until(lambda: seen(run))
        run.sets(3)

    return act


def fall_silent(run: Run) -> None:
    """No picture for a while, and no event either."""
    tell(HIT, DROPPED_PERCENT, 100)
    run.says("is lost")
    run.sets(2)
    tell(HIT, DROPPED_PERCENT, 0)
    run.says("is back")
    run.sets(2)


def lose_pictures(run: Run) -> None:
    """Two in five, until twenty are lost."""
    tell(HIT, DROPPED_PERCENT, 40)
    run.until(lambda: run.camera().get("drops", {}).get("gap", 0) >= 20)
    tell(HIT, DROPPED_PERCENT, 0)


def step_the_clock(run: Run) -> None:
    """The clock on the wall, there and back."""
    now = time.time()
    time.clock_settime(time.CLOCK_REALTIME, now + 3600)
    run.sets(5)
    time.clock_settime(time.CLOCK_REALTIME, time.time() - 3600)


def show(picture: str) -> Callable[[Run], None]:
    """Black without text, or the test picture standing still."""

    def act(run: Run) -> None:
        with opened(HIT) as node:
            set_control(node, named(node, "OSD Text Mode"), NO_TEXT)
            if picture == "black":
                set_control(node, named(node, "Test Pattern"), BLACK)
        run.says("camera CAMERA")
        run.sets(2)
        with opened(HIT) as node:
            set_control(node, named(node, "OSD Text Mode"), 0)
            set_control(node, named(node, "Test Pattern"), 0)
        run.sets(2)

    return act


def wrap_stamps() -> None:
    """Let stamps begin anew soon."""
    with opened(HIT) as node:
        set_control(node, named(node, "Wrap Timestamp"), 1)


def unwrap() -> None:
    """Let numbers and stamps be as usual."""
    with opened(HIT) as node:
        set_control(node, WRAP_SEQUENCE, 0)
        set_control(node, named(node, "Wrap Timestamp"), 0)


def silence_all() -> None:
    """No picture from anyone."""
    for path in NODES:
        tell(path, DROPPED_PERCENT, 100)


def signals(*numbers: int) -> Callable[[Run], None]:
    """Signals, one after the other."""

    def act(run: Run) -> None:
        for number in numbers:
            run.signal(number)
            time.sleep(0.2)

    return act


def no_bandwidth() -> None:
    """Fakes in the cameras' places, whose bus is full."""
    cameras = [
        FakeCamera(path, always={Request.STREAMON: errno.ENOSPC} if path == HIT else {}) for path in NODES
    ]
    kernel = FakeKernel(cameras)
    camera_module.LinuxKernel = lambda: kernel  # type: ignore[misc, assignment]


@contextmanager
def taken() -> Iterator[None]:
    """Another program streams from the camera."""
    cameras, _ = open_cameras({"other": HIT}, Settings(), kernel=LinuxKernel())
    try:
        yield
    finally:
        cameras[0].close()


BUSY = "another program streams from it"
FAULTS = {
    "unplugged": Fault("unplugged and plugged in again", "Disconnect; kept open meanwhile",
                       "lost from .* to .*video2", unplug_and_plug),
    "dqbuf": Fault("stream fails for good (DQBUF: EIO)", "Inject Fatal Streaming Error", "lost from .*video2",
                   inject(FATAL, seen=lambda run: run.camera().get("outages"))),
    "flag": Fault("picture with the error flag", "Inject V4L2_BUF_FLAG_ERROR", "drops:.*error flag",
                  inject(ERROR_NEXT, seen=lambda run: run.camera().get("drops", {}).get("error flag"))),
    "dropped": Fault("pictures that the driver drops", "40 % of Dropped Buffers", "drops:.*gap",
                     lose_pictures),
    "silent": Fault("camera that stops giving pictures", "100 % of Dropped Buffers",
                    "lost from .* to .*video2", fall_silent),
    "qbuf": Fault("QBUF fails while it runs", "Inject VIDIOC_QBUF Error", "CAMERA_07  /dev/video2",
                  inject(QBUF_ERROR)),
    "streamon": Fault("STREAMON fails once at the start", "Inject VIDIOC_STREAMON Error", "memory .*refused",
                      before=lambda: tell(HIT, STREAMON_ERROR)),
    "reqbufs": Fault("REQBUFS fails once at the start", "Inject VIDIOC_REQBUFS Error", "memory .*refused",
                     before=lambda: tell(HIT, REQBUFS_ERROR)),
    "forced": Fault("STREAMON fails with --memory userptr", "Inject VIDIOC_STREAMON Error", "fsmde-edge:",
                    options=("--memory", "userptr"), before=lambda: tell(HIT, STREAMON_ERROR), stops=False),
    "busy": Fault("device that is in use", BUSY, "fsmde-edge:", stops=False),
    "format": Fault("pixel format that it does not give", "--pixel-format MJPG", "fsmde-edge:",
                    options=("--pixel-format", "MJPG"), stops=False),
    "size": Fault("size that it does not give", "--size 123x45", "fsmde-edge:", options=("--size", "123x45"),
                  stops=False),
    "missing": Fault("device that is not there", "--cameras /dev/video0-4,/dev/video77", "fsmde-edge:",
                     options=("--cameras", "/dev/video0-4,/dev/video77"), stops=False),
    "sequence": Fault("sequence numbers wrap", "Wrap Sequence Number", "CAMERA_07  /dev/video2",
                      lambda run: run.sets(8), before=lambda: tell(HIT, WRAP_SEQUENCE)),
    "stamps": Fault("stamps wrap", "Wrap Timestamp", "instants are arrivals",
                    before=wrap_stamps, act=lambda run: run.sets(8)),
    "clock": Fault("CLOCK_REALTIME is stepped by an hour", "clock_settime", "age .*CAMERA_01",
                   step_the_clock),
    "bandwidth": Fault("USB bus without bandwidth (STREAMON: ENOSPC)", "fake answers ENOSPC", "fsmde-edge:",
                       on="fake", prepare=no_bandwidth, stops=False),
    "frozen": Fault("camera whose picture stands still", "OSD Text Mode None", "camera CAMERA_07 gives",
                    show("still")),
    "covered": Fault("covered lens", "Test Pattern black, OSD Text Mode None", "camera CAMERA_07 gives",
                     show("black")),
    "one gone": Fault("one camera gone, --missing drop", "Disconnect; kept open", "fsmde-edge:",
                      unplug((HIT,)), options=("--patience", "8"), stops=False),
    "all gone": Fault("all cameras gone", "Disconnect on all; kept open", "fsmde-edge:", unplug(NODES),
                      options=("--missing", "mask", "--patience", "8"), stops=False),
    "no picture": Fault("no camera ever gives a picture", "100 % of Dropped Buffers on all",
                        "fsmde-edge:", options=("--patience", "8"), before=silence_all, stops=False),
    "SIGINT": Fault("SIGINT", "kill", "frame sets", signals(signal.SIGINT), stops=False),
    "SIGTERM": Fault("SIGTERM", "kill", "frame sets", signals(signal.SIGTERM), stops=False),
    "SIGINT twice": Fault("a second SIGINT", "kill, kill", "fsmde-edge:", stops=False,
                          act=signals(signal.SIGINT, signal.SIGINT)),
}  # fmt: skip


def live_through(fault: Fault, bundle: str, folder: Path) -> dict[str, Any]:
    """Make one fault; what came of it."""
    fault.before()
    run = Run(bundle, folder, fault.options, fault.prepare)
    if fault.stops or fault.act is not Fault.act:
        run.until(lambda: run.state.get("sets", 0) >= 3)
        fault.act(run)
    if fault.stops:
        run.signal(signal.SIGINT)
    code = run.end()
    lines = [*run.said.splitlines(), *run.out.read_text().splitlines()]
    return {
        "fault": fault.what,
        "how": fault.how,
        "on": fault.on,
        "saw": next((line.strip() for line in lines if re.search(fault.shows, line)), ""),
        "exit": code,
        "stderr": run.said.splitlines(),
        "report": run.out.read_text().splitlines(),
        "health": run.state,
    }


def calm() -> None:
    """Undo what a fault may have left."""
    for path in NODES:
        tell(path, DROPPED_PERCENT, 0)
    unwrap()


def main(bundle: str, folder: str, *names: str) -> int:
    """Live through the faults that are named, or all."""
    out, made = Path(folder), {}
    for name in names or FAULTS:
        begun = time.monotonic()
        if FAULTS[name].how == BUSY:
            with taken():
                made[name] = live_through(FAULTS[name], bundle, out)
        else:
            made[name] = live_through(FAULTS[name], bundle, out)
        calm()
        seconds = time.monotonic() - begun
        print(f"{name:14s} {seconds:5.1f} s  exit {made[name]['exit']}  {made[name]['saw']}", flush=True)
        (out / "faults.json").write_text(json.dumps(made, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
