"""A picture on loan: memory that belongs to a camera's ring until it is given back."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from fsmde_edge.frames import Stamp


class LeaseError(RuntimeError):
    """A lease was used after it was given back: a fault of the caller, and nothing was changed by it."""


class FrameLease(Protocol):
    """One picture in the buffer that the driver wrote it to. Give it back soon: buffers are few."""

    @property
    def camera(self) -> str:
        """The camera's name."""

    @property
    def sequence(self) -> int:
        """The driver's own running number, which may restart or wrap at 2**32."""

    @property
    def stamp_ns(self) -> int:
        """The driver's stamp."""

    def view(self) -> memoryview:
        """The picture's bytes, not copied; invalid after release.

        Raises:
            LeaseError: after release.
        """

    def release(self) -> None:
        """Give the buffer back, exactly once. After its camera stopped it is not filled again.

        Raises:
            LeaseError: a second time.
        """


class Captured(NamedTuple):
    """One picture on its way from a camera to a frame set; a tuple, since one is made for every picture.

    Attributes:
        camera: the camera's name.
        lease: holds the picture; whoever takes a `Captured` releases it.
        stamp: the driver's stamp with its clock and exposure point.
        sequence: the driver's own running number.
        arrival_ns: CLOCK_MONOTONIC when the driver gave it out, by which a stamp's offset can be measured.
    """

    camera: str
    lease: FrameLease
    stamp: Stamp
    sequence: int
    arrival_ns: int
