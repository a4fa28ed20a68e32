"""The tables of all views, packed as `prepare.cu` reads them: one piece of memory, one launch a frame set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.errors import InputError
from fsmde_edge.preprocessing.raw import RawFormat, RawLayout
from fsmde_edge.preprocessing.tiles import Edges, Tiles, edges, tiles
from fsmde_edge.rig import Camera, VirtualPinhole

SOURCE = Path(__file__).with_name("prepare.cu")
FUNCTION = "fsmde_prepare"
THREADS = 256
"""Of a block; prepare.cu has the same number."""

SHARED_BYTES = 48 * 1024
"""Shared memory that every block of every GPU may use without asking."""

_TILES = ((64, 8), (32, 16), (32, 8), (16, 8), (16, 4), (8, 4), (8, 2))
"""Sizes of a tile (width, height): of those that fit, the one that reads the fewest bytes twice is taken."""

_COMPARED = 2
"""Sizes that fit and are compared; smaller ones would only read more."""

_ALIGNMENT = 16

_KNOTS = np.dtype([("values", "u8"), ("count", "i4"), ("shift", "i4")], align=True)
_PLANE = np.dtype(
    [("offset", "i8"), ("stride", "i8")]
    + [(name, "i4") for name in ("rows", "row_bytes", "strip_bytes", "halved_rows")],
    align=True,
)
_CHANNEL = np.dtype(
    [(name, "i4") for name in ("plane", "step", "offset", "halved_columns", "halved_rows")]
    + [("mix", "f4", (3,))],
    align=True,
)
_INTEGERS = (
    *("curves", "fine_down", "fine_along", "columns", "rows", "strip_shift"),
    *("planes", "channels", "bayer", "red", "spare"),
)
VIEW = np.dtype(
    [("down", _KNOTS), ("along", _KNOTS), ("tiles", "u8"), ("tops", "u8"), ("seen", "u8")]
    + [(name, "i4") for name in _INTEGERS]
    + [("gain", "f4", (4,)), ("bias", "f4", (3,)), ("plane", _PLANE, (2,)), ("channel", _CHANNEL, (3,))],
    align=True,
)
"""`View` of prepare.cu."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Launch:
    """One launch of the kernel.

    Attributes:
        views: of `VIEW`; pointers count from the start of the tables.
        tables: what they point to; the views come first.
        shape: (width, height, tile width, tile height), the kernel's last argument.
        grid: blocks (tiles of a view, views).
        shared: bytes of shared memory of a block.
        staged: bytes of camera buffers that blocks read for one frame set, some of them twice.
        pictures: bytes of the cameras' pictures of one frame set.
    """

    views: NDArray[Any]
    tables: NDArray[np.uint8]
    shape: tuple[int, int, int, int]
    grid: tuple[int, int]
    shared: int
    staged: int
    pictures: int

    @property
    def moved(self) -> int:
        """Bytes that one frame set cannot do without: pictures, tables, and the network's input."""
        width, height = self.shape[:2]
        return self.pictures + self.tables.nbytes + len(self.views) * width * height * 3

    def placed(self, address: int) -> NDArray[np.uint8]:
        """The tables as they must lie at an address, a multiple of 16."""
        views, bytes_ = self.views.copy(), self.tables.copy()
        pointers = (
            *(views["down"]["values"], views["along"]["values"]),
            *(views["tiles"], views["tops"], views["seen"]),
        )
        for pointer in pointers:
            pointer[pointer > 0] += np.uint64(address)
        bytes_[: views.nbytes] = views.view(np.uint8)
        return bytes_


def plan_launch(
    cameras: Sequence[Camera], pinholes: Sequence[VirtualPinhole], layouts: Sequence[RawLayout]
) -> Launch:
    """The launch for these cameras, made once.

    Args:
        cameras: in ring order.
        pinholes: the view that each becomes, all of one size.
        layouts: of the cameras' buffers.

    Raises:
        InputError: a format that needs a decoder; a lens that bends too strongly, or a picture so much larger
            than its view, that no tile fits into shared memory.
        Unfit: a lens that tables cannot describe.
    """
    for camera, layout in zip(cameras, layouts, strict=True):
        if layout.format.compressed:
            raise InputError(
                f"camera {camera.name} sends {layout.format.name}, which needs a decoder before the kernel",
                hint="choose a raw format of the camera",
            )
    found = [edges(camera, pinhole) for camera, pinhole in zip(cameras, pinholes, strict=True)]
    choices = []
    for tile in _TILES:
        parts = [_Part.of(each, layout, tile) for each, layout in zip(found, layouts, strict=True)]
        if max(part.shared for part in parts) <= SHARED_BYTES:
            choices.append((sum(part.staged for part in parts), tile, parts))
        if len(choices) == _COMPARED:
            break
    if choices:
        _, tile, parts = min(choices, key=lambda choice: choice[0])
        return _packed(parts, tile)
    raise InputError(
        f"no tile of these views fits into {SHARED_BYTES // 1024} KiB of shared memory",
        hint="choose a smaller picture of the cameras",
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Part:
    """One view's share of a launch."""

    found: Edges
    layout: RawLayout
    made: Tiles
    planes: NDArray[Any]
    channels: NDArray[Any]
    shared: int
    staged: int

    @classmethod
    def of(cls, found: Edges, layout: RawLayout, tile: tuple[int, int]) -> _Part:
        bayer = layout.format.kind == "bayer"
        shift = 4 if layout.format.pixel_bytes == 2 else 5
        made = tiles(found, tile=tile, strip_shift=shift, margin=2 if bayer else 0, level=bayer)
        planes, channels = _planes(layout, shift), _channels(layout)
        strips, rows = made.records[:, 1].astype(np.int64), made.records[:, 2].astype(np.int64)
        columns = strips << shift
        staged = sum(
            ((rows // 2 + 1) if plane["halved_rows"] else rows) * strips * int(plane["strip_bytes"])
            for plane in planes
        )
        lines = sum((columns >> int(channel["halved_columns"])) * 4 * tile[1] for channel in channels)
        colours = rows * columns * 3 if bayer else 0
        return cls(
            found=found,
            layout=layout,
            made=made,
            planes=planes,
            channels=channels,
            shared=int(np.max(staged + lines + colours)),
            staged=int(np.sum(np.where(rows > 0, staged, 0))),
        )


def _packed(parts: Sequence[_Part], tile: tuple[int, int]) -> Launch:
    views = np.zeros(len(parts), VIEW)
    tables = [np.zeros(views.nbytes, np.uint8)]
    size = _aligned(tables)

    def put(array: NDArray[Any]) -> int:
        nonlocal size
        place = size
        tables.append(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
        size = place + _aligned(tables)
        return place

    for view, part in zip(views, parts, strict=True):
        found, format = part.found, part.layout.format
        for name, knots in (("down", found.down), ("along", found.along)):
            view[name] = put(knots.values), knots.values.shape[1], knots.shift
        view["tiles"], view["tops"] = put(part.made.records), put(part.made.tops)
        if found.share is not None:
            view["seen"] = put(np.floor(found.share * 255 + np.float32(0.5)).astype(np.uint8))
        view["curves"] = len(found.along.values)
        view["fine_down"], view["fine_along"] = found.samples
        view["columns"], view["rows"] = found.source
        view["strip_shift"] = part.made.strip_shift
        view["planes"], view["channels"] = len(part.planes), len(part.channels)
        view["plane"][: len(part.planes)], view["channel"][: len(part.channels)] = part.planes, part.channels
        view["bias"] = _bias(part.layout)
        if format.kind == "bayer":
            view["bayer"], view["spare"] = format.pixel_bytes, format.bits - 8
            view["red"] = format.order.index("R")
            view["gain"] = [part.layout.gains["RGB".index(colour)] for colour in format.order]
    width, height = parts[0].found.size
    return Launch(
        views=views,
        tables=np.concatenate(tables),
        shape=(width, height, *tile),
        grid=(len(parts[0].made.records), len(parts)),
        shared=max(part.shared for part in parts),
        staged=sum(part.staged for part in parts),
        pictures=sum(_picture_bytes(part.layout) for part in parts),
    )


def _aligned(tables: list[NDArray[np.uint8]]) -> int:
    """Fill the last table up, and say how long it is."""
    gap = -tables[-1].nbytes % _ALIGNMENT
    tables[-1] = np.pad(tables[-1], (0, gap))
    return tables[-1].nbytes


def _planes(layout: RawLayout, strip_shift: int) -> NDArray[Any]:
    format, strip = layout.format, 1 << strip_shift
    row_bytes = layout.width * format.pixel_bytes
    planes = [(0, layout.stride, layout.height, row_bytes, strip * format.pixel_bytes, 0)]
    if format.kind == "planes":
        halved = int(format.halved_rows)
        offset = layout.stride * layout.height
        planes.append((offset, layout.stride, layout.height >> halved, row_bytes, strip, halved))
    return np.array(planes, _PLANE)


def _channels(layout: RawLayout) -> NDArray[Any]:
    """Where values lie, and what they give to red, green and blue."""
    format = layout.format
    if format.kind == "grey":
        return np.array([(0, 1, 0, 0, 0, (1, 1, 1))], _CHANNEL)
    if format.kind in {"rgb", "bayer"}:
        order = format.order if format.kind == "rgb" else "RGB"
        rows = zip(map(order.index, "RGB"), np.eye(3), strict=True)
        return np.array([(0, 3, offset, 0, 0, row) for offset, row in rows], _CHANNEL)
    return np.array(
        [
            (*place, tuple(column))
            for place, column in zip(_chroma(format), layout.colour.to_rgb()[0].T, strict=True)
        ],
        _CHANNEL,
    )


def _chroma(format: RawFormat) -> list[tuple[int, int, int, int, int]]:
    """Plane, step, offset, halved columns and rows of Y, U and V."""
    if format.kind == "packed":
        return [(0, 2 if c == "Y" else 4, format.order.index(c), int(c != "Y"), 0) for c in "YUV"]
    halved = int(format.halved_rows)
    return [(0, 1, 0, 0, 0), (1, 2, 0, 1, halved), (1, 2, 1, 1, halved)]


def _bias(layout: RawLayout) -> NDArray[np.float32]:
    """What colours start from; the half rounds."""
    coded = layout.format.kind in {"packed", "planes"}
    return np.asarray((layout.colour.to_rgb()[1] if coded else np.zeros(3)) + 0.5, dtype=np.float32)


def _picture_bytes(layout: RawLayout) -> int:
    """Of one picture without gaps."""
    format = layout.format
    chroma = layout.height >> int(format.halved_rows) if format.kind == "planes" else 0
    return layout.width * (layout.height * format.pixel_bytes + chroma)
