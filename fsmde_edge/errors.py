"""The errors that a user can cause, and the exit code that each one means.

    FsmdeError
    ├── UsageError        2    the command line itself
    ├── InputError        3    a file, folder, recipe, checkpoint or bundle that cannot be used
    │   └── BundleError   3    a bundle that is damaged, incomplete or from a newer version
    ├── OutputError       3    something that cannot be written
    ├── GateFailed        4    INT8 left the accuracy budget, or the gate could not decide
    └── DeviceError       5    a device, backend or accelerator that does not do what was asked
        └── MissingExtra  5    an optional package that is not installed

Every one prints as exactly one line: what happened, where, and what to do next.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

INTERRUPTED = 130
"""Exit code of Ctrl-C in the commands that make something (build, finalise, train, distill)."""


class FsmdeError(Exception):
    """Base of all errors that a user can cause.

    Args:
        what: what happened, without a full stop.
        where: the file, folder or device concerned, if there is one.
        hint: the next step, in the imperative.
    """

    exit_code: ClassVar[int] = 3

    def __init__(self, what: str, *, where: object = None, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = None if where is None else str(where)
        self.hint = hint

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        step = f"; {self.hint}" if self.hint else ""
        return " ".join(f"{place}{self.what}{step}".split())


class UsageError(FsmdeError):
    """The command line asks for something that does not exist or does not go together."""

    exit_code = 2


class InputError(FsmdeError):
    """A file or folder that was given cannot be used."""

    exit_code = 3


class BundleError(InputError):
    """A bundle is damaged, incomplete, or written by a newer version."""


class OutputError(FsmdeError):
    """A result cannot be written."""

    exit_code = 3


class GateFailed(FsmdeError):
    """The INT8 network left its accuracy budget, or the gate could not decide."""

    exit_code = 4


class DeviceError(FsmdeError):
    """A camera, backend or accelerator is missing or failed."""

    exit_code = 5


class MissingExtra(DeviceError):
    """An optional package is needed; the message names the extra that installs it."""

    def __init__(self, package: str, *, extra: str, why: str) -> None:
        super().__init__(
            f"{why} needs the package '{package}', which is not installed",
            hint=f"run: pip install 'fsmde-edge[{extra}]'",
        )


_WRITE_HINTS = {
    errno.ENOSPC: "free some space on that disk and run again; nothing was left half-written",
    errno.EDQUOT: "free some of your quota and run again; nothing was left half-written",
    errno.EROFS: "choose a folder on a writable disk",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.ENOTDIR: "choose a folder: a part of this path is a file",
}


@contextmanager
def writing(where: object) -> Iterator[None]:
    """Translate the operating system's refusals to write into `OutputError`.

    Args:
        where: the path named in the message when the system names none.
    """
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise OutputError(
            f"cannot be written ({reason})",
            where=where,
            hint=_WRITE_HINTS.get(error.errno or 0, "check the path and run again"),
        ) from error
