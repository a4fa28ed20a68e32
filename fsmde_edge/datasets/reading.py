"""Careful reading of other people's files: every way in which one can be broken is one clear line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.errors import InputError

_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_PNG_END = b"IEND\xaeB`\x82"
_GAP = re.compile(r"[\s,]*")
_CHUNK = 1 << 22


@contextmanager
def parsing(where: Path) -> Iterator[None]:
    """Translate what a wrongly laid out file causes into one `InputError` that names the file."""
    try:
        with np.errstate(all="ignore"):  # what is not a number is refused, not warned of
            yield
    except InputError as error:
        error.where = error.where or str(where)
        raise
    except KeyError as error:
        raise InputError(f"misses the key {error}", where=where) from error
    except (TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise InputError(f"is not laid out as expected ({error})", where=where) from error


def contained(folder: Path, relative: str, *, named_in: Path) -> Path:
    """The path of a file that another file names, after making sure that it lies in `folder`.

    Errors:
        InputError: absolute, leading out with "..", or a symbolic link to the outside.
    """
    step_out = InputError(
        f"names a file outside its folder: {relative!r}",
        where=named_in,
        hint="use only data sets from a source that you trust",
    )
    if not isinstance(relative, str) or not relative or "\0" in relative or not _is_text(relative):
        raise InputError(f"names no file where one is expected: {relative!r}", where=named_in)
    pure = PurePosixPath(relative)
    if pure.is_absolute() or ".." in pure.parts:
        raise step_out
    path = folder / pure
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError) as error:  # a loop of links
        raise InputError(f"cannot be resolved ({error})", where=path) from error
    if not inside:
        raise step_out
    return path


def _is_text(name: str) -> bool:
    """Whether UTF-8 can write it: JSON can spell half of a surrogate pair, which no file is called."""
    return name == name.encode(errors="replace").decode()


def read_bytes(path: Path, what: str) -> bytes:
    """A file's content.

    Errors:
        InputError: missing, unreadable or empty.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(
            f"the {what} is missing", where=path, hint="check that the copy is complete"
        ) from error
    except OSError as error:
        raise InputError(f"the {what} cannot be read ({error.strerror or error})", where=path) from error
    if not data:
        raise InputError(f"the {what} is empty", where=path, hint="copy it again")
    return data


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Errors:
        InputError: missing, broken, or not an object.
    """
    try:
        content = json.loads(read_bytes(path, "JSON file").decode())
    except (ValueError, RecursionError) as error:
        raise InputError(f"is not valid JSON ({error})", where=path, hint="copy it again") from error
    if not isinstance(content, dict):
        raise InputError("is not a JSON object", where=path)
    return content


def json_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON array, one at a time: tables of gigabytes are never held whole.

    Errors:
        InputError: missing, broken, or not an array of objects.
    """
    try:
        with path.open(encoding="utf-8") as file:
            for row in _array_items(file):
                if not isinstance(row, dict):
                    raise InputError("is not an array of JSON objects", where=path)
                yield row
    except FileNotFoundError as error:
        raise InputError(
            "the table is missing", where=path, hint="check that the copy is complete"
        ) from error
    except OSError as error:
        raise InputError(f"the table cannot be read ({error.strerror or error})", where=path) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"is not a valid JSON table ({error})", where=path, hint="copy it again") from error


def _array_items(file: TextIO) -> Iterator[Any]:
    """The items of a JSON array of objects; one that the end of a chunk cuts is decoded again."""
    decoder = json.JSONDecoder()
    text = file.read(_CHUNK).lstrip()
    if not text.startswith("["):
        raise ValueError("it does not start with '['")
    at = 1
    while True:
        at = _match_end(_GAP, text, at)
        if at < len(text) and text[at] == "]":
            return
        try:
            item, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError:
            more = file.read(_CHUNK)
            if not more:
                raise
            text, at = text[at:] + more, 0
        else:
            yield item


def _match_end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return found.end() if found else at


def read_image(path: Path) -> NDArray[np.uint8]:
    """A picture as uint8 [H, W, 3], RGB, as it is stored (an orientation tag is not applied).

    Errors:
        InputError: missing, truncated (a decoder would fill the rest with grey) or not a picture.
    """
    import cv2

    pixels = _decode(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def read_mask(path: Path) -> NDArray[np.bool_]:
    """An ego mask as bool [H, W]: True (255 in the file) where the world is seen, False on the own car."""
    import cv2

    return np.asarray(_decode(path, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION) > 127)


def _decode(path: Path, flags: int) -> NDArray[np.uint8]:
    import cv2

    data = read_bytes(path, "picture")
    if _is_truncated(data):
        raise InputError("the picture is truncated: its end is missing", where=path, hint="copy it again")
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise InputError("the picture cannot be decoded", where=path, hint="copy it again") from error
    if pixels is None:
        raise InputError("is not a picture that can be decoded", where=path, hint="use JPEG or PNG")
    return np.asarray(pixels, dtype=np.uint8)


def _is_truncated(data: bytes) -> bool:
    if data.startswith(b"\xff\xd8"):
        return not _jpeg_ends(data)
    return data.startswith(b"\x89PNG") and _PNG_END not in data


def _jpeg_ends(data: bytes) -> bool:
    """Whether a JPEG's segments lead to an end-of-image marker (ITU-T T.81, annex B)."""
    at = 2
    while True:
        found = _JPEG_MARKER.search(data, at)
        if found is None:
            return False
        marker, at = data[found.start() + 1], found.end()
        if marker == 0xD9:
            return True
        if marker != 0x01:  # all others here carry their length
            at += int.from_bytes(data[at : at + 2], "big")


def read_cloud_npz(path: Path, columns: Sequence[int] = (0, 1, 2)) -> NDArray[np.float64]:
    """The points of a DGP cloud (`data` in an .npz) as float64 [N, 3] in the sensor's frame, metres.

    Errors:
        InputError: missing, damaged, holding pickled objects (never loaded), or with values that are
            not finite.
    """
    if not path.is_file():
        raise InputError("the point cloud is missing", where=path, hint="check that the copy is complete")
    try:
        with np.load(path, allow_pickle=False) as archive:
            points = archive["data"]
    except KeyError as error:
        raise InputError("the point cloud has no array 'data'", where=path) from error
    except ValueError as error:
        reason = "it holds pickled objects" if "pickle" in str(error) else str(error)
        raise InputError(f"the point cloud cannot be read ({reason})", where=path) from error
    except Exception as error:  # a damaged archive fails in a dozen ways, down to its decompressor
        raise InputError(f"the point cloud is damaged ({error})", where=path, hint="copy it again") from error
    return _checked_points(points, columns, path)


def read_cloud_bin(path: Path, features: int = 5) -> NDArray[np.float64]:
    """The points of a nuScenes sweep (raw float32 rows: x y z intensity ring) as float64 [N, 3].

    Errors:
        InputError: missing, truncated, or with values that are not finite.
    """
    data = read_bytes(path, "point cloud")
    if features < 3 or len(data) % (4 * features):
        raise InputError(
            f"the point cloud is truncated: {len(data)} bytes are no whole number of points of "
            f"{features} float32 values",
            where=path,
            hint="copy it again",
        )
    return _checked_points(np.frombuffer(data, "<f4").reshape(-1, features), (0, 1, 2), path)


def _checked_points(points: Any, columns: Sequence[int], path: Path) -> NDArray[np.float64]:
    if points.ndim != 2 or points.shape[1] <= max(columns) or points.dtype.kind != "f":
        raise InputError(
            f"the point cloud has shape {points.shape} and dtype {points.dtype}, expected rows of "
            "x, y, z, … as floating-point numbers",
            where=path,
        )
    xyz = np.asarray(points[:, list(columns)], dtype=np.float64)
    broken = int((~np.isfinite(xyz).all(axis=1)).sum())
    if broken:
        raise InputError(
            f"{broken} of {len(xyz)} points of the cloud are not finite (NaN or infinite)",
            where=path,
            hint="repair or leave out this sample",
        )
    return xyz


def choose(
    wanted: Sequence[str] | None, there: Mapping[str, tuple[str, ...]], *, where: Path
) -> tuple[str, ...]:
    """The scenes that are asked for, in the data set's order.

    Args:
        wanted: names or aliases of scenes; None for all.
        there: each scene's key and the names that it answers to.

    Errors:
        InputError: an unknown name, or no scene at all.
    """
    if not there:
        raise InputError("holds no scenes", where=where)
    if wanted is None:
        return tuple(there)
    if isinstance(wanted, str):
        wanted = (wanted,)
    known = {alias for aliases in there.values() for alias in aliases}
    for name in wanted:
        if name not in known:
            names = [aliases[0] for aliases in there.values()]
            more = f" and {len(names) - 12} more" if len(names) > 12 else ""
            raise InputError(
                f"has no scene {name!r}", where=where, hint=f"choose from {', '.join(names[:12])}{more}"
            )
    chosen = tuple(key for key, aliases in there.items() if set(aliases) & set(wanted))
    if not chosen:
        raise InputError("the selection holds no scene", where=where, hint="name at least one scene")
    return chosen
