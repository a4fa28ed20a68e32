"""fsmde-edge train: a student, supervised."""

from __future__ import annotations

import argparse
from pathlib import Path

from fsmde_edge.cli.arguments import add_threads, positive

EXAMPLES = """examples:
  fsmde-edge train streets-supervised --out runs/tiny
      on synthetic streets; run it again to go on where it stopped
  fsmde-edge build --precision int8 --checkpoint runs/tiny/student.safetensors
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `train` and `distill`."""
    parser.add_argument(
        "recipe", metavar="RECIPE", help="a YAML file, or a shipped name (an unknown name lists them)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="state, log and student")
    parser.add_argument(
        "--data-root",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="what the recipe's paths of recordings are relative to (default: here)",
    )
    add_machine_arguments(parser)
    parser.set_defaults(taught=False)


def add_machine_arguments(parser: argparse.ArgumentParser) -> None:
    """Where training keeps what it prepares, and what it may use of this machine."""
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="prepared frame sets and teachers' outputs (default: the user's cache)",
    )
    parser.add_argument(
        "--render-workers", type=positive, metavar="N", help="processes that prepare frame sets (all cores)"
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where the student trains (default: CUDA where there is one)",
    )
    add_threads(parser)


def run(args: argparse.Namespace) -> int:
    """Prepare what is missing, train or go on, write student.safetensors."""
    from fsmde_edge.errors import MissingExtra

    try:
        from fsmde_edge.distill.command import TrainOptions, train_student
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "torch", extra="compile", why="training") from error

    train_student(
        TrainOptions(
            recipe=args.recipe,
            out=args.out,
            data_root=args.data_root,
            cache=args.cache,
            render_workers=args.render_workers or args.threads,
            threads=args.threads,
            device=args.device,
            taught=args.taught,
        ),
        print,
    )
    return 0
