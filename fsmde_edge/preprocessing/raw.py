"""Pictures as drivers write them, and the one definition of what colours they show.

A picture is named by V4L2's four characters. Chroma that two or four pixels share is theirs alike (no
interpolation). Bayer pictures are interpolated bilinearly and get a white balance of three gains: no more,
so a CSI sensor on a Jetson belongs behind its image signal processor, which gives NV12 or UYVY.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.errors import InputError
from fsmde_edge.preprocessing.colour import Colour

Kind = Literal["packed", "planes", "rgb", "grey", "bayer", "jpeg"]
Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class RawFormat:
    """One pixel format.

    Attributes:
        code: V4L2's four characters.
        name: in words.
        kind: how colours lie in it.
        pixel_bytes: of the first plane.
        halved_rows: planes: chroma has half as many rows as luma.
        order: packed: YUYV or UYVY; rgb: RGB or BGR; bayer: the colours of the first four pixels.
        bits: bayer: that count, low in a 16-bit word where they are more than 8.
    """

    code: str
    name: str
    kind: Kind
    pixel_bytes: int = 1
    halved_rows: bool = False
    order: str = ""
    bits: int = 8

    @property
    def compressed(self) -> bool:
        """Whether a picture's size varies."""
        return self.kind == "jpeg"


def _bayer(bits: int, *codes: str) -> tuple[RawFormat, ...]:
    return tuple(
        RawFormat(
            code=code,
            name=f"Bayer {order}, {bits} bits",
            kind="bayer",
            pixel_bytes=1 if bits == 8 else 2,
            order=order,
            bits=bits,
        )
        for code, order in zip(codes, ("RGGB", "GRBG", "GBRG", "BGGR"), strict=True)
    )


FORMATS: Mapping[str, RawFormat] = {
    each.code: each
    for each in (
        RawFormat(code="UYVY", name="YUV 4:2:2", kind="packed", pixel_bytes=2, order="UYVY"),
        RawFormat(code="YUYV", name="YUV 4:2:2", kind="packed", pixel_bytes=2, order="YUYV"),
        RawFormat(code="NV12", name="YUV 4:2:0, two planes", kind="planes", halved_rows=True),
        RawFormat(code="NV16", name="YUV 4:2:2, two planes", kind="planes"),
        RawFormat(code="RGB3", name="RGB, 8 bits", kind="rgb", pixel_bytes=3, order="RGB"),
        RawFormat(code="BGR3", name="BGR, 8 bits", kind="rgb", pixel_bytes=3, order="BGR"),
        RawFormat(code="GREY", name="grey, 8 bits", kind="grey"),
        RawFormat(code="MJPG", name="Motion JPEG", kind="jpeg", pixel_bytes=0),
        *_bayer(8, "RGGB", "GRBG", "GBRG", "BA81"),
        *_bayer(10, "RG10", "BA10", "GB10", "BG10"),
        *_bayer(12, "RG12", "BA12", "GB12", "BG12"),
    )
}
"""Code to format, best first: less work for each pixel, then less loss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawLayout:
    """How one camera's pictures lie in their buffers.

    Attributes:
        code: the pixel format.
        width, height: in pixels.
        stride: bytes from one row to the next; 0 for no gap. A second plane has the same and follows at once.
        buffer: bytes of a whole buffer where a driver says; those of a picture if 0.
        colour: of formats with chroma.
        gains: of red, green and blue, for Bayer formats.
    """

    code: str
    width: int
    height: int
    stride: int = 0
    buffer: int = 0
    colour: Colour = field(default_factory=Colour)
    gains: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if self.code not in FORMATS:
            raise InputError(
                f"the pixel format {self.code!r} is not known", hint=f"choose one of {', '.join(FORMATS)}"
            )
        least = self.width * self.format.pixel_bytes
        if self.stride == 0:
            object.__setattr__(self, "stride", least)
        if self.buffer == 0:
            object.__setattr__(self, "buffer", self.size)
        if self.width < 1 or self.height < 1 or self.stride < least:
            raise InputError(f"{self.code} of {self.width}x{self.height} with {self.stride} bytes a row")
        halves = (self.format.kind in {"packed", "planes", "bayer"}, self.format.halved_rows)
        if (halves[0] and self.width % 2) or ((halves[1] or self.format.kind == "bayer") and self.height % 2):
            raise InputError(
                f"{self.code} of {self.width}x{self.height}: chroma comes in pairs", hint="use an even size"
            )

    def __str__(self) -> str:
        return f"{self.code} {self.width}x{self.height}"

    @property
    def format(self) -> RawFormat:
        """The pixel format's description."""
        return FORMATS[self.code]

    @property
    def size(self) -> int:
        """Bytes of a picture; 0 where it varies."""
        format = self.format
        chroma = self.height // 2 if format.halved_rows else self.height if format.kind == "planes" else 0
        return self.stride * (self.height + chroma) if not format.compressed else 0

    def planes(self, buffer: memoryview | bytes | Bytes) -> tuple[Bytes, ...]:
        """The rows of each plane, uint8 [rows, stride], without a copy.

        Raises:
            InputError: the buffer is too small.
        """
        data = np.frombuffer(buffer, np.uint8)
        if len(data) < self.size:
            raise InputError(
                f"a buffer of {len(data)} bytes is too small for {self.code} {self.width}x{self.height} "
                f"({self.size})"
            )
        rows = data[: self.size].reshape(-1, self.stride)
        return (rows[: self.height], rows[self.height :]) if self.format.kind == "planes" else (rows,)


def unpack(buffer: memoryview | bytes | Bytes, layout: RawLayout) -> Bytes:
    """A raw picture as uint8 [height, width, 3], RGB.

    Raises:
        InputError: a buffer that is too small, or a JPEG that does not decode to the layout's size.
    """
    if layout.format.kind == "jpeg":
        return _decoded(buffer, layout)
    planes = layout.planes(buffer)
    if layout.format.kind == "bayer":
        return _demosaiced(planes[0], layout)
    if layout.format.kind == "rgb":
        rgb = planes[0][:, : 3 * layout.width].reshape(layout.height, layout.width, 3)
        return np.ascontiguousarray(rgb if layout.format.order == "RGB" else rgb[..., ::-1])
    if layout.format.kind == "grey":
        return np.repeat(planes[0][:, : layout.width, None], 3, axis=2)
    matrix, offset = layout.colour.to_rgb()
    values = _yuv(planes, layout).astype(np.float64) @ matrix.T + offset
    return np.clip(np.floor(values + 0.5), 0, 255).astype(np.uint8)


def _yuv(planes: tuple[Bytes, ...], layout: RawLayout) -> Bytes:
    """Luma and chroma of every pixel, uint8 [height, width, 3]."""
    height, width, format = layout.height, layout.width, layout.format
    if format.kind == "packed":
        pairs = planes[0][:, : 2 * width].reshape(height, width // 2, 4)
        at = format.order.index("Y")
        luma = pairs[..., at::2].reshape(height, width)
        chroma = pairs[..., 1 - at :: 2]
    else:
        luma = planes[0][:, :width]
        chroma = planes[1][:, :width].reshape(-1, width // 2, 2)
        if format.halved_rows:
            chroma = np.repeat(chroma, 2, axis=0)
    return np.concatenate((luma[..., None], np.repeat(chroma, 2, axis=1)), axis=2)


def _demosaiced(rows: Bytes, layout: RawLayout) -> Bytes:
    """Bilinear interpolation of a Bayer picture after its white balance; 10 and 12 bits become 8 first."""
    import cv2

    format = layout.format
    codes = {  # OpenCV names a pattern after its second row and column
        "RGGB": cv2.COLOR_BayerBG2RGB,
        "GRBG": cv2.COLOR_BayerGB2RGB,
        "GBRG": cv2.COLOR_BayerGR2RGB,
        "BGGR": cv2.COLOR_BayerRG2RGB,
    }
    pixels = rows[:, : layout.width * format.pixel_bytes]
    if format.bits > 8:
        pixels = (np.ascontiguousarray(pixels).view("<u2") >> (format.bits - 8)).astype(np.uint8)
    if layout.gains != (1.0, 1.0, 1.0):
        gains = np.array([layout.gains["RGB".index(colour)] for colour in format.order]).reshape(2, 2)
        whole = np.tile(gains, (layout.height // 2, layout.width // 2))
        pixels = np.clip(np.floor(pixels * whole + 0.5), 0, 255).astype(np.uint8)
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(pixels), codes[format.order]), dtype=np.uint8)


def _decoded(buffer: memoryview | bytes | Bytes, layout: RawLayout) -> Bytes:
    import cv2

    pixels = cv2.imdecode(np.frombuffer(buffer, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None or pixels.shape[:2] != (layout.height, layout.width):
        found = "nothing" if pixels is None else f"{pixels.shape[1]}x{pixels.shape[0]}"
        raise InputError(f"a JPEG gives {found}, expected {layout.width}x{layout.height}")
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), dtype=np.uint8)
