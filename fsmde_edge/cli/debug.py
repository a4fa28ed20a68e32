"""fsmde-edge debug: hand a bundle over to Polygraphy and trtexec."""

from __future__ import annotations

import argparse
from pathlib import Path

from fsmde_edge.cli.arguments import add_bundle

EXAMPLES = """examples:
  fsmde-edge debug bundle --out debug        then: cd debug, and the commands that were printed
Polygraphy: pip install 'polygraphy>=0.53' onnx-graphsurgeon; trtexec comes with TensorRT
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `debug`."""
    add_bundle(parser)
    parser.add_argument("--out", type=Path, default=Path("debug"), metavar="DIR", help="folder (./debug)")
    parser.add_argument(
        "--target",
        metavar="PROFILE",
        help="target profile with the builder's options (default: the bundle's)",
    )
    parser.add_argument("--force", action="store_true", help="replace a folder that this made before")


def run(args: argparse.Namespace) -> int:
    """Write models, golden inputs and commands, and print the commands."""
    from fsmde_edge.bundle import open_bundle
    from fsmde_edge.compiler.handover import COMMANDS, hand_over

    commands = hand_over(open_bundle(args.bundle), args.out, force=args.force, target=args.target)
    print(f"{args.out}: models, golden inputs and {COMMANDS}; run there, in this order:")
    for command in commands:
        where = "  (needs TensorRT and a GPU)" if command.gpu else ""
        print(f"\n{command.what}{where}\n  {command.line}")
    return 0
