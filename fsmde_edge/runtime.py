"""The loop: source → preprocess → session → sinks, with every stage timed and every drop counted."""

from __future__ import annotations

import signal
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from types import FrameType

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.bundle import Manifest
from fsmde_edge.capture.source import Source
from fsmde_edge.evaluation.latency import Latency
from fsmde_edge.frames import DepthSet, FrameSet
from fsmde_edge.inference.session import Session
from fsmde_edge.preprocessing.prepare import How
from fsmde_edge.sinks.base import Sink
from fsmde_edge.views import Views, views_for
from fsmde_edge.watch.accuracy import Compared
from fsmde_edge.watch.guard import Finding
from fsmde_edge.watch.watch import Watch

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
        ages: camera to how old its picture was once its depth was there; empty for recordings.
        skew: of live sets, from the first to the last exposure; None for recordings.
        incomplete, late, unreadable: live sets that lacked a view; whose depth came after `max_age_ms`, and
            is marked invalid; and with a picture that cannot be decoded, which were dropped or masked.
        findings: what the guard found.
        accuracy: camera to how far off the FP32 model it was; empty where that was not watched.
    """

    sets: int
    stages: Mapping[str, Latency]
    drops: Mapping[str, Mapping[str, int]]
    stopped: bool
    preparation: str = ""
    ages: Mapping[str, Latency] = field(default_factory=dict)
    skew: Latency | None = None
    incomplete: int = 0
    late: int = 0
    unreadable: int = 0
    findings: tuple[Finding, ...] = ()
    accuracy: Mapping[str, Compared] = field(default_factory=dict)


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
    max_age_ms: float | None = None,
    mask_unreadable: bool = False,
    watch: Watch | None = None,
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
        max_age_ms: depth of pictures that are older than this once it is there is marked invalid; no such
            limit if None, and for recordings.
        mask_unreadable: a view of a live set whose picture cannot be decoded is marked invalid; the set is
            dropped otherwise.
        watch: is told of every step, and says which views' depth may be trusted.

    Raises:
        InputError: the source's cameras do not fit the bundle.
    """
    times = _StopWatch() if watch is None else _StopWatch(watch.beat)
    live = _Live(max_age_ms)
    count, ended = 0, False
    with _closing(sinks), _watching(watch), _stop_signal(source.stop) as stop:
        layouts = source.layouts
        views = views_for(source.rig, manifest, how=how, threads=threads, fit=fit, layouts=layouts)
        incoming = iter(source)
        while not (ended or stop.is_set()) and (frames is None or count < frames):
            with times.stage("capture"):
                frame_set = next(incoming, None)
            if frame_set is None:
                times.forget("capture")
                ended = True
                continue
            if source.rig is not views.rig:
                views = views_for(source.rig, manifest, how=how, threads=threads, fit=fit, layouts=layouts)
            with times.stage("preprocess"):
                prepared = _prepare(frame_set, views, live, mask=mask_unreadable)
            if prepared is not None:
                _one(*prepared, views, session, sinks, times, live, watch)
                count += 1
        if watch is not None:
            watch.ends(_why(stopped=stop.is_set(), ended=ended))
    return RunReport(
        sets=count,
        stages=times.stages(),
        drops=source.drops,
        stopped=stop.is_set(),
        preparation=views.preparation.name if views.preparation else "",
        ages={camera: Latency.of(list(seconds)) for camera, seconds in live.ages.items()},
        skew=Latency.of(list(live.skews)) if live.skews else None,
        incomplete=live.incomplete,
        late=live.late,
        unreadable=live.unreadable,
        findings=() if watch is None else watch.findings,
        accuracy={} if watch is None or watch.accuracy is None else watch.accuracy.measure.views,
    )


def _why(*, stopped: bool, ended: bool) -> str:
    if stopped:
        return "a signal"
    return "the recording's end" if ended else "as many frame sets as were asked for"


def _watching(watch: Watch | None) -> AbstractContextManager[None]:
    return nullcontext() if watch is None else watch.watching()


def _prepare(
    frame_set: FrameSet, views: Views, live: _Live, *, mask: bool
) -> tuple[FrameSet, NDArray[np.uint8], NDArray[np.float32]] | None:
    """The network's input of a set, or None where it is to be dropped.

    Its pictures go back before the network runs: buffers are few.
    """
    broken: list[int] = []
    tolerant = frame_set.loan is not None  # a camera's broken JPEG is no reason to end
    with frame_set.given_back():
        images, focal = views.prepare(frame_set, broken.append if tolerant else None)
    live.unreadable += bool(broken)
    return None if broken and not mask else (frame_set.without(broken), images, focal)


def _one(
    frame_set: FrameSet,
    images: NDArray[np.uint8],
    focal: NDArray[np.float32],
    views: Views,
    session: Session,
    sinks: Sequence[Sink],
    times: _StopWatch,
    live: _Live,
    watch: Watch | None,
) -> DepthSet:
    """Depth of one set, which the sinks get too."""
    with times.stage("infer"):
        result = session.infer(images, focal)
    valid, until = live.judge(frame_set, time.monotonic_ns())
    if watch is not None:
        trusted = watch.judge(frame_set, images, focal, result.depth, world=views.world)
        valid = tuple(np.logical_and(valid, trusted).tolist())
    depth_set = DepthSet(
        depth=np.where(views.world & np.array(valid)[:, None, None], result.depth, np.float32(0)),
        cameras=frame_set.cameras,
        stamps_ns=frame_set.stamps_ns,
        focal=focal,
        index=frame_set.index,
        valid=valid,
        valid_until_ns=until,
        confidence=result.confidence,
        rig=views.seen_by,
    )
    with times.stage("sinks"):
        for sink in sinks:
            sink.write(frame_set, images, depth_set)
    if watch is not None:
        watch.seen(frame_set, valid)
    return depth_set


def depth_sets(
    source: Source,
    session: Session,
    manifest: Manifest,
    *,
    threads: int = 1,
    fit: bool = False,
    max_age_ms: float | None = None,
    mask_unreadable: bool = False,
    sinks: Sequence[Sink] = (),
) -> Iterator[DepthSet]:
    """The same, one by one for a caller that loops himself: no signals, no report.

    Args:
        source, session, manifest, threads, fit, max_age_ms, mask_unreadable: as of `run`.
        sinks: get every set before it is yielded; not closed here.

    Raises:
        InputError: the source's cameras do not fit the bundle.
    """
    times, live, layouts = _StopWatch(), _Live(max_age_ms), source.layouts
    views = views_for(source.rig, manifest, how="auto", threads=threads, fit=fit, layouts=layouts)
    for frame_set in source:
        if source.rig is not views.rig:
            views = views_for(source.rig, manifest, how="auto", threads=threads, fit=fit, layouts=layouts)
        prepared = _prepare(frame_set, views, live, mask=mask_unreadable)
        if prepared is not None:
            yield _one(*prepared, views, session, sinks, times, live, None)


@dataclass(slots=True, eq=False)
class _Live:
    """What is known of live sets; nothing of it concerns recordings."""

    max_age_ms: float | None
    ages: dict[str, deque[float]] = field(default_factory=lambda: defaultdict(lambda: deque(maxlen=NEWEST)))
    skews: deque[float] = field(default_factory=lambda: deque(maxlen=NEWEST))
    incomplete: int = 0
    late: int = 0
    unreadable: int = 0

    def judge(self, frame_set: FrameSet, now_ns: int) -> tuple[tuple[bool, ...], int | None]:
        """Which views' depth is current, and until when."""
        valid, ages = frame_set.valid, frame_set.ages_ns(now_ns)
        if not ages:
            return valid, None
        for camera, age in ages.items():
            self.ages[camera].append(age / 1e9)
        self.skews.append(frame_set.skew_ms / 1e3)
        self.incomplete += not all(valid)
        if self.max_age_ms is None:
            return valid, None
        until = now_ns - max(ages.values()) + round(self.max_age_ms * 1e6)
        if until < now_ns:
            self.late += 1
            valid = (False,) * len(valid)
        return valid, until


@dataclass(slots=True, eq=False)
class _StopWatch:
    """Seconds that each stage took, set by set; `beat` is called after each."""

    beat: Callable[[], None] = lambda: None
    seconds: dict[str, deque[float]] = field(
        default_factory=lambda: defaultdict(lambda: deque(maxlen=NEWEST))
    )

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name].append(time.perf_counter() - start)
        self.beat()

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
def _stop_signal(then: Callable[[], None]) -> Iterator[threading.Event]:
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
        then()

    for number in previous:
        signal.signal(number, on_signal)
    try:
        yield stop
    finally:
        restore()
