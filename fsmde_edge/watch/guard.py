"""The guard: depth that cannot be right and pictures that show nothing new are found, view by view.

It looks at every set. Of pictures it reads every fourth row of the network's input: about a millisecond for
six views of 384×640 on one core.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.bundle import Bundle
from fsmde_edge.frames import FrameSet

Floats = NDArray[np.float32]

ROWS = 4
"""Every so many rows of a picture are compared with those of the picture before."""

APART = 8
"""Every so many rows and columns of a picture tell whether it shows anything."""

CONTENT = 2.0
"""Grey levels of standard deviation, in the channel that has most, below which a picture shows nothing."""

FROZEN_AFTER = 10
"""Pictures in a row that are the same, to the last bit: noise keeps a camera that works from giving two."""

WIDER = 4.0
"""Depth may reach beyond that of the golden frames by this factor."""

OUTSIDE = 0.01
"""Share of a view's pixels that may lie out of range."""

CALM = 10
"""Sets without a fault after which it has ended: one that flickers is told of once."""

REMEMBERED = 20
"""Newest findings of one fault at one camera whose times are kept."""


class Fault(str, Enum):
    """What is wrong with a view."""

    NOT_FINITE = "depth that is not a number"
    FLAT = "depth that is the same everywhere"
    RANGE = "depth out of the bundle's range"
    BLANK = "a picture that shows nothing (covered lens, darkness, no signal)"
    FROZEN = "a frozen picture"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A fault at one camera, from its first to its last set.

    Attributes:
        camera, fault: what and where.
        since_ns, until_ns: when it was found and when it was seen last, on CLOCK_MONOTONIC.
        first, last: indices of these sets.
        sets: with this fault.
        lasts: whether it has not ended.
    """

    camera: str
    fault: Fault
    since_ns: int
    until_ns: int
    first: int
    last: int
    sets: int = 1
    lasts: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthRange:
    """Which depth a bundle's network may give.

    Attributes:
        least, most: of depth, or of depth over fx where depth scales with the focal length; the least itself
            is out of range.
        by_focal: whether it does.
    """

    least: float
    most: float
    by_focal: bool

    @classmethod
    def of(cls, bundle: Bundle) -> DepthRange:
        """Up to `WIDER` than the golden FP32 depth reaches; ours: a bundle states no range of its own.

        Metres begin at 0, however near the golden frames come: what is about to be hit is no fault. Other
        kinds are widened on both sides by as many times their span, since their zero means nothing.
        """
        golden, manifest = bundle.golden(), bundle.manifest
        depth, by_focal = golden.depth["fp32"], manifest.focal is not None
        if by_focal:
            depth = depth / golden.focal[:, None, None]
        least, most = float(depth.min()), float(depth.max())
        if manifest.metric:
            return cls(least=0.0, most=most * WIDER, by_focal=by_focal)
        span = WIDER * (most - least)
        return cls(least=least - span, most=most + span, by_focal=by_focal)

    def at(self, focal: float) -> tuple[float, float]:
        """Least and most depth at a focal length in network pixels."""
        return (self.least * focal, self.most * focal) if self.by_focal else (self.least, self.most)


@dataclass(slots=True, eq=False)
class _Episode:
    """A fault at one camera: what is found now and was before."""

    findings: deque[Finding] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    calm: int = 0
    """Sets in a row without it."""

    def note(self, found: Finding) -> bool:
        """Take note of a set with the fault; whether it is new."""
        self.calm = 0
        if not self.findings or not self.findings[-1].lasts:
            self.findings.append(found)
            return True
        known = self.findings[-1]
        self.findings[-1] = replace(known, until_ns=found.until_ns, last=found.last, sets=known.sets + 1)
        return False

    def pass_over(self) -> None:
        """Take note of a set without it."""
        self.calm += 1
        if self.calm == CALM:
            self.findings[-1] = replace(self.findings[-1], lasts=False)


@dataclass(slots=True, eq=False)
class Guard:
    """Judges every view of every set.

    Args:
        expected: which depth the network may give.
        frozen_after: same pictures in a row that are a frozen camera; None for recordings, which may hold
            a picture that stands.
        mask: whether depth of a view with a fault is marked invalid; it is only told of otherwise.
        say: is told, in a line, of every fault when it begins.
    """

    expected: DepthRange
    frozen_after: int | None = FROZEN_AFTER
    mask: bool = True
    say: Callable[[str], None] = lambda _: None
    _kept: dict[str, NDArray[np.uint8]] = field(default_factory=dict)
    _same: dict[str, int] = field(default_factory=dict)
    _episodes: dict[tuple[str, Fault], _Episode] = field(default_factory=dict)

    def judge(
        self,
        frame_set: FrameSet,
        images: NDArray[np.uint8],
        focal: Floats,
        depth: Floats,
        now_ns: int,
    ) -> tuple[bool, ...]:
        """Which views' depth may be trusted, of those that have a picture.

        Args:
            frame_set: what the cameras saw.
            images: uint8 [V, H, W, 3], the network's input.
            focal: float32 [V], fx in network pixels.
            depth: float32 [V, H, W], as the network gave it.
            now_ns: on CLOCK_MONOTONIC.
        """
        trusted = list(frame_set.valid)
        for view, camera in enumerate(frame_set.cameras):
            if not trusted[view]:
                continue
            faults = {*self._of_picture(camera, images[view]), *self._of_depth(depth[view], focal[view])}
            self._note(camera, faults, frame_set.index, now_ns)
            trusted[view] = not (faults and self.mask)
        return tuple(trusted)

    def findings(self) -> tuple[Finding, ...]:
        """What was found so far, oldest first; of each fault at each camera, the newest `REMEMBERED`."""
        found = [finding for episode in self._episodes.values() for finding in episode.findings]
        return tuple(sorted(found, key=lambda finding: finding.since_ns))

    def _of_picture(self, camera: str, image: NDArray[np.uint8]) -> Iterator[Fault]:
        rows = image[::ROWS]
        seen = image[::APART, ::APART]
        if max(seen[..., channel].astype(np.float32).std() for channel in range(3)) < CONTENT:
            yield Fault.BLANK
        if self.frozen_after is None:
            return
        kept = self._kept.get(camera)
        same = kept is not None and np.array_equal(kept, rows)
        self._same[camera] = self._same.get(camera, 0) + 1 if same else 1
        if not same:
            self._kept[camera] = rows.copy()
        if self._same[camera] >= self.frozen_after:
            yield Fault.FROZEN

    def _of_depth(self, depth: Floats, focal: float) -> Iterator[Fault]:
        least, most = float(depth.min()), float(depth.max())  # not a number if any value is not
        low, high = self.expected.at(float(focal))
        if not np.isfinite((least, most)).all():
            yield Fault.NOT_FINITE
        elif least == most:
            yield Fault.FLAT
        elif (least <= low or most > high) and ((depth <= low) | (depth > high)).mean() > OUTSIDE:
            yield Fault.RANGE

    def _note(self, camera: str, faults: set[Fault], index: int, now_ns: int) -> None:
        for fault in Fault:
            if fault not in faults:
                if (camera, fault) in self._episodes:
                    self._episodes[camera, fault].pass_over()
                continue
            found = Finding(
                camera=camera, fault=fault, since_ns=now_ns, until_ns=now_ns, first=index, last=index
            )
            if self._episodes.setdefault((camera, fault), _Episode()).note(found):
                masked = "; its depth is marked invalid" if self.mask else ""
                self.say(f"camera {camera} gives {fault.value}{masked}")
