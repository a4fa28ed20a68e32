"""A run's state in a file that is always whole, written by a thread so that no disk delays the run."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from fsmde_edge.errors import OutputError
from fsmde_edge.files import atomic_write, check_writable

LAST = 5.0
"""Seconds that the last state may take to be written."""


class HealthFile:
    """Keeps a JSON file up to date; where the disk is slow, it skips to the newest state."""

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        """Begin.

        Args:
            path: of the file.
            say: is told, in a line, when it cannot be written, and again once that was mended in between.

        Errors:
            OutputError: it cannot be written now.
        """
        check_writable(path)
        self._path, self._say = path, say
        self._states: queue.Queue[Mapping[str, Any] | None] = queue.Queue(maxsize=1)
        self._told = False
        self._thread = threading.Thread(target=self._write_all, name="health", daemon=True)
        self._thread.start()

    def put(self, state: Mapping[str, Any]) -> None:
        """Write a state soon; does not wait, and replaces one that still waits."""
        with suppress(queue.Empty):
            self._states.get_nowait()
        self._states.put_nowait(state)  # nobody else puts

    def close(self) -> None:
        """Wait until the newest state is written, but no longer than `LAST` seconds; may be called twice."""
        with suppress(queue.Full):
            self._states.put(None, timeout=LAST)
        self._thread.join(LAST)

    def _write_all(self) -> None:
        while (state := self._states.get()) is not None:
            try:
                atomic_write(self._path, json.dumps(state, indent=1).encode() + b"\n")
                self._told = False
            except OutputError as error:
                if not self._told:
                    self._say(f"--health: {error.where}: {error.what}; the run goes on without it")
                self._told = True
