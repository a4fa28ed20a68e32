"""Data sets in the DGP layout: DDAD, Toyota Research's samples, and our own synthetic streets.

    scene_dataset_v1.0.json (DDAD: ddad.json)      which scenes belong to which split
    <scene>/scene_<hash>.json                      samples, each naming its data (pictures, clouds)
    <scene>/calibration/<key>.json                 intrinsics, sensor → vehicle
    <scene>/rgb/<CAMERA>/…  <scene>/point_cloud/LIDAR/….npz

The order of samples is the order in the scene's file; its `next_key` and `prev_key` are not used (they
dangle in published samples). Sensor names are compared without regard to case.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.datasets.base import Kind
from fsmde_edge.datasets.lidar import sparse_depth
from fsmde_edge.datasets.masks import with_masks
from fsmde_edge.datasets.poses import Pose, inverse, move, pose
from fsmde_edge.datasets.reading import choose, contained, parsing, read_cloud_npz, read_image, read_json
from fsmde_edge.errors import InputError
from fsmde_edge.frames import Frame, FrameSet, Sample, Stamp
from fsmde_edge.rig import Camera, Rig

SPLITS = {"train": "0", "val": "1", "dev": "1", "test": "2"}
"""Names of the splits and their keys in a scene_dataset file (DGP's own numbering; ours calls val dev)."""

_DATASET_FILES = ("scene_dataset", "ddad")
_LENS_KEYS = {"fx", "fy", "cx", "cy", "skew", "fov"}
_YEAR_2200_NS = 7_258_118_400 * 10**9


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Picture:
    camera: str
    filename: str
    sensor_to_world: Pose
    width: int
    height: int
    stamp_ns: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Cloud:
    filename: str
    sensor_to_world: Pose
    columns: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Entry:
    """One sample as its scene's file describes it; nothing of it is loaded yet."""

    scene: Path
    index: int
    calibration: str
    pictures: tuple[_Picture, ...]
    clouds: tuple[_Cloud, ...]

    @property
    def name(self) -> str:
        return f"{self.scene.parent.name}/{self.index:06d}"


class DgpDataset:
    """Samples of the chosen scenes, in the order of the file and of each scene."""

    def __init__(
        self,
        path: Path,
        *,
        scenes: Sequence[str] | None = None,
        split: str | None = None,
        masks: Path | None = None,
        cameras: Sequence[str] | None = None,
        lidar: bool = True,
    ) -> None:
        """Read the scenes' descriptions; pictures and clouds are read sample by sample later.

        Args:
            path: a scene_dataset or ddad JSON file, its folder, a scene's JSON file, or its folder.
            scenes: scenes to keep, by folder name or file name; all if None.
            split: keep the scenes of this split (train, val, test); all if None.
            masks: folder of ego masks (see `with_masks`).
            cameras: cameras to keep; all if None.
            lidar: read the clouds; without them samples have no depth.

        Errors:
            InputError: anything missing, broken, unknown, empty or leading out of the folder.
        """
        self._root, files, self._own_masks = _scene_files(path, split)
        chosen = choose(scenes, {str(file): _aliases(file) for file in files}, where=path)
        self._masks = masks
        self._lidar = lidar
        self._entries = [entry for file in chosen for entry in _read_scene(Path(file), cameras)]
        self._rig: tuple[tuple[Path, str, tuple[str, ...]], Rig] | None = None
        if not self._entries:
            raise InputError("the selection holds no sample", where=path, hint="choose other scenes")

    @property
    def name(self) -> str:
        """The data set's folder."""
        return self._root.name

    @property
    def kind(self) -> Kind:
        """DGP."""
        return "dgp"

    @property
    def sample_names(self) -> tuple[str, ...]:
        """Scene folder and position of every sample."""
        return tuple(entry.name for entry in self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Sample:
        entry = self._entries[index]
        rig = self._rig_of(entry)
        by_camera = {picture.camera: picture for picture in entry.pictures}
        pictures = [by_camera[name] for name in rig.names]
        frames = tuple(
            Frame(
                camera=picture.camera,
                image=read_image(contained(entry.scene.parent, picture.filename, named_in=entry.scene)),
                stamp=Stamp(picture.stamp_ns),
                sequence=entry.index,
            )
            for picture in pictures
        )
        position = index % len(self._entries)
        frame_set = FrameSet(frames=frames, index=position, name=entry.name)
        return Sample(frame_set=frame_set, rig=rig, depth=_depth(entry, rig, pictures) if self._lidar else {})

    def _rig_of(self, entry: _Entry) -> Rig:
        """The sample's cameras with their masks; the last rig is kept, since scenes rarely change it."""
        key = (entry.scene, entry.calibration, tuple(picture.camera for picture in entry.pictures))
        if self._rig is None or self._rig[0] != key:
            rig = with_masks(
                _read_rig(entry), entry.scene.parent.name, given=self._masks, own=self._own_masks
            )
            self._rig = (key, rig)
        return self._rig[1]


def find_dgp(path: Path) -> Path | None:
    """The JSON file that makes a path a DGP data set or scene, or None if it is neither."""
    if path.is_file() and path.suffix == ".json":
        content = read_json(path)
        return path if "scene_splits" in content or "samples" in content else None
    if not path.is_dir():
        return None
    there = sorted(path.glob("*.json"))
    files = [file for file in there if file.name.startswith(_DATASET_FILES)]
    files = files or [file for file in there if file.name.startswith("scene_")]
    if len(files) > 1:
        raise InputError(
            f"holds {len(files)} scene files ({', '.join(file.name for file in files[:4])})",
            where=path,
            hint="name one of them",
        )
    return files[0] if files else None


def _scene_files(path: Path, split: str | None) -> tuple[Path, list[Path], Path]:
    """The data set's folder, the scenes' JSON files (each once, in file order), the folder of its masks."""
    found = find_dgp(path)
    if found is None:
        raise InputError("is not a data set in the DGP layout", where=path)
    content, folder = read_json(found), found.parent.resolve()
    if "scene_splits" not in content and not found.name.startswith(_DATASET_FILES):
        if split is not None:
            raise InputError("is a single scene, which has no splits", where=path, hint="leave the split out")
        return folder, [found], folder.parent / "masks"
    if split is not None and split not in SPLITS:
        raise InputError(f"has no split {split!r}", where=path, hint=f"choose from {', '.join(SPLITS)}")
    with parsing(found):
        splits = content["scene_splits"]
        keys = sorted(splits) if split is None else [SPLITS[split]]
        names = dict.fromkeys(name for key in keys for name in splits.get(key, {}).get("filenames", ()))
    return folder, [contained(found.parent, name, named_in=found) for name in names], folder / "masks"


def _aliases(file: Path) -> tuple[str, ...]:
    return file.parent.name, file.stem, file.name, f"{file.parent.name}/{file.name}"


def _read_scene(path: Path, cameras: Sequence[str] | None) -> list[_Entry]:
    content = read_json(path)
    with parsing(path):
        data = {datum["key"]: datum for datum in content["data"]}
        return [
            _entry(path, index, row, [data[key] for key in row["datum_keys"]], cameras)
            for index, row in enumerate(content["samples"])
        ]


def _entry(
    scene: Path,
    index: int,
    row: Mapping[str, Any],
    data: Sequence[Mapping[str, Any]],
    cameras: Sequence[str] | None,
) -> _Entry:
    pictures = [_picture(datum, scene) for datum in data if "image" in datum["datum"]]
    if cameras is not None:
        wanted = {name.lower() for name in cameras}
        missing = wanted - {picture.camera.lower() for picture in pictures}
        if missing:
            raise InputError(
                f"has no camera {', '.join(sorted(missing))}",
                where=scene,
                hint=f"choose from {', '.join(picture.camera for picture in pictures)}",
            )
        pictures = [picture for picture in pictures if picture.camera.lower() in wanted]
    if not pictures:
        raise InputError(f"sample {index} names no picture", where=scene)
    return _Entry(
        scene=scene,
        index=index,
        calibration=row["calibration_key"],
        pictures=tuple(pictures),
        clouds=tuple(_cloud(datum, scene) for datum in data if "point_cloud" in datum["datum"]),
    )


def _picture(datum: Mapping[str, Any], scene: Path) -> _Picture:
    image = datum["datum"]["image"]
    return _Picture(
        camera=datum["id"]["name"],
        filename=_safe(image["filename"], scene),
        sensor_to_world=_pose(image["pose"]),
        width=int(image["width"]),
        height=int(image["height"]),
        stamp_ns=stamp_ns(datum["id"]["timestamp"]),
    )


def _cloud(datum: Mapping[str, Any], scene: Path) -> _Cloud:
    cloud = datum["datum"]["point_cloud"]
    fields = [str(field).upper() for field in cloud.get("point_format", ())] or ["X", "Y", "Z"]
    return _Cloud(
        filename=_safe(cloud["filename"], scene),
        sensor_to_world=_pose(cloud["pose"]),
        columns=tuple(fields.index(axis) for axis in "XYZ"),
    )


def _safe(filename: str, scene: Path) -> str:
    """The cheap half of `contained`, for every name of a scene when it is opened."""
    pure = PurePosixPath(filename)
    if pure.is_absolute() or ".." in pure.parts:
        contained(scene.parent, filename, named_in=scene)
    return filename


def _pose(values: Mapping[str, Mapping[str, float]]) -> Pose:
    rotation, translation = values["rotation"], values["translation"]
    return pose([rotation[f"q{axis}"] for axis in "wxyz"], [translation[axis] for axis in "xyz"])


def stamp_ns(text: str) -> int:
    """A protobuf JSON time (…Z, up to nine decimals) in nanoseconds since 1970.

    Published samples wrote tenths of microseconds as microseconds: their stamps lie in the 25th century
    and ten times too far apart. Beyond the year 2200 the value is therefore divided by ten.
    """
    whole, _, fraction = text.removesuffix("Z").partition(".")
    seconds = int(datetime.fromisoformat(whole).replace(tzinfo=timezone.utc).timestamp())
    ns = seconds * 10**9 + int(fraction.ljust(9, "0")[:9] or 0)
    return ns // 10 if ns > _YEAR_2200_NS else ns


def _read_rig(entry: _Entry) -> Rig:
    path = contained(entry.scene.parent, f"calibration/{entry.calibration}.json", named_in=entry.scene)
    content = read_json(path)
    with parsing(path):
        names = [str(name).lower() for name in content["names"]]
        calibrations = dict(
            zip(names, zip(content["intrinsics"], content["extrinsics"], strict=True), strict=True)
        )
        unnamed = [picture.camera for picture in entry.pictures if picture.camera.lower() not in calibrations]
        if unnamed:
            raise InputError(
                f"the calibration names {len(entry.pictures) - len(unnamed)} of the scene's "
                f"{len(entry.pictures)} cameras: {', '.join(unnamed)} not among them",
                where=path,
                hint="complete the calibration, or choose the cameras that it has",
            )
        return Rig.of(_camera(picture, *calibrations[picture.camera.lower()]) for picture in entry.pictures)


def _camera(picture: _Picture, lens: Mapping[str, Any], sensor_to_vehicle: Mapping[str, Any]) -> Camera:
    bent = [key for key, value in lens.items() if key not in _LENS_KEYS and value]
    if bent:
        raise ValueError(f"camera {picture.camera} has lens terms that are not known: {', '.join(bent)}")
    k = np.array([[lens["fx"], lens.get("skew", 0.0), lens["cx"]], [0, lens["fy"], lens["cy"]], [0, 0, 1]])
    return Camera(
        name=picture.camera,
        width=picture.width,
        height=picture.height,
        intrinsics=k.astype(np.float64),
        camera_to_vehicle=_pose(sensor_to_vehicle),
    )


def _depth(entry: _Entry, rig: Rig, pictures: Sequence[_Picture]) -> dict[str, NDArray[np.float32]]:
    """LiDAR through the world into each camera, each with its own datum's pose."""
    if not entry.clouds:
        return {}
    world = np.concatenate(
        [
            move(
                cloud.sensor_to_world,
                read_cloud_npz(
                    contained(entry.scene.parent, cloud.filename, named_in=entry.scene), cloud.columns
                ),
            )
            for cloud in entry.clouds
        ]
    )
    return {
        picture.camera: sparse_depth(move(inverse(picture.sensor_to_world), world), rig[picture.camera])
        for picture in pictures
    }
