"""Depth as NumPy archives: `DIR/<set, 6 digits>.npz`."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.files import atomic_write, make_folder
from fsmde_edge.frames import DepthSet, FrameSet


class NpzSink:
    """One archive a set: `depth` float32 [V, H, W], `cameras`, `stamps_ns`, maybe `valid` and `confidence`.

    `valid` is bool [V]: whether a view's depth was current when it was made; where not, it is 0.
    """

    def __init__(self, folder: Path) -> None:
        """Make the folder; files of the same name are replaced.

        Errors:
            OutputError: where the folder cannot be made.
        """
        self._folder = make_folder(folder)

    def write(
        self,
        frame_set: FrameSet,
        images: NDArray[np.uint8],  # noqa: ARG002
        depth_set: DepthSet,
    ) -> None:
        """Write one archive."""
        arrays: dict[str, NDArray[np.generic]] = {
            "depth": depth_set.depth,
            "cameras": np.array(depth_set.cameras),
            "stamps_ns": np.array(depth_set.stamps_ns, dtype=np.int64),
        }
        if depth_set.valid is not None:
            arrays["valid"] = np.array(depth_set.valid)
        if depth_set.confidence is not None:
            arrays["confidence"] = depth_set.confidence
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        atomic_write(self._folder / f"{frame_set.index:06d}.npz", buffer.getvalue())

    def close(self) -> None:
        """Nothing is open."""
