"""The whole pipeline measured: fixed rates in turn, the highest rate, and the drift of a long run."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from fsmde_edge.benchmark.drift import Drift, drift_of
from fsmde_edge.benchmark.machine import MachineState, read_state
from fsmde_edge.benchmark.paced import Published
from fsmde_edge.benchmark.pictures import BenchInput
from fsmde_edge.benchmark.pipeline import PacedRun, RateResult, Stage, Work, pipeline, run_paced
from fsmde_edge.benchmark.record import Fed, PipelineRecord
from fsmde_edge.benchmark.throughput import Throughput, search_throughput
from fsmde_edge.bundle import Manifest
from fsmde_edge.inference.session import Session
from fsmde_edge.progress import progress
from fsmde_edge.views import views_for

PROBE_SETS = 20
"""Sets of a probe of the throughput search, at least: one of them is what may be missed."""

ReadState = Callable[[], MachineState]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How the pipeline is measured.

    Attributes:
        rates: sets a second, measured in turn.
        seconds: that count in each run.
        repeats: runs at each rate.
        warmup: sets before counting, in every run.
        soak_min: minutes of one long run at the first rate; 0 for none.
        threads: of preprocessing.
    """

    rates: tuple[float, ...] = (10.0, 20.0, 30.0)
    seconds: float = 2.0
    repeats: int = 5
    warmup: int = 5
    soak_min: float = 0.0
    threads: int = 1


@dataclass(slots=True, eq=False)
class _Found:
    """What there is so far."""

    runs: dict[float, list[PacedRun]] = field(default_factory=dict)
    throughput: Throughput | None = None
    soak: PacedRun | None = None
    complete: bool = False


def bench_pipeline(
    manifest: Manifest,
    session: Session,
    pictures: BenchInput,
    options: Options,
    *,
    state: ReadState = read_state,
) -> tuple[PipelineRecord, bool]:
    """Measure until it is done or Ctrl-C comes.

    Args:
        manifest: the bundle's.
        session: opened on it.
        pictures: that are fed.
        options: how.
        state: tells how the machine stands.

    Returns:
        What was measured, and whether it is all that was asked for.

    Raises:
        InputError: the pictures' rig does not fit the bundle.
    """
    views = views_for(pictures.rig, manifest, how="auto", threads=options.threads, layouts=pictures.layouts)
    found, before = _Found(), state()
    with suppress(KeyboardInterrupt):
        _measure(found, pipeline(views, session, pictures), options)
    rates = tuple(RateResult.of(runs) for runs in found.runs.values())
    record = PipelineRecord(
        fed=_fed(pictures),
        precision=session.precision,
        session=session.detail,
        preparation=views.preparation.name if views.preparation is not None else "",
        seconds=options.seconds,
        repeats=options.repeats,
        warmup=options.warmup,
        rates=rates,
        throughput=found.throughput,
        drift=_drift(found.soak),
        peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        before=before,
        after=state(),
    )
    return record, found.complete


def _measure(found: _Found, work: Work, options: Options) -> None:
    """Fill in what is found; rates take turns, so that a slow minute troubles all of them."""
    run = partial(run_paced, work, warmup=options.warmup)
    for index in range(options.warmup):
        work(Published(index, 0))
    turns = [rate for _ in range(options.repeats) for rate in options.rates]
    for rate in progress(turns, what="fixed rates"):
        found.runs.setdefault(rate, []).append(run(rate, seconds=options.seconds))
    found.throughput = _throughput(run, found.runs.values(), options)
    if options.soak_min:
        found.soak = PacedRun(rate_hz=options.rates[0])
        _soak(run, found.soak, options)
    found.complete = True


def _throughput(
    run: Callable[..., PacedRun], runs: Iterable[Sequence[PacedRun]], options: Options
) -> Throughput:
    times = [seconds for each in runs for one in each for seconds in one.seconds["total"]]
    guess = 1e3 / Stage.of(times).p50 if times else options.rates[0]

    def missed(rate: float) -> float:
        return run(rate, seconds=max(options.seconds, PROBE_SETS / rate)).missed

    return search_throughput(missed, guess=guess)


def _soak(run: Callable[..., PacedRun], into: PacedRun, options: Options) -> None:
    total = options.warmup + round(60 * options.soak_min * into.rate_hz)

    def watched(sets: Iterable[Published]) -> Iterable[Published]:
        return progress(sets, what="soak", total=total)

    run(into.rate_hz, seconds=60 * options.soak_min, into=into, watched=watched)


def _drift(soak: PacedRun | None) -> Drift | None:
    return None if soak is None else drift_of(soak.instants, soak.seconds["latency"])


def _fed(pictures: BenchInput) -> Fed:
    return Fed(
        what=pictures.what,
        layouts=tuple(map(str, pictures.layouts)),
        bytes_per_set=pictures.bytes_per_set,
        digest=pictures.digest,
    )
