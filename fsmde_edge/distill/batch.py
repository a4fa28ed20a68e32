"""What the distilling trainer works on: frame sets as tensors, and what the teacher says of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from torch import Tensor

Total: TypeAlias = Callable[[Tensor], Tensor]
"""Adds a tensor over all processes that train together, differentiably."""


def alone(value: Tensor) -> Tensor:
    """The total of one process: its own value."""
    return value


class SetBatch(NamedTuple):
    """A batch of frame sets, views in ring order.

    Attributes:
        pictures: float [B, V, 3, H, W], RGB in 0..255.
        truth: float [B, V, H, W], sparse depth in metres; 0 = none, `augment.SKY` = sky.
        world: bool [B, V, H, W]; False on the own car and outside the picture.
        intrinsics: float [B, V, 3, 3], K in pixels of these pictures.
        extrinsics: float [B, V, 4, 4], camera to vehicle.
    """

    pictures: Tensor
    truth: Tensor
    world: Tensor
    intrinsics: Tensor
    extrinsics: Tensor

    @property
    def focal(self) -> Tensor:
        """Focal length fx of every view, [B, V], pixels."""
        return self.intrinsics[..., 0, 0]


class TeacherViews(NamedTuple):
    """What the teacher says of a batch, moved as its pictures were.

    Attributes:
        disparity: float [B, V, h, w]: inverse depth up to a scale and a shift of each view; larger is nearer.
        features: float [B, V, C, h', w'].
    """

    disparity: Tensor
    features: Tensor
