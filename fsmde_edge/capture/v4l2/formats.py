"""V4L2's names for pixel formats and colours, and which format is taken."""

from __future__ import annotations

from collections.abc import Iterable

from fsmde_edge.capture.v4l2.errors import CameraError
from fsmde_edge.preprocessing.colour import Colour
from fsmde_edge.preprocessing.raw import FORMATS as KNOWN
from fsmde_edge.preprocessing.raw import RawFormat

__all__ = ["KNOWN", "choose", "code_of", "colour_of", "known", "number_of"]

_REC709, _JPEG = 3, 7
"""Of enum v4l2_colorspace."""

_ENCODING_709 = (2, 4)
"""Of enum v4l2_ycbcr_encoding: BT.709 and its extension."""

_FULL = 1
"""Of enum v4l2_quantization."""


def code_of(number: int) -> str:
    """The four characters of V4L2's number; trailing blanks belong to no name of ours."""
    letters = (number & 0x7FFFFFFF).to_bytes(4, "little").decode("latin-1").rstrip()
    return f"{letters}-BE" if number >> 31 else letters


def number_of(code: str) -> int:
    """V4L2's number of four characters."""
    return int.from_bytes(code.encode("latin-1").ljust(4), "little")


def colour_of(space: int, encoding: int, quantisation: int) -> Colour:
    """What a driver says of its luma and chroma; where it leaves something open, V4L2's own rules hold.

    Source: the defaults of `V4L2_MAP_YCBCR_ENC_DEFAULT` and `V4L2_MAP_QUANTIZATION_DEFAULT` in videodev2.h.
    """
    modern = encoding in _ENCODING_709 or (encoding == 0 and space == _REC709)
    full = quantisation == _FULL or (quantisation == 0 and space == _JPEG)
    return Colour(matrix="bt709" if modern else "bt601", full_range=full)


def choose(offered: Iterable[str], *, path: str) -> RawFormat:
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


def known(code: str, *, path: str) -> RawFormat:
    """The format that was asked for by name.

    Errors:
        CameraError: a format that we do not know.
    """
    if code not in KNOWN:
        raise CameraError(
            f"the pixel format {code} is not known", where=path, hint=f"choose one of {', '.join(KNOWN)}"
        )
    return KNOWN[code]
