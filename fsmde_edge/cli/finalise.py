"""fsmde-edge finalise: build on this machine, prove that it is right, keep the fastest."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from fsmde_edge.cli.arguments import add_bundle, add_threads, positive

if TYPE_CHECKING:
    from fsmde_edge.bundle import Bundle
    from fsmde_edge.inference.store import Store

EXAMPLES = """examples:
  fsmde-edge finalise                                every installed backend; the fastest right engine wins
  fsmde-edge finalise bundle --backend tensorrt
  fsmde-edge finalise bundle --json > device.json    one object, for fleets
  fsmde-edge finalise bundle --backend tensorrt --rollback
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `finalise`."""
    add_bundle(parser)
    parser.add_argument(
        "--backend", default="auto", metavar="NAME", help="a backend, or auto: all that are installed (auto)"
    )
    parser.add_argument(
        "--target",
        metavar="PROFILE",
        help="target profile with the builder's options (default: the bundle's)",
    )
    parser.add_argument(
        "--runs", type=positive, default=20, metavar="N", help="timed runs of each right engine (20)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout and nothing else")
    parser.add_argument(
        "--allow-failed", action="store_true", help="build INT8 although the bundle's gate did not pass"
    )
    parser.add_argument(
        "--rollback", action="store_true", help="build nothing: go back to the engine before the present one"
    )
    add_threads(parser)


def run(args: argparse.Namespace) -> int:
    """Build, judge, time, keep; exit 4 if nothing is right."""
    import json

    from fsmde_edge.bundle import open_bundle
    from fsmde_edge.finalise.finalise import FinaliseOptions, finalise
    from fsmde_edge.finalise.report import as_json, notes, table
    from fsmde_edge.inference.store import Store
    from fsmde_edge.progress import say_aside

    bundle, store = open_bundle(args.bundle), Store()
    if args.rollback:
        return _roll_back(args, bundle, store)
    options = FinaliseOptions(
        backend=args.backend,
        target=args.target,
        runs=args.runs,
        threads=args.threads,
        allow_failed=args.allow_failed,
    )
    say = say_aside if args.json else print
    outcome = finalise(bundle, options, say, store)
    if args.json:
        print(json.dumps(as_json(bundle, outcome)))
    elif outcome.candidates:
        print(table(outcome).as_text())
        print(*notes(bundle, outcome), sep="\n")
    outcome.require_winner(bundle.root)
    return 0


def _roll_back(args: argparse.Namespace, bundle: Bundle, store: Store) -> int:
    from fsmde_edge.errors import UsageError
    from fsmde_edge.inference.backends import backend_of
    from fsmde_edge.inference.finalised import require_engine

    if args.backend == "auto":
        raise UsageError("--rollback goes with --backend NAME")
    for flag in ("json", "target", "allow_failed"):
        if getattr(args, flag):
            raise UsageError(
                f"--rollback builds nothing and takes no --{flag.replace('_', '-')}", hint="leave it out"
            )
    present = require_engine(store, bundle, backend_of(args.backend))
    restored = store.rollback(present.key)
    print(f"{present.key.label}: back to the engine of {restored.created}")
    return 0
