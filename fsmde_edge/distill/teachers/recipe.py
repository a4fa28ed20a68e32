"""Which teacher, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fsmde_edge.errors import InputError
from fsmde_edge.recipes import LONGEST_EDGE, refuse_size

PATCH = 14
"""Pixels: edge of a patch of Depth Anything's backbone (DINOv2)."""

FEATURE_STRIDES = (4, 8, 16)


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherRecipe:
    """A teacher and the size at which it looks.

    Attributes:
        kind: `depth-anything`, or `own` for a checkpoint of ours.
        source: a folder or hub name (`depth-anything`), or a .safetensors file (`own`;
            `shipped` is the student that comes with the package).
        size: height and width of what the teacher sees; None for Depth Anything's published rule (an edge of
            518 pixels, the aspect kept), or for the pictures as they are (`own`).
        feature_stride: picture pixels per pixel of the kept features; a cache needs a quarter of the disk
            with each doubling.
    """

    kind: Literal["depth-anything", "own"]
    source: str
    size: tuple[int, int] | None = None
    feature_stride: int = 4

    def __post_init__(self) -> None:
        if not self.source:
            raise InputError("a teacher needs a source", hint="write its folder, file or hub name")
        if self.feature_stride not in FEATURE_STRIDES:
            raise InputError(
                f"feature_stride cannot be {self.feature_stride}",
                hint=f"choose from {', '.join(map(str, FEATURE_STRIDES))}",
            )
        if self.size is not None:
            refuse_size(self.size) if self.kind == "own" else _refuse_patches(self.size)


def _refuse_patches(size: tuple[int, int]) -> None:
    if any(edge % PATCH or not PATCH <= edge <= LONGEST_EDGE for edge in size):
        raise InputError(
            f"a teacher size of {size[0]}x{size[1]} is not in multiples of {PATCH}, up to {LONGEST_EDGE}",
            hint="write it as [height, width], as [308, 518]",
        )
