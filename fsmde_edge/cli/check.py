"""fsmde-edge check: is INT8 still FP32, and how good are both?"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from fsmde_edge.cli.arguments import add_backend, add_bundle, add_data, add_threads, metres, natural, positive

if TYPE_CHECKING:
    from fsmde_edge.bundle import Bundle
    from fsmde_edge.datasets.base import Dataset
    from fsmde_edge.evaluation.check import CheckOptions, CheckResult
    from fsmde_edge.evaluation.report import Table

SYNTHETIC_SETS = 8

EXAMPLES = """examples:
  fsmde-edge check                                   ./bundle on synthetic streets, test split
  fsmde-edge check bundle --data /data/ddad --split val --masks ddad_masks --report ddad.html
  fsmde-edge check bundle --data /data/nuscenes --max-depth 80 --json > check.json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `check`."""
    add_bundle(parser)
    add_data(parser)
    parser.add_argument("--sets", type=positive, metavar="N", help="at most this many frame sets")
    parser.add_argument(
        "--protocol", nargs="+", choices=("surrounddepth", "vfdepth", "deploy"), help="default: all three"
    )
    parser.add_argument(
        "--max-depth", type=metres, metavar="M", help="LiDAR counts up to here (default: 200; nuScenes 80)"
    )
    parser.add_argument("--runs", type=natural, default=30, metavar="N", help="timed inferences (0: none)")
    parser.add_argument("--report", type=Path, metavar="HTML", help="write a self-contained page")
    parser.add_argument("--table", type=Path, metavar="JSON", help="write every table as rows")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout and nothing else")
    parser.add_argument("--allow-few", action="store_true", help="exit 0 with a gate without a verdict")
    add_backend(parser)
    add_threads(parser)


def run(args: argparse.Namespace) -> int:
    """Measure, print, exit 4 unless the gate passed."""
    import itertools
    import json

    from fsmde_edge.bundle import open_bundle
    from fsmde_edge.datasets.selection import samples_of
    from fsmde_edge.errors import GateFailed
    from fsmde_edge.evaluation.check import CheckOptions, check
    from fsmde_edge.evaluation.check_report import as_record, tables, write_page
    from fsmde_edge.files import atomic_write
    from fsmde_edge.finalise.serve import ensure_engine
    from fsmde_edge.progress import progress, say_aside

    _check_targets(args)
    bundle = open_bundle(args.bundle)
    dataset = _dataset(args, bundle)
    default = CheckOptions()
    options = CheckOptions(
        protocols=tuple(args.protocol or default.protocols),
        max_depth=_max_depth(args, dataset, default),
        runs=args.runs,
        threads=args.threads,
        backend=args.backend,
    )
    ensure_engine(bundle, args.backend, say=say_aside if args.json else print, threads=args.threads)
    total = min(len(dataset), args.sets or len(dataset))
    samples = progress(itertools.islice(samples_of([dataset]), total), what="checking", total=total)
    result = check(bundle, samples, options)
    if args.report is not None:
        write_page(args.report, bundle, result, data=dataset.name)
    if args.table is not None:
        record = as_record(bundle, result, data=dataset.name)
        atomic_write(args.table, json.dumps(record, indent=1, ensure_ascii=False).encode() + b"\n")
    if args.json:
        print(json.dumps(result.as_json()))
    else:
        _print(result, tables(bundle, result))
    gate = result.gate
    if gate is None or gate.accepted(allow_few=args.allow_few):
        return 0
    raise GateFailed(
        f"the gate is {gate.verdict} on {dataset.name}: {'; '.join(gate.reasons)}",
        where=bundle.root,
        hint="see the worst tiles with --report FILE.html"
        if gate.verdict == "failed"
        else "give more frames, or accept it with --allow-few",
    )


def _check_targets(args: argparse.Namespace) -> None:
    """Refuse what cannot be written before anything is measured."""
    from fsmde_edge.errors import UsageError
    from fsmde_edge.files import check_writable

    targets = [path for path in (args.report, args.table) if path is not None]
    if len({path.absolute() for path in targets}) < len(targets):
        raise UsageError("--report and --table are the same file", where=args.report, hint="give them two")
    for path in targets:
        check_writable(path)


def _max_depth(args: argparse.Namespace, dataset: Dataset, default: CheckOptions) -> float:
    if args.max_depth is not None:
        return float(args.max_depth)
    return 80.0 if dataset.kind == "nuscenes" else default.max_depth


def _dataset(args: argparse.Namespace, bundle: Bundle) -> Dataset:
    from fsmde_edge.datasets.selection import Selection, open_selection
    from fsmde_edge.errors import UsageError

    if args.data is None:
        given = [flag for flag in ("scenes", "masks", "samples") if getattr(args, flag) is not None]
        if given:
            raise UsageError(f"--{given[0]} goes with --data")
        selection = Selection(split=args.split or "test", count=args.sets or SYNTHETIC_SETS)
    else:
        selection = Selection(
            path=str(args.data.absolute()),
            split=args.split,
            scenes=None if args.scenes is None else tuple(args.scenes),
            samples=None if args.samples is None else tuple(args.samples),
            masks=None if args.masks is None else str(args.masks.absolute()),
        )
    return open_selection(selection, size=bundle.manifest.size, root=Path())


def _print(result: CheckResult, found: list[Table]) -> None:
    for table in found:
        print(f"{table.title}\n{table.as_text()}\n")
    for model, session in result.sessions.items():
        print(f"{model} ran on {session}")
    if result.fused is not None:
        print(f"int8 as it ran is within {result.fused:.3%} of its exact Q/DQ arithmetic (mean)")
    print(f"preprocessing is within {result.preprocessing} grey levels of the bundle's golden vectors")
    if result.gate is not None:
        print(f"gate: {result.gate.verdict}")
