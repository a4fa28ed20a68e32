"""From GStreamer's pictures to ours: where the rows lie, and for how long the memory may be looked at."""

from __future__ import annotations

import contextlib
import ctypes
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fsmde_edge.capture.gstreamer.library import Library
from fsmde_edge.capture.lease import LeaseError
from fsmde_edge.errors import InputError
from fsmde_edge.preprocessing.colour import Colour
from fsmde_edge.preprocessing.raw import FORMATS, RawLayout

CODES = {
    "UYVY": "UYVY",
    "YUY2": "YUYV",
    "NV12": "NV12",
    "NV16": "NV16",
    "RGB": "RGB3",
    "BGR": "BGR3",
    "GRAY8": "GREY",
}
"""GStreamer's name of a pixel format to V4L2's code, which is ours."""

ACCEPTED = f"video/x-raw, format={{ {', '.join(CODES)} }}; image/jpeg"
"""Caps of an appsink that has none of its own."""

CONVERT = "end it with: ! videoconvert ! video/x-raw,format=UYVY ! appsink"

_MATRICES = {"bt601": "bt601", "bt709": "bt709", "unknown": "bt601"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Where a picture lies in its buffer.

    Attributes:
        layout: how it lies there; where its planes do not follow each other with one stride, how it lies
            once they were copied together.
        start: of its first byte.
        second: (start, stride) of a second plane that has to be copied behind the first; None if in place.
    """

    layout: RawLayout
    start: int = 0
    second: tuple[int, int] | None = None

    @classmethod
    def of(
        cls,
        code: str,
        size: tuple[int, int],
        strides: Sequence[int],
        offsets: Sequence[int],
        colour: Colour,
    ) -> Placed:
        """By what GStreamer says.

        Args:
            code: ours.
            size: width and height.
            strides, offsets: of each plane, in bytes; empty for JPEG.
            colour: of formats with chroma.

        Raises:
            InputError: a size that the format cannot have.
        """
        layout = RawLayout(
            code=code, width=size[0], height=size[1], stride=strides[0] if strides else 0, colour=colour
        )
        if not strides:
            return cls(layout=layout)
        follows = offsets[0] + strides[0] * size[1]
        apart = layout.format.kind == "planes" and (offsets[1], strides[1]) != (follows, strides[0])
        return cls(layout=layout, start=offsets[0], second=(offsets[1], strides[1]) if apart else None)

    def view(self, data: memoryview) -> memoryview:
        """The picture in its buffer's bytes; a copy only where planes lie apart.

        Raises:
            InputError: the buffer is too small.
        """
        layout = self.layout
        if layout.format.compressed:
            return data
        if self.second is None:
            picture = data[self.start : self.start + layout.size]
        else:
            picture = self._together(np.frombuffer(data, np.uint8), *self.second).data
        if len(picture) < layout.size:
            raise InputError(f"a buffer of {len(data)} bytes is too small for {layout} ({layout.size})")
        return picture

    def _together(self, data: np.ndarray[Any, Any], start: int, stride: int) -> np.ndarray[Any, Any]:
        layout = self.layout
        luma = data[self.start : self.start + layout.stride * layout.height]
        rows = layout.size // layout.stride - layout.height
        chroma = data[start : start + stride * rows]
        if len(luma) + len(chroma) < layout.stride * layout.height + stride * rows:
            return data[:0]
        picture = np.zeros((layout.height + rows, layout.stride), np.uint8)
        picture[: layout.height] = luma.reshape(layout.height, layout.stride)
        picture[layout.height :, : layout.width] = chroma.reshape(rows, stride)[:, : layout.width]
        return picture.reshape(-1)


def placed(library: Library, caps: Any, buffer: Any) -> Placed:
    """Where a buffer's picture lies: by its GstVideoMeta if it has one, else by its caps.

    Raises:
        InputError: a format, size or colour that we do not know.
    """
    info = library.video.VideoInfo.new_from_caps(caps)
    structure = caps.get_structure(0)
    if info is None:
        raise InputError(f"the pictures are {caps.to_string()}, which is no video", hint=CONVERT)
    size = (info.width, info.height)
    if structure.get_name() == "image/jpeg":
        return Placed.of("MJPG", size, (), (), Colour())
    if info.finfo.name not in CODES:
        raise InputError(f"the pixel format {info.finfo.name} is none of {', '.join(CODES)}", hint=CONVERT)
    code = CODES[info.finfo.name]
    meta = library.video.buffer_get_video_meta(buffer)
    where = info if meta is None else meta
    colour = Colour() if FORMATS[code].kind in {"rgb", "grey"} else _colour(info.colorimetry)
    return Placed.of(code, size, where.stride, where.offset, colour)


def _colour(colorimetry: Any) -> Colour:
    matrix = colorimetry.matrix.value_nick
    if matrix not in _MATRICES:
        raise InputError(
            f"the colour matrix {matrix} is neither bt601 nor bt709",
            hint="end it with: ! videoconvert ! video/x-raw,format=UYVY,colorimetry=bt709 ! appsink",
        )
    full = colorimetry.range.value_nick == "0-255"
    return Colour(matrix="bt709" if matrix == "bt709" else "bt601", full_range=full)


def mapped(library: Library, buffer: Any) -> memoryview:
    """A buffer's bytes, read-only and not copied; it is unmapped once the last view of them is gone.

    A reader that keeps an array too long so keeps the buffer, and never looks at memory that is gone.

    Raises:
        InputError: the buffer cannot be mapped for a CPU.
    """
    good, info = buffer.map(library.gst.MapFlags.READ)
    if not good:
        raise InputError("a buffer cannot be mapped for reading", hint=CONVERT)
    if not info.size:
        buffer.unmap(info)
        raise InputError("a buffer is empty")
    address = np.frombuffer(info.data, np.uint8).ctypes.data
    owner = (ctypes.c_ubyte * info.size).from_address(address)
    weakref.finalize(owner, buffer.unmap, info).atexit = False
    picture = np.frombuffer(owner, np.uint8)
    picture.flags.writeable = False
    return picture.data


class Lease:
    """One picture of a pipeline on loan (see `FrameLease`)."""

    __slots__ = ("_view", "camera", "layout", "sequence", "stamp_ns")

    def __init__(
        self, camera: str, sequence: int, stamp_ns: int, layout: RawLayout, view: memoryview
    ) -> None:
        self.camera, self.sequence, self.stamp_ns, self.layout = camera, sequence, stamp_ns, layout
        self._view: memoryview | None = view

    def view(self) -> memoryview:
        """The picture's bytes; invalid after release.

        Raises:
            LeaseError: after release.
        """
        if self._view is None:
            raise LeaseError(f"a picture of {self.camera} is looked at after it was given back")
        return self._view

    def release(self) -> None:
        """Give the buffer back to its pipeline, exactly once.

        Raises:
            LeaseError: a second time.
        """
        view = self.view()
        self._view = None
        with contextlib.suppress(BufferError):  # arrays of it live: the buffer goes back when they go
            view.release()
