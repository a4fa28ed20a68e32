"""One thread for all pipelines: it takes pictures, counts drops, and starts again what failed."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from fsmde_edge.capture.gstreamer.pipeline import Pipeline
from fsmde_edge.capture.v4l2.errors import CameraError
from fsmde_edge.capture.v4l2.inbox import Outlet
from fsmde_edge.capture.v4l2.loop import FIRST_WAIT, LONGEST_WAIT, LOOK, CameraReport, Outage
from fsmde_edge.capture.v4l2.loss import Cause

SILENT = 5.0
"""Seconds without a picture after which a live pipeline is started again."""


@dataclass(slots=True, eq=False)
class _Tended:
    """A pipeline and how it fares."""

    pipeline: Pipeline
    heard_ns: int
    lost: bool = False
    ended: bool = False
    retry_ns: int = 0
    wait: float = FIRST_WAIT
    outages: list[Outage] = field(default_factory=list)

    @property
    def trouble(self) -> str | None:
        """Why it gives nothing; None while it does."""
        newest = self.outages[-1] if self.outages else None
        return None if newest is None or newest.until_ns is not None else newest.why


class PipelineThread:
    """Drives pipelines until it is stopped, and puts their pictures into an outlet. Owns the pipelines.

    A live pipeline that fails or ends is started again, with back-off. A recording that fails ends the
    thread with its error; one that ends is over, and the thread with it as `one_ends_all` says.
    """

    def __init__(self, pipelines: Sequence[Pipeline], outlet: Outlet, *, one_ends_all: bool) -> None:
        """Take over pipelines whose first picture came.

        Args:
            pipelines: one a camera, in ring order.
            outlet: gets the pictures; closed here.
            one_ends_all: whether the end of one recording is the end, or only that of all.
        """
        now = time.monotonic_ns()
        self._tended = [_Tended(pipeline, now) for pipeline in pipelines]
        self._outlet, self._over = outlet, any if one_ends_all else all
        self._wake = threading.Event()
        self._stopping = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._guarded, name="capture", daemon=True)
        for pipeline in pipelines:
            pipeline.call(self._wake.set)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, the pipelines and the outlet; may be called twice.

        Raises:
            Whatever ended the thread before, if anything did.
        """
        self._stopping = True
        self._wake.set()
        if self._thread.ident is None:
            self._close()
        else:
            self._thread.join()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def away(self) -> dict[str, str | None]:
        """Camera → why it gives nothing; None for those that do."""
        return {tended.pipeline.camera: tended.trouble for tended in self._tended}

    def reports(self) -> list[CameraReport]:
        """What each camera did so far."""
        return [
            _report(tended, self._outlet.drops.get(tended.pipeline.camera, {})) for tended in self._tended
        ]

    def _guarded(self) -> None:
        try:
            self._run()
        except BaseException as error:
            self._failure = error
        finally:
            self._close()

    def _close(self) -> None:
        for tended in self._tended:
            tended.pipeline.halt()
        self._outlet.close()

    def _run(self) -> None:
        base_ns = time.monotonic_ns()
        for tended in self._tended:
            tended.heard_ns = base_ns
            tended.pipeline.play(base_ns)
        look_ns, patience = 0, 0.0
        while not self._stopping and not self._over(tended.ended for tended in self._tended):
            self._wake.wait(patience)
            self._wake.clear()
            for tended in self._tended:
                self._serve(tended)
            now = time.monotonic_ns()
            due = self._outlet.tick(now)
            patience = LOOK if due is None else min(LOOK, max(0, due - now) / 1e9)
            if now >= look_ns:
                for tended in self._tended:
                    self._look_after(tended, now)
                look_ns = now + round(LOOK * 1e9)

    def _serve(self, tended: _Tended) -> None:
        """Take what waits; of a pipeline that is lost nothing does."""
        if tended.lost:
            return
        try:
            while (captured := tended.pipeline.take()) is not None:
                self._hear(tended, captured.arrival_ns)
                self._outlet.put(captured)
        except CameraError as error:
            self._lose(tended, error)

    def _hear(self, tended: _Tended, now: int) -> None:
        tended.heard_ns, tended.wait = now, FIRST_WAIT
        if tended.outages and tended.outages[-1].until_ns is None:
            tended.outages[-1].until_ns = now

    def _look_after(self, tended: _Tended, now: int) -> None:
        """What no picture tells: errors, ends, silence, and when to try again."""
        if tended.lost:
            if now >= tended.retry_ns:
                self._retry(tended, now)
            return
        try:
            tended.pipeline.check()
            if tended.pipeline.ended:
                self._end(tended)
            elif tended.pipeline.live and now - tended.heard_ns > SILENT * 1e9:
                raise CameraError("gives no pictures", where=_place(tended))
        except CameraError as error:
            self._lose(tended, error)

    def _end(self, tended: _Tended) -> None:
        if tended.pipeline.live:
            raise CameraError("its stream ended", where=_place(tended))
        tended.ended = True

    def _lose(self, tended: _Tended, error: CameraError) -> None:
        if not tended.pipeline.live:
            raise error
        tended.pipeline.halt()
        if tended.trouble is None:
            tended.outages.append(Outage(time.monotonic_ns(), str(error)))
        tended.lost = True
        tended.retry_ns = time.monotonic_ns() + round(tended.wait * 1e9)
        tended.wait = min(2 * tended.wait, LONGEST_WAIT)

    def _retry(self, tended: _Tended, now: int) -> None:
        try:
            tended.pipeline.restart()
        except CameraError as error:
            self._lose(tended, error)
        else:
            tended.lost, tended.heard_ns = False, now


def _place(tended: _Tended) -> str:
    return f"pipeline of camera {tended.pipeline.camera}"


def _report(tended: _Tended, behind: Mapping[Cause, int]) -> CameraReport:
    pipeline = tended.pipeline
    apart = pipeline.placed.second is not None
    return CameraReport(
        name=pipeline.camera,
        path=f"gst:{pipeline.description}",
        layout=str(pipeline.placed.layout),
        rate=None if pipeline.rate is None else float(pipeline.rate),
        memory="gstreamer",
        reason="its planes lie apart" if apart else "mapped where the pipeline wrote it",
        copies=int(apart),
        copied=pipeline.copied,
        frames=pipeline.frames,
        drops={str(cause.value): pipeline.drops[cause] + behind.get(cause, 0) for cause in Cause},
        outages=tuple(replace(outage) for outage in tended.outages),
    )
