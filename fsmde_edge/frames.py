"""What travels through the house: stamps, frame sets, depth sets and the samples that data sets yield.

All values are frozen and validated once, where they are made; their arrays are read-only views.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.errors import InputError
from fsmde_edge.preprocessing.raw import RawLayout, unpack
from fsmde_edge.rig import Rig


class Clock(str, Enum):
    """The clock that a stamp was read from."""

    MONOTONIC = "monotonic"
    REALTIME = "realtime"
    RECORDED = "recorded"
    """A recording's own time line: comparable within the recording, with nothing else."""


class ExposurePoint(str, Enum):
    """The instant of the exposure that a stamp marks."""

    START = "start"
    MIDDLE = "middle"
    END = "end"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Stamp:
    """An instant: nanoseconds on a named clock, and which point of the exposure it marks."""

    ns: int
    clock: Clock = Clock.RECORDED
    exposure: ExposurePoint = ExposurePoint.UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frame:
    """One camera's picture at one instant.

    Attributes:
        camera: the camera's name in the rig.
        image: uint8 [H, W, 3], RGB, at the camera's own size.
        stamp: when it was exposed.
        sequence: the source's own running number.
    """

    camera: str
    image: NDArray[np.uint8]
    stamp: Stamp
    sequence: int = 0

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape[2] != 3 or self.image.dtype != np.uint8:
            raise InputError(
                f"a picture of camera {self.camera} has shape {self.image.shape} and dtype "
                f"{self.image.dtype}, expected [H, W, 3] and uint8"
            )
        object.__setattr__(self, "image", read_only(self.image))

    @property
    def valid(self) -> bool:
        """A picture that was recorded is there."""
        return True

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.image.shape[1], self.image.shape[0]

    @property
    def raw(self) -> NDArray[np.uint8]:
        """Its bytes, RGB without gaps."""
        return np.ascontiguousarray(self.image).reshape(-1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RawFrame:
    """One camera's picture as its driver wrote it, in memory that is on loan until its set is released.

    Attributes:
        camera: the camera's name in the rig.
        raw: the picture's bytes, not copied; None where the camera gave none at this instant.
        layout: how they lie.
        stamp: when it was exposed; of a missing picture, the set's earliest.
        sequence: the driver's own running number.
    """

    camera: str
    raw: memoryview | None
    layout: RawLayout
    stamp: Stamp
    sequence: int = 0

    @property
    def valid(self) -> bool:
        """Whether there is a picture."""
        return self.raw is not None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.layout.width, self.layout.height

    @property
    def image(self) -> NDArray[np.uint8]:
        """The picture as uint8 [H, W, 3], RGB, by its definition: slow, and a copy; black if missing."""
        if self.raw is None:
            return np.zeros((self.layout.height, self.layout.width, 3), dtype=np.uint8)
        return unpack(self.raw, self.layout)


class Loan(Protocol):
    """Memory that belongs to somebody else."""

    def release(self) -> None:
        """Give it back; may be called twice."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrameSet:
    """All views of one instant, in ring order (the order of the rig's cameras).

    Attributes:
        frames: one frame a camera.
        index: running number within the source.
        name: the source's own name for this instant (scene and sample), for reports.
        loan: what the pictures are on loan from; None where they are the set's own.
        realtime_offset_ns: CLOCK_REALTIME minus CLOCK_MONOTONIC when a live set was made.
    """

    frames: tuple[Frame | RawFrame, ...]
    index: int = 0
    name: str = ""
    loan: Loan | None = None
    realtime_offset_ns: int | None = None

    def __post_init__(self) -> None:
        if not self.frames:
            raise InputError("a frame set without frames", where=self.name or None)
        if len(set(self.cameras)) != len(self.frames):
            raise InputError(f"a frame set names a camera twice: {', '.join(self.cameras)}")
        if len({frame.stamp.clock for frame in self.frames}) != 1:
            raise InputError("a frame set mixes stamps of different clocks", where=self.name or None)

    @property
    def cameras(self) -> tuple[str, ...]:
        """Camera names, in ring order."""
        return tuple(frame.camera for frame in self.frames)

    @property
    def stamps_ns(self) -> tuple[int, ...]:
        """The frames' stamps in nanoseconds, in ring order."""
        return tuple(frame.stamp.ns for frame in self.frames)

    @property
    def valid(self) -> tuple[bool, ...]:
        """Which views have a picture."""
        return tuple(frame.valid for frame in self.frames)

    @property
    def skew_ms(self) -> float:
        """Time between the first and the last exposure of the set, in milliseconds."""
        stamps = [frame.stamp.ns for frame in self.frames if frame.valid]
        return (max(stamps) - min(stamps)) / 1e6

    def ages_ns(self, now_ns: int) -> dict[str, int]:
        """How old each picture is, of a live set; empty for a recording, whose clock says nothing of now.

        Args:
            now_ns: on CLOCK_MONOTONIC.
        """
        live = (frame for frame in self.frames if frame.valid and frame.stamp.clock is Clock.MONOTONIC)
        return {frame.camera: now_ns - frame.stamp.ns for frame in live}

    def without(self, views: Collection[int]) -> FrameSet:
        """The set with these views' pictures missing; itself if there are none.

        Args:
            views: positions of raw frames.
        """
        if not views:
            return self
        frames = [
            replace(frame, raw=None) if view in views and isinstance(frame, RawFrame) else frame
            for view, frame in enumerate(self.frames)
        ]
        return replace(self, frames=tuple(frames))

    def release(self) -> None:
        """Give pictures on loan back: nobody may look at them afterwards. May be called twice."""
        if self.loan is not None:
            self.loan.release()

    @contextmanager
    def given_back(self) -> Iterator[None]:
        """Release it at the end, whatever happens."""
        try:
            yield
        finally:
            self.release()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DepthSet:
    """Metric depth for all views of one frame set.

    Attributes:
        depth: float32 [V, H, W], metres along each camera's optical axis (z), at network size.
        cameras: camera names, in ring order.
        stamps_ns: each view's stamp.
        focal: float32 [V], fx in pixels of the network-size picture.
        index: the frame set's running number.
        valid: which views have depth that may be shown as current; the depth of others is 0. All if None.
        valid_until_ns: when it ceases to be current, on CLOCK_MONOTONIC; None for recordings.
        confidence: float32 [V, H, W] in 0..1, where the network gives one.
        rig: the ideal cameras, of the depth's own size, that its pixels are seen by (`Views.seen_by`).
    """

    depth: NDArray[np.float32]
    cameras: tuple[str, ...]
    stamps_ns: tuple[int, ...]
    focal: NDArray[np.float32]
    index: int = 0
    valid: tuple[bool, ...] | None = None
    valid_until_ns: int | None = None
    confidence: NDArray[np.float32] | None = None
    rig: Rig | None = None

    def __post_init__(self) -> None:
        views = len(self.cameras)
        if self.depth.ndim != 3 or self.depth.dtype != np.float32:
            raise InputError(
                f"depth has shape {self.depth.shape} and dtype {self.depth.dtype}, "
                "expected [V, H, W] and float32"
            )
        if not views == self.depth.shape[0] == len(self.stamps_ns) == len(self.focal):
            raise InputError(
                f"a depth set of {self.depth.shape[0]} views names {views} cameras, "
                f"{len(self.stamps_ns)} stamps and {len(self.focal)} focal lengths"
            )
        if self.valid is not None and len(self.valid) != views:
            raise InputError(f"a depth set of {views} views says of {len(self.valid)} whether they are valid")
        if self.confidence is not None and self.confidence.shape != self.depth.shape:
            raise InputError(f"confidence has shape {self.confidence.shape}, depth {self.depth.shape}")
        if self.rig is not None:
            self._check_rig(self.rig)
        object.__setattr__(self, "depth", read_only(self.depth))

    def _check_rig(self, rig: Rig) -> None:
        sizes = {(camera.height, camera.width) for camera in rig.cameras}
        if rig.names != self.cameras or sizes != {self.depth.shape[1:]}:
            raise InputError(
                f"depth of {', '.join(self.cameras)} with shape {self.depth.shape} does not belong to a rig "
                f"of {', '.join(rig.names)} with pictures of {sizes}"
            )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """What a data set yields: a frame set, the rig that took it, and sparse metric depth.

    Attributes:
        frame_set: the pictures, in the rig's ring order.
        rig: the cameras (with ego masks where the data set has them).
        depth: per camera, float32 [H, W] at the picture's own size: LiDAR depth in metres along z,
            0 where there is no return. Empty where the data set has no LiDAR.
    """

    frame_set: FrameSet
    rig: Rig
    depth: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.frame_set.cameras != self.rig.names:
            raise InputError(
                f"the frame set's views ({', '.join(self.frame_set.cameras)}) are not the rig's "
                f"cameras in ring order ({', '.join(self.rig.names)})",
                where=self.frame_set.name or None,
            )
        for frame, camera in zip(self.frame_set.frames, self.rig.cameras, strict=True):
            found = frame.image.shape[:2]
            if found != (camera.height, camera.width):
                raise InputError(
                    f"a picture of camera {camera.name} is {found[1]}x{found[0]}, its "
                    f"calibration is for {camera.width}x{camera.height}",
                    where=self.frame_set.name or None,
                )
            depth = self.depth.get(camera.name)
            if depth is not None and depth.shape != found:
                raise InputError(
                    f"the depth map of camera {camera.name} has shape {depth.shape}, its picture {found}",
                    where=self.frame_set.name or None,
                )


def read_only(array: NDArray) -> NDArray:  # type: ignore[type-arg]
    """A view of the array that cannot be written through."""
    view = array.view()
    view.flags.writeable = False
    return view
