"""The product on disk: an immutable folder of models, plan, ranges and golden frames, sealed by hashes.

bundle/
  manifest.json        what it is; SHA-256 of every other file and of itself
  model.fp32.onnx      and, as --precision asked: model.fp16.onnx, model.int8.onnx, model.int8-fp16.onnx
  plan.json            what is INT8, what is float, and why
  ranges.json          what calibration saw
  golden/              frames with the depth that a right engine must give
  reports/             pages and pictures for people: not hashed
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.errors import BundleError, InputError
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
        if len({(view.height, view.width) for view in self.views}) != 1:
            raise InputError("a bundle needs views, all of one size")

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
                hint=f"build it again with --precision {precision.partition('-')[0]}",
            )
        return self.root / name

    def golden(self) -> Golden:
        """The golden frames."""
        return Golden.load(self.root / "golden")

    @property
    def gate_passed(self) -> bool:
        """Whether the gate passed; a bundle without INT8 has none to pass."""
        return not self.manifest.gate or self.manifest.gate.get("verdict") == "passed"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Golden:
    """One frame set with the depth that the bundle's models give, and golden vectors of preprocessing.

    Attributes:
        images: uint8 [V, H, W, 3], network input.
        focal: float32 [V].
        depth: precision (`fp32`, `int8`) to float32 [V, H, W], in exact arithmetic.
        pictures, prepared: uint8 [h, w, 3] raw pictures and what preprocessing makes of them.
        cameras: the cameras of `pictures`, as plain values (see `preprocess.golden_cameras`).
    """

    images: NDArray[np.uint8]
    focal: NDArray[np.float32]
    depth: Mapping[str, NDArray[np.float32]]
    pictures: tuple[NDArray[np.uint8], ...] = ()
    prepared: tuple[NDArray[np.uint8], ...] = ()
    cameras: tuple[Mapping[str, Any], ...] = ()

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
        """Read what `save` wrote."""
        inputs, depth = _load_npz(folder / "inputs.npz"), _load_npz(folder / "depth.npz")
        vectors = _load_npz(folder / "preprocess.npz")
        count = len(vectors) // 2
        return cls(
            images=inputs["images"],
            focal=inputs["focal"],
            depth=depth,
            pictures=tuple(vectors[f"picture{i}"] for i in range(count)),
            prepared=tuple(vectors[f"prepared{i}"] for i in range(count)),
            cameras=tuple(json.loads((folder / "preprocess.json").read_text(encoding="utf-8"))),
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
    stated = values.pop("self_sha256", None)
    if stated != hashlib.sha256(canonical_json(values)).hexdigest():
        raise _damaged(root / MANIFEST)
    files = values.pop("files", None)
    if not isinstance(files, dict):
        raise _damaged(root / MANIFEST)
    for name, digest in files.items():
        path = root / name
        if not path.resolve().is_relative_to(root.resolve()) or not path.is_file():
            raise BundleError("is missing from the bundle", where=path, hint="copy or build the bundle again")
        if sha256_of(path) != digest:
            raise _damaged(path)
    del values["schema"]
    try:
        manifest = from_mapping(Manifest, values, where=root / MANIFEST)
    except InputError as error:
        raise _damaged(root / MANIFEST) from error
    if not {name for name in manifest.models.values() if name is not None} <= set(files):
        raise _damaged(root / MANIFEST)
    return Bundle(root=root, manifest=manifest, hash=str(stated), files=files)


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
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        schema = int(values["schema"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path) from error
    if schema < 1:
        raise _damaged(path)
    if schema > SCHEMA:
        raise BundleError(
            f"was built by a newer fsmde-edge (manifest schema {schema}, this one reads {SCHEMA})",
            where=root,
            hint="update with: pip install -U fsmde-edge",
        )
    return dict(values)


def _damaged(path: Path) -> BundleError:
    return BundleError(
        "is damaged: it is not the file that was sealed into the bundle",
        where=path,
        hint="copy or build the bundle again",
    )


def _save_npz(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    import io

    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    atomic_write(path, buffer.getvalue())


def _load_npz(path: Path) -> dict[str, NDArray[Any]]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}
