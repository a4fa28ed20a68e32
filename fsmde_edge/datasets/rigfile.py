"""A rig as a YAML file: what a user writes for cameras of their own.

    version: 1
    cameras:
      - name: front
        width: 1920
        height: 1080
        fx: 1100.0
        fy: 1100.0
        cx: 960.0
        cy: 540.0
        distortion: {model: brown-conrady, coefficients: [-0.3, 0.1, 0.0, 0.0, 0.0]}
        camera_to_vehicle: [[0, 0, 1, 1.5], [-1, 0, 0, 0], [0, -1, 0, 1.6], [0, 0, 0, 1]]
        ego_mask: front_mask.png
        device: /dev/v4l/by-path/platform-tegra-capture-vi-video-index0
        offset_ms: -3.5

`distortion` (none, brown-conrady, fisheye; coefficients in OpenCV's order), `skew`, `ego_mask` (a PNG
beside the file, 255 = world, 0 = own vehicle), `device` (which camera of this machine it is) and `offset_ms`
(what is added to its stamps to agree with the others) may be left out. Lengths in pixels and metres.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.datasets.reading import contained, parsing, read_bytes, read_mask
from fsmde_edge.errors import InputError
from fsmde_edge.files import atomic_write
from fsmde_edge.rig import BrownConrady, Camera, Distortion, Fisheye, NoDistortion, Rig

VERSION = 1
_BROWN_CONRADY = ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")
_FISHEYE = ("k1", "k2", "k3", "k4")
_NUMBERS = ("fx", "fy", "cx", "cy")
_REQUIRED = {"name", "width", "height", *_NUMBERS, "camera_to_vehicle"}
_OPTIONAL = {"distortion", "skew", "ego_mask", "device", "offset_ms"}
_MOST_OFFSET = 10_000.0
"""Milliseconds."""


@dataclass(frozen=True, slots=True)
class Plugged:
    """How a rig's camera is plugged into this machine.

    Attributes:
        device: its node or a name of it; None where the file says none.
        offset_ms: what is added to its stamps to agree with those of the other cameras.
    """

    device: str | None
    offset_ms: float


def load_rig(path: Path) -> Rig:
    """Read a rig file.

    Errors:
        InputError: missing, not YAML, another version, an unknown or missing key, a value out of range.
    """
    content = _read(path)
    with parsing(path):
        return Rig.of(_camera(values, path) for values in content)


def load_plugged(path: Path) -> dict[str, Plugged]:
    """Read from a rig file which device each of its cameras is, by name.

    Errors:
        InputError: as for `load_rig`.
    """
    content = _read(path)
    with parsing(path):
        return {str(values["name"]): _plugged(values) for values in content}


def _plugged(values: Mapping[str, Any]) -> Plugged:
    device, offset = values.get("device"), float(values.get("offset_ms", 0.0))
    if not abs(offset) <= _MOST_OFFSET:
        raise InputError(f"camera {values['name']} has an offset of {offset:g} ms")
    return Plugged(None if device is None else str(device), offset)


def _read(path: Path) -> list[Any]:
    """A rig file's cameras, unchecked."""
    import yaml

    try:
        content = yaml.safe_load(read_bytes(path, "rig file"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"is not valid YAML ({error})", where=path) from error
    with parsing(path):
        _only(content, {"version", "cameras"}, set(), "rig")
        if content["version"] != VERSION:
            raise InputError(
                f"has version {content['version']!r}, this program reads version {VERSION}", where=path
            )
        return list(content["cameras"])


def save_rig(path: Path, rig: Rig, plugged: Mapping[str, Plugged] | None = None) -> None:
    """Write a rig file, and each ego mask beside it as `<stem>_<camera>_mask.png`.

    Args:
        path: of the file.
        rig: the cameras.
        plugged: by name, how they are plugged into this machine (see `load_plugged`); the file says nothing
            of the others.

    Errors:
        OutputError: where the files cannot be written.
    """
    import yaml

    known = plugged or {}
    cameras = [_values(camera, path) | _plugging(known.get(camera.name)) for camera in rig.cameras]
    atomic_write(
        path, yaml.safe_dump({"version": VERSION, "cameras": cameras}, sort_keys=False).encode("utf-8")
    )


def _plugging(plugged: Plugged | None) -> dict[str, Any]:
    if plugged is None:
        return {}
    device = {} if plugged.device is None else {"device": plugged.device}
    return device | ({"offset_ms": plugged.offset_ms} if plugged.offset_ms else {})


def set_offsets(path: Path, offsets_ms: Mapping[str, float]) -> None:
    """Write `offset_ms` of cameras into a rig file that a person keeps: every other byte stays as it is.

    Args:
        path: of the file.
        offsets_ms: of cameras by name; those of others stay.

    Errors:
        InputError: as for `load_rig`; or the file is written in a way that cannot be edited in place.
        OutputError: it cannot be written.
    """
    _read(path)
    text = read_bytes(path, "rig file").decode("utf-8")
    numbers = {name: _milliseconds(ms) for name, ms in offsets_ms.items()}
    edited = _edited(text, numbers)
    if not _differs_only_in(numbers, text, edited):
        raise InputError(
            "cannot be edited in place",
            where=path,
            hint="write by hand: " + ", ".join(f"{name} offset_ms: {ms}" for name, ms in numbers.items()),
        )
    atomic_write(path, edited.encode("utf-8"))


def _milliseconds(value: float) -> str:
    """To the nanosecond; never with an exponent, which YAML takes for text."""
    text = f"{value:.6f}".rstrip("0")
    return f"{text}0" if text.endswith(".") else text


def _differs_only_in(numbers: Mapping[str, str], before: str, after: str) -> bool:
    import yaml

    wanted = yaml.safe_load(before)
    for camera in wanted["cameras"]:
        if camera["name"] in numbers:
            camera["offset_ms"] = float(numbers[camera["name"]])
    try:
        return bool(yaml.safe_load(after) == wanted)
    except yaml.YAMLError:
        return False


def _edited(text: str, numbers: Mapping[str, str]) -> str:
    """A rig file's text with other offsets: replaced where there is one, added after the name elsewhere."""
    import yaml

    edits = []
    tree = yaml.compose(text, Loader=yaml.SafeLoader)
    assert tree is not None  # it was read before
    for camera in next(value for key, value in tree.value if key.value == "cameras").value:
        nodes = {key.value: (key, value) for key, value in camera.value}
        key, name = nodes["name"]
        if name.value not in numbers:
            continue
        number = numbers[name.value]
        if "offset_ms" in nodes:
            old = nodes["offset_ms"][1]
            edits.append((old.start_mark.index, old.end_mark.index, number))
        elif camera.flow_style:
            edits.append((name.end_mark.index, name.end_mark.index, f", offset_ms: {number}"))
        else:
            end = text.find("\n", name.end_mark.index)
            end = len(text) if end < 0 else end
            edits.append((end, end, f"\n{' ' * key.start_mark.column}offset_ms: {number}"))
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def _only(values: Any, required: set[str], optional: set[str], what: str) -> None:
    if not isinstance(values, Mapping):
        raise InputError(f"the {what} is not a mapping of keys to values")
    unknown = sorted(str(key) for key in values.keys() - required - optional)
    missing = sorted(required - values.keys())
    if unknown:
        raise InputError(
            f"the {what} has unknown keys: {', '.join(unknown)}",
            hint=f"known are {', '.join(sorted(required | optional))}",
        )
    if missing:
        raise InputError(f"the {what} misses the keys {', '.join(missing)}")


def _camera(values: Any, path: Path) -> Camera:
    name = values.get("name", "?") if isinstance(values, Mapping) else "?"
    _only(values, _REQUIRED, _OPTIONAL, f"camera {name}")
    fx, fy, cx, cy = (float(values[key]) for key in _NUMBERS)
    mask = values.get("ego_mask")
    return Camera(
        name=str(name),
        width=int(values["width"]),
        height=int(values["height"]),
        intrinsics=np.array([[fx, float(values.get("skew", 0.0)), cx], [0, fy, cy], [0, 0, 1]]),
        camera_to_vehicle=np.array(values["camera_to_vehicle"], dtype=np.float64),
        distortion=_distortion(values.get("distortion", {"model": "none"}), str(name)),
        ego_mask=None if mask is None else read_mask(contained(path.parent, mask, named_in=path)),
    )


def _distortion(values: Any, camera: str) -> Distortion:
    _only(values, {"model"}, {"coefficients"}, f"distortion of camera {camera}")
    model, coefficients = values["model"], [float(c) for c in values.get("coefficients") or ()]
    names = {"none": (), "brown-conrady": _BROWN_CONRADY, "fisheye": _FISHEYE}.get(model)
    if names is None:
        raise InputError(
            f"camera {camera} has the unknown distortion model {model!r}",
            hint="choose from none, brown-conrady, fisheye",
        )
    if len(coefficients) > len(names) or not np.isfinite(coefficients).all():
        raise InputError(f"camera {camera} has {len(coefficients)} coefficients, {model} has {len(names)}")
    terms = dict(zip(names, coefficients, strict=False))
    if model == "none":
        return NoDistortion()
    return BrownConrady(**terms) if model == "brown-conrady" else Fisheye(**terms)


def _values(camera: Camera, path: Path) -> dict[str, Any]:
    k = camera.intrinsics
    values: dict[str, Any] = {
        "name": camera.name,
        "width": camera.width,
        "height": camera.height,
        "fx": float(k[0, 0]),
        "fy": float(k[1, 1]),
        "cx": float(k[0, 2]),
        "cy": float(k[1, 2]),
        "camera_to_vehicle": camera.camera_to_vehicle.tolist(),
    }
    if k[0, 1]:
        values["skew"] = float(k[0, 1])
    lens = camera.distortion
    if isinstance(lens, BrownConrady):
        values["distortion"] = _terms("brown-conrady", lens, _BROWN_CONRADY)
    elif isinstance(lens, Fisheye):
        values["distortion"] = _terms("fisheye", lens, _FISHEYE)
    if camera.ego_mask is not None:
        mask = path.with_name(f"{path.stem}_{camera.name}_mask.png")
        atomic_write(mask, _png(camera.ego_mask))
        values["ego_mask"] = mask.name
    return values


def _terms(model: str, lens: Distortion, names: tuple[str, ...]) -> dict[str, Any]:
    return {"model": model, "coefficients": [float(getattr(lens, name)) for name in names]}


def _png(mask: NDArray[np.bool_]) -> bytes:
    import cv2

    return bytes(cv2.imencode(".png", mask.astype(np.uint8) * 255)[1])
