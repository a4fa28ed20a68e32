"""The product on disk: an immutable folder of models, plan, ranges and golden frames, sealed by hashes.

bundle/
  manifest.json        what it is; SHA-256 of every other file and of itself
  model.fp32.onnx      and, as --precision asked: model.fp16.onnx, model.int8.onnx, model.int8-fp16.onnx
  plan.json            what is INT8, what is float, and why
  ranges.json          what calibration saw
  golden/              frames with the depth that a right engine must give, and how far off it may be
  reports/             pages and pictures for people: not hashed
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.errors import BundleError, FsmdeError, InputError
from fsmde_edge.files import atomic_folder, atomic_write
from fsmde_edge.recipes import from_mapping
from fsmde_edge.rig import VirtualPinhole

SCHEMA = 1
MANIFEST = "manifest.json"
REPORTS = "reports"
DepthKind = Literal["metric", "relative", "disparity"]
PRECISIONS = ("fp32", "fp16", "int8", "int8-fp16")
ASKED: Mapping[str, tuple[str, ...]] = {
    "fp32": ("fp32",),
    "fp16": ("fp32", "fp16"),
    "int8": ("fp32", "int8", "int8-fp16"),
}
"""Which models `build --precision` makes."""

SIZES = (8, 4096)
"""Least and most pixels of a side of the network."""

BOUNDS = "golden/bounds.json"
"""How far right INT8 engines may be from golden depth (`compiler.bounds`); where there is INT8."""

GOLDEN = ("inputs.npz", "depth.npz", "preprocess.npz", "preprocess.json")
VERDICTS = ("passed", "failed", "inconclusive")
_GATE_NUMBERS = ("deviation", "p99", "worst_tile", "farther")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a bundle is; everything but `created` follows from what it was built from.

    Attributes:
        created: ISO 8601, UTC: the only time in here.
        version: of fsmde-edge.
        precision: what was asked for: fp32, fp16 or int8.
        models: precision to file name; None where that model was not asked for.
        views: the virtual pinholes, in ring order; their size is the network's.
        kind: what depth is: `metric` (metres), `relative` (grows with distance) or `disparity` (falls).
        focal: f0 of the model contract; None where depth does not scale with focal length.
        target: name of the target profile.
        source: what it was made from (checkpoint or ONNX file with hash, student, how it was trained).
        calibration: recipe with hash, views per camera, what was allowed; empty below INT8.
        gate: verdict, numbers and budget; empty below INT8.
        tools: versions of what built it, and the thread count.
        notices: licences and other things that travel with it.
    """

    created: str
    version: str
    precision: str
    models: Mapping[str, str | None]
    views: tuple[VirtualPinhole, ...]
    kind: DepthKind
    focal: float | None
    target: str
    source: Mapping[str, Any]
    calibration: Mapping[str, Any] = field(default_factory=dict)
    gate: Mapping[str, Any] = field(default_factory=dict)
    tools: Mapping[str, Any] = field(default_factory=dict)
    notices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        asked = ASKED.get(self.precision)
        if asked is None:
            raise InputError(f"'precision' must be one of {', '.join(ASKED)}, not {self.precision!r}")
        if {name for name, file in self.models.items() if file is not None} != set(asked):
            raise InputError(f"a bundle of precision {self.precision} has the models {', '.join(asked)}")
        if self.focal is not None and not _is_positive(self.focal):
            raise InputError("'focal' must be positive")
        _check_views(self.views)
        if self.gate:
            _check_gate(self.gate)

    @property
    def metric(self) -> bool:
        """Whether depth is in metres."""
        return self.kind == "metric"

    @property
    def cameras(self) -> tuple[str, ...]:
        """The views' names, in ring order."""
        return tuple(view.name for view in self.views)

    @property
    def size(self) -> tuple[int, int]:
        """Network height and width in pixels."""
        return self.views[0].height, self.views[0].width


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """An opened bundle: every file was found to be what the manifest says.

    Attributes:
        root: its folder.
        manifest: what it is.
        hash: its identity, the manifest's `self_sha256`.
        files: relative path to SHA-256, of every immutable file.
    """

    root: Path
    manifest: Manifest
    hash: str
    files: Mapping[str, str]

    def model(self, precision: str) -> Path:
        """The model file of a precision.

        Raises:
            BundleError: the bundle was built without it.
        """
        name = self.manifest.models.get(precision)
        if name is None:
            have = ", ".join(p for p, file in self.manifest.models.items() if file)
            raise BundleError(
                f"has no {precision} model (it has {have})",
                where=self.root,
                hint=f"build it again with --precision {precision.partition('-')[0]}"
                if precision in PRECISIONS
                else "choose one of these",
            )
        return self.root / name

    def golden(self) -> Golden:
        """The golden frames.

        Raises:
            BundleError: its files hold something else.
        """
        golden = Golden.load(self.root / "golden")
        if golden.images.shape[:3] != (len(self.manifest.views), *self.manifest.size):
            raise _damaged(self.root / "golden" / GOLDEN[0], "its pictures are not of the network's size")
        judged = ("fp32", "int8") if self.manifest.precision == "int8" else ("fp32",)
        absent = [name for name in judged if name not in golden.depth]
        if absent:
            raise _damaged(self.root / "golden" / GOLDEN[1], f"it holds no depth of {absent[0]}")
        return golden

    @property
    def verdict(self) -> str:
        """The gate's verdict; `missing` where there is none."""
        return str(self.manifest.gate.get("verdict", "missing"))

    @property
    def int8_accepted(self) -> bool:
        """Whether INT8 may run: the gate passed, or could not decide and whoever built it accepted that."""
        return self.gate_passed or (self.verdict == "inconclusive" and bool(self.manifest.gate["allow_few"]))

    @property
    def gate_passed(self) -> bool:
        """Whether the gate passed; a bundle without INT8 has none to pass."""
        return self.manifest.precision != "int8" or self.verdict == "passed"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Golden:
    """One frame set with the depth that the bundle's models give, and golden vectors of preprocessing.

    Attributes:
        images: uint8 [V, H, W, 3], network input.
        focal: float32 [V].
        depth: precision (`fp32`, `int8`) to float32 [V, H, W], in exact arithmetic.
        pictures, prepared: uint8 [h, w, 3] raw pictures and what preprocessing makes of them.
        cameras: the cameras of `pictures`, as plain values (see `golden.make_golden`).
    """

    images: NDArray[np.uint8]
    focal: NDArray[np.float32]
    depth: Mapping[str, NDArray[np.float32]]
    pictures: tuple[NDArray[np.uint8], ...] = ()
    prepared: tuple[NDArray[np.uint8], ...] = ()
    cameras: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        pictures = (*self.pictures, *self.prepared)
        if self.images.ndim != 4 or any(p.ndim != 3 or p.dtype != np.uint8 for p in pictures):
            raise InputError("golden frames are uint8 [V, H, W, 3], golden pictures uint8 [h, w, 3]")
        if self.images.dtype != np.uint8 or self.focal.shape != self.images.shape[:1]:
            raise InputError("golden frames are uint8, with one focal length a view")
        floats = (self.focal, *self.depth.values())
        shapes = {value.shape for value in self.depth.values()} | {self.images.shape[:3]}
        if any(value.dtype != np.float32 for value in floats) or len(shapes) != 1:
            raise InputError("golden focal lengths and depths are float32, depths [V, H, W]")
        if not (np.isfinite(self.focal) & (self.focal > 0)).all():
            raise InputError("golden focal lengths must be positive")
        if not len(self.pictures) == len(self.prepared) == len(self.cameras):
            raise InputError("golden pictures need a result and a camera each")

    def save(self, folder: Path) -> None:
        """Write inputs.npz, depth.npz, preprocess.npz and preprocess.json."""
        _save_npz(folder / "inputs.npz", {"images": self.images, "focal": self.focal})
        _save_npz(folder / "depth.npz", dict(self.depth))
        vectors = {f"picture{i}": value for i, value in enumerate(self.pictures)}
        vectors |= {f"prepared{i}": value for i, value in enumerate(self.prepared)}
        _save_npz(folder / "preprocess.npz", vectors)
        atomic_write(folder / "preprocess.json", canonical_json([dict(c) for c in self.cameras]))

    @classmethod
    def load(cls, folder: Path) -> Golden:
        """Read what `save` wrote.

        Raises:
            BundleError: the files hold something else.
        """
        inputs, depth, vectors = (_load_npz(folder / name) for name in GOLDEN[:3])
        cameras = read_json(folder / GOLDEN[3])
        count = len(vectors) // 2
        with reading(folder):
            return cls(
                images=inputs["images"],
                focal=inputs["focal"],
                depth=depth,
                pictures=tuple(vectors[f"picture{i}"] for i in range(count)),
                prepared=tuple(vectors[f"prepared{i}"] for i in range(count)),
                cameras=tuple(dict(camera) for camera in cameras),
            )


@contextmanager
def new_bundle(out: Path, *, force: bool) -> Iterator[Path]:
    """A folder to fill; when the block ends well and `seal` was called, it becomes the bundle.

    Args:
        out: where the bundle shall be.
        force: swap an existing bundle whole; anything that is not a bundle is never replaced.
    """
    with atomic_folder(out, force=force, replaceable=lambda path: (path / MANIFEST).is_file()) as folder:
        yield folder
        if not (folder / MANIFEST).is_file():
            raise AssertionError("a bundle was filled but not sealed")


def seal(folder: Path, manifest: Manifest) -> str:
    """Hash every file and write the manifest; returns the bundle's hash."""
    files = {
        path.relative_to(folder).as_posix(): sha256_of(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).parts[0] != REPORTS
    }
    values = {"schema": SCHEMA, **asdict(manifest), "files": files}
    values["self_sha256"] = hashlib.sha256(canonical_json(values)).hexdigest()
    atomic_write(folder / MANIFEST, json.dumps(values, indent=1, sort_keys=True).encode() + b"\n")
    return str(values["self_sha256"])


def open_bundle(root: Path) -> Bundle:
    """Open a bundle and verify every file.

    Raises:
        BundleError: missing, damaged (the first bad file is named), or of a newer schema.
    """
    values = _read_manifest(root)
    with reading(root / MANIFEST):
        stated = values.pop("self_sha256", None)
        if stated != hashlib.sha256(canonical_json(values)).hexdigest():
            raise InputError("it is not what was sealed")
        files = dict(values.pop("files"))
        for name, digest in files.items():
            _verify(root, name, digest)
        del values["schema"]
        manifest = from_mapping(Manifest, values, where=None)
        absent = _required(manifest) - set(files)
        if absent:
            raise InputError(f"it does not list {', '.join(sorted(absent))}")
        return Bundle(root=root, manifest=manifest, hash=str(stated), files=files)


def _verify(root: Path, name: str, digest: object) -> None:
    path = root / name
    if not path.resolve().is_relative_to(root.resolve()) or not path.is_file():
        raise BundleError("is missing from the bundle", where=path, hint="copy or build the bundle again")
    if sha256_of(path) != digest:
        raise _damaged(path, "it is not the file that was sealed into the bundle")


def _required(manifest: Manifest) -> set[str]:
    """The files that a bundle of this kind cannot be without."""
    models = {name for name in manifest.models.values() if name is not None}
    decisions = {"plan.json", "ranges.json", BOUNDS} if manifest.precision == "int8" else set[str]()
    return models | decisions | {f"golden/{name}" for name in GOLDEN}


def _check_views(views: tuple[VirtualPinhole, ...]) -> None:
    if len({(view.height, view.width) for view in views}) != 1:
        raise InputError("a bundle needs views, all of one size")
    if len({view.name for view in views}) != len(views):
        raise InputError("a bundle's views need different names")
    low, high = SIZES
    for view in views:
        near, far = view.fx_range
        other = (view.cx, view.cy, view.yaw_deg, view.pitch_deg, view.height_m)
        if not (low <= view.height <= high and low <= view.width <= high):
            raise InputError(f"a network of {view.height}x{view.width}; {low} to {high} pixels a side")
        if not (all(map(_is_positive, (view.fx, view.fy, near, far))) and near <= far):
            raise InputError(f"the focal lengths of view {view.name} must be positive")
        if not all(map(math.isfinite, other)):
            raise InputError(f"the numbers of view {view.name} must be finite")


def _check_gate(gate: Mapping[str, Any]) -> None:
    """What `evaluation.gate.GateResult` always says is there and of its type."""
    budget, change = gate.get("budget"), gate.get("abs_rel_change", "missing")
    numbers = [gate.get(name) for name in _GATE_NUMBERS] + ([] if change is None else [change])
    if gate.get("verdict") not in VERDICTS or not isinstance(gate.get("allow_few"), bool):
        raise InputError(f"the gate's verdict is one of {', '.join(VERDICTS)}, 'allow_few' true or false")
    if not isinstance(budget, Mapping) or not all(map(_is_number, (*numbers, *budget.values()))):
        raise InputError("the gate's numbers and its budget must be finite numbers")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_positive(value: float) -> bool:
    return math.isfinite(value) and value > 0


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Translate whatever goes wrong with the content of a bundle's file into `BundleError`.

    Args:
        path: the file (or folder) named in the message.
    """
    try:
        yield
    except BundleError:
        raise
    except FsmdeError as error:
        raise _damaged(path, error.what) from error
    except OSError as error:
        raise BundleError(f"cannot be read ({error.strerror})", where=path, hint="check the file") from error
    except Exception as error:  # NumPy, zipfile, json and zlib raise a dozen classes of their own
        raise _damaged(path, "it does not hold what its name says") from error


def read_json(path: Path) -> Any:
    """What a JSON file of a bundle holds.

    Raises:
        BundleError: it is missing, or no JSON.
    """
    with reading(path):
        return json.loads(path.read_text(encoding="utf-8"))


def canonical_json(values: Any) -> bytes:
    """JSON with sorted keys and no spare white space: equal values, equal bytes."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _read_manifest(root: Path) -> dict[str, Any]:
    path = root / MANIFEST
    if not root.is_dir() or not path.is_file():
        raise BundleError(
            "is not a bundle (it holds no manifest.json)" if root.exists() else "no such bundle",
            where=root,
            hint="give a bundle's folder, or make one with: fsmde-edge build",
        )
    values = read_json(path)
    with reading(path):
        schema = values["schema"]
        if type(schema) is not int or schema < 1:
            raise InputError("its schema is no number from 1")
    if schema > SCHEMA:
        raise BundleError(
            f"was built by a newer fsmde-edge (manifest schema {schema}, this one reads {SCHEMA})",
            where=root,
            hint="update with: pip install -U fsmde-edge",
        )
    return dict(values)


def _damaged(path: Path, why: str) -> BundleError:
    return BundleError(f"is damaged: {why}", where=path, hint="copy or build the bundle again")


def _save_npz(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    import io

    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    atomic_write(path, buffer.getvalue())


def _load_npz(path: Path) -> dict[str, NDArray[Any]]:
    with reading(path), np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}
