"""One set from its driver's buffers to depth, and what that took at a fixed rate."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from fsmde_edge.benchmark.paced import PacedSets, Published
from fsmde_edge.benchmark.pictures import BenchInput
from fsmde_edge.inference.session import Session
from fsmde_edge.views import Views

STAGES = ("preprocess", "infer", "total", "latency")
"""The driver's buffers to the network's input; to depth; both together; from the exposure to depth, which
is longer than both by what a set waited."""

Work = Callable[[Published], tuple[float, float]]
"""Turns a set into depth; seconds of preprocessing and of inference."""

Watched = Callable[[Iterable[Published]], Iterable[Published]]
"""Something that looks on while sets are taken, such as a progress bar."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Milliseconds of one stage over all counted sets."""

    p50: float
    p90: float
    p99: float
    max: float

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Stage:
        """Percentiles of measured times."""
        p50, p90, p99, most = (
            float(v) for v in np.percentile(np.array(list(seconds)) * 1e3, (50, 90, 99, 100))
        )
        return cls(p50=p50, p90=p90, p99=p99, max=most)


@dataclass(slots=True, kw_only=True, eq=False)
class PacedRun:
    """What was seen at one rate; it fills while it runs, so that a Ctrl-C leaves what there is.

    Attributes:
        rate_hz: sets a second.
        published: counted sets, taken or not; those of the warm-up are not among them.
        seconds: stage to the times of the sets that were taken.
        instants: when each of these was exposed, in seconds.
        wall, cpu: seconds that passed, and that this process computed in them, all threads together.
    """

    rate_hz: float
    published: int = 0
    seconds: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in STAGES})
    instants: list[float] = field(default_factory=list)
    wall: float = 0.0
    cpu: float = 0.0

    @property
    def done(self) -> int:
        """Sets that became depth."""
        return len(self.instants)

    @property
    def missed(self) -> float:
        """Share of the published sets that nobody took."""
        return 1 - self.done / self.published if self.published else 0.0

    def add(self, exposed_ns: int, preprocess: float, infer: float, latency: float) -> None:
        """Note one set."""
        for name, value in zip(STAGES, (preprocess, infer, preprocess + infer, latency), strict=True):
            self.seconds[name].append(value)
        self.instants.append(exposed_ns / 1e9)


def pipeline(views: Views, session: Session, pictures: BenchInput) -> Work:
    """The way of a set in `runtime.run`, without sinks."""

    def work(published: Published) -> tuple[float, float]:
        frame_set = pictures.frame_set(published.index, published.instant_ns)
        start = time.perf_counter()
        images, focal = views.prepare(frame_set)
        prepared = time.perf_counter()
        session.infer(images, focal)
        return prepared - start, time.perf_counter() - prepared

    return work


def run_paced(
    work: Work,
    rate_hz: float,
    *,
    seconds: float,
    warmup: int,
    into: PacedRun | None = None,
    watched: Watched = lambda sets: sets,
    now_ns: Callable[[], int] = time.monotonic_ns,
    sleep: Callable[[float], None] = time.sleep,
) -> PacedRun:
    """Publish sets at a rate for some seconds and work on the newest, always.

    Args:
        work: what is measured.
        rate_hz: sets a second.
        seconds: that count, after the warm-up; at least one set is published in them.
        warmup: sets that are published first and do not count.
        into: is filled, where a Ctrl-C shall leave what there is; a new one if None.
        watched: looks on.
        now_ns, sleep: the clock.
    """
    run = PacedRun(rate_hz=rate_hz) if into is None else into
    counted = max(1, round(seconds * rate_hz))
    sets = PacedSets(rate_hz, warmup + counted, now_ns=now_ns, sleep=sleep)
    begun, cpu = now_ns(), time.process_time()
    for published in watched(sets):
        if not run.instants:
            begun, cpu = now_ns(), time.process_time()
        times = work(published)
        done = now_ns()
        if published.index >= warmup:
            run.add(published.instant_ns, *times, (done - published.instant_ns) / 1e9)
            run.published = published.index - warmup + 1
            run.wall, run.cpu = (done - begun) / 1e9, time.process_time() - cpu
    run.published = counted
    return run


@dataclass(frozen=True, slots=True, kw_only=True)
class RateResult:
    """What was measured at one rate, over all runs of it.

    Attributes:
        hz: sets a second that were published.
        published, done: counted sets, and those that became depth; the others were missed.
        stages: stage to milliseconds; empty where no set was done.
        jitter_ms: mean change of latency from one result to the next (the D of RFC 3550, unsmoothed).
        cpu: cores that this process kept busy.
        runs: row to its value in each run, for comparisons.
    """

    hz: float
    published: int
    done: int
    stages: Mapping[str, Stage]
    jitter_ms: float
    cpu: float
    runs: Mapping[str, tuple[float, ...]]

    @property
    def missed(self) -> int:
        """Sets that nobody took."""
        return self.published - self.done

    @classmethod
    def of(cls, runs: list[PacedRun]) -> RateResult:
        """Of all runs at one rate, at least one."""
        full = [run for run in runs if run.done]
        changes = [np.abs(np.diff(run.seconds["latency"])) for run in full]
        change = np.concatenate(changes) if changes else np.zeros(0)
        rows = {f"{stage} p50": [np.median(run.seconds[stage]) * 1e3 for run in full] for stage in STAGES}
        rows["latency p99"] = [np.percentile(run.seconds["latency"], 99) * 1e3 for run in full]
        wall = sum(run.wall for run in runs)
        return cls(
            hz=runs[0].rate_hz,
            published=sum(run.published for run in runs),
            done=sum(run.done for run in runs),
            stages={name: Stage.of(s for run in full for s in run.seconds[name]) for name in STAGES if full},
            jitter_ms=float(change.mean() * 1e3) if len(change) else 0.0,
            cpu=sum(run.cpu for run in runs) / wall if wall else 0.0,
            runs={name: tuple(map(float, values)) for name, values in rows.items()},
        )
