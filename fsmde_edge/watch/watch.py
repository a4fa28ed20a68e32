"""All that watches a run, as one thing that the loop tells what it does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.errors import FsmdeError
from fsmde_edge.frames import FrameSet
from fsmde_edge.watch.accuracy import AccuracyWatch
from fsmde_edge.watch.guard import Finding, Guard
from fsmde_edge.watch.health import HealthFile
from fsmde_edge.watch.systemd import Notifier
from fsmde_edge.watch.vitals import State, Vitals

EVERY_NS = 1_000_000_000
"""Between two states that are told."""


@dataclass(slots=True, eq=False)
class Watch:
    """Watches one run, on the loop's own thread: nothing of it waits, and a loop that hangs tells nothing.

    Args:
        vitals: counts what the run does.
        guard: judges every view; none if None.
        health: gets the state once a second.
        notifier: tells systemd.
        accuracy: compares a set now and then.
    """

    vitals: Vitals
    guard: Guard | None = None
    health: HealthFile | None = None
    notifier: Notifier | None = None
    accuracy: AccuracyWatch | None = None
    _due_ns: int = 0
    _why: str = ""

    def beat(self) -> None:
        """The run moves: a stage is done, or it waits for cameras and looks after them meanwhile."""
        now = time.monotonic_ns()
        if self.notifier is not None:
            self.notifier.feed(now)
        if now >= self._due_ns:
            self._due_ns = now + EVERY_NS
            self._tell(self.vitals.going(now), now)

    def judge(
        self,
        frame_set: FrameSet,
        images: NDArray[np.uint8],
        focal: NDArray[np.float32],
        depth: NDArray[np.float32],
        *,
        world: NDArray[np.bool_],
    ) -> tuple[bool, ...]:
        """Which views may be trusted, of those with a picture (see `Guard.judge`, `AccuracyWatch.offer`)."""
        now, valid = time.monotonic_ns(), frame_set.valid
        if self.accuracy is not None:
            self.accuracy.offer(
                images, focal, depth, cameras=frame_set.cameras, valid=valid, world=world, now_ns=now
            )
        if self.guard is None:
            return valid
        return self.guard.judge(frame_set, images, focal, depth, now)

    def seen(self, frame_set: FrameSet, valid: tuple[bool, ...]) -> None:
        """A set is done; `valid` says which of its views' depth may be shown as current."""
        self.vitals.add(frame_set, valid, time.monotonic_ns())
        if self.notifier is not None:
            self.notifier.ready()

    def ends(self, why: str) -> None:
        """The run ends in good order, and why."""
        self._why = why

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Of the guard, so far."""
        return () if self.guard is None else self.guard.findings()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Tell of the beginning and, whatever happens, of the end."""
        try:
            self.beat()
            yield
        except FsmdeError as error:
            self._end("failed", str(error))
            raise
        except BaseException as error:
            stopped = isinstance(error, KeyboardInterrupt)
            self._end("stopped" if stopped else "failed", "a second signal" if stopped else repr(error))
            raise
        else:
            self._end("stopped", self._why)

    def _end(self, state: State, why: str) -> None:
        if self.notifier is not None:
            self.notifier.close(f"{state}: {why}")  # first: systemd waits for no watchdog's food any more
        if self.accuracy is not None:
            self.accuracy.close()
        self._tell(state, time.monotonic_ns(), why)
        if self.health is not None:
            self.health.close()

    def _tell(self, state: State, now: int, why: str = "") -> None:
        findings = self.findings
        if self.health is not None:
            told = self.vitals.state(state, now, why=why, findings=findings)
            told["accuracy"] = None if self.accuracy is None else self.accuracy.state()
            self.health.put(told)
        if self.notifier is not None:
            self.notifier.status(self.vitals.line(state, now, findings))
