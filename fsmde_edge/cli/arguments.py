"""Arguments and arguments' types that several commands share."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path

DIGITS = 18
"""Of the longest whole number that is taken."""


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


def add_backend(parser: argparse.ArgumentParser) -> None:
    """--backend."""
    parser.add_argument(
        "--backend",
        default="auto",
        metavar="NAME",
        help="what runs it: auto (what finalise chose on this machine, else onnxruntime), or a name",
    )


def add_threads(parser: argparse.ArgumentParser) -> None:
    """--threads."""
    parser.add_argument(
        "--threads",
        type=threads,
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
    if not (text.isascii() and text.isdecimal() and len(text) <= DIGITS):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at most {DIGITS} digits")
    return int(text)


def threads(text: str) -> int:
    """A number of threads that this machine may be asked for."""
    value, most = positive(text), 4 * (os.cpu_count() or 1) + 16
    if value > most:
        raise argparse.ArgumentTypeError(f"{value} threads are too many for this machine (at most {most})")
    return value


def metres(text: str) -> float:
    """A distance up to which LiDAR may count."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.1 < value <= 10_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a distance between 0.1 and 10000 metres")
    return value


def percent(text: str) -> int:
    """A whole number from 1 to 100."""
    value = positive(text)
    if value > 100:
        raise argparse.ArgumentTypeError(f"{text} is more than 100")
    return value


def share(text: str) -> float:
    """A number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value
