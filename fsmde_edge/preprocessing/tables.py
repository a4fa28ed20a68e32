"""Tables that `kernel.c` works by: which rows, columns and weights make each pixel of a view.

The definition averages n by n bilinear samples. Here the same samples are taken in two steps. Down the
picture: for every *source* column, where does the curve that becomes an output row cross it? Along the
row: between which columns does an output pixel lie? What is left out is how much a pixel's left and right
edges lean within the pixel itself; with a squashed picture nothing leans and nothing is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.preprocess import axis_weights, is_plain_resize, oversampling, source_positions
from fsmde_edge.rig import Camera, VirtualPinhole

BLOCK = 64
"""Columns that share a range of source rows; kernel.c has the same number."""

_PHASES = 32
"""Positions that are told apart within a source pixel."""

_SCALES = 24
"""Sizes of an output pixel, in source columns, that are told apart within a view."""

_LEAN = 0.5
"""How far a pixel's edge may shift from its top to its bottom, as a share of the pixel's width."""

_FAR = 1e6
"""Where a lens's formula gives no number: far outside of any picture."""

_STEP = 2
"""Lens positions are computed for every second output column and interpolated between."""


Floats = NDArray[np.floating[Any]]


class Unfit(Exception):
    """A lens that tables cannot describe: it shows a place twice, or pixels lean too far."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Down:
    """How source rows become output rows.

    Attributes:
        top, count: int32 [rows, blocks], first source row and number of rows.
        offset: int64 [rows, blocks], into the weights.
        weights: uint8, `count` rows of BLOCK each; those of one column sum to 255.
    """

    top: NDArray[np.int32]
    count: NDArray[np.int32]
    offset: NDArray[np.int64]
    weights: NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Along:
    """How source columns become output columns.

    Attributes:
        start: int32 [rows or 1, width], first source column, even; may lie left of the picture.
        kind: uint16 [rows or 1, width], which row of `weights`.
        weights: float32 [kinds, taps], taps a multiple of 4.
    """

    start: NDArray[np.int32]
    kind: NDArray[np.uint16]
    weights: NDArray[np.float32]

    @property
    def taps(self) -> int:
        """Source columns that an output pixel may look at."""
        return int(self.weights.shape[1])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Geometry:
    """One camera brought into one view.

    Attributes:
        rows: float32 [rows, samples, source columns], where output rows cross source columns; None
            where the picture is only squashed.
        along: how columns are averaged.
        seen: float32 [rows, width], share of each pixel that the camera sees; None where all is seen.
        source: (width, height) of the camera's picture.
        height: of the view.
    """

    rows: NDArray[np.float32] | None
    along: Along
    seen: NDArray[np.float32] | None
    source: tuple[int, int]
    height: int


def geometry(camera: Camera, pinhole: VirtualPinhole) -> Geometry:
    """The tables of one view.

    Raises:
        Unfit: the lens bends too strongly.
    """
    source, height = (camera.width, camera.height), pinhole.height
    if is_plain_resize(camera, pinhole):
        along = _along_matrix(axis_weights(camera.width, pinhole.width))
        return Geometry(rows=None, along=along, seen=None, source=source, height=height)
    refuse_leaning(camera, pinhole)
    fine = oversampling(camera, pinhole)
    rows, all_seen = _crossings(camera, pinhole, fine)
    seen = None
    if not all_seen:
        inside = source_positions(camera, pinhole, fine)[2]
        seen = inside.reshape(height, fine, pinhole.width, fine).mean(axis=(1, 3), dtype=np.float32)
    along = _along_lens(camera, pinhole, fine, seen)
    return Geometry(rows=rows, along=along, seen=seen, source=source, height=height)


def down(geometry: Geometry, *, halved_rows: bool = False, halved_columns: bool = False) -> Down:
    """The vertical table of a plane, which may have half the picture's rows and columns."""
    width, height = geometry.source
    columns = width // 2 if halved_columns else width
    if geometry.rows is None:
        weights = axis_weights(height, geometry.height)
        if halved_rows:
            weights = weights[:, 0::2] + weights[:, 1::2]
        return _down_matrix(weights, -(-columns // BLOCK))
    rows = geometry.rows
    if halved_columns:
        rows = np.ascontiguousarray((rows[..., 0::2] + rows[..., 1::2]) / 2)
    return _down_lens(rows, halved=int(halved_rows))


def _down_matrix(weights: NDArray[np.float32], blocks: int) -> Down:
    """All columns alike: one block of weights a row serves them all."""
    used = weights > 0
    first = used.argmax(axis=1)
    count = weights.shape[1] - used[:, ::-1].argmax(axis=1) - first
    parts = [_in_255(row[start : start + n]) for row, start, n in zip(weights, first, count, strict=True)]
    offset = np.concatenate(([0], np.cumsum(count[:-1]))) * BLOCK
    repeated = np.repeat(np.concatenate(parts)[:, None], BLOCK, axis=1)
    each = np.ones((1, blocks), np.int64)
    return Down(
        top=(first[:, None] * each).astype(np.int32),
        count=(count[:, None] * each).astype(np.int32),
        offset=(offset[:, None] * each).astype(np.int64),
        weights=np.ascontiguousarray(repeated.reshape(-1)),
    )


def _in_255(weights: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Weights that sum to 1 as whole numbers that sum to 255, each off by less than 1."""
    edges = np.floor(np.cumsum(weights, dtype=np.float64) / weights.sum() * 255 + 0.5)
    return np.asarray(np.diff(edges, prepend=0), dtype=np.uint8)


def _down_lens(rows: NDArray[np.float32], *, halved: int) -> Down:
    from fsmde_edge.preprocessing.kernel import fill_down

    height, _, columns = rows.shape
    starts = np.arange(0, columns, BLOCK)
    low, high = rows.min(axis=1), rows.max(axis=1)
    first = np.minimum.reduceat(low, starts, axis=1).astype(np.int32) >> halved
    last = np.ceil(np.maximum.reduceat(high, starts, axis=1)).astype(np.int32) >> halved
    count = last - first + 1
    offset = np.concatenate(([0], np.cumsum(count.reshape(-1), dtype=np.int64)[:-1])) * BLOCK
    table = Down(
        top=first,
        count=count,
        offset=offset.reshape(height, -1),
        weights=np.zeros(int(count.sum(dtype=np.int64)) * BLOCK, np.uint8),
    )
    fill_down(rows, table, halved=halved)
    return table


def refuse_leaning(camera: Camera, pinhole: VirtualPinhole) -> None:
    """Raise `Unfit` where an output pixel's edges lean too far within the pixel."""
    corners = projected(camera, pinhole, np.arange(pinhole.width + 1.0), np.arange(pinhole.height + 1.0))
    inside = camera.inside(corners)
    size, lean = np.diff(corners[..., 0], axis=1)[1:], np.diff(corners[..., 0], axis=0)[:, 1:]
    seen = inside[1:, 1:] & inside[1:, :-1] & inside[:-1, 1:]
    if (seen & (np.abs(lean) > _LEAN * size)).any():
        raise Unfit(camera.name)


def _crossings(camera: Camera, pinhole: VirtualPinhole, fine: int) -> tuple[NDArray[np.float32], bool]:
    """(where each fine output row crosses each source column, whether the whole view is seen)."""
    columns = np.append(np.arange(0, pinhole.width, _STEP, dtype=np.float64), pinhole.width)
    rows = (np.arange(pinhole.height * fine) + 0.5) / fine
    uv = projected(camera, pinhole, columns, rows)
    inside = camera.inside(uv)
    u, v = uv[..., 0], uv[..., 1] - 0.5
    rising = np.diff(u, axis=1) > 0
    wanted = np.arange(camera.width) + 0.5
    crossing = np.empty((len(rows), camera.width), np.float32)
    for row in range(len(rows)):
        run = slice(*rising_run(rising[row], len(columns) // 2))
        crossing[row] = np.interp(wanted, u[row, run], v[row, run])
    clamped = np.clip(crossing, 0, camera.height - 1).reshape(pinhole.height, fine, camera.width)
    # the last column and the first and last rows are edges of pixels, whose centres are what is seen
    return clamped, bool(inside[:, :-1].all() and camera.inside(uv[:, -1] - (1e-3, 0)).all())


def rising_run(rising: NDArray[np.bool_], middle: int) -> tuple[int, int]:
    """The positions around the middle between which values only rise."""
    falls = np.flatnonzero(~rising)
    before, after = falls[falls < middle], falls[falls >= middle]
    return (int(before[-1]) + 1 if before.size else 0), (int(after[0]) + 1 if after.size else len(rising) + 1)


def _along_lens(
    camera: Camera, pinhole: VirtualPinhole, fine: int, seen: NDArray[np.float32] | None
) -> Along:
    edges = projected(
        camera, pinhole, np.arange(pinhole.width + 1, dtype=np.float64), np.arange(pinhole.height) + 0.5
    )[..., 0]
    size = np.diff(edges, axis=1)
    used = size[np.ones_like(size, bool) if seen is None else seen > 0]
    least, most = (float(used.min()), float(used.max())) if used.size else (1.0, 1.0)
    centre = np.clip((edges[:, 1:] + edges[:, :-1]) / 2 - 0.5, 0, camera.width - 1)
    reach = (fine - 1) / (2 * fine) * most
    start = 2 * np.floor((centre - reach) / 2)
    phase = np.floor((centre - start - reach) * _PHASES + 0.5)
    step = (most - least) / (_SCALES - 1) or 1.0
    scale = np.floor((np.clip(size, least, most) - least) / step + 0.5)
    phases = 2 * _PHASES + 1
    return Along(
        start=start.astype(np.int32),
        kind=(scale * phases + phase).astype(np.uint16),
        weights=_tents(least + step * np.arange(_SCALES), reach + np.arange(phases) / _PHASES, fine),
    )


def _tents(sizes: Floats, centres: Floats, fine: int) -> NDArray[np.float32]:
    """Weights of `fine` bilinear samples spread over each size around each centre [sizes × centres, taps]."""
    spread = (np.arange(fine) + 0.5) / fine - 0.5
    positions = centres[None, :, None] + sizes[:, None, None] * spread
    taps = -(-(int(positions.max()) + 2) // 4) * 4
    distance = np.abs(positions[..., None] - np.arange(taps))
    weights = np.maximum(1 - distance, 0).mean(axis=2)
    return np.asarray(weights.reshape(-1, taps), dtype=np.float32)


def _along_matrix(weights: NDArray[np.float32]) -> Along:
    used = weights > 0
    start = used.argmax(axis=1) & ~1
    end = weights.shape[1] - used[:, ::-1].argmax(axis=1)
    taps = -(-int((end - start).max()) // 4) * 4
    padded = np.pad(weights, ((0, 0), (0, taps)))
    along = np.take_along_axis(padded, start[:, None] + np.arange(taps), axis=1)
    kind = np.arange(len(weights))
    return Along(start=start[None].astype(np.int32), kind=kind[None].astype(np.uint16), weights=along)


def projected(camera: Camera, pinhole: VirtualPinhole, columns: Floats, rows: Floats) -> NDArray[np.float64]:
    """Positions [rows, columns, 2] in the camera's picture of positions in the view; all are finite."""
    x, y = np.meshgrid((columns - pinhole.cx) / pinhole.fx, (rows - pinhole.cy) / pinhole.fy)
    with np.errstate(all="ignore"):
        uv = camera.project(np.stack((x, y, np.ones_like(x)), axis=-1))[0]
    return np.nan_to_num(uv, nan=-_FAR, posinf=_FAR, neginf=-_FAR)
