"""fsmde-edge ablate: what each part of the distillation method is worth."""

from __future__ import annotations

import argparse
from pathlib import Path

from fsmde_edge.cli.train import add_machine_arguments

EXAMPLES = """examples:
  fsmde-edge ablate ablation.yaml --tune --out results
      every method's trials on the dev split; run it again to go on where it stopped
  fsmde-edge ablate ablation.yaml --out results
      each method's best trial with all its seeds, scored on dev
  fsmde-edge ablate ablation.yaml --final --out results
      the same students on the test split; a result that is there is never made again
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `ablate`."""
    parser.add_argument("recipe", type=Path, metavar="RECIPE", help="a YAML file of methods to compare")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="results, one JSON a run")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("runs/ablation"),
        metavar="DIR",
        help="training states (default: %(default)s)",
    )
    parser.add_argument("--only", nargs="+", default=(), metavar="METHOD", help="these methods alone")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--tune", dest="which", action="store_const", const="tune", help="try settings on dev")
    which.add_argument(
        "--final", dest="which", action="store_const", const="final", help="read the test split"
    )
    parser.set_defaults(which="dev")
    add_machine_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Do one pass."""
    from fsmde_edge.errors import MissingExtra

    try:
        from fsmde_edge.distill.ablation import AblationOptions, ablate
        from fsmde_edge.distill.command import TrainOptions
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "torch", extra="compile", why="training") from error

    ablate(
        AblationOptions(
            recipe=args.recipe,
            which=args.which,
            only=tuple(args.only),
            work=args.work,
            out=args.out,
            commit=_commit(),
            train=TrainOptions(
                recipe=str(args.recipe),
                out=args.work,
                cache=args.cache,
                render_workers=args.render_workers or args.threads,
                threads=args.threads,
                device=args.device,
            ),
        ),
        print,
    )
    return 0


def _commit() -> str:
    """The commit of this checkout, marked where files differ from it; the version where it is no checkout."""
    import subprocess

    import fsmde_edge

    root = Path(fsmde_edge.__file__).parent
    command = ("git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12")
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return f"version {fsmde_edge.__version__}"
