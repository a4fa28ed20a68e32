"""Standard output and error that survive their readers: `| head`, a full disk, an ASCII locale."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, TextIO, cast

from fsmde_edge.errors import OutputError


@contextmanager
def patient_streams() -> Iterator[Callable[[], int]]:
    """Work with streams that never raise but `OutputError`; gives what flushes standard output.

    A reader that went away (`| head`) is no error: the work goes on, and what it prints is dropped. A
    standard output that cannot be written is an `OutputError`; a standard error that cannot, is dropped.
    """
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        out = _Patient(sys.stdout or nowhere, strict=True)
        err = _Patient(sys.stderr or nowhere, strict=False)
        with redirect_stdout(cast(TextIO, out)), redirect_stderr(cast(TextIO, err)):
            try:
                yield out.flush
            finally:
                err.flush()


class _Patient:
    """A text stream; everything but writing is the wrapped one's."""

    def __init__(self, stream: TextIO, *, strict: bool) -> None:
        if strict and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
        self._stream, self._strict = stream, strict

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, or drop the text."""
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> int:
        """Flush; 0, as the exit code of nothing wrong."""
        self._try(self._stream.flush)
        return 0

    def _try(self, action: Callable[[], object]) -> None:
        try:
            action()
        except OSError as error:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())  # so that what is still in the buffer goes somewhere
            os.close(nowhere)
            if self._strict and not isinstance(error, BrokenPipeError):
                raise OutputError(
                    f"standard output cannot be written ({error.strerror})", hint="send it somewhere else"
                ) from error
