"""Maps of one picture at another size."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Squash maps to a size (no crop): averaged where they shrink, bilinear where they grow.

    Args:
        maps: float [N, C, h, w].
        size: height and width.
    """
    height, width = maps.shape[-2:]
    if (height, width) == size:
        return maps
    if size[0] <= height and size[1] <= width:
        return functional.interpolate(maps, size=size, mode="area")
    return functional.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def mostly(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """A mask at another size: True where more than half of what a pixel covers is.

    Args:
        mask: bool [N, H, W].
        size: height and width.
    """
    return resized(mask[:, None].float(), size)[:, 0] > 0.5
