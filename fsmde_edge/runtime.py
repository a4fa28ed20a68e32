"""The loop: source → preprocess → session → sinks, with every stage timed and every drop counted."""

from __future__ import annotations

import signal
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

import numpy as np

from fsmde_edge.bundle import Manifest
from fsmde_edge.capture.source import Source
from fsmde_edge.evaluation.latency import Latency
from fsmde_edge.frames import DepthSet, FrameSet
from fsmde_edge.inference.session import Session
from fsmde_edge.preprocessing.prepare import How
from fsmde_edge.sinks.base import Sink
from fsmde_edge.views import Views, views_for

NEWEST = 100_000
"""Latencies are told of this many newest sets: memory stays bounded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """What a run did.

    Attributes:
        sets: frame sets turned into depth.
        stages: stage name (capture, preprocess, infer, sinks) to latency; empty where no set came.
        drops: camera to cause to count.
        stopped: whether a signal ended it.
        preparation: what made the network's images, for people.
    """

    sets: int
    stages: Mapping[str, Latency]
    drops: Mapping[str, Mapping[str, int]]
    stopped: bool
    preparation: str = ""


def run(
    source: Source,
    session: Session,
    manifest: Manifest,
    sinks: Sequence[Sink],
    *,
    frames: int | None = None,
    how: How = "auto",
    threads: int = 1,
    fit: bool = False,
) -> RunReport:
    """Turn a source's frame sets into depth until it ends, `frames` are done, or a signal comes.

    SIGINT and SIGTERM finish the set at hand, flush the sinks and return; a second one acts at once.

    Args:
        source: gives frame sets and their rig, which may change from scene to scene.
        session: opened on the bundle.
        manifest: the bundle's.
        sinks: get every set; closed here, whatever happens.
        frames: at most this many sets; None for all.
        how: what prepares the pictures: the fast kernel, the definition, or the first that works.
        threads: views that are prepared at once.
        fit: rectify each camera into the bundle's own view (see `views_for`).

    Raises:
        InputError: the source's cameras do not fit the bundle.
    """
    watch = _StopWatch()
    count = 0
    with _closing(sinks), _stop_signal() as stop:
        views = views_for(source.rig, manifest, how=how, threads=threads, fit=fit)
        incoming = iter(source)
        while not stop.is_set() and (frames is None or count < frames):
            with watch.stage("capture"):
                frame_set = next(incoming, None)
            if frame_set is None:
                watch.forget("capture")
                break
            if source.rig is not views.rig:
                views = views_for(source.rig, manifest, how=how, threads=threads, fit=fit)
            _one(frame_set, views, session, sinks, watch)
            count += 1
    return RunReport(
        sets=count,
        stages=watch.stages(),
        drops=source.drops,
        stopped=stop.is_set(),
        preparation=views.preparation.name if views.preparation else "",
    )


def _one(
    frame_set: FrameSet, views: Views, session: Session, sinks: Sequence[Sink], watch: _StopWatch
) -> None:
    with watch.stage("preprocess"):
        images, focal = views.prepare(frame_set)
    with watch.stage("infer"):
        result = session.infer(images, focal)
    depth_set = DepthSet(
        depth=np.where(views.world, result.depth, np.float32(0)),
        cameras=frame_set.cameras,
        stamps_ns=frame_set.stamps_ns,
        focal=focal,
        index=frame_set.index,
        confidence=result.confidence,
    )
    with watch.stage("sinks"):
        for sink in sinks:
            sink.write(frame_set, images, depth_set)


@dataclass(slots=True, eq=False)
class _StopWatch:
    """Seconds that each stage took, set by set."""

    seconds: dict[str, deque[float]] = field(
        default_factory=lambda: defaultdict(lambda: deque(maxlen=NEWEST))
    )

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name].append(time.perf_counter() - start)

    def forget(self, name: str) -> None:
        """Take the newest time of a stage back: no set came of it."""
        self.seconds[name].pop()

    def stages(self) -> dict[str, Latency]:
        return {name: Latency.of(list(times)) for name, times in self.seconds.items() if times}


@contextmanager
def _closing(sinks: Sequence[Sink]) -> Iterator[None]:
    """Close every sink at the end, even if one fails; the first failure is raised once all are closed."""
    try:
        yield
    finally:
        failures = []
        for sink in sinks:
            try:
                sink.close()
            except Exception as error:
                failures.append(error)
        if failures:
            raise failures[0]


@contextmanager
def _stop_signal() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, once; the previous handlers come back at once after that."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()
        restore()

    for number in previous:
        signal.signal(number, on_signal)
    try:
        yield stop
    finally:
        restore()
