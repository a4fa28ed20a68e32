"""Progress, as bars or lines: on a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def progress(items: Iterable[T], *, what: str, total: int | None = None) -> Iterator[T]:
    """The same items, with a bar on stderr where stderr is a terminal.

    Args:
        items: anything iterable.
        what: the label.
        total: how many, where `items` does not know.
    """
    from tqdm import tqdm

    return iter(tqdm(items, desc=what, total=total, disable=not sys.stderr.isatty(), leave=False))


def say_aside(line: str) -> None:
    """A line on stderr, where that is a terminal: progress beside a result that machines read."""
    if sys.stderr.isatty():
        print(line, file=sys.stderr)
