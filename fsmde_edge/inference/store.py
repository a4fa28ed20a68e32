"""The engine store: what this machine built, and the receipt that says why it may be run.

    $XDG_STATE_HOME/fsmde-edge/engines/BUNDLE/
      BACKEND-PRECISION-KEY/       KEY follows from identity and options: an upgrade makes another folder
        receipt.json               of the engine that is run
        previous.json              of the one before it: kept for `rollback`
        ENGINE.engine              named after its content, one for each receipt
      choice.json                  which of them `auto` takes

An engine can be native code, so nothing is read but what this user owns and nobody else may write, and an
engine only if its hash is the one on its receipt. All is written whole or not at all.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fsmde_edge.bundle import canonical_json
from fsmde_edge.errors import DeviceError, FsmdeError, InputError, writing
from fsmde_edge.files import atomic_file, check_writable, make_folder, state_home
from fsmde_edge.recipes import from_mapping
from fsmde_edge.targets import BuilderOptions

RECEIPT, PREVIOUS, CHOICE = "receipt.json", "previous.json", "choice.json"
REBUILD = "build it again with: fsmde-edge finalise"


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """Which engine is meant.

    Attributes:
        bundle: its hash.
        backend, precision: names.
        identity: what the engine is valid for (`Backend.identity`).
        options: of the builder.
    """

    bundle: str
    backend: str
    precision: str
    identity: Mapping[str, str]
    options: BuilderOptions = field(default_factory=BuilderOptions)

    @property
    def label(self) -> str:
        """Backend and precision, the start of its folder's name."""
        return f"{self.backend}-{self.precision}"

    @property
    def folder(self) -> str:
        """The name of its folder."""
        values = {"identity": dict(self.identity), "options": asdict(self.options)}
        return f"{self.label}-{hashlib.sha256(canonical_json(values)).hexdigest()[:16]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What is known of an engine, and why it was found to be right.

    Attributes:
        key: which engine it is.
        engine: SHA-256 of its bytes.
        size: in bytes.
        numbers: what was measured on golden frames (see `finalise.judge`).
        latency_ms: p50, p90 and p99 of one frame set, side by side with the other candidates.
        build_s: seconds that the build took.
        floated: nodes that were taken out of INT8 because their block was wrong.
        created: ISO 8601, UTC.
    """

    key: Key
    engine: str
    size: int
    numbers: Mapping[str, float]
    latency_ms: Mapping[str, float]
    build_s: float
    floated: tuple[str, ...] = ()
    created: str

    def __post_init__(self) -> None:
        if not re.fullmatch("[0-9a-f]{64}", self.engine) or "p50" not in self.latency_ms:
            raise InputError("a receipt holds its engine's SHA-256 and its latency", hint=REBUILD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """What finalising a bundle ended with.

    Attributes:
        key: the engine that `auto` takes.
        reason: why, in words.
    """

    key: Key
    reason: str


@dataclass(frozen=True)
class Store:
    """A folder of engines.

    Attributes:
        root: its place; the user's own unless given.
    """

    root: Path = field(default_factory=lambda: state_home() / "fsmde-edge" / "engines")

    def put(self, receipt: Receipt, engine: bytes) -> None:
        """Keep an engine; the one that it replaces stays for `rollback`, and nothing older.

        Raises:
            OutputError: the disk refuses.
            DeviceError: somebody else may write to the store.
        """
        folder = self._make(receipt.key.bundle, receipt.key.folder)
        with _alone(folder):
            self._write(folder / _file(receipt.engine), engine)
            old = self._good(folder / RECEIPT)
            if old is not None and old != receipt:
                self._write(folder / PREVIOUS, _sealed(old))
            self._write(folder / RECEIPT, _sealed(receipt))
            self._prune(folder)

    def check_writable(self) -> None:
        """Find out, before long work, that engines can be kept.

        Raises:
            OutputError: the disk refuses.
            DeviceError: somebody else may write to the store.
        """
        check_writable(self._make() / CHOICE)

    def choose(self, chosen: Chosen) -> None:
        """Say which engine `auto` takes."""
        self._write(self._make(chosen.key.bundle) / CHOICE, _sealed(chosen))

    def chosen(self, bundle: str) -> Chosen | None:
        """What finalising this bundle ended with; None where it never was.

        Raises:
            InputError, DeviceError: the note is damaged, or not to be trusted.
        """
        path = self.root / bundle / CHOICE
        if not self._is_there(path):
            return None
        chosen: Chosen = self._unseal(Chosen, path)
        if chosen.key.bundle != bundle:
            raise InputError("was written for another bundle", where=path, hint=REBUILD)
        return chosen

    def receipt(self, key: Key) -> Receipt | None:
        """The receipt of an engine; None where there is none.

        Raises:
            InputError: it is damaged.
            DeviceError: it is not to be trusted, or was made for something else.
        """
        path = self.root / key.bundle / key.folder / RECEIPT
        if not self._is_there(path):
            return None
        receipt: Receipt = self._unseal(Receipt, path)
        self._refuse_moved(path, receipt, key)
        return receipt

    def engine(self, receipt: Receipt) -> bytes:
        """An engine's bytes, found to be what its receipt says.

        Raises:
            DeviceError: missing, changed, or not to be trusted.
        """
        path = self.root / receipt.key.bundle / receipt.key.folder / _file(receipt.engine)
        if not self._is_there(path):
            raise DeviceError("is missing from the engine store", where=path, hint=REBUILD)
        content = self._read(path)
        if hashlib.sha256(content).hexdigest() != receipt.engine:
            raise DeviceError("is not the engine that its receipt describes", where=path, hint=REBUILD)
        return content

    def receipts(self, bundle: str, backend: str) -> list[Receipt]:
        """Receipts of all that a backend built of a bundle, whatever it is valid for, newest first.

        Raises:
            InputError, DeviceError: a receipt is damaged, not to be trusted, or lies in another's place.
        """
        found = []
        for path in sorted((self.root / bundle).glob(f"{backend}-*/{RECEIPT}")):
            if self._is_there(path):
                receipt: Receipt = self._unseal(Receipt, path)
                self._refuse_moved(path, receipt)
                found.append(receipt)
        return sorted(found, key=lambda receipt: receipt.created, reverse=True)

    def rollback(self, key: Key) -> Receipt:
        """Put the engine before the present one in its place, and the present one in its.

        Raises:
            InputError: there is none.
        """
        folder = self.root / key.bundle / key.folder
        if not self._is_there(folder / PREVIOUS):
            raise InputError(
                f"there is no earlier {key.label} engine of this bundle to go back to", where=folder
            )
        with _alone(folder):
            previous, current = self._read(folder / PREVIOUS), self._read(folder / RECEIPT)
            restored: Receipt = self._unseal(Receipt, folder / PREVIOUS)
            self._refuse_moved(folder / PREVIOUS, restored, key)
            self.engine(restored)
            self._write(folder / RECEIPT, previous)
            self._write(folder / PREVIOUS, current)
            return restored

    def cache(self, name: str) -> bytes | None:
        """A builder's cache (of timings), as `keep_cache` left it; None where there is none."""
        path = self.root / "caches" / name
        return self._read(path) if self._is_there(path) else None

    def keep_cache(self, name: str, content: bytes) -> None:
        """Keep a builder's cache."""
        self._write(self._make("caches") / name, content)

    def _make(self, *names: str) -> Path:
        """A folder below the root, and all above it up to the root, mode 0700."""
        make_folder(self.root.parent)
        folder = self.root
        for name in ("", *names):
            folder = folder / name
            with writing(folder), suppress(FileExistsError):  # whatever lies there is looked at below
                folder.mkdir(mode=0o700)
            _refuse_others(folder, os.lstat(folder), kind=stat.S_ISDIR)
        return folder

    def _refuse_moved(self, path: Path, receipt: Receipt, key: Key | None = None) -> None:
        """Refuse a receipt that lies where another engine's belongs: it was brought here by hand."""
        if path.parent.name == receipt.key.folder and path.parent.parent.name == receipt.key.bundle:
            return
        changed = differences(receipt.key.identity, key.identity) if key is not None else []
        why = "; ".join(changed) or "its receipt is for another one"
        raise DeviceError(
            f"the engine was built elsewhere ({why}) and is not used",
            where=path,
            hint=REBUILD,
        )

    def _is_there(self, path: Path) -> bool:
        """Whether something lies there; the folders on the way to it are found to be the user's own."""
        folder = self.root
        for name in ("", *path.relative_to(self.root).parts[:-1]):
            folder = folder / name
            if not os.path.lexists(folder):
                return False
            _refuse_others(folder, os.lstat(folder), kind=stat.S_ISDIR)
        return os.path.lexists(path)

    def _read(self, path: Path) -> bytes:
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise DeviceError(
                f"cannot be trusted or read ({os.strerror(error.errno or 0)})", where=path, hint=REBUILD
            ) from error
        try:
            _refuse_others(
                path, os.fstat(handle), kind=stat.S_ISREG
            )  # `open` itself refuses a folder, unnamed
            with open(handle, "rb", closefd=False) as file:
                return file.read()
        finally:
            os.close(handle)

    def _write(self, path: Path, content: bytes) -> None:
        with atomic_file(path) as temporary:
            temporary.touch(mode=0o600)
            temporary.write_bytes(content)

    def _unseal(self, kind: type[Any], path: Path) -> Any:
        try:
            values = dict(json.loads(self._read(path)))
            if values.pop("sha256", None) != hashlib.sha256(canonical_json(values)).hexdigest():
                raise InputError("its content is not what was written")
            return from_mapping(kind, values, where=None)
        except DeviceError:
            raise
        except (FsmdeError, ValueError, TypeError, RecursionError) as error:
            raise InputError("is damaged: it is not what finalise wrote", where=path, hint=REBUILD) from error

    def _good(self, path: Path) -> Receipt | None:
        """A receipt that can be read and whose engine is whole; None for all others."""
        if not os.path.lexists(path):
            return None
        try:
            receipt: Receipt = self._unseal(Receipt, path)
            self.engine(receipt)
        except FsmdeError:  # it is about to be replaced
            return None
        return receipt

    def _prune(self, folder: Path) -> None:
        """Remove engines that no receipt describes any more."""
        notes = [self._good(folder / name) for name in (RECEIPT, PREVIOUS)]
        kept = {_file(note.engine) for note in notes if note is not None}
        for path in folder.glob("*.engine"):
            if path.name not in kept:
                path.unlink(missing_ok=True)


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Which parts of an identity changed, as `tensorrt 10.3.0 -> 10.16.0`; empty where none did."""
    names = sorted(before.keys() | now.keys())
    pairs = [(name, before.get(name, "none"), now.get(name, "none")) for name in names]
    return [f"{name} {old} -> {new}" for name, old, new in pairs if old != new]


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """While the block runs, no other process changes this folder: it might prune what is being written."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # file systems without locks: the writes are whole all the same
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _file(engine: str) -> str:
    return f"{engine[:16]}.engine"


def _sealed(note: Receipt | Chosen) -> bytes:
    values = json.loads(canonical_json(asdict(note)))
    values["sha256"] = hashlib.sha256(canonical_json(values)).hexdigest()
    return json.dumps(values, indent=1, sort_keys=True).encode() + b"\n"


def _refuse_others(path: Path, found: os.stat_result, *, kind: Any) -> None:
    """Refuse what is a link or of another kind, belongs to somebody else, or may be written by others."""
    if not kind(found.st_mode):
        what = "a link" if stat.S_ISLNK(found.st_mode) else "something else than the store makes"
        raise DeviceError(f"cannot be trusted: it is {what}", where=path, hint="remove it")
    if found.st_uid != os.geteuid():
        raise DeviceError(
            f"cannot be trusted: it belongs to user {found.st_uid}, not to you ({os.geteuid()})",
            where=path,
            hint="remove it, or set XDG_STATE_HOME to a folder of your own",
        )
    loose = 0o077 if stat.S_ISDIR(found.st_mode) else 0o022
    if found.st_mode & loose:
        mode = "0700" if stat.S_ISDIR(found.st_mode) else "0600"
        raise DeviceError(
            f"cannot be trusted: others may use it (mode {stat.S_IMODE(found.st_mode):04o})",
            where=path,
            hint=f"find out who changed it, then: chmod {mode} {path}",
        )
