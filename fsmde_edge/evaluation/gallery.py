"""Pictures of the tiles where INT8 leaves FP32 most: picture, FP32 depth, INT8 depth, deviation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.evaluation.gate import TILE, WorstTile
from fsmde_edge.evaluation.report import Picture

MARGIN = 40
"""Pixels shown around a tile."""

ZOOM = 3


@dataclass(slots=True, eq=False)
class Gallery:
    """Keeps the pictures of the few worst tiles seen so far.

    Args:
        size: how many.
    """

    size: int = 6
    _kept: list[tuple[WorstTile, NDArray[np.uint8]]] = field(default_factory=list)

    def add(
        self,
        tiles: Sequence[tuple[int, WorstTile]],
        images: NDArray[np.uint8],
        fp32: NDArray[np.float32],
        int8: NDArray[np.float32],
    ) -> None:
        """Look at the worst tiles of one frame set.

        Args:
            tiles: (view, tile), as `Gate.add` returns them.
            images: uint8 [V, H, W, 3].
            fp32, int8: float32 [V, H, W].
        """
        for view, tile in tiles:
            if len(self._kept) < self.size or tile.deviation > self._kept[-1][0].deviation:
                self._kept.append((tile, _strip(tile, images[view], fp32[view], int8[view])))
                self._kept.sort(key=lambda entry: -entry[0].deviation)
                del self._kept[self.size :]

    def pictures(self) -> list[Picture]:
        """What was kept, worst first."""
        return [
            Picture(
                title=f"{tile.deviation:.1%}: {tile.camera}, {tile.set_name}",
                image=strip,
                caption=f"tile at row {tile.row}, column {tile.column}, about {tile.metres:.1f} m away: "
                "picture, FP32 depth, INT8 depth, deviation (black 0, white 20 % and more)",
            )
            for tile, strip in self._kept
        ]


def _strip(
    tile: WorstTile, image: NDArray[np.uint8], fp32: NDArray[np.float32], int8: NDArray[np.float32]
) -> NDArray[np.uint8]:
    top, left = max(0, tile.row - MARGIN), max(0, tile.column - MARGIN)
    window = (slice(top, tile.row + TILE + MARGIN), slice(left, tile.column + TILE + MARGIN))
    near, far = np.percentile(fp32[window], (2, 98))
    deviation = np.abs(int8[window] - fp32[window]) / np.maximum(fp32[window], 1e-6)
    panels = [
        image[window],
        _coloured(fp32[window], near, far),
        _coloured(int8[window], near, far),
        np.repeat(_shade(deviation / 0.2)[..., None], 3, axis=2),
    ]
    framed = [_framed(panel, tile.row - top, tile.column - left) for panel in panels]
    return np.concatenate([np.kron(p, np.ones((ZOOM, ZOOM, 1), dtype=np.uint8)) for p in framed], axis=1)


def _coloured(depth: NDArray[np.float32], near: float, far: float) -> NDArray[np.uint8]:
    import cv2

    shade = _shade((depth - near) / np.float32(max(far - near, 1e-6)))
    return np.asarray(cv2.applyColorMap(shade, cv2.COLORMAP_TURBO))[..., ::-1].astype(np.uint8)


def _shade(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.asarray(np.clip(values, 0, 1) * 255).astype(np.uint8)


def _framed(panel: NDArray[np.uint8], row: int, column: int) -> NDArray[np.uint8]:
    panel = np.array(panel)
    edge = np.array((255, 255, 255), dtype=np.uint8)
    bottom, right = row + TILE - 1, column + TILE - 1
    panel[[row, bottom], column : right + 1] = edge
    panel[row : bottom + 1, [column, right]] = edge
    return panel
