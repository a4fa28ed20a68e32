"""Pixel formats that we understand, and how a picture lies in its buffer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fsmde_edge.capture.v4l2.errors import CameraError


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelFormat:
    """One pixel format.

    Attributes:
        code: the four characters that V4L2 names it by.
        name: in words.
        row_bits: bits that one pixel takes in a row of the first plane; 0 if compressed.
        rows: rows of the buffer for two rows of the picture (chroma planes count at the same stride).
    """

    code: str
    name: str
    row_bits: int
    rows: int = 2

    @property
    def compressed(self) -> bool:
        """Whether a picture's size varies."""
        return self.row_bits == 0

    def size(self, stride: int, height: int) -> int:
        """Bytes of a picture with this stride; 0 if compressed."""
        return 0 if self.compressed else stride * -(-height * self.rows // 2)

    def stride(self, width: int) -> int:
        """The least bytes of a row."""
        return -(-width * self.row_bits // 8)


def _bayer(bits: int, codes: Iterable[str]) -> tuple[PixelFormat, ...]:
    orders = ("RGGB", "GRBG", "GBRG", "BGGR")
    words = 8 if bits == 8 else 16
    return tuple(
        PixelFormat(code=code, name=f"Bayer {order}, {bits} bits", row_bits=words)
        for order, code in zip(orders, codes, strict=True)
    )


KNOWN = {
    format.code: format
    for format in (
        PixelFormat(code="UYVY", name="YUV 4:2:2, UYVY", row_bits=16),
        PixelFormat(code="YUYV", name="YUV 4:2:2, YUYV", row_bits=16),
        PixelFormat(code="NV12", name="YUV 4:2:0, two planes", row_bits=8, rows=3),
        PixelFormat(code="NV16", name="YUV 4:2:2, two planes", row_bits=8, rows=4),
        PixelFormat(code="RGB3", name="RGB, 8 bits", row_bits=24),
        PixelFormat(code="BGR3", name="BGR, 8 bits", row_bits=24),
        PixelFormat(code="GREY", name="grey, 8 bits", row_bits=8),
        PixelFormat(code="MJPG", name="Motion JPEG", row_bits=0),
        *_bayer(8, ("RGGB", "GRBG", "GBRG", "BA81")),
        *_bayer(10, ("RG10", "BA10", "GB10", "BG10")),
        *_bayer(12, ("RG12", "BA12", "GB12", "BG12")),
    )
}
"""Code to format, best first: less work for each pixel, then less loss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How a camera's pictures lie in memory, as the driver answered.

    Attributes:
        format: of the pixels.
        width, height: in pixels.
        stride: bytes from one row to the next (bytesperline), often more than a row needs.
        size: bytes of a whole buffer (sizeimage).
    """

    format: PixelFormat
    width: int
    height: int
    stride: int
    size: int

    def __str__(self) -> str:
        return f"{self.format.code} {self.width}x{self.height}"


def code_of(number: int) -> str:
    """The four characters of V4L2's number; trailing blanks belong to no name of ours."""
    letters = (number & 0x7FFFFFFF).to_bytes(4, "little").decode("latin-1").rstrip()
    return f"{letters}-BE" if number >> 31 else letters


def number_of(code: str) -> int:
    """V4L2's number of four characters."""
    return int.from_bytes(code.encode("latin-1").ljust(4), "little")


def choose(offered: Iterable[str], *, path: str) -> PixelFormat:
    """The best format among those that a camera offers.

    Errors:
        CameraError: none of them is known.
    """
    codes = list(offered)
    for code, format in KNOWN.items():
        if code in codes:
            return format
    raise CameraError(
        f"offers no pixel format that is known ({', '.join(codes) or 'none at all'})",
        where=path,
        hint=f"it needs one of {', '.join(KNOWN)}",
    )


def known(code: str, *, path: str) -> PixelFormat:
    """The format that was asked for by name.

    Errors:
        CameraError: a format that we do not know.
    """
    if code not in KNOWN:
        raise CameraError(
            f"the pixel format {code} is not known", where=path, hint=f"choose one of {', '.join(KNOWN)}"
        )
    return KNOWN[code]
