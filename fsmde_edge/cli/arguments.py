"""Arguments and arguments' types that several commands share."""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def add_bundle(parser: argparse.ArgumentParser) -> None:
    """BUNDLE, positional, ./bundle unless given."""
    parser.add_argument(
        "bundle",
        nargs="?",
        type=Path,
        default=Path("bundle"),
        metavar="BUNDLE",
        help="a bundle's folder (default: ./bundle)",
    )


def add_threads(parser: argparse.ArgumentParser) -> None:
    """--threads."""
    parser.add_argument(
        "--threads",
        type=positive,
        default=os.cpu_count() or 1,
        metavar="N",
        help="threads that compute (default: all cores)",
    )


def add_data(parser: argparse.ArgumentParser, *, flag: str = "--data") -> None:
    """--data PATH and what goes with it."""
    parser.add_argument(
        flag,
        dest="data",
        type=Path,
        metavar="PATH",
        help="a data set: DDAD or other DGP folder, nuScenes tables, one nuScenes sample "
        "(default: synthetic streets, test split)",
    )
    parser.add_argument("--split", help="which split of the data set (DGP: train, val, test)")
    parser.add_argument("--scenes", nargs="+", metavar="NAME", help="only these scenes")
    parser.add_argument(
        "--samples", nargs="+", type=natural, metavar="I", help="only these positions in a scene"
    )
    parser.add_argument(
        "--masks", type=Path, metavar="DIR", help="ego masks: [SCENE/]CAMERA_mask.png, 0 = own car"
    )


def positive(text: str) -> int:
    """A whole number from 1."""
    value = natural(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1")
    return value


def natural(text: str) -> int:
    """A whole number from 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)
