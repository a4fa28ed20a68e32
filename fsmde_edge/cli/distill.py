"""fsmde-edge distill: a student that learns from a foundation model and from LiDAR."""

from __future__ import annotations

import argparse

from fsmde_edge.cli import train

EXAMPLES = """examples:
  fsmde-edge distill ddad --data-root /data --out runs/ddad
      Depth Anything V2 teaches the base student on DDAD; run it again to go on where it stopped
  torchrun --nproc-per-node 4 -m fsmde_edge distill ddad --data-root /data --out runs/ddad
      the same on four GPUs: the global batch of the recipe, shared out
  fsmde-edge build --precision int8 --checkpoint runs/ddad/student.safetensors
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """As `train`."""
    train.add_arguments(parser)
    parser.set_defaults(taught=True)


def run(args: argparse.Namespace) -> int:
    """Ask the teacher what it was not asked yet, train or go on, write student.safetensors."""
    return train.run(args)
