"""fsmde-edge estimate: what a bundle would take on a board, kernel by kernel, before there is one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from fsmde_edge.cli.arguments import add_bundle

if TYPE_CHECKING:
    from fsmde_edge.compiler.predict.totals import BundleEstimate

EXAMPLES = """examples:
  fsmde-edge estimate bundle --target orin-agx-64gb
  fsmde-edge estimate bundle --target orin-nano-8gb --mode MAXN_SUPER --precision int8-fp16
  fsmde-edge estimate bundle --target orin-nx-16gb --json > estimate.json
  fsmde-edge estimate bundle --target orin-agx-64gb --bench bench.json     scaled to what the board measured
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `estimate`."""
    add_bundle(parser)
    parser.add_argument(
        "--target", metavar="T", help="target profile (default: what the bundle is built for)"
    )
    parser.add_argument("--mode", metavar="M", help="the board's power mode (default: the profile's first)")
    parser.add_argument(
        "--precision", metavar="P", help="whose kernels to list (default: the smallest model)"
    )
    parser.add_argument(
        "--bench", type=Path, metavar="FILE", help="a bench's JSON of that board: scales it all"
    )
    parser.add_argument("--compute", type=_share, metavar="X", help="share of the dense rate reached (0.5)")
    parser.add_argument("--memory", type=_share, metavar="X", help="share of the bandwidth reached (0.7)")
    parser.add_argument("--json", action="store_true", help="everything as JSON")


def run(args: argparse.Namespace) -> int:
    """Estimate every precision of the bundle; list one's kernels."""
    import json

    from fsmde_edge.bundle import open_bundle
    from fsmde_edge.compiler.predict.cost import Efficiency
    from fsmde_edge.compiler.predict.totals import estimate_bundle
    from fsmde_edge.errors import UsageError
    from fsmde_edge.targets import target_of

    bundle = open_bundle(args.bundle)
    target = target_of(bundle, args.target)
    given = {"compute": args.compute, "memory": args.memory}
    result = estimate_bundle(
        bundle,
        target,
        mode=args.mode,
        efficiency=Efficiency(**{name: value for name, value in given.items() if value is not None}),
        bench=args.bench,
    )
    precision = args.precision or list(result.estimates)[-1]
    if precision not in result.estimates:
        have = ", ".join(result.estimates)
        raise UsageError(f"there is no {precision} model to list", hint=f"choose one of: {have}")
    if args.json:
        print(json.dumps(result.as_dict(), indent=1))
        return 0
    for line in result.assumptions():
        print(line)
    print(f"\n{_totals(result)}\n\n{_kernels(result, precision)}")
    return 0


def _totals(result: BundleEstimate) -> str:
    from fsmde_edge.compiler.predict.totals import bound_ms
    from fsmde_edge.evaluation.report import Table

    base = next(iter(result.estimates.values())).ms
    rows = []
    for name, guess in result.estimates.items():
        bound = bound_ms(guess)
        rows.append(
            (
                f"{name} (derived)" if name in result.derived else name,
                str(len(guess.costs)),
                f"{guess.macs / 1e9:.2f}",
                f"{guess.moved_bytes / 1e6:.1f}",
                *(f"{bound[kind]:.3f}" for kind in ("compute", "memory", "launch")),
                f"{guess.ms:.3f}",
                f"{base / guess.ms:.2f}",
            )
        )
    header = (
        "estimate",
        "kernels",
        "GMAC",
        "MB moved",
        "compute ms",
        "memory ms",
        "launch ms",
        "ms",
        "x first",
    )
    return Table(title="", header=header, rows=rows).as_text()


def _kernels(result: BundleEstimate, precision: str) -> str:
    from fsmde_edge.evaluation.report import Table

    rows = [
        (
            f"{cost.kernel.kind} {cost.kernel.name}",
            cost.kernel.precision,
            str(max(1, len(cost.kernel.nodes))),
            f"{cost.kernel.macs / 1e6:.1f}",
            f"{(cost.kernel.read_bytes + cost.kernel.write_bytes + cost.kernel.weight_bytes) / 1e3:.1f}",
            cost.bound,
            f"{cost.ms * 1e3:.1f}",
        )
        for cost in result.estimates[precision].costs
    ]
    header = (f"estimated kernels of {precision}", "in", "nodes", "MMAC", "kB", "bound", "us")
    return Table(title="", header=header, rows=rows).as_text()


def _share(text: str) -> float:
    """A share of a peak, from a thousandth to all of it."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.001 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share between 0.001 and 1")
    return value
