"""Depth as 16-bit PNG files: `DIR/<set, 6 digits>/<camera>.png`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.errors import UsageError
from fsmde_edge.files import atomic_write, make_folder
from fsmde_edge.frames import DepthSet, FrameSet
from fsmde_edge.sinks.base import file_name


def depth_to_uint16(depth: NDArray[np.float32], scale: float = 256) -> tuple[NDArray[np.uint16], int]:
    """Metres as 16-bit numbers, and how many of them were too far to be told (they become 65535).

    Args:
        depth: float32 [...], metres; 0, negative, NaN and infinite mean none.
        scale: steps a metre. 256 (KITTI's convention) reaches to 255.99 m, 1000 to 65.53 m.

    Returns:
        (uint16 [...] = round(metres × scale) with 0 for none, number of saturated values).
    """
    metres = np.where(np.isfinite(depth) & (depth > 0), depth, 0).astype(np.float64)
    steps = np.rint(metres * scale)
    return np.minimum(steps, 65535).astype(np.uint16), int((steps > 65535).sum())


class PngSink:
    """One PNG a camera and frame set."""

    def __init__(self, folder: Path, *, scale: float = 256) -> None:
        """Make the folder.

        Args:
            folder: where the sets' folders go; files of the same name are replaced.
            scale: steps a metre.

        Errors:
            OutputError: where the folder cannot be made.
        """
        if not 1 <= scale <= 65535:
            raise UsageError(
                f"a PNG scale of {scale:g} steps a metre", hint="choose 1 to 65535, such as 256 or 1000"
            )
        self._folder = make_folder(folder)
        self._scale = scale
        self.saturated = 0
        """Pixels so far that lie beyond what a PNG of this scale can tell."""

    def write(
        self,
        frame_set: FrameSet,
        images: NDArray[np.uint8],  # noqa: ARG002
        depth_set: DepthSet,
    ) -> None:
        """Write one PNG a camera."""
        import cv2

        folder = self._folder / f"{frame_set.index:06d}"
        for camera, depth in zip(depth_set.cameras, depth_set.depth, strict=True):
            values, saturated = depth_to_uint16(depth, self._scale)
            self.saturated += saturated
            atomic_write(folder / f"{file_name(camera)}.png", bytes(cv2.imencode(".png", values)[1]))

    def close(self) -> None:
        """Nothing is open."""
