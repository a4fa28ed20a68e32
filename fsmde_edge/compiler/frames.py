"""Calibration frames: single views of the bundle's cameras, counted, told apart, batched for the network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.compiler.calibrate import CalibrationBatch
from fsmde_edge.errors import InputError
from fsmde_edge.frames import Sample
from fsmde_edge.preprocess import preprocess, resize
from fsmde_edge.rig import VirtualPinhole

ALIKE_SIZE = (384, 640)
ALIKE_BELOW = 4.0
"""Two pictures look alike when their mean absolute difference at 640×384 is below this many grey levels."""

FEWEST_DIFFERENT = 8
_ENOUGH = 64
"""Different pictures are counted up to here: beyond, there are enough."""


@dataclass(slots=True, eq=False)
class Survey:
    """What calibration saw.

    Args:
        cameras: the bundle's, in ring order.
    """

    cameras: tuple[str, ...]
    views: dict[str, int] = field(default_factory=dict)
    _different: list[NDArray[np.uint8]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.views = dict.fromkeys(self.cameras, 0)

    def add(self, camera: str, image: NDArray[np.uint8]) -> None:
        """Count a view (uint8 [H, W, 3], as the camera gave it)."""
        self.views[camera] += 1
        if len(self._different) < _ENOUGH:
            small = grey(resize(image, ALIKE_SIZE[1], ALIKE_SIZE[0]))
            if not any(look_alike(small, other) for other in self._different):
                self._different.append(small)

    @property
    def different(self) -> int:
        """Pictures that do not look alike (64 stands for 64 or more)."""
        return len(self._different)

    @property
    def unseen(self) -> tuple[str, ...]:
        """Cameras of the bundle without a single view."""
        return tuple(camera for camera, count in self.views.items() if count == 0)

    def require_enough(self, *, allow_few: bool, where: object = None) -> None:
        """Refuse calibration on too few different pictures.

        Args:
            allow_few: refuse nothing.
            where: the recipe, for messages.

        Raises:
            InputError: fewer than 8, unless `allow_few`.
        """
        if self.different < FEWEST_DIFFERENT and not allow_few:
            raise InputError(
                f"calibration saw {sum(self.views.values())} pictures, but only {self.different} that do not "
                f"look alike; at least {FEWEST_DIFFERENT} are needed",
                where=where,
                hint="choose frames of other scenes, or accept it with --allow-few",
            )

    def as_dict(self) -> Mapping[str, object]:
        """Plain values for the manifest."""
        return {"views": dict(self.views), "different": self.different}


def batches(
    samples: Iterable[Sample], pinholes: tuple[VirtualPinhole, ...], survey: Survey
) -> Iterator[CalibrationBatch]:
    """Pack single views into batches of V, whatever cameras each sample has.

    Args:
        samples: read one at a time.
        pinholes: the bundle's views; they give the network size and V.
        survey: counts what passes.

    Raises:
        InputError: a sample has a camera that the bundle has not.
    """
    size = len(pinholes)
    images: list[NDArray[np.uint8]] = []
    focal: list[float] = []
    for sample in samples:
        for image, fx in _views(sample, pinholes, survey):
            images.append(image)
            focal.append(fx)
            if len(images) == size:
                yield _batch(images, focal, size)
                images, focal = [], []
    if images:
        yield _batch(images, focal, size)


def grey(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mean of the three channels, uint8 [H, W]."""
    return np.asarray(image.mean(axis=2, dtype=np.float32), dtype=np.uint8)


def look_alike(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    """Whether two grey pictures of 640×384 differ by less than 4 grey levels on average."""
    return float(np.abs(one.astype(np.int16) - other).mean()) < ALIKE_BELOW


def _views(
    sample: Sample, pinholes: tuple[VirtualPinhole, ...], survey: Survey
) -> Iterator[tuple[NDArray[np.uint8], float]]:
    height, width = pinholes[0].height, pinholes[0].width
    for frame, camera in zip(sample.frame_set.frames, sample.rig.cameras, strict=True):
        if camera.name not in survey.views:
            raise InputError(
                f"calibration frames of camera {camera.name}, which the bundle does not have "
                f"(it has {', '.join(survey.cameras)})",
                where=sample.frame_set.name,
                hint="put frames of the full rig first in the recipe's data",
            )
        survey.add(camera.name, frame.image)
        pinhole = VirtualPinhole.of(camera, width, height)
        yield preprocess(frame.image, camera, pinhole), pinhole.fx


def _batch(images: list[NDArray[np.uint8]], focal: list[float], size: int) -> CalibrationBatch:
    """A full batch: where views are missing the last one is repeated, and does not count."""
    valid = len(images)
    filled = images + [images[-1]] * (size - valid)
    lengths = focal + [focal[-1]] * (size - valid)
    return CalibrationBatch(images=np.stack(filled), focal=np.array(lengths, dtype=np.float32), valid=valid)
