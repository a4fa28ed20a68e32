"""Careful reading of YAML that other programs wrote."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.datasets.reading import read_bytes
from fsmde_edge.errors import InputError


def read_yaml(path: Path, what: str) -> dict[str, Any]:
    """A YAML mapping.

    Errors:
        InputError: missing, not YAML, or not a mapping.
    """
    import yaml

    text = read_bytes(path, what).decode("utf-8", "replace")
    if text.startswith("%YAML:"):  # OpenCV's header, which YAML itself does not know
        text = text.partition("\n")[2]
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"is not valid YAML ({error})", where=path) from error
    if not isinstance(content, dict) or not content:
        raise InputError(f"is no {what}: expected keys and values", where=path)
    return {str(key): value for key, value in content.items()}


def need(values: Mapping[str, Any], key: str, what: str) -> Any:
    """A value that must be there."""
    if not isinstance(values, Mapping) or key not in values:
        raise InputError(f"{what} misses the key {key!r}")
    return values[key]


def numbers(value: Any, count: int | None, what: str) -> NDArray[np.float64]:
    """A list of finite numbers, of one length if it is given."""
    try:
        found = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        found = np.array([np.nan])
    if found.ndim != 1 or not np.isfinite(found).all() or (count is not None and len(found) != count):
        raise InputError(f"{what} is not {'a list of' if count is None else count} finite numbers")
    return found


def rigid(value: Any, what: str) -> NDArray[np.float64]:
    """A pose, 4 by 4.

    Errors:
        InputError: another shape, or its rotation is none (off by more than 0.001).
    """
    try:
        matrix = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        matrix = np.zeros(0)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise InputError(f"{what} is not a finite 4x4 matrix")
    rotation = matrix[:3, :3]
    off = float(np.abs(rotation @ rotation.T - np.eye(3)).max())
    if off > 1e-3 or np.linalg.det(rotation) < 0 or not np.allclose(matrix[3], (0, 0, 0, 1)):
        raise InputError(
            f"{what} is not a rotation and a translation (its rotation is {off:.2g} from orthonormal)",
            hint="calibrate again, or write it with more digits",
        )
    return matrix
