"""Files and folders that appear complete or not at all.

Everything is made under a hidden temporary name beside its final place, flushed to disk, and renamed.
A process that is killed leaves a `.tmp-…` behind and nothing else; `atomic_folder` removes such leftovers
of its own name on the next run.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fsmde_edge.errors import DeviceError, OutputError, writing

_DISK_REFUSES = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}


def make_folder(path: Path) -> Path:
    """Make a folder and its parents; one that exists is fine.

    Errors:
        OutputError: where the path cannot be made or is a file.
    """
    with writing(path):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path)) from error
    return path


def cache_home() -> Path:
    """Where our caches lie: `$XDG_CACHE_HOME/fsmde-edge`, or ~/.cache/fsmde-edge; see `state_home`."""
    return _stated("XDG_CACHE_HOME", ".cache") / "fsmde-edge"


def state_home() -> Path:
    """Where programs keep what they made on this machine: $XDG_STATE_HOME, or ~/.local/state.

    A relative path counts as none, as the XDG base directory specification wants it.

    Errors:
        OutputError: nothing says where.
    """
    return _stated("XDG_STATE_HOME", ".local/state")


def refuse_foreign(path: Path) -> None:
    """Refuse native code that anybody but our own user may have been able to write.

    Errors:
        DeviceError: the file or its folder belongs to somebody else, or others may write it.
    """
    for part in (path, path.parent):
        state = part.stat()
        if state.st_uid != os.geteuid() or state.st_mode & 0o022:
            raise DeviceError(
                "belongs to or may be written by somebody else", where=part, hint="remove it and run again"
            )


def _stated(variable: str, at_home: str) -> Path:
    stated = Path(os.environ.get(variable) or "")
    if stated.is_absolute():
        return stated
    try:
        return Path.home() / at_home
    except RuntimeError as error:
        raise OutputError(
            "this user has no home folder to keep things in", hint=f"set {variable} to a folder"
        ) from error


def check_writable(path: Path) -> None:
    """Find out, before long work, that `atomic_write` may write a file; its folder is made.

    Errors:
        OutputError: read-only disk, no permission, a path through a file, a folder of that name.
    """
    temporary = _temporary_file(path)
    with writing(path):
        temporary.touch()
        temporary.unlink()


def atomic_write(path: Path, data: bytes) -> None:
    """Write a file whole: parents are made, an old file of that name is replaced in one step.

    Errors:
        OutputError: full or read-only disk, no permission, a path through a file.
    """
    with atomic_file(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary path (same folder, same suffix) to write to; it becomes `path` when the block succeeds.

    Errors:
        OutputError: full or read-only disk, no permission, a path through a file.
    """
    temporary = _temporary_file(path)
    try:
        with _translating(path, temporary):
            yield temporary
        with writing(path):
            _flush(temporary)
            temporary.replace(path)
            _flush(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(
    path: Path,
    force: bool = False,
    *,
    replaceable: Callable[[Path], bool] = lambda _: True,
    into_empty: bool = False,
) -> Iterator[Path]:
    """A temporary folder to fill; it becomes `path` when the block succeeds.

    What appears at `path` while the block runs is treated like what was there before.

    Args:
        path: the folder to make; its parents are made too.
        force: swap an existing one: the old is renamed aside, the new renamed in, the old deleted. A
            process killed between the two renames leaves the old aside; the next run puts it back.
        replaceable: says whether an existing folder is of the kind that `force` may delete.
        into_empty: an existing empty folder is fine, and no other; `force` does not count.

    Errors:
        OutputError: the folder exists and may not be replaced, or the disk refuses.
    """
    path = Path(os.path.realpath(path))  # unlike `resolve`, it raises nothing on a circle of links
    aside = _named(path, f".old-{path.name}")
    make_folder(path.parent)
    with writing(path):
        _tidy(path, aside)

    def refuse_existing() -> None:
        with writing(path):
            _refuse_full(path) if into_empty else _refuse_existing(path, force, replaceable)

    refuse_existing()
    with writing(path):
        temporary, lock = _locked_folder(path)
    try:
        with _translating(path, temporary):
            yield temporary
        with writing(path):
            _flush_tree(temporary)
        refuse_existing()
        with writing(path):
            _swap(temporary, path, aside if force else None)
    finally:
        os.close(lock)
        shutil.rmtree(temporary, ignore_errors=True)
        if path.exists():
            shutil.rmtree(aside, ignore_errors=True)


def _refuse_existing(path: Path, force: bool, replaceable: Callable[[Path], bool]) -> None:
    if not path.exists():
        return
    if not force:
        raise OutputError(
            "already exists", where=path, hint="choose another folder, or replace it with --force"
        )
    if not path.is_dir() or not replaceable(path):
        raise OutputError(
            "exists and is not something that this command made, so --force does not delete it",
            where=path,
            hint="choose another folder, or remove it yourself",
        )


def _refuse_full(path: Path) -> None:
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise OutputError("exists and is not empty", where=path, hint="choose an empty folder")


def _tidy(path: Path, aside: Path) -> None:
    """Undo what a killed run of the same name left: put the old folder back, remove unfinished ones."""
    if aside.is_dir():
        if path.exists():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.rename(path)
    for leftover in path.parent.glob(f".tmp-????????-{_escaped(path.name)}"):
        with suppress(OSError):
            handle = os.open(leftover, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # refused while its maker lives
                shutil.rmtree(leftover, ignore_errors=True)
            finally:
                os.close(handle)


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _locked_folder(path: Path) -> tuple[Path, int]:
    """A fresh temporary folder, and a handle whose lock says that its maker lives."""
    while True:
        temporary = _temporary(path)
        temporary.mkdir()
        handle = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY)
        with suppress(OSError):  # file systems without locks: another run's leftovers simply stay
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if temporary.exists():  # not swept by another run between the two lines above
            return temporary, handle
        os.close(handle)


def _temporary_file(path: Path) -> Path:
    """A temporary name for a file whose folder is made; never for what would replace a folder or a device."""
    make_folder(path.parent)
    with writing(path):
        special = path.exists() and not path.is_file()
    if special:
        raise OutputError("cannot be written: it is no regular file", where=path, hint="choose another name")
    return _temporary(path)


def _temporary(path: Path) -> Path:
    return _named(path, f".tmp-{secrets.token_hex(4)}-{path.name}")


def _named(path: Path, name: str) -> Path:
    """A name beside a path's own."""
    if not path.name:
        raise OutputError("is not a place for something new", where=path, hint="give it a name of its own")
    return path.with_name(name)


def _swap(new: Path, path: Path, aside: Path | None) -> None:
    """Rename into place; where there is no `aside` to keep an old one, only an empty folder is replaced."""
    if aside is None or not path.exists():
        new.rename(path)  # the system refuses to rename a folder over a file or a folder that holds anything
    else:
        path.rename(aside)
        try:
            new.rename(path)
        except OSError:
            aside.rename(path)
            raise
    _flush(path.parent)


@contextmanager
def _translating(path: Path, temporary: Path) -> Iterator[None]:
    """Turn the disk's refusals to write below `temporary` into `OutputError`; let all else through."""
    try:
        yield
    except OSError as error:
        inside = isinstance(error.filename, str) and Path(error.filename).is_relative_to(temporary)
        if error.errno in _DISK_REFUSES or inside:
            with writing(path):
                raise
        raise


def _flush_tree(folder: Path) -> None:
    for root, _, names in os.walk(folder):
        for name in names:
            _flush(Path(root, name))
        _flush(Path(root))


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
