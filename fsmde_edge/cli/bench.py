"""fsmde-edge bench: latency on this machine, every model in turn."""

from __future__ import annotations

import argparse
from pathlib import Path

from fsmde_edge.cli.arguments import add_backend, add_bundle, add_threads, positive

EXAMPLES = """examples:
  fsmde-edge bench
  fsmde-edge bench bundle --runs 200 --threads 2 --json bench.json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `bench`."""
    add_bundle(parser)
    parser.add_argument(
        "--runs", type=positive, default=50, metavar="N", help="timed runs of each model (50)"
    )
    parser.add_argument("--warmup", type=positive, default=5, metavar="N", help="runs before counting (5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured")
    add_backend(parser)
    add_threads(parser)


def run(args: argparse.Namespace) -> int:
    """Time every model of the bundle on its golden frames, in turn; Ctrl-C prints what there is."""
    from fsmde_edge.bundle import open_bundle
    from fsmde_edge.evaluation.bench import bench_bundle
    from fsmde_edge.evaluation.report import Table
    from fsmde_edge.files import check_writable
    from fsmde_edge.finalise.serve import ensure_engine

    if args.json is not None:
        check_writable(args.json)
    bundle = open_bundle(args.bundle)
    ensure_engine(bundle, args.backend, say=print, threads=args.threads)
    result = bench_bundle(
        bundle, runs=args.runs, warmup=args.warmup, threads=args.threads, backend=args.backend
    )
    if not result.latency:
        print("stopped before every model had one counted run")
        return 0
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
    print(f"one frame set of {result.views} views; {args.warmup} runs of each before counting")
    if args.json is not None:
        result.save(args.json)
    return 0
