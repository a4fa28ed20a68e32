"""Tables that `prepare.cu` works by: where output pixels' edges lie, and what each tile needs of the picture.

The same two steps as in `tables.py`: down the picture for every source column, then along the row. Here the
weights are computed where they are used, from edges of output pixels that are known on a coarse grid: so the
tables are a small share of the bytes that move, and sums need no rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.preprocess import is_plain_resize, oversampling, source_positions
from fsmde_edge.preprocessing.tables import projected, refuse_leaning, rising_run
from fsmde_edge.rig import Camera, VirtualPinhole

_COARSEST = 5
"""At most every 32nd position stands in a table."""

_ERROR = 1 / 64
"""Source pixels by which a position between two knots may be off."""

_STEP = 2
"""Lens positions are computed for every second output column and interpolated between."""

_LIMIT = 1e5
"""Positions beyond are as far outside of a picture as any."""

Floats = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Knots:
    """Positions on a grid: linear between every 2**shift columns.

    Attributes:
        values: float32 [rows, knots].
        shift: of a column's number to its knot's.
    """

    values: NDArray[np.float32]
    shift: int

    def at(self, columns: int) -> NDArray[np.float32]:
        """The positions [rows, columns] of the first columns, as the kernel computes them."""
        place = np.arange(columns, dtype=np.float32) / np.float32(1 << self.shift)
        before = place.astype(np.intp)
        low, high = self.values[:, before], self.values[:, before + 1]
        return np.asarray(low + (high - low) * (place - before), dtype=np.float32)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Edges:
    """One camera brought into one view: where edges of output pixels lie in its picture.

    Attributes:
        down: edges of output rows [height + 1] at source columns.
        along: edges of output columns, at output columns; [height] rows, or 1 where all are alike.
        samples: of an output pixel (down, along); 0 averages the area that it covers.
        share: float32 [height, width], of each pixel that the camera sees; None where all is seen.
        source: (columns, rows) of the camera's picture.
        size: (width, height) of the view.
    """

    down: Knots
    along: Knots
    samples: tuple[int, int]
    share: NDArray[np.float32] | None
    source: tuple[int, int]
    size: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tiles:
    """What each tile of a view needs of its camera's picture.

    Attributes:
        records: int32 [tiles, 4], row by row: first strip of columns, strips, source rows of each strip,
            index of their first rows in `tops`; all 0 where nothing is seen.
        tops: int32, the first source row of each strip of each tile.
        strip_shift: a strip has 2**strip_shift columns.
    """

    records: NDArray[np.int32]
    tops: NDArray[np.int32]
    strip_shift: int


def edges(camera: Camera, pinhole: VirtualPinhole) -> Edges:
    """The positions of one view.

    Raises:
        Unfit: the lens bends too strongly.
    """
    source, size = (camera.width, camera.height), (pinhole.width, pinhole.height)
    if is_plain_resize(camera, pinhole):
        along, down = (np.arange(new + 1) * (old / new) for old, new in zip(source, size, strict=True))
        samples = [0 if new < old else 1 for old, new in zip(source, size, strict=True)]
        return Edges(
            down=Knots(values=np.repeat(down[:, None], 2, axis=1).astype(np.float32), shift=30),
            along=_knots(_within(along[None]), np.ones((1, len(along)), bool)),
            samples=(samples[1], samples[0]),
            share=None,
            source=source,
            size=size,
        )
    refuse_leaning(camera, pinhole)
    fine = oversampling(camera, pinhole)
    share = _share(camera, pinhole, fine)
    across = projected(camera, pinhole, np.arange(pinhole.width + 1.0), np.arange(pinhole.height) + 0.5)[
        ..., 0
    ]
    return Edges(
        down=_knots(*_curves(camera, pinhole)),
        along=_knots(_within(across), _of_edges(_seen(share, size), axis=1)),
        samples=(fine, fine),
        share=share,
        source=source,
        size=size,
    )


def tiles(found: Edges, *, tile: tuple[int, int], strip_shift: int, margin: int, level: bool) -> Tiles:
    """What tiles of one size need.

    Args:
        found: the view's positions.
        tile: (width, height) in output pixels.
        strip_shift: of a strip's columns.
        margin: columns and rows that each output pixel needs beyond those that it averages.
        level: whether all strips of a tile start at one row.
    """
    columns, rows = found.source
    seen = _seen(found.share, found.size)
    left, right = _across(found, tile, seen, margin)
    strips = -(-columns // (1 << strip_shift))
    upper, lower = _upright(found, tile, seen, strips, strip_shift)
    records, tops, count = [], [np.empty(0, np.int32)], 0
    for row, column in product(range(left.shape[0]), range(left.shape[1])):
        if right[row, column] < 0:
            records.append((0, 0, 0, 0))
            continue
        first, last = left[row, column] >> strip_shift, right[row, column] >> strip_shift
        top = np.clip(upper[row, first : last + 1] - margin, 0, rows - 1)
        bottom = np.clip(lower[row, first : last + 1] + margin, 0, rows - 1)
        if level:
            top, bottom = np.full_like(top, top.min()), np.full_like(bottom, bottom.max())
        records.append((first, len(top), max(1, int((bottom - top).max()) + 1), count))
        tops.append(top.astype(np.int32))
        count += len(top)
    return Tiles(records=np.array(records, np.int32), tops=np.concatenate(tops), strip_shift=strip_shift)


def _share(camera: Camera, pinhole: VirtualPinhole, fine: int) -> NDArray[np.float32] | None:
    """What the camera sees of each pixel, or None for all: outer samples and centres are looked at first."""
    ends = 0.5 / fine
    columns, rows = (
        np.concatenate(([ends], np.arange(length) + 0.5, [length - ends]))
        for length in (pinhole.width, pinhole.height)
    )
    if camera.inside(projected(camera, pinhole, columns, rows)).all():
        return None
    inside = source_positions(camera, pinhole, fine)[2]
    blocks = inside.reshape(pinhole.height, fine, pinhole.width, fine)
    return np.asarray(blocks.mean(axis=(1, 3), dtype=np.float32))


def _seen(share: NDArray[np.float32] | None, size: tuple[int, int]) -> Mask:
    """Which pixels see anything, [height, width]."""
    return np.ones(size[::-1], bool) if share is None else share > 0


def _across(
    found: Edges, tile: tuple[int, int], seen: Mask, margin: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last source column of each tile; -1 as the last where nothing is seen."""
    width, height = found.size
    u = np.broadcast_to(found.along.at(width + 1), (height, width + 1))
    low, high = np.minimum(u[:, :-1], u[:, 1:]), np.maximum(u[:, :-1], u[:, 1:])
    first = _reduced(np.minimum, np.where(seen, low, np.inf), tile)
    last = _reduced(np.maximum, np.where(seen, high, -np.inf), tile)
    end = found.source[0] - 1
    left = np.clip(np.floor(first - 0.5) - margin, 0, end)
    right = np.where(np.isfinite(last), np.clip(np.floor(last + 0.5) + margin, 0, end), -1)
    return left.astype(np.int64), right.astype(np.int64)


def _upright(
    found: Edges, tile: tuple[int, int], seen: Mask, strips: int, strip_shift: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last source row of each row of tiles at each strip."""
    columns, rows = found.source
    v = np.clip(found.down.at(columns), 0, rows)
    if found.share is not None:  # where a view ends, its curves may run anywhere
        v = np.where(_seen_columns(found, seen), v, np.nan)
    starts = np.arange(0, found.size[1], tile[1])
    ends = np.minimum(starts + tile[1], found.size[1])
    at = np.arange(strips) << strip_shift
    with np.errstate(invalid="ignore"):
        low = np.stack([np.fmin.reduce(v[a : b + 1], axis=0) for a, b in zip(starts, ends, strict=True)])
        high = np.stack([np.fmax.reduce(v[a : b + 1], axis=0) for a, b in zip(starts, ends, strict=True)])
    upper, lower = np.fmin.reduceat(low, at, axis=1), np.fmax.reduceat(high, at, axis=1)
    return (
        np.floor(np.nan_to_num(upper, nan=0) - 0.5).astype(np.int64),
        np.floor(np.nan_to_num(lower, nan=0) + 0.5).astype(np.int64),
    )


def _seen_columns(found: Edges, seen: Mask) -> Mask:
    """[height + 1, source columns]: whether a pixel at that edge that sees anything needs the column."""
    width, height = found.size
    columns = found.source[0]
    u = np.broadcast_to(found.along.at(width + 1), (height, width + 1))
    needed = np.zeros((height + 1, columns), bool)
    for row in range(height):
        low = np.minimum(u[row, :-1], u[row, 1:])[seen[row]]
        high = np.maximum(u[row, :-1], u[row, 1:])[seen[row]]
        if low.size:
            first = int(np.clip(np.floor(low.min() - 1.5), 0, columns - 1))
            last = int(np.clip(np.ceil(high.max() + 1.5), 0, columns - 1))
            needed[row : row + 2, first : last + 1] = True
    return needed


def _reduced(how: np.ufunc, values: Floats, tile: tuple[int, int]) -> Floats:
    rows = how.reduceat(values, np.arange(0, values.shape[0], tile[1]), axis=0)
    return np.asarray(how.reduceat(rows, np.arange(0, values.shape[1], tile[0]), axis=1))


def _curves(camera: Camera, pinhole: VirtualPinhole) -> tuple[NDArray[np.float64], Mask]:
    """(where output rows' edges cross source columns, which of these matter), both [height + 1, columns]."""
    columns = np.append(np.arange(0, pinhole.width, _STEP, dtype=np.float64), pinhole.width)
    uv = projected(camera, pinhole, columns, np.arange(pinhole.height + 1.0))
    u, v = uv[..., 0], uv[..., 1]
    rising = np.diff(u, axis=1) > 0
    wanted = np.arange(camera.width) + 0.5
    crossing = np.empty((len(u), camera.width))
    for row in range(len(u)):
        run = slice(*rising_run(rising[row], len(columns) // 2))
        crossing[row] = _extended(wanted, u[row, run], v[row, run])
    crossing = _within(crossing)
    first, last = u[:, :1].min(), u[:, -1:].max()
    reached = (wanted >= first - 1) & (wanted <= last + 1)
    return crossing, reached & (crossing > -1) & (crossing < camera.height + 1)


def _extended(wanted: Floats, x: Floats, y: Floats) -> Floats:
    """Linear interpolation that goes on as straight as it ended."""
    found = np.interp(wanted, x, y)
    if len(x) > 1:
        before, after = wanted < x[0], wanted > x[-1]
        found[before] = y[0] + (wanted[before] - x[0]) * (y[1] - y[0]) / (x[1] - x[0])
        found[after] = y[-1] + (wanted[after] - x[-1]) * (y[-1] - y[-2]) / (x[-1] - x[-2])
    return found


def _within(positions: Floats) -> NDArray[np.float64]:
    return np.clip(positions.astype(np.float64), -_LIMIT, _LIMIT)


def _of_edges(pixels: Mask, *, axis: int) -> Mask:
    """The edges on an axis of the pixels that are set."""
    before, after = [(0, 0), (0, 0)], [(0, 0), (0, 0)]
    before[axis], after[axis] = (0, 1), (1, 0)
    return np.asarray(np.pad(pixels, before) | np.pad(pixels, after))


def _knots(exact: NDArray[np.float64], matters: Mask) -> Knots:
    """As few knots as keep the positions that matter."""
    columns = exact.shape[1]
    for shift in range(_COARSEST, -1, -1):
        step = 1 << shift
        last = -(-(columns - 1) // step) + 1
        beyond = np.arange(1, last * step - columns + 2)
        slope = exact[:, -1:] - exact[:, -2:-1]
        extended = np.concatenate((exact, exact[:, -1:] + slope * beyond), axis=1)
        made = Knots(values=np.ascontiguousarray(extended[:, ::step], np.float32), shift=shift)
        off = np.abs(made.at(columns) - exact)
        if shift == 0 or off[matters].max(initial=0) <= _ERROR:
            return made
    raise AssertionError
