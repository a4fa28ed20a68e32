"""Where pictures wait between the capture thread and whoever makes frame sets: bounded, newest kept."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Protocol

from fsmde_edge.capture.lease import Captured
from fsmde_edge.capture.v4l2.loss import Cause


class Outlet(Protocol):
    """Where the capture thread puts pictures, one by one, on its own thread: it must not wait."""

    def put(self, captured: Captured) -> None:
        """Take a picture over, and release it some time."""

    def tick(self, now_ns: int) -> int | None:
        """Time passed; returns when to be called again at the latest, or None (CLOCK_MONOTONIC)."""

    def close(self) -> None:
        """No more will come; may be called twice."""

    @property
    def drops(self) -> Mapping[str, Mapping[Cause, int]]:
        """Camera → cause → pictures that no reader got."""


class Inbox:
    """An outlet with a few pictures of every camera; a slow reader loses the oldest."""

    def __init__(self, cameras: Iterable[str], *, depth: int = 2) -> None:
        """Make it.

        Args:
            cameras: their names.
            depth: pictures that may wait, for each camera.
        """
        self._depth = depth
        self._queues: dict[str, deque[Captured]] = {camera: deque() for camera in cameras}
        self._ready = threading.Condition()
        self._open = True
        self._slow = dict.fromkeys(self._queues, 0)

    def put(self, captured: Captured) -> None:
        """Add a picture; the oldest of its camera goes if there are too many, and all if it is closed."""
        surplus: Captured | None = None
        with self._ready:
            if self._open:
                queue = self._queues[captured.camera]
                queue.append(captured)
                if len(queue) > self._depth:
                    surplus = queue.popleft()
                    self._slow[captured.camera] += 1
                self._ready.notify()
            else:
                surplus = captured
        if surplus is not None:
            surplus.lease.release()

    def tick(self, now_ns: int) -> int | None:  # noqa: ARG002
        """Nothing here depends on time."""
        return None

    def take(self, timeout: float | None) -> list[Captured]:
        """All that waits, oldest stamp first; waits for something. Each is the caller's to release.

        Args:
            timeout: seconds to wait, or None for ever.

        Returns:
            Nothing after the time, or once it is closed.
        """
        with self._ready:
            self._ready.wait_for(lambda: not self._open or any(self._queues.values()), timeout)
            return self._emptied()

    def close(self) -> None:
        """Release what waits and wake the reader; may be called twice."""
        with self._ready:
            self._open = False
            left = self._emptied()
            self._ready.notify_all()
        for captured in left:
            captured.lease.release()

    @property
    def drops(self) -> Mapping[str, Mapping[Cause, int]]:
        """Camera → cause → pictures that no reader got."""
        return {camera: {Cause.SLOW: count} for camera, count in self._slow.items()}

    @property
    def is_open(self) -> bool:
        """Whether more may come."""
        return self._open

    def _emptied(self) -> list[Captured]:
        waiting = [captured for queue in self._queues.values() for captured in queue]
        for queue in self._queues.values():
            queue.clear()
        return sorted(waiting, key=lambda captured: captured.stamp.ns)
