"""One thread and one epoll loop for all cameras: it takes pictures, counts drops, retries what is lost."""

from __future__ import annotations

import errno
import os
import select
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from fsmde_edge.capture.v4l2.camera import Camera
from fsmde_edge.capture.v4l2.errors import GONE, CameraError
from fsmde_edge.capture.v4l2.inbox import Outlet
from fsmde_edge.capture.v4l2.loss import Cause

WATCHED = select.EPOLLIN | select.EPOLLPRI
BROKEN = select.EPOLLERR | select.EPOLLHUP
FIRST_WAIT, LONGEST_WAIT = 0.1, 5.0
"""Seconds until a lost camera is tried again, at first and at most; doubled each time."""

LOOK = 0.05
"""Seconds between two looks at what no event tells."""

SILENT_PERIODS, SILENT_LEAST, SILENT_MOST = 10, 1.0, 10.0
"""A camera that gives nothing for so many periods (and seconds, at least and at most) is restarted."""


@dataclass(slots=True)
class Outage:
    """A time without a camera, in nanoseconds on CLOCK_MONOTONIC."""

    since_ns: int
    why: str
    until_ns: int | None = None
    """When its next picture came; None while it is away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraReport:
    """What a camera did.

    Attributes:
        name, path: which.
        layout, rate: what it gives, pictures a second where known.
        memory, reason: how its pictures come, and why so.
        copies, copied: a CPU's copies of each picture, and the bytes of all.
        frames: pictures given out.
        drops: cause to count.
        outages: times without it.
    """

    name: str
    path: str
    layout: str
    rate: float | None
    memory: str
    reason: str
    copies: int
    copied: int
    frames: int
    drops: Mapping[str, int]
    outages: tuple[Outage, ...]


@dataclass(slots=True, eq=False)
class _Tended:
    """A camera and how it fares."""

    camera: Camera
    fd: int = -1
    """What epoll watches for it; -1 for nothing."""
    lost: bool = False
    retry_ns: int = 0
    wait: float = FIRST_WAIT
    heard_ns: int = 0
    trusted: bool = True
    """Whether a picture came since its last restart: if none did, the next failure closes it."""
    outages: list[Outage] = field(default_factory=list)

    @property
    def trouble(self) -> str | None:
        """Why it gives nothing; None while it does."""
        newest = self.outages[-1] if self.outages else None
        return None if newest is None or newest.until_ns is not None else newest.why


class CaptureThread:
    """Drives all cameras until it is stopped, and puts their pictures into an outlet. Owns the cameras."""

    def __init__(self, cameras: Sequence[Camera], outlet: Outlet) -> None:
        """Take over cameras that stream."""
        self._tended = [_Tended(camera) for camera in cameras]
        self._outlet = outlet
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._by_fd: dict[int, _Tended] = {}
        self._stopping = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._guarded, name="capture", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, close the cameras and the outlet; may be called twice.

        Raises:
            Whatever ended the thread before, if anything did.
        """
        if self._thread.ident is None:
            self._close()
        elif self._thread.is_alive():
            self._stopping = True
            os.eventfd_write(self._wake, 1)
            self._thread.join()
        if self._wake >= 0:
            os.close(self._wake)
            self._epoll.close()
            self._wake = -1
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    @property
    def streaming(self) -> int:
        """How many cameras are there now."""
        return sum(not tended.lost for tended in self._tended)

    def away(self) -> dict[str, str | None]:
        """Camera → why it gives nothing; None for those that do."""
        return {tended.camera.name: tended.trouble for tended in self._tended}

    def reports(self) -> list[CameraReport]:
        """What each camera did so far."""
        return [_report(tended, self._outlet.drops.get(tended.camera.name, {})) for tended in self._tended]

    def _guarded(self) -> None:
        try:
            self._run()
        except BaseException as error:
            self._failure = error
        finally:
            self._close()

    def _close(self) -> None:
        for tended in self._tended:
            tended.camera.close()
        self._outlet.close()

    def _run(self) -> None:
        self._epoll.register(self._wake, select.EPOLLIN)
        for tended in self._tended:
            self._watch(tended)
        look_ns, patience = 0, LOOK
        while not self._stopping:
            for fd, mask in self._epoll.poll(patience):
                if fd in self._by_fd:
                    self._serve(self._by_fd[fd], mask)
            now = time.monotonic_ns()
            due = self._outlet.tick(now)
            patience = LOOK if due is None else min(LOOK, max(0, due - now) / 1e9)
            if now >= look_ns:
                self._look_after(now)
                look_ns = now + round(LOOK * 1e9)

    def _serve(self, tended: _Tended, mask: int) -> None:
        camera = tended.camera
        try:
            if mask & select.EPOLLPRI and camera.source_changed():
                tended.trusted = False  # its format may be another one: opening again compares
                raise CameraError("its source changed", where=camera.path)
            if mask & (select.EPOLLIN | BROKEN):
                captured = camera.take()
                if captured is not None:
                    self._hear(tended, captured.arrival_ns)
                    self._outlet.put(captured)
                elif mask & BROKEN and not mask & select.EPOLLIN:
                    raise CameraError("its stream is stopped", where=camera.path, number=errno.EINVAL)
        except CameraError as error:
            self._mend(tended, error)

    def _hear(self, tended: _Tended, now: int) -> None:
        tended.heard_ns = now
        tended.wait, tended.trusted = FIRST_WAIT, True
        if tended.outages and tended.outages[-1].until_ns is None:
            tended.outages[-1].until_ns = now

    def _mend(self, tended: _Tended, error: CameraError) -> None:
        """Restart a stream that failed; let go of a camera that is gone or that a restart did not heal."""
        self._unwatch(tended)
        if not tended.outages or tended.outages[-1].until_ns is not None:
            tended.outages.append(Outage(time.monotonic_ns(), str(error)))
        if error.number not in GONE and tended.trusted:
            tended.trusted = False
            try:
                tended.camera.restart()
                self._watch(tended)
                return
            except CameraError:
                pass
        self._lose(tended)

    def _lose(self, tended: _Tended) -> None:
        tended.camera.close()
        tended.lost = True
        tended.retry_ns = time.monotonic_ns() + round(tended.wait * 1e9)
        tended.wait = min(2 * tended.wait, LONGEST_WAIT)

    def _look_after(self, now: int) -> None:
        """What no event tells: cameras to try again, buffers to offer again, cameras that fell silent."""
        for tended in self._tended:
            if tended.lost:
                if now >= tended.retry_ns:
                    self._retry(tended)
            elif tended.camera.waiting_for_leases and not tended.camera.owes:
                tended.heard_ns = now  # it has nothing to write to: not its fault
            elif now - tended.heard_ns > _silence_ns(tended.camera):
                self._mend(tended, CameraError("gives no pictures", where=tended.camera.path))
            elif tended.camera.owes:
                self._arm(tended)

    def _arm(self, tended: _Tended) -> None:
        try:
            tended.camera.arm()
        except CameraError as error:
            if error.number in GONE:
                self._mend(tended, error)

    def _retry(self, tended: _Tended) -> None:
        try:
            tended.camera.reopen()
        except CameraError:
            self._lose(tended)
            return
        tended.lost, tended.trusted = False, False
        self._watch(tended)

    def _watch(self, tended: _Tended) -> None:
        """Only once it streams: polling before makes the driver start its read() emulation."""
        tended.fd = tended.camera.fd
        tended.heard_ns = time.monotonic_ns()
        self._by_fd[tended.fd] = tended
        self._epoll.register(tended.fd, WATCHED)

    def _unwatch(self, tended: _Tended) -> None:
        if tended.fd >= 0:
            self._by_fd.pop(tended.fd, None)
            self._epoll.unregister(tended.fd)
            tended.fd = -1


def _silence_ns(camera: Camera) -> float:
    return min(max(SILENT_PERIODS * (camera.period_ns or 0), SILENT_LEAST * 1e9), SILENT_MOST * 1e9)


def _report(tended: _Tended, behind: Mapping[Cause, int]) -> CameraReport:
    camera = tended.camera
    drops = {str(cause.value): camera.drops[cause] + behind.get(cause, 0) for cause in Cause}
    return CameraReport(
        name=camera.name,
        path=camera.path,
        layout=str(camera.layout),
        rate=None if camera.rate is None else float(camera.rate),
        memory="" if camera.memory is None else camera.memory.value,
        reason=camera.reason,
        copies=camera.copies,
        copied=camera.copied,
        frames=camera.frames,
        drops=drops,
        outages=tuple(replace(outage) for outage in tended.outages),
    )
