"""What every source is: frame sets one after another, the rig that took them, and what was lost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from fsmde_edge.frames import FrameSet
from fsmde_edge.preprocessing.raw import RawLayout
from fsmde_edge.rig import Rig


class Source(Protocol):
    """Frame sets in order; at most one set and one picture a camera are held at a time."""

    @property
    def name(self) -> str:
        """A short name for reports."""

    @property
    def rig(self) -> Rig:
        """The rig of the frame set that was yielded last; before the first, that of the first."""

    @property
    def drops(self) -> Mapping[str, Mapping[str, int]]:
        """Pictures that never became part of a set, so far: camera → cause → number."""

    @property
    def layouts(self) -> tuple[RawLayout, ...] | None:
        """How pictures lie in their buffers, in ring order, where they come raw; None where they are RGB."""

    def __iter__(self) -> Iterator[FrameSet]:
        """Yield frame sets, their views in the rig's ring order.

        A live set's pictures are on loan: it is to be released once they were looked at.

        Errors:
            InputError: a recording that cannot be read on.
            DeviceError: a camera that failed.
        """

    def stop(self) -> None:
        """End the iteration rather than wait for another set; may be called by a signal handler."""

    def close(self) -> None:
        """Give everything back; may be called twice."""
