"""One thread for all pipelines: it takes pictures, and starts again what failed."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fsmde_edge.capture.gstreamer.pipeline import Pipeline
from fsmde_edge.capture.tending import CameraReport, Outage, Tended, TendingThread
from fsmde_edge.capture.v4l2.errors import CameraError
from fsmde_edge.capture.v4l2.inbox import Outlet
from fsmde_edge.capture.v4l2.loss import Cause

SILENT = 5.0
"""Seconds without a picture after which a live pipeline is started again."""


@dataclass(slots=True, eq=False, kw_only=True)
class _Tended(Tended):
    """A pipeline and how it fares."""

    pipeline: Pipeline
    ended: bool = False

    @property
    def name(self) -> str:
        return self.pipeline.camera

    @property
    def drops(self) -> Counter[Cause]:
        return self.pipeline.drops

    def report(self, drops: Mapping[str, int], outages: tuple[Outage, ...]) -> CameraReport:
        pipeline = self.pipeline
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
            drops=drops,
            outages=outages,
        )

    def close(self) -> None:
        self.pipeline.halt()


class PipelineThread(TendingThread[_Tended]):
    """Drives pipelines (see `TendingThread`).

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
        super().__init__([_Tended(pipeline=pipeline) for pipeline in pipelines], outlet)
        self._over = any if one_ends_all else all
        self._wake = threading.Event()
        for pipeline in pipelines:
            pipeline.call(self._wake.set)

    def _rouse(self) -> None:
        self._wake.set()

    def _run(self) -> None:
        base_ns = time.monotonic_ns()
        for tended in self._tended:
            tended.heard_ns = base_ns
            tended.pipeline.play(base_ns)
        patience = 0.0
        while not self._stopping and not self._over(tended.ended for tended in self._tended):
            self._wake.wait(patience)
            self._wake.clear()
            for tended in self._tended:
                self._serve(tended)
            patience = self._between()

    def _serve(self, tended: _Tended) -> None:
        """Take what waits; of a pipeline that is lost nothing does."""
        if tended.lost:
            return
        try:
            while (captured := tended.pipeline.take()) is not None:
                tended.hear(captured.arrival_ns)
                self._outlet.put(captured)
        except CameraError as error:
            self._lose(tended, error)

    def _look_after(self, now_ns: int) -> None:
        """Errors, ends, silence, and when to try again."""
        for tended in self._tended:
            if not tended.lost:
                self._check(tended, now_ns)
            elif now_ns >= tended.retry_ns:
                self._retry(tended, now_ns)

    def _check(self, tended: _Tended, now_ns: int) -> None:
        try:
            tended.pipeline.check()
            if tended.pipeline.ended:
                self._end(tended)
            elif tended.pipeline.live and now_ns - tended.heard_ns > SILENT * 1e9:
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
        tended.fail(str(error))
        tended.lose()

    def _retry(self, tended: _Tended, now_ns: int) -> None:
        try:
            tended.pipeline.restart()
        except CameraError as error:
            self._lose(tended, error)
        else:
            tended.lost, tended.heard_ns = False, now_ns


def _place(tended: _Tended) -> str:
    return f"pipeline of camera {tended.name}"
