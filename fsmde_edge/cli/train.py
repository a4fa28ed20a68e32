"""fsmde-edge train: a student, supervised on synthetic streets."""

from __future__ import annotations

import argparse
from pathlib import Path

from fsmde_edge.cli.arguments import add_threads, positive

EXAMPLES = """examples:
  fsmde-edge train tiny-streets --out runs/tiny
      the recipe of the shipped checkpoint; run it again to go on where it stopped
  fsmde-edge build --precision int8 --checkpoint runs/tiny/student.safetensors
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `train`."""
    parser.add_argument(
        "recipe",
        metavar="RECIPE",
        help="a YAML file, or a shipped name: tiny-streets-wide, tiny-streets-narrow, tiny-streets",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="state, log and student")
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="rendered scenes (default: the user's cache)"
    )
    parser.add_argument(
        "--render-workers", type=positive, metavar="N", help="processes that render (all cores)"
    )
    add_threads(parser)


def run(args: argparse.Namespace) -> int:
    """Render what is missing, train or go on, write student.safetensors."""
    from fsmde_edge.errors import MissingExtra

    try:
        from fsmde_edge.distill.command import TrainOptions, train_student
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "torch", extra="compile", why="training") from error

    path = train_student(
        TrainOptions(
            recipe=args.recipe,
            out=args.out,
            cache=args.cache,
            render_workers=args.render_workers or args.threads,
            threads=args.threads,
        ),
        print,
    )
    print(f"student: {path}")
    return 0
