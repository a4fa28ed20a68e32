"""The student's shape, as data: everything needed to build the network again from a checkpoint."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from fsmde_edge.errors import InputError
from fsmde_edge.recipes import PACKAGE, from_mapping

SHIPPED_CHECKPOINT = PACKAGE / "student" / "weights" / "tiny.safetensors"
"""The trained tiny student that comes with the package."""

MOST_CHANNELS = 512
"""Twice the widest layer of ours; far beyond, memory would end before a message could."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentConfig:
    """Sizes of one student.

    Attributes:
        name: `base`, `tiny` or the user's own.
        width: channels of the stem; stages have 1, 2, 4 and 8 times as many (64 is ResNet-18).
        decoder: channels of the decoder at 1/32, 1/16, 1/8 and 1/4 of the picture.
        bins: K, number of depth bins.
        depth_range: nearest and farthest bin edge in metres, for a camera of focal length `focal`.
        focal: f0 in pixels of the network-size picture; depth = output × fx / f0.
    """

    name: str
    width: int
    decoder: tuple[int, int, int, int]
    bins: int = 64
    depth_range: tuple[float, float] = (0.5, 500.0)
    focal: float = 320.0

    def __post_init__(self) -> None:
        near, far = self.depth_range
        sizes = (self.width, self.bins, *self.decoder)
        in_range = 0 < near < far < math.inf and 0 < self.focal < math.inf
        if min(sizes) < 1 or max(sizes) > MOST_CHANNELS or not in_range:
            raise InputError(
                f"a student cannot have these sizes: {asdict(self)}",
                hint=f"choose from 1 to {MOST_CHANNELS} channels and bins, and positive metres and pixels",
            )

    def to_json(self) -> str:
        """Canonical JSON, as kept in a checkpoint's metadata."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str, *, where: object) -> StudentConfig:
        """Read what `to_json` wrote.

        Raises:
            InputError: not JSON, an unknown key, or an impossible size.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"the checkpoint's description cannot be read ({error})",
                where=where,
                hint="give a checkpoint made by 'fsmde-edge train'",
            ) from error
        return from_mapping(cls, values, where=where)


BASE = StudentConfig(name="base", width=64, decoder=(256, 128, 96, 64))
TINY = StudentConfig(name="tiny", width=24, decoder=(96, 64, 48, 32))
MICRO = StudentConfig(name="micro", width=12, decoder=(48, 32, 24, 16))
"""For comparisons of training methods on a CPU; too small to deploy."""

STUDENTS: Mapping[str, StudentConfig] = {config.name: config for config in (BASE, TINY, MICRO)}
