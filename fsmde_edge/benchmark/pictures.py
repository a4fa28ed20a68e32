"""What a bench feeds: a few frame sets as a driver would write them, each in memory of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.bundle import Bundle
from fsmde_edge.capture.source import Source
from fsmde_edge.capture.video import rig_of_pinholes
from fsmde_edge.errors import InputError
from fsmde_edge.frames import Clock, FrameSet, RawFrame, Stamp
from fsmde_edge.preprocessing.raw import RawLayout
from fsmde_edge.rig import Rig

SETS = 4
"""Sets that are fed in turn: pictures of one alone would stay in the processor's caches."""

CODES = ("UYVY", "YUYV", "NV12", "NV16", "RGB3", "BGR3", "GREY")
"""Layouts that pictures can be packed into."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BenchInput:
    """Raw pictures and the rig that took them.

    Attributes:
        what: where they are from, for people and for comparisons.
        rig: the cameras, at the size of the pictures.
        layouts: how the pictures lie, in ring order.
        sets: pictures of each set, in ring order.
        digest: SHA-256 over layouts and pictures.
    """

    what: str
    rig: Rig
    layouts: tuple[RawLayout, ...]
    sets: tuple[tuple[memoryview, ...], ...]
    digest: str

    def frame_set(self, index: int, instant_ns: int) -> FrameSet:
        """A set as if it were exposed now; they are fed in turn."""
        stamp = Stamp(instant_ns, Clock.MONOTONIC)
        pictures = self.sets[index % len(self.sets)]
        frames = (
            RawFrame(camera=camera, raw=raw, layout=layout, stamp=stamp, sequence=index)
            for camera, raw, layout in zip(self.rig.names, pictures, self.layouts, strict=True)
        )
        return FrameSet(frames=tuple(frames), index=index)

    @property
    def bytes_per_set(self) -> int:
        """Of all pictures of one set."""
        return sum(layout.size for layout in self.layouts)


def golden_input(bundle: Bundle, *, code: str, size: tuple[int, int]) -> BenchInput:
    """The bundle's golden frames, enlarged to the size of a camera's picture.

    Args:
        bundle: opened.
        code: one of `CODES`.
        size: width and height of the pictures.
    """
    import cv2

    rig = rig_of_pinholes(bundle.manifest.views).scaled(*size)
    images = [
        np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), dtype=np.uint8)
        for image in bundle.golden().images
    ]
    return _input("golden frames", rig, [images] * SETS, code)


def source_input(source: Source, *, code: str) -> BenchInput:
    """The first sets of a source that one rig took, at their own size; the source is closed.

    Args:
        source: any recording.
        code: one of `CODES`.

    Raises:
        InputError: it gives no set.
    """
    with closing(source):
        taken = [([frame.image for frame in each.frames], source.rig) for each in islice(source, SETS)]
    if not taken:
        raise InputError("the source gave no frame set", where=source.name)
    rig = taken[0][1]
    return _input(source.name, rig, [images for images, its_rig in taken if its_rig is rig], code)


def _input(what: str, rig: Rig, sets: Sequence[Sequence[NDArray[np.uint8]]], code: str) -> BenchInput:
    layouts = tuple(RawLayout(code=code, width=c.width, height=c.height) for c in rig.cameras)
    packed = tuple(
        tuple(pack(*pair).data.toreadonly() for pair in zip(images, layouts, strict=True)) for images in sets
    )
    digest = hashlib.sha256(" ".join(map(str, layouts)).encode())
    for picture in (picture for pictures in packed for picture in pictures):
        digest.update(picture)
    return BenchInput(what=what, rig=rig, layouts=layouts, sets=packed, digest=digest.hexdigest())


def pack(image: NDArray[np.uint8], layout: RawLayout) -> NDArray[np.uint8]:
    """An RGB picture as a driver would write it: the inverse of `unpack`, chroma averaged over its pixels.

    Args:
        image: uint8 [height, width, 3].
        layout: of a format in `CODES`, without gaps between rows.

    Returns:
        uint8 [layout.size].
    """
    format = layout.format
    if format.kind == "rgb":
        return np.ascontiguousarray(image if format.order == "RGB" else image[..., ::-1]).reshape(-1)
    plain = replace(layout.colour, full_range=True) if format.kind == "grey" else layout.colour
    matrix, offset = plain.to_rgb()
    inverse = np.linalg.inv(matrix)
    yuv = (image.reshape(-1, 3) - offset).astype(np.float32) @ inverse.T.astype(np.float32)
    yuv = yuv.reshape(image.shape)
    if format.kind == "grey":
        return _levels(yuv[..., 0]).reshape(-1)
    rows = 2 if format.halved_rows else 1
    height, width = layout.height, layout.width
    chroma = yuv[..., 1:].reshape(height // rows, rows, width // 2, 2, 2).mean(axis=(1, 3))
    if format.kind == "planes":
        return np.concatenate((_levels(yuv[..., 0]).reshape(-1), _levels(chroma).reshape(-1)))
    raw = np.empty((height, width // 2, 4), np.uint8)
    at = format.order.index("Y")
    raw[..., at::2] = _levels(yuv[..., 0]).reshape(height, width // 2, 2)
    raw[..., 1 - at :: 2] = _levels(chroma)
    return raw.reshape(-1)


def _levels(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
