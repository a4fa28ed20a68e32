"""fsmde-edge bench: latency on this machine, of every model and of the whole pipeline at fixed rates."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fsmde_edge.cli.arguments import add_backend, add_bundle, add_threads, positive
from fsmde_edge.cli.live import size

if TYPE_CHECKING:
    from fsmde_edge.benchmark.models import ModelTimes
    from fsmde_edge.benchmark.pictures import BenchInput
    from fsmde_edge.benchmark.record import Measurement, PipelineRecord
    from fsmde_edge.bundle import Bundle

EXAMPLES = """examples:
  fsmde-edge bench
  fsmde-edge bench bundle --rates 10,15 --threads 2 --json bench.json
  fsmde-edge bench bundle --only pipeline --rates 30 --soak 60
      does depth grow older within an hour?
  fsmde-edge bench --compare before.json after.json
"""
CODES = ("UYVY", "YUYV", "NV12", "NV16", "RGB3", "BGR3", "GREY")
"""`pictures.CODES`, which is not imported before it is needed."""

MOST_HZ = 1000.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `bench`."""
    add_bundle(parser)
    parser.add_argument(
        "--only", choices=("models", "pipeline"), help="leave out the other half (default: both)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured")
    parser.add_argument(
        "--warmup",
        type=positive,
        default=5,
        metavar="N",
        help="runs, and sets of every run, before counting (5)",
    )
    parser.add_argument(
        "--compare", nargs=2, type=Path, metavar=("A", "B"), help="two files of --json, row by row"
    )
    parser.add_argument("--across", action="store_true", help="compare different bundles or pictures too")
    add_backend(parser)
    add_threads(parser)
    models = parser.add_argument_group("models", "each alone, on the bundle's golden frames")
    models.add_argument(
        "--runs", type=positive, default=50, metavar="N", help="timed runs of each model (50)"
    )
    whole = parser.add_argument_group("pipeline", "from raw pictures, published by a clock, to depth")
    whole.add_argument(
        "--rates", type=rates, default=(10.0, 20.0, 30.0), metavar="HZ,…", help="sets a second (10,20,30)"
    )
    whole.add_argument("--seconds", type=seconds, default=2.0, metavar="S", help="of each run (2)")
    whole.add_argument("--repeats", type=positive, default=5, metavar="N", help="runs at each rate (5)")
    whole.add_argument(
        "--soak", type=minutes, default=0.0, metavar="MIN", help="and one long run at the first rate"
    )
    whole.add_argument("--precision", default="auto", choices=("auto", "fp32", "fp16", "int8", "int8-fp16"))
    whole.add_argument(
        "--source", nargs="+", metavar="SOURCE", help="pictures of a recording instead (see: run --source)"
    )
    whole.add_argument("--rig", type=Path, metavar="YAML", help="the cameras of the source's video files")
    whole.add_argument(
        "--size", type=size, metavar="WxH", help="of the golden frames' pictures (default: 1920x1080)"
    )
    whole.add_argument(
        "--pixel-format", default="UYVY", choices=CODES, help="that pictures come in (default: UYVY)"
    )


def run(args: argparse.Namespace) -> int:
    """Measure models and pipeline, or compare two measurements; Ctrl-C prints what there is."""
    if args.compare is not None:
        return _compare(args)
    from fsmde_edge.benchmark.machine import describe_machine, versions
    from fsmde_edge.benchmark.record import Measurement
    from fsmde_edge.bundle import open_bundle
    from fsmde_edge.files import check_writable
    from fsmde_edge.finalise.serve import ensure_engine

    _refuse(args)
    if args.json is not None:
        check_writable(args.json)
    bundle = open_bundle(args.bundle)
    pictures = None if args.only == "models" else _pictures(args, bundle)
    ensure_engine(bundle, args.backend, say=print, threads=args.threads)
    models = None if args.only == "pipeline" else _models(args, bundle)
    stopped = models is not None and models.stopped
    pipeline, complete = None, not stopped
    if pictures is not None and not stopped:
        pipeline, complete = _pipeline(args, bundle, pictures)
    record = Measurement(
        bundle=bundle.hash,
        views=len(bundle.manifest.views),
        threads=args.threads,
        machine=describe_machine(),
        versions=versions(),
        latency={} if models is None else models.latency,
        sessions={} if models is None else models.sessions,
        pipeline=pipeline,
        complete=complete,
    )
    if args.json is not None:
        record.save(args.json)
    return _verdict(record)


def _refuse(args: argparse.Namespace) -> None:
    from fsmde_edge.errors import UsageError

    if args.across:
        raise UsageError("--across goes with --compare", hint="leave it away")
    if args.source is not None and args.size is not None:
        raise UsageError("--size does not go with --source, whose pictures have one", hint="leave it away")
    if args.source is None and args.rig is not None:
        raise UsageError("--rig goes with --source", hint="leave it away")


def _models(args: argparse.Namespace, bundle: Bundle) -> ModelTimes:
    from fsmde_edge.benchmark.models import bench_models
    from fsmde_edge.evaluation.report import Table

    result = bench_models(
        bundle, runs=args.runs, warmup=args.warmup, threads=args.threads, backend=args.backend
    )
    if not result.latency:
        print("stopped before every model had one counted run")
        return result
    rows = [
        (
            name,
            f"{row.p50:.2f}",
            f"{row.p90:.2f}",
            f"{row.p99:.2f}",
            f"{result.base_p50 / row.p50:.2f}",
            str(row.runs),
        )
        for name, row in result.latency.items()
    ]
    header = ("", "p50 ms", "p90 ms", "p99 ms", f"x {result.base.upper()}", "runs")
    print(Table(title="", header=header, rows=rows).as_text())
    for model, session in result.sessions.items():
        print(f"{model} ran on {session}")
    print(f"one frame set of {len(bundle.manifest.views)} views; {args.warmup} runs of each before counting")
    return result


def _pictures(args: argparse.Namespace, bundle: Bundle) -> BenchInput:
    from fsmde_edge.benchmark.pictures import golden_input, source_input
    from fsmde_edge.capture import open_source
    from fsmde_edge.datasets.rigfile import load_rig

    if args.source is None:
        return golden_input(bundle, code=args.pixel_format, size=args.size or (1920, 1080))
    height, width = bundle.manifest.size
    rig = None if args.rig is None else load_rig(args.rig)
    return source_input(open_source(args.source, size=(width, height), rig=rig), code=args.pixel_format)


def _pipeline(args: argparse.Namespace, bundle: Bundle, pictures: BenchInput) -> tuple[PipelineRecord, bool]:
    from fsmde_edge.benchmark.measure import Options, bench_pipeline
    from fsmde_edge.inference.backends import open_session

    options = Options(
        rates=args.rates,
        seconds=args.seconds,
        repeats=args.repeats,
        warmup=args.warmup,
        soak_min=args.soak,
        threads=args.threads,
    )
    choice = open_session(bundle, precision=args.precision, backend=args.backend, threads=args.threads)
    with choice.session as session:
        record, complete = bench_pipeline(bundle.manifest, session, pictures, options)
    for line in pipeline_lines(record):
        print(line)
    if not complete:
        print("stopped: this is not all that was asked for")
    return record, complete


def pipeline_lines(record: PipelineRecord) -> Iterator[str]:
    """What is printed of the pipeline."""
    from fsmde_edge.evaluation.report import Table

    fed = record.fed
    yield f"\n{record.precision} on {record.session}, prepared by {record.preparation}"
    yield (
        f"{fed.what} as {len(fed.layouts)} pictures {fed.layouts[0]}, {fed.bytes_per_set / 1e6:.1f} MB a "
        f"set; {record.repeats} runs of {record.seconds:g} s at each rate, the first {record.warmup} sets of "
        "each not counted"
    )
    rows = [
        (f"{rate.hz:g} Hz {name}", *(f"{value:.2f}" for value in (row.p50, row.p90, row.p99, row.max)))
        for rate in record.rates
        for name, row in rate.stages.items()
    ]
    if rows:
        yield Table(title="", header=("", "p50 ms", "p90 ms", "p99 ms", "max ms"), rows=rows).as_text()
    for rate in record.rates:
        yield (
            f"{rate.hz:g} Hz: {rate.missed} of {rate.published} sets missed, jitter {rate.jitter_ms:.2f} ms, "
            f"{rate.cpu:.2f} cores busy"
        )
    if record.throughput is not None:
        tried = len(record.throughput.probes)
        hz = "no rate" if record.throughput.hz is None else f"{record.throughput.hz:.1f} sets a second"
        yield f"throughput: {hz} with at most 5 % missed ({tried} rates tried)"
    if record.drift is not None:
        yield f"soak: {record.drift}"
    yield f"memory: at most {record.peak_mib:.0f} MiB, loading included"
    yield f"before: {record.before}"
    yield f"after:  {record.after}"


def _verdict(record: Measurement) -> int:
    from fsmde_edge.errors import DeviceError

    drift = None if record.pipeline is None else record.pipeline.drift
    if drift is not None and drift.grows:
        raise DeviceError(
            f"depth grows older: {drift.slope:.3f} ms a minute (95 %: {drift.low:.3f} to {drift.high:.3f}) "
            f"over {drift.minutes:.1f} min",
            hint="look at clocks and temperatures before and after; cool it, or choose a lower power mode",
        )
    return 0


def _compare(args: argparse.Namespace) -> int:
    from fsmde_edge.benchmark.compare import compare, differences
    from fsmde_edge.benchmark.record import Measurement
    from fsmde_edge.errors import InputError
    from fsmde_edge.evaluation.report import Table

    a, b = (Measurement.load(path) for path in args.compare)
    differ = differences(a, b)
    if differ and not args.across:
        raise InputError(
            f"{args.compare[0]} and {args.compare[1]} did not measure the same: {'; '.join(differ)}",
            hint="measure again, or add --across to compare them all the same",
        )
    if differ:
        print(f"DIFFERENT: {'; '.join(differ)}")
    rows = [
        (
            each.row,
            f"{each.a:.2f}",
            f"{each.b:.2f}",
            f"{each.ratio:.3f}",
            "" if each.interval is None else f"{each.interval[0]:.3f} to {each.interval[1]:.3f}",
            each.verdict,
        )
        for each in compare(a, b)
    ]
    if not rows:
        raise InputError(
            "the two have no row in common", where=args.compare[1], hint="measure the same rates"
        )
    print(Table(title="", header=("", "A", "B", "B / A", "95 %", "verdict"), rows=rows).as_text())
    for name, record, path in zip("AB", (a, b), args.compare, strict=True):
        print(f"{name}: {path}, {record.machine.get('processor')}")
    return 0


def rates(text: str) -> tuple[float, ...]:
    """Sets a second, separated by commas, no two alike."""
    values = tuple(_number(part, "sets a second", MOST_HZ) for part in text.split(","))
    if len(set(values)) != len(values):
        raise argparse.ArgumentTypeError(f"{text!r} names a rate twice")
    return values


def seconds(text: str) -> float:
    """Of one run: up to an hour."""
    return _number(text, "seconds", 3600.0)


def minutes(text: str) -> float:
    """Of a soak: up to a week."""
    return _number(text, "minutes", 10_080.0)


def _number(text: str, unit: str, most: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of {unit} up to {most:g}")
    return value
