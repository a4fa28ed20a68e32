"""One camera's pipeline, from its description to pictures on loan."""

from __future__ import annotations

import time
from collections import Counter
from fractions import Fraction
from typing import Any

from fsmde_edge.capture.gstreamer.library import Library
from fsmde_edge.capture.gstreamer.pictures import ACCEPTED, CODES, CONVERT, Lease, Placed, mapped, placed
from fsmde_edge.capture.lease import Captured
from fsmde_edge.capture.v4l2.errors import CameraError
from fsmde_edge.capture.v4l2.loss import Cause, Losses
from fsmde_edge.errors import InputError
from fsmde_edge.frames import Clock, Stamp

WAITING = 2
"""Pictures that may wait in an appsink; an older one is dropped for a newer one."""

LISTEN_NS = 50_000_000
"""Nanoseconds between two looks at the bus while a first picture is waited for."""

TRY = "try it with gst-launch-1.0"
DISAGREE = f"{', '.join(CODES)} and JPEG in the CPU's memory can be taken: {CONVERT} (a Jetson: nvvidconv)"


class Pipeline:
    """Owner of one pipeline. The capture thread drives it; leases end on any thread.

    A pipeline is *live* if GStreamer says so (NO_PREROLL): its pictures are then taken when they come. Any
    other is a recording: it waits with its first picture until `play`, and keeps its own pace.
    """

    def __init__(self, library: Library, camera: str, description: str) -> None:
        """Make it from its description.

        Args:
            library: GStreamer.
            camera: the camera's name.
            description: as for gst-launch-1.0, with one appsink.

        Errors:
            CameraError: GStreamer does not understand it, lacks an element, or finds no single appsink.
        """
        self.camera, self.description, self._library = camera, description, library
        gst = library.gst
        try:
            self._pipeline: Any = gst.parse_launch(description)
        except Exception as error:  # GLib.Error, which is known only once gi is loaded
            raise self._error(
                f"GStreamer does not understand it ({getattr(error, 'message', error)})",
                hint=f"{TRY}; gst-inspect-1.0 lists the elements that there are",
            ) from error
        self._sink = self._appsink()
        self._pipeline.use_clock(_monotonic(gst))
        self._bus = self._pipeline.get_bus()
        self._losses = Losses(None)
        self._placed: Placed | None = None
        self._base_ns = 0
        self.live = False
        self.rate: Fraction | None = None
        self.frames = 0
        self.copied = 0
        """Bytes that had to be copied because planes lie apart."""
        self.drops: Counter[Cause] = Counter()

    @property
    def placed(self) -> Placed:
        """How its pictures lie, once `first` has seen one."""
        assert self._placed is not None
        return self._placed

    @property
    def period_ns(self) -> int | None:
        """Between two pictures, where that is known."""
        return self._losses.period_ns

    def ready(self) -> None:
        """Begin: a live one plays, a recording waits at its first picture.

        Errors:
            CameraError: it cannot.
        """
        gst = self._library.gst
        change = self._pipeline.set_state(gst.State.PAUSED)
        self.live = change == gst.StateChangeReturn.NO_PREROLL
        if self.live:
            self._sink.set_property("sync", False)
            change = self._pipeline.set_state(gst.State.PLAYING)
        self._refuse(change)

    def first(self, patience_s: float) -> None:
        """Wait for the first picture, and learn from it how they lie.

        Errors:
            CameraError: none came, or one of a kind that we do not know.
        """
        pull = self._sink.try_pull_sample if self.live else self._sink.try_pull_preroll
        give_up = time.monotonic() + patience_s
        while (sample := pull(LISTEN_NS)) is None:
            self.check()
            if self._sink.is_eos():
                raise self._error("it ended without a picture")
            if time.monotonic() > give_up:
                raise self._error(f"no picture came for {patience_s:g} s", hint=TRY)
        self._placed = self._where(sample)
        known, pictures, seconds = sample.get_caps().get_structure(0).get_fraction("framerate")
        self.rate = Fraction(pictures, seconds) if known and pictures else None
        self._losses = Losses(None if self.rate is None else round(1e9 / self.rate))

    def play(self, base_ns: int) -> None:
        """Let a recording go; nothing new to a live one.

        Args:
            base_ns: when its first picture is due, on CLOCK_MONOTONIC: the same for all, so that they agree.

        Errors:
            CameraError: it cannot.
        """
        gst = self._library.gst
        if not self.live:
            self._pipeline.set_start_time(gst.CLOCK_TIME_NONE)  # or it would choose a base time itself
            self._pipeline.set_base_time(base_ns)
            self._refuse(self._pipeline.set_state(gst.State.PLAYING))

    def call(self, wake: Any) -> None:
        """Let a function be called, on GStreamer's threads, for every picture that came."""
        self._sink.connect("new-sample", lambda _: wake() or self._library.gst.FlowReturn.OK)
        self._sink.set_property("emit-signals", True)

    def take(self) -> Captured | None:
        """The next picture that waits, the caller's to release; None if there is none.

        Errors:
            CameraError: it has no time stamp, or is of another kind than the first.
        """
        while (sample := self._sink.try_pull_sample(0)) is not None:
            captured = self._captured(sample)
            if captured is not None:
                return captured
        return None

    def check(self) -> None:
        """Raise what an element said, if one failed.

        Errors:
            CameraError: with the element's own words.
        """
        gst = self._library.gst
        message = self._bus.pop_filtered(gst.MessageType.ERROR)
        if message is None:
            return
        error, details = message.parse_error()
        element = "GStreamer" if message.src is None else message.src.get_name()
        disagree = "not-negotiated" in (details or "")
        reason = (details or "").rpartition("\n")[2]  # before it stand file, function and element
        raise self._error(
            f"{element}: {error.message.rstrip('.')}{f' ({reason})' if reason else ''}",
            hint=DISAGREE if disagree else TRY,
        )

    @property
    def ended(self) -> bool:
        """Whether it came to its end, and all its pictures were taken."""
        return bool(self._sink.is_eos())

    def restart(self) -> None:
        """Begin anew after `halt`.

        Errors:
            CameraError: it cannot.
        """
        self._losses.restart()
        self.ready()

    def halt(self) -> None:
        """End its threads and give its devices back; may be called twice. Pictures on loan stay."""
        gst = self._library.gst
        self._pipeline.set_state(gst.State.NULL)
        self._bus.set_flushing(True)  # what it said before does not concern the next start
        self._bus.set_flushing(False)

    def _appsink(self) -> Any:
        is_bin = isinstance(self._pipeline, self._library.gst.Bin)  # a single element is none
        elements = self._pipeline.iterate_sinks() if is_bin else ()
        found = [each for each in elements if each.get_factory().get_name() == "appsink"]
        if len(found) != 1:
            raise self._error(f"it has {len(found)} appsinks, expected one", hint="end it with: ! appsink")
        sink = found[0]
        sink.set_property("drop", True)
        sink.set_property("max-buffers", WAITING)
        sink.set_property("enable-last-sample", False)  # it would keep a buffer for nobody
        if sink.get_property("caps") is None:
            sink.set_property("caps", self._library.gst.Caps.from_string(ACCEPTED))
        return sink

    def _captured(self, sample: Any) -> Captured | None:
        gst, buffer = self._library.gst, sample.get_buffer()
        arrival = time.monotonic_ns()
        running = sample.get_segment().to_running_time(gst.Format.TIME, buffer.pts)
        if gst.CLOCK_TIME_NONE in {buffer.pts, running}:
            raise self._error("its pictures have no time stamps", hint="give its source do-timestamp=true")
        stamp_ns = running + self._pipeline.get_base_time()
        numbered = buffer.offset != gst.BUFFER_OFFSET_NONE
        step = self._losses.step(buffer.offset if numbered else self.frames, stamp_ns)
        self.drops[Cause.GAP] += step.lost
        if buffer.has_flags(gst.BufferFlags.CORRUPTED):
            self.drops[Cause.ERROR] += 1
            return None
        if self._where(sample) != self._placed:
            raise self._error(f"its pictures are no longer {self.placed.layout}")
        try:
            view = self.placed.view(mapped(self._library, buffer))
        except InputError as error:
            raise self._error(error.what, hint=error.hint) from error
        self.frames += 1
        self.copied += len(view) if self.placed.second is not None else 0
        stamp = Stamp(stamp_ns, Clock.MONOTONIC)
        lease = Lease(
            self.camera, buffer.offset if numbered else self.frames, stamp_ns, self.placed.layout, view
        )
        return Captured(self.camera, lease, stamp, lease.sequence, arrival)

    def _where(self, sample: Any) -> Placed:
        try:
            return placed(self._library, sample.get_caps(), sample.get_buffer())
        except InputError as error:
            raise self._error(error.what, hint=error.hint) from error

    def _refuse(self, change: Any) -> None:
        if change == self._library.gst.StateChangeReturn.FAILURE:
            self.check()
            raise self._error("it cannot be started", hint=TRY)

    def _error(self, what: str, hint: str = "") -> CameraError:
        return CameraError(what, where=f"pipeline of camera {self.camera}", hint=hint)


def _monotonic(gst: Any) -> Any:
    """GStreamer's clock that is CLOCK_MONOTONIC, of our own so that nobody sets it otherwise."""
    clock = gst.SystemClock(name="monotonic")
    clock.set_property("clock-type", gst.ClockType.MONOTONIC)
    return clock
