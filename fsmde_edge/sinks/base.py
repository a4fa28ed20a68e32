"""What every sink is: something that takes one result after another and is closed at the end."""

from __future__ import annotations

import re
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.frames import DepthSet, FrameSet


class Sink(Protocol):
    """Takes results; `close` may be called twice."""

    def write(self, frame_set: FrameSet, images: NDArray[np.uint8], depth_set: DepthSet) -> None:
        """Take one result; arrays are not kept beyond the call.

        Args:
            frame_set: what the cameras saw.
            images: uint8 [V, H, W, 3], RGB, the pictures at network size.
            depth_set: their metric depth.

        Errors:
            OutputError: where it cannot be written.
        """

    def close(self) -> None:
        """Finish files; `OutputError` where that fails."""


def file_name(camera: str) -> str:
    """A camera's name as a file name: what is not a letter, digit, dash, dot or underscore becomes one."""
    return re.sub(r"[^\w.-]|^\.+", "_", camera) or "_"
