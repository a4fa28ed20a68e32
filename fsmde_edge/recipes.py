"""YAML into frozen dataclasses, strictly: every key known, every type right, the file named in errors."""

from __future__ import annotations

import json
import reprlib
import sys
import types
import typing
from collections.abc import Hashable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, Union

from fsmde_edge.errors import FsmdeError, InputError

T = TypeVar("T")

PACKAGE = Path(__file__).parent

LONGEST_EDGE = 4096
"""Pixels; more than any camera that drives around today needs."""

_LARGEST_INT = 2**63 - 1
_WRITE: Mapping[Any, str] = {
    int: "write a whole number",
    float: "write a finite number",
    str: "write text",
    bool: "write true or false",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """Where something was read from.

    Attributes:
        name: the file's stem.
        sha256: of the file.
    """

    name: str
    sha256: str


def shipped(folder: str) -> Path:
    """Where a folder of shipped files (`calib`, `engines`) lies, in a checkout or an installed wheel."""
    installed = PACKAGE / "shipped" / folder
    return installed if installed.is_dir() else PACKAGE.parent / folder


def find_shipped(name: str, folder: str) -> Path:
    """The file that a user means by a path or by the bare name of a shipped file.

    Args:
        name: a path to a YAML file, or the name of a shipped one with or without its ending.
        folder: `calib` or `engines`.

    Raises:
        InputError: neither exists; the shipped names are listed.
    """
    path = Path(name)
    if path.is_file():
        return path
    home = shipped(folder)
    stem = name.removeprefix(f"{folder}/")
    for candidate in (home / stem, home / f"{stem}.yaml"):
        if candidate.is_file() and candidate.resolve().is_relative_to(home.resolve()):
            return candidate
    names = ", ".join(sorted(entry.stem for entry in home.glob("*.yaml")))
    raise InputError("no such file", where=name, hint=f"give a path, or one of the shipped names: {names}")


def read_yaml(path: Path) -> Mapping[str, Any]:
    """A YAML file whose top is a mapping; a key that stands twice is an error.

    Raises:
        InputError: missing, not YAML, or something else at the top.
    """
    import yaml

    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _strict_loader())  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=path, hint="check the path") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # also numbers and dates that are none
        raise InputError(
            f"is not valid YAML ({error})", where=path, hint="compare it with a shipped file"
        ) from error
    if not isinstance(values, dict):
        raise InputError(
            "must hold 'key: value' lines at the top", where=path, hint="compare it with a shipped file"
        )
    return values


def _strict_loader() -> Any:
    """A SafeLoader that refuses a key which stands twice in one mapping."""
    import yaml

    class StrictLoader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key '{key.value}' stands twice", key.start_mark
                    )
                seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
            return super().construct_mapping(node, deep)

    return StrictLoader


def from_json(kind: type[T], text: str, *, version: int, failing: str, where: object) -> T:
    """Build a dataclass that has a `version` from the JSON of a bundle's file.

    Args:
        kind: see `from_mapping`.
        text: JSON.
        version: the only one that this program reads.
        failing: how the message begins, as "is not a precision plan".
        where: the file, for messages.

    Raises:
        InputError: no JSON, another version, or as `from_mapping`.
    """
    try:
        raw = dict(json.loads(text))
        if raw.get("version") != version:
            raise InputError(
                f"of version {raw.get('version')}, this program reads {version}",
                hint="build the bundle again",
            )
        return from_mapping(kind, raw, where=None)
    except InputError as error:
        raise InputError(f"{failing} ({error.what})", where=where, hint=error.hint) from error
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{failing} ({error})", where=where) from error


def from_mapping(kind: type[T], values: Mapping[str, Any], *, where: object, inside: str = "") -> T:
    """Build a (nested) dataclass from plain values.

    Args:
        kind: a dataclass of str, int, float, bool, tuples, optionals, mappings, other such dataclasses;
            Any is taken as it is.
        values: from YAML or JSON.
        where: the file, for messages.
        inside: the key under which these values stand, for messages.

    Raises:
        InputError: a key that is unknown or missing, or a value of another type.
    """
    if not isinstance(values, Mapping):
        raise InputError(
            f"{inside.rstrip('.') or 'the top'} must hold 'key: value' lines, not {_short(values)}",
            where=where,
            hint=f"known keys: {', '.join(entry.name for entry in fields(kind))}",
        )
    known = {entry.name: entry for entry in fields(kind)}  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            shown = key if isinstance(key, str) else _short(key)
            raise InputError(f"unknown key '{inside}{shown}'", where=where, hint=f"known: {', '.join(known)}")
    for name, entry in known.items():
        if name not in values and entry.default is MISSING and entry.default_factory is MISSING:
            raise InputError(f"the key '{inside}{name}' is missing", where=where, hint="add it")
    hints = typing.get_type_hints(kind)
    arguments = {key: _convert(hints[key], value, where, f"{inside}{key}") for key, value in values.items()}
    try:
        return kind(**arguments)
    except FsmdeError as error:
        raise InputError(error.what, where=where, hint=error.hint) from error


def refuse_size(size: tuple[int, int]) -> None:
    """Refuse a picture size (height, width) that our networks cannot have.

    Raises:
        InputError: an edge that is no multiple of 32, or beyond 4096.
    """
    if any(edge % 32 or not 32 <= edge <= LONGEST_EDGE for edge in size):
        raise InputError(
            f"a picture size of {size[0]}x{size[1]} is not in multiples of 32, from 32 to {LONGEST_EDGE}",
            hint="write it as [height, width], as [384, 640]",
        )


def _convert(kind: Any, value: Any, where: object, key: str) -> Any:
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in parts:
            return None
        return _convert(next(p for p in parts if p is not type(None)), value, where, key)
    if is_dataclass(kind):
        return from_mapping(kind, value, where=where, inside=f"{key}.")  # type: ignore[arg-type]
    if origin is tuple and isinstance(value, (list, tuple)):
        inner = [parts[0]] * len(value) if parts[-1] is Ellipsis else list(parts)
        if len(inner) != len(value):
            raise InputError(
                f"'{key}' must have {len(inner)} values, not {len(value)}",
                where=where,
                hint="correct its list",
            )
        return tuple(
            _convert(k, v, where, f"{key}[{i}]") for i, (k, v) in enumerate(zip(inner, value, strict=True))
        )
    if origin is not None and isinstance(value, Mapping) and issubclass(origin, Mapping):
        return {str(k): _convert(parts[1], v, where, f"{key}.{k}") for k, v in value.items()}
    if origin is typing.Literal:
        if isinstance(value, Hashable) and value in parts:
            return value
        raise InputError(
            f"'{key}' must be one of {', '.join(map(str, parts))}, not {_short(value)}",
            where=where,
            hint="choose one of them",
        )
    if kind is float and type(value) in (int, float) and abs(value) <= sys.float_info.max:
        return float(value)
    if kind is Any or (type(value) is kind and (kind is bool or _fits(value))):
        return value
    name = getattr(kind, "__name__", str(kind))
    raise InputError(
        f"'{key}' must be of type {name}, not {_short(value)}",
        where=where,
        hint=_WRITE.get(kind, "write a list in brackets" if origin is tuple else "correct it"),
    )


def _fits(value: object) -> bool:
    """Whether a number is one of 64 bits, and a text one that UTF-8 can write."""
    if isinstance(value, int):
        return abs(value) <= _LARGEST_INT
    return isinstance(value, str) and value == value.encode(errors="replace").decode()


def _short(value: object) -> str:
    """A value in messages: other people's files may hold megabytes, or numbers too long to print."""
    try:
        return reprlib.repr(value)
    except ValueError:
        return f"a very long {type(value).__name__}"
