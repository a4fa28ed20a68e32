"""One epoll loop for all V4L2 cameras: it takes pictures, restarts what failed, retries what is lost."""

from __future__ import annotations

import errno
import os
import select
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fsmde_edge.capture.tending import LOOK, CameraReport, Outage, Tended, TendingThread
from fsmde_edge.capture.v4l2.camera import Camera
from fsmde_edge.capture.v4l2.errors import GONE, CameraError
from fsmde_edge.capture.v4l2.inbox import Outlet
from fsmde_edge.capture.v4l2.loss import Cause

WATCHED = select.EPOLLIN | select.EPOLLPRI
BROKEN = select.EPOLLERR | select.EPOLLHUP

SILENT_PERIODS, SILENT_LEAST, SILENT_MOST = 10, 1.0, 10.0
"""A camera that gives nothing for so many periods (and seconds, at least and at most) is restarted."""


@dataclass(slots=True, eq=False, kw_only=True)
class _Tended(Tended):
    """A camera and how it fares."""

    camera: Camera
    fd: int = -1
    """What epoll watches for it; -1 for nothing."""
    trusted: bool = True
    """Whether a picture came since its last restart: if none did, the next failure closes it."""

    @property
    def name(self) -> str:
        return self.camera.name

    @property
    def drops(self) -> Counter[Cause]:
        return self.camera.drops

    def report(self, drops: Mapping[str, int], outages: tuple[Outage, ...]) -> CameraReport:
        camera = self.camera
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
            outages=outages,
        )

    def close(self) -> None:
        self.camera.close()


class CaptureThread(TendingThread[_Tended]):
    """Drives V4L2 cameras (see `TendingThread`)."""

    def __init__(self, cameras: Sequence[Camera], outlet: Outlet) -> None:
        """Take over cameras that stream."""
        super().__init__([_Tended(camera=camera) for camera in cameras], outlet)
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._by_fd: dict[int, _Tended] = {}

    @property
    def streaming(self) -> int:
        """How many cameras are there now."""
        return sum(not tended.lost for tended in self._tended)

    def _rouse(self) -> None:
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    def _free(self) -> None:
        if self._wake >= 0:
            os.close(self._wake)
            self._epoll.close()
            self._wake = -1

    def _run(self) -> None:
        self._epoll.register(self._wake, select.EPOLLIN)
        for tended in self._tended:
            self._watch(tended)
        patience = LOOK
        while not self._stopping:
            for fd, mask in self._epoll.poll(patience):
                if fd in self._by_fd:
                    self._serve(self._by_fd[fd], mask)
            patience = self._between()

    def _serve(self, tended: _Tended, mask: int) -> None:
        camera = tended.camera
        try:
            if mask & select.EPOLLPRI and camera.source_changed():
                tended.trusted = False  # its format may be another one: opening again compares
                raise CameraError("its source changed", where=camera.path)
            if mask & (select.EPOLLIN | BROKEN):
                captured = camera.take()
                if captured is not None:
                    tended.hear(captured.arrival_ns)
                    tended.trusted = True
                    self._outlet.put(captured)
                elif mask & BROKEN and not mask & select.EPOLLIN:
                    raise CameraError("its stream is stopped", where=camera.path, number=errno.EINVAL)
        except CameraError as error:
            self._mend(tended, error)

    def _mend(self, tended: _Tended, error: CameraError) -> None:
        """Restart a stream that failed; let go of a camera that is gone or that a restart did not heal."""
        self._unwatch(tended)
        tended.fail(str(error))
        if error.number not in GONE and tended.trusted:
            tended.trusted = False
            try:
                tended.camera.restart()
                self._watch(tended)
                return
            except CameraError:
                pass
        tended.lose()

    def _look_after(self, now_ns: int) -> None:
        """Cameras to try again, buffers to offer again, cameras that fell silent."""
        for tended in self._tended:
            if tended.lost:
                if now_ns >= tended.retry_ns:
                    self._retry(tended)
            elif tended.camera.waiting_for_leases and not tended.camera.owes:
                tended.heard_ns = now_ns  # it has nothing to write to: not its fault
            elif now_ns - tended.heard_ns > _silence_ns(tended.camera):
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
            tended.lose()
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
