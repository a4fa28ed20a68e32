"""One view: its camera's buffer to its part of the network's input, by the definition or by the kernel."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.preprocess import preprocess
from fsmde_edge.preprocessing.kernel import Kernel, Plane, pointer
from fsmde_edge.preprocessing.raw import RawLayout, unpack
from fsmde_edge.preprocessing.tables import Down, Geometry, down
from fsmde_edge.rig import Camera, VirtualPinhole

Buffer = memoryview | bytes | NDArray[np.uint8]


class View(Protocol):
    """Makes one view's input from its camera's buffer."""

    def __call__(self, buffer: Buffer, out: NDArray[np.uint8]) -> None:
        """Write uint8 [H, W, 3] to `out`, which is contiguous."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DefinitionView:
    """One view as it is defined: unpacked whole, then rectified and resized."""

    camera: Camera
    pinhole: VirtualPinhole
    layout: RawLayout

    def __call__(self, buffer: Buffer, out: NDArray[np.uint8]) -> None:
        """Write the view."""
        out[:] = preprocess(unpack(buffer, self.layout), self.camera, self.pinhole)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KernelView:
    """One view in one pass over its camera's buffer."""

    kernel: Kernel
    layout: RawLayout
    direct: RawLayout
    planes: ctypes.Array[Plane]
    bias: NDArray[np.float32]
    partly: tuple[NDArray[np.intp], NDArray[np.float32]] | None
    size: tuple[int, int]
    kept: tuple[object, ...]

    @classmethod
    def of(cls, kernel: Kernel, shape: Geometry, layout: RawLayout, *, width: int) -> KernelView:
        """Tables for one camera; formats that need a decoder or a demosaic become RGB first."""
        direct = layout
        if layout.format.kind in {"bayer", "jpeg"}:
            direct = RawLayout(code="RGB3", width=layout.width, height=layout.height)
        mixes, bias = _mixes(direct)
        made = [_plane(shape, direct, number, mix) for number, mix in enumerate(mixes)]
        partly = None
        if shape.seen is not None:
            where = np.flatnonzero(shape.seen < 1)
            partly = (where, shape.seen.reshape(-1)[where])
        return cls(
            kernel=kernel,
            layout=layout,
            direct=direct,
            planes=(Plane * len(made))(*(plane for plane, _ in made)),
            bias=bias,
            partly=partly,
            size=(shape.height, width),
            kept=tuple(arrays for _, arrays in made),
        )

    def __call__(self, buffer: Buffer, out: NDArray[np.uint8]) -> None:
        """Write the view; the interpreter is free meanwhile."""
        data = buffer if self.direct is self.layout else unpack(buffer, self.layout)
        planes = self.direct.planes(data if not isinstance(data, np.ndarray) else data.reshape(-1))
        count = len(planes)
        failed = self.kernel.library.fsmde_prepare(
            *(count, self.planes),
            (ctypes.c_void_p * count)(*(plane.ctypes.data for plane in planes)),
            (ctypes.c_int64 * count)(*[self.direct.stride] * count),
            *(pointer(self.bias), self.size[1], 0, self.size[0], pointer(out)),
        )
        if failed:
            raise MemoryError
        if self.partly is not None:
            where, share = self.partly
            flat = out.reshape(-1, 3)
            flat[where] = np.floor(flat[where] * share[:, None] + np.float32(0.5)).astype(np.uint8)


Row = tuple[float, ...]


def _mixes(layout: RawLayout) -> tuple[list[NDArray[np.float32]], NDArray[np.float32]]:
    """For each plane, what each of the four lanes gives to red, green and blue; and what all start from.

    Sums down the picture are 255 times too large; a half rounds.
    """
    kind, order = layout.format.kind, layout.format.order
    matrix, offset = layout.colour.to_rgb()
    luma, u, v = (tuple(matrix[:, i]) for i in range(3))
    none = (0.0, 0.0, 0.0)
    lanes: list[list[Row]]
    if kind == "packed":
        by_name = {"Y": [luma, luma], "U": [u], "V": [v]}
        lanes = [[by_name[letter][0] for letter in order]]
    elif kind == "planes":
        lanes = [[luma] * 4, [u, v, u, v]]
    else:
        ones = [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)]
        lanes = [[(1.0, 1.0, 1.0)] * 4] if kind == "grey" else [[*ones[:: -1 if order == "BGR" else 1], none]]
        offset = np.zeros(3)
    mixes = [np.array([(*lane, 0.0) for lane in plane], np.float32) / np.float32(255) for plane in lanes]
    return mixes, np.append(offset + 0.5, 0).astype(np.float32)


def _plane(
    shape: Geometry, layout: RawLayout, number: int, mix: NDArray[np.float32]
) -> tuple[Plane, tuple[object, ...]]:
    """One plane's tables for the kernel, and the arrays that must live as long."""
    along, kind, chroma = shape.along, layout.format.kind, number == 1
    vertical = down(shape, halved_rows=chroma and layout.format.halved_rows, halved_columns=chroma)
    channels = {"packed": 2, "rgb": 3}.get(kind, 2 if chroma else 1)
    per_column = 1 if chroma else channels
    taps = _taps(along.weights, kind, layout.format.order, chroma=chroma)
    left, right = _patterns(kind, layout.format.order, chroma=chroma)
    pad = along.taps * per_column + 4 * len(left)
    arrays = (
        np.ascontiguousarray(along.start * per_column + pad, np.int32),
        np.ascontiguousarray(along.kind),
        np.ascontiguousarray(taps, np.float32),
        np.array(left, np.int32),
        np.array(right, np.int32),
        mix,
    )
    plane = Plane(
        columns=shape.source[0] // 2 if chroma else shape.source[0],
        channels=channels,
        step=3 if kind == "rgb" else 4,
        quads=taps.shape[1],
        pad=pad,
        group=len(left),
        curves=along.start.shape[0],
        **{name: pointer(array) for name, array in _named(vertical, arrays).items()},
    )
    return plane, (vertical, *arrays)


def _named(vertical: Down, arrays: Sequence[NDArray]) -> dict[str, NDArray]:  # type: ignore[type-arg]
    names = ("base", "kind", "along", "left", "right", "mix")
    return {
        "top": np.asarray(vertical.top),
        "count": np.asarray(vertical.count),
        "offset": np.asarray(vertical.offset),
        "down": vertical.weights,
        **dict(zip(names, arrays, strict=True)),
    }


def _taps(weights: NDArray[np.float32], kind: str, order: str, *, chroma: bool) -> NDArray[np.float32]:
    """Weights along the row as the kernel's four lanes, [kinds, quads, 4]."""
    kinds, taps = weights.shape
    pairs = weights.reshape(kinds, -1, 2)
    both = pairs.sum(axis=2)
    if kind == "packed":
        luma = iter((pairs[..., 0], pairs[..., 1]))
        return np.stack([next(luma) if letter == "Y" else both for letter in order], axis=-1)
    if chroma:
        return np.repeat(both, 2, axis=1).reshape(kinds, -1, 4)
    if kind == "rgb":
        return np.stack([weights, weights, weights, np.zeros_like(weights)], axis=-1)
    return weights.reshape(kinds, taps // 4, 4)


def _patterns(kind: str, order: str, *, chroma: bool) -> tuple[list[int], list[int]]:
    """Which values are repeated beyond a row's start and end."""
    if kind == "rgb":
        return [0, 1, 2], [-3, -2, -1]
    if kind == "packed":
        first, last = order.index("Y"), order.rindex("Y") - 4
        return (
            [first if letter == "Y" else i for i, letter in enumerate(order)],
            [last if letter == "Y" else i - 4 for i, letter in enumerate(order)],
        )
    if chroma:
        return [0, 1, 0, 1], [-2, -1, -2, -1]
    return [0] * 4, [-1] * 4
