"""Point clouds as PLY files: `DIR/<set, 6 digits>.ply`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.files import atomic_write, make_folder
from fsmde_edge.frames import DepthSet, FrameSet
from fsmde_edge.sinks.points import Cloud, CloudMaker, PointChoice

VERTEX = np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3)])
"""One point on disk: 15 bytes without gaps."""


def to_ply(cloud: Cloud) -> bytes:
    """A cloud as binary little-endian PLY 1.0: x, y, z as float (metres), red, green, blue as uchar.

    Source of the format: G. Turk, The PLY Polygon File Format (1994).
    """
    vertices = np.empty(len(cloud.xyz), VERTEX)
    vertices["xyz"], vertices["rgb"] = cloud.xyz, cloud.rgb
    head = (
        "ply",
        "format binary_little_endian 1.0",
        "comment metres in the vehicle frame: x forward, y left, z up",
        f"element vertex {len(vertices)}",
        *(f"property float {name}" for name in "xyz"),
        *(f"property uchar {name}" for name in ("red", "green", "blue")),
        "end_header",
    )
    return "\n".join((*head, "")).encode("ascii") + vertices.tobytes()


class PlySink:
    """One cloud a frame set: all views in the vehicle frame, coloured by the network's pictures."""

    def __init__(self, folder: Path, choice: PointChoice = PointChoice()) -> None:  # noqa: B008, frozen
        """Make the folder; files of the same name are replaced.

        Errors:
            OutputError: where the folder cannot be made.
        """
        self._folder = make_folder(folder)
        self._maker = CloudMaker(choice)

    def write(self, frame_set: FrameSet, images: NDArray[np.uint8], depth_set: DepthSet) -> None:
        """Write one cloud."""
        cloud = self._maker.cloud(images, depth_set)
        atomic_write(self._folder / f"{frame_set.index:06d}.ply", to_ply(cloud))

    def close(self) -> None:
        """Nothing is open."""
