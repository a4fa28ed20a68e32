"""fsmde-edge synth: synthetic streets as a data set on disk."""

from __future__ import annotations

import argparse
from pathlib import Path

from fsmde_edge.cli.arguments import natural, positive

EXAMPLES = """examples:
  fsmde-edge synth streets --split test --scenes 4 --length 10 --size 384 640
  fsmde-edge run bundle --source streets --mosaic mosaic.mp4
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `synth`."""
    parser.add_argument("out", type=Path, metavar="DIR", help="a folder that does not exist, or is empty")
    parser.add_argument("--split", choices=("train", "dev", "test"), default="test")
    parser.add_argument("--scenes", type=positive, default=2, metavar="N")
    parser.add_argument("--length", type=positive, default=4, metavar="N", help="of each scene, 0.1 s apart")
    parser.add_argument("--size", type=positive, nargs=2, default=(192, 320), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--seed", type=natural, default=0)


def run(args: argparse.Namespace) -> int:
    """Render and write in the DGP layout."""
    from fsmde_edge.datasets.synthetic import SyntheticStreets, write_dgp

    height, width = args.size
    streets = SyntheticStreets(
        args.split,
        scenes=args.scenes,
        samples_per_scene=args.length,
        width=width,
        height=height,
        seed=args.seed,
    )
    print(f"data set: {write_dgp(args.out, streets)}")
    return 0
