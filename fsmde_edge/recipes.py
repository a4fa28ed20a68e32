"""YAML into frozen dataclasses, strictly: every key known, every type right, the file named in errors."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, Union

from fsmde_edge.errors import FsmdeError, InputError

T = TypeVar("T")

PACKAGE = Path(__file__).parent


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
    """A YAML file whose top is a mapping.

    Raises:
        InputError: missing, not YAML, or something else at the top.
    """
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=path) from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"is not valid YAML ({error})", where=path) from error
    if not isinstance(values, dict):
        raise InputError("must hold 'key: value' lines at the top", where=path)
    return values


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
        raise InputError(f"{inside.rstrip('.') or 'the top'} must hold 'key: value' lines", where=where)
    known = {entry.name: entry for entry in fields(kind)}  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise InputError(f"unknown key '{inside}{key}'", where=where, hint=f"known: {', '.join(known)}")
    for name, entry in known.items():
        if name not in values and entry.default is MISSING and entry.default_factory is MISSING:
            raise InputError(f"the key '{inside}{name}' is missing", where=where)
    hints = typing.get_type_hints(kind)
    arguments = {key: _convert(hints[key], value, where, f"{inside}{key}") for key, value in values.items()}
    try:
        return kind(**arguments)
    except FsmdeError as error:
        raise InputError(error.what, where=where, hint=error.hint) from error


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
            raise InputError(f"'{key}' must have {len(inner)} values", where=where)
        return tuple(
            _convert(k, v, where, f"{key}[{i}]") for i, (k, v) in enumerate(zip(inner, value, strict=True))
        )
    if origin is not None and isinstance(value, Mapping) and issubclass(origin, Mapping):
        return {str(k): _convert(parts[1], v, where, f"{key}.{k}") for k, v in value.items()}
    if origin is typing.Literal:
        if value in parts:
            return value
        raise InputError(f"'{key}' must be one of {', '.join(map(str, parts))}, not {value!r}", where=where)
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if kind is Any or (kind in (int, str, bool) and type(value) is kind):
        return value
    name = getattr(kind, "__name__", str(kind))
    raise InputError(f"'{key}' must be of type {name}, not {value!r}", where=where)
