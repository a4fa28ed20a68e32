"""From luma and chroma to RGB, as ITU-R BT.601 and BT.709 define it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.errors import InputError

_SHARES = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}
"""Name to the shares of red and blue in luma. Source: ITU-R BT.601-7 and BT.709-6."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Colour:
    """How a camera writes colours as luma and chroma.

    Attributes:
        matrix: `bt601` (what UVC and most GMSL cameras send) or `bt709`.
        full_range: luma 0..255 rather than 16..235, chroma 0..255 rather than 16..240.
    """

    matrix: Literal["bt601", "bt709"] = "bt601"
    full_range: bool = False

    def __post_init__(self) -> None:
        if self.matrix not in _SHARES:
            raise InputError(f"the colour matrix {self.matrix!r} is not known", hint="choose bt601 or bt709")

    def to_rgb(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(matrix [3, 3], offset [3]) with RGB = matrix @ (Y, U, V) + offset, all in 0..255."""
        red, blue = _SHARES[self.matrix]
        green = 1 - red - blue
        luma, chroma = (1.0, 1.0) if self.full_range else (255 / 219, 255 / 224)
        black = 0.0 if self.full_range else 16.0
        u_blue, v_red = 2 * (1 - blue), 2 * (1 - red)
        matrix = np.array(
            [
                [luma, 0, v_red * chroma],
                [luma, -u_blue * blue / green * chroma, -v_red * red / green * chroma],
                [luma, u_blue * chroma, 0],
            ]
        )
        return matrix, -matrix @ (black, 128.0, 128.0)
