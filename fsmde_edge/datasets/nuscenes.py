"""nuScenes: the official tables, and one sample described by a single JSON file.

The vehicle frame is nuScenes' ego frame (origin on the ground below the rear axle).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.datasets.base import Kind
from fsmde_edge.datasets.lidar import sparse_depth
from fsmde_edge.datasets.masks import with_masks
from fsmde_edge.datasets.poses import Pose, inverse, move, pose
from fsmde_edge.datasets.reading import (
    choose,
    contained,
    json_rows,
    parsing,
    read_cloud_bin,
    read_image,
    read_json,
)
from fsmde_edge.errors import InputError
from fsmde_edge.frames import Frame, FrameSet, Sample, Stamp
from fsmde_edge.rig import Camera, Rig

_TABLES = {
    "scene": ("token", "name"),
    "sample": ("token", "scene_token", "timestamp"),
    "sample_data": (
        *("sample_token", "ego_pose_token", "calibrated_sensor_token"),
        *("filename", "timestamp", "is_key_frame"),
    ),
    "calibrated_sensor": ("token", "sensor_token", "rotation", "translation", "camera_intrinsic"),
    "ego_pose": ("token", "rotation", "translation"),
    "sensor": ("token", "channel", "modality"),
}
"""The official tables that are read, and the keys that their rows must have."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _View:
    """One camera of one sample.

    `lidar_to_camera` holds the whole way, including the vehicle's motion between the two exposures.
    """

    camera: str
    filename: str
    stamp_ns: int
    intrinsics: NDArray[np.float64]
    camera_to_vehicle: Pose
    lidar_to_camera: Pose | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Entry:
    scene: str
    index: int
    views: tuple[_View, ...]
    cloud: str | None
    features: int = 5


class NuScenesDataset:
    """Keyframes of the chosen scenes, by scene and time."""

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
        """Read the descriptions; pictures and clouds are read sample by sample later.

        Args:
            path: the folder that holds `v1.0-*/`, that folder itself, a one-sample JSON file, or its folder.
            scenes: scenes to keep, by name (one-sample: folder or file name); all if None.
            split: which tables: mini, trainval or test; not needed where there is one set of tables.
            masks: folder of ego masks (see `with_masks`).
            cameras: cameras to keep; all if None.
            lidar: read the clouds; without them samples have no depth.

        Errors:
            InputError: anything missing, broken, unknown or empty.
        """
        self._masks = masks
        self._lidar = lidar
        tables, one_sample = find_tables(path, split), find_one_sample(path)
        if tables is not None:
            self._source, self._root = tables, tables.parent.resolve()
            entries = _read_tables(tables, scenes)
        elif one_sample is not None:
            if split is not None:
                raise InputError(
                    "is a single sample, which has no splits", where=path, hint="leave the split out"
                )
            self._source, self._root = one_sample, one_sample.parent.resolve()
            aliases = (self._root.name, one_sample.stem, one_sample.name)
            choose(scenes, {self._root.name: aliases}, where=path)
            entries = [_read_one_sample(one_sample)]
        else:
            raise InputError("is neither nuScenes tables nor a one-sample JSON file", where=path)
        self._entries = [_keep(entry, cameras, self._source) for entry in entries]
        if not self._entries:
            raise InputError("the selection holds no sample", where=path, hint="choose other scenes")

    @property
    def name(self) -> str:
        """The data set's folder."""
        return self._root.name

    @property
    def kind(self) -> Kind:
        """Always nuScenes."""
        return "nuscenes"

    @property
    def sample_names(self) -> tuple[str, ...]:
        """Scene and position of every sample."""
        return tuple(f"{entry.scene}/{entry.index:06d}" for entry in self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Sample:
        entry = self._entries[index]
        images = {
            view.camera: read_image(contained(self._root, view.filename, named_in=self._source))
            for view in entry.views
        }
        with parsing(self._source):
            rig = Rig.of(_camera(view, images[view.camera]) for view in entry.views)
        rig = with_masks(rig, entry.scene, given=self._masks, own=self._root / "masks")
        by_camera = {view.camera: view for view in entry.views}
        frames = tuple(
            Frame(
                camera=name, image=images[name], stamp=Stamp(by_camera[name].stamp_ns), sequence=entry.index
            )
            for name in rig.names
        )
        name = f"{entry.scene}/{entry.index:06d}"
        return Sample(
            frame_set=FrameSet(frames=frames, index=index % len(self._entries), name=name),
            rig=rig,
            depth=self._depth(entry, rig),
        )

    def _depth(self, entry: _Entry, rig: Rig) -> dict[str, NDArray[np.float32]]:
        if entry.cloud is None or not self._lidar:
            return {}
        points = read_cloud_bin(contained(self._root, entry.cloud, named_in=self._source), entry.features)
        return {
            view.camera: sparse_depth(move(view.lidar_to_camera, points), rig[view.camera])
            for view in entry.views
            if view.lidar_to_camera is not None
        }


def find_tables(path: Path, split: str | None = None) -> Path | None:
    """The folder of the official tables at or below a path, or None."""
    if (path / "sample_data.json").is_file():
        return path
    if not path.is_dir():
        return None
    folders = sorted(folder for folder in path.glob("v1.0-*") if folder.is_dir())
    if split is not None and folders:
        chosen = path / f"v1.0-{split}"
        if chosen not in folders:
            names = ", ".join(folder.name.removeprefix("v1.0-") for folder in folders)
            raise InputError(f"has no tables v1.0-{split}", where=path, hint=f"choose from {names}")
        return chosen
    if len(folders) > 1:
        names = ", ".join(folder.name for folder in folders)
        raise InputError(f"holds several sets of tables ({names})", where=path, hint="name one of them")
    return folders[0] if folders else None


def find_one_sample(path: Path) -> Path | None:
    """The JSON file that describes one sample at or in a path, or None."""
    if path.is_file() and path.suffix == ".json":
        return path if "images" in read_json(path) else None
    if not path.is_dir():
        return None
    return next((file for file in sorted(path.glob("*.json")) if _describes_one_sample(file)), None)


def _describes_one_sample(file: Path) -> bool:
    with file.open("rb") as stream:
        head = stream.read(1 << 16)
    return b'"images"' in head and b'"img_path"' in head


def _camera(view: _View, image: NDArray[np.uint8]) -> Camera:
    return Camera(
        name=view.camera,
        width=image.shape[1],
        height=image.shape[0],
        intrinsics=view.intrinsics,
        camera_to_vehicle=view.camera_to_vehicle,
    )


def _keep(entry: _Entry, cameras: Sequence[str] | None, source: Path) -> _Entry:
    if cameras is None:
        return entry
    there = [view.camera for view in entry.views]
    missing = sorted(set(cameras) - set(there))
    if missing:
        raise InputError(
            f"has no camera {', '.join(missing)}", where=source, hint=f"choose from {', '.join(there)}"
        )
    return _Entry(
        scene=entry.scene,
        index=entry.index,
        views=tuple(view for view in entry.views if view.camera in cameras),
        cloud=entry.cloud,
        features=entry.features,
    )


def _read_one_sample(path: Path) -> _Entry:
    content = read_json(path)
    with parsing(path):
        lidar = content.get("lidar_points")
        _refuse_partial_calibration(content["images"], path)
        views = tuple(
            _View(
                camera=name,
                filename=image["img_path"],
                stamp_ns=round(image["timestamp"] * 1e6) * 1000,
                intrinsics=_matrix(image["cam2img"], 3),
                camera_to_vehicle=_matrix(image["cam2ego"], 4),
                lidar_to_camera=_matrix(image["lidar2cam"], 4) if lidar else None,
            )
            for name, image in content["images"].items()
        )
        if not views:
            raise InputError("names no picture", where=path)
        return _Entry(
            scene=path.resolve().parent.name,
            index=int(content.get("sample_idx", 0)),
            views=views,
            cloud=lidar["lidar_path"] if lidar else None,
            features=int(lidar.get("num_pts_feats", 5)) if lidar else 5,
        )


def _refuse_partial_calibration(images: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    bare = [name for name, image in images.items() if not {"cam2img", "cam2ego"} <= image.keys()]
    if bare:
        raise InputError(
            f"the calibration covers {len(images) - len(bare)} of {len(images)} cameras: "
            f"{', '.join(bare)} not among them",
            where=path,
            hint="complete the calibration",
        )


def _matrix(rows: Any, size: int) -> NDArray[np.float64]:
    matrix = np.array(rows, dtype=np.float64)
    if matrix.shape[0] < size or matrix.shape[1] < size or not np.isfinite(matrix).all():
        raise ValueError(f"expected a finite {size}x{size} matrix, found shape {matrix.shape}")
    return matrix[:size, :size]


def _read_tables(folder: Path, scenes: Sequence[str] | None) -> list[_Entry]:
    """The keyframes of the chosen scenes; of the large tables only their rows are kept."""
    with parsing(folder):
        names = {row["token"]: str(row["name"]) for row in _rows(folder, "scene")}
        tokens = set(choose(scenes, {token: (name,) for token, name in names.items()}, where=folder))
        samples = _by_token(row for row in _rows(folder, "sample") if row["scene_token"] in tokens)
        data = [
            row
            for row in _rows(folder, "sample_data")
            if row["is_key_frame"] and row["sample_token"] in samples
        ]
        needed = {row["ego_pose_token"] for row in data}
        parts = _Tables(
            folder=folder,
            sensors=_by_token(_rows(folder, "sensor")),
            calibrations=_by_token(_rows(folder, "calibrated_sensor")),
            egos=_by_token(row for row in _rows(folder, "ego_pose") if row["token"] in needed),
        )
        by_sample: dict[str, list[Mapping[str, Any]]] = {token: [] for token in samples}
        for row in data:
            by_sample[row["sample_token"]].append(row)
        by_scene: dict[str, list[Mapping[str, Any]]] = {token: [] for token in names if token in tokens}
        for sample in sorted(samples.values(), key=lambda row: int(row["timestamp"])):
            by_scene[sample["scene_token"]].append(sample)
        return [
            parts.entry(names[scene], index, by_sample[sample["token"]])
            for scene, rows in by_scene.items()
            for index, sample in enumerate(rows)
        ]


def _rows(folder: Path, table: str) -> Iterator[dict[str, Any]]:
    """The rows of a table, each with the keys that are read from it."""
    path = folder / f"{table}.json"
    for number, row in enumerate(json_rows(path)):
        for key in _TABLES[table]:
            if key not in row:
                raise InputError(f"row {number} misses the key {key!r}", where=path)
        yield row


def _by_token(rows: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["token"]: row for row in rows}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tables:
    """The tables that a keyframe's data point into, by token."""

    folder: Path
    sensors: Mapping[str, Mapping[str, Any]]
    calibrations: Mapping[str, Mapping[str, Any]]
    egos: Mapping[str, Mapping[str, Any]]

    def entry(self, scene: str, index: int, data: Sequence[Mapping[str, Any]]) -> _Entry:
        """One keyframe from its sample_data rows."""
        self._refuse_partial_calibration(data)
        cameras = [row for row in data if self._sensor(row)["modality"] == "camera"]
        lidar = next((row for row in data if self._sensor(row)["modality"] == "lidar"), None)
        if not cameras:
            raise InputError(
                f"sample {index} of scene {scene} has no picture", where=self.folder / "sample_data.json"
            )
        lidar_to_world = None if lidar is None else self._to_world(lidar)
        return _Entry(
            scene=scene,
            index=index,
            views=tuple(self._view(row, lidar_to_world) for row in cameras),
            cloud=None if lidar is None else lidar["filename"],
        )

    def _view(self, row: Mapping[str, Any], lidar_to_world: Pose | None) -> _View:
        calibration = self.calibrations[row["calibrated_sensor_token"]]
        way = None if lidar_to_world is None else inverse(self._to_world(row)) @ lidar_to_world
        return _View(
            camera=str(self._sensor(row)["channel"]),
            filename=row["filename"],
            stamp_ns=int(row["timestamp"]) * 1000,
            intrinsics=_matrix(calibration["camera_intrinsic"], 3),
            camera_to_vehicle=pose(calibration["rotation"], calibration["translation"]),
            lidar_to_camera=way,
        )

    def _sensor(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        return self.sensors[self.calibrations[row["calibrated_sensor_token"]]["sensor_token"]]

    def _to_world(self, row: Mapping[str, Any]) -> Pose:
        """Sensor → vehicle → world, with the vehicle's pose at this sensor's own exposure."""
        calibration = self.calibrations[row["calibrated_sensor_token"]]
        if row["ego_pose_token"] not in self.egos:
            raise InputError(f"has no pose {row['ego_pose_token']}", where=self.folder / "ego_pose.json")
        ego = self.egos[row["ego_pose_token"]]
        return pose(ego["rotation"], ego["translation"]) @ pose(
            calibration["rotation"], calibration["translation"]
        )

    def _refuse_partial_calibration(self, data: Sequence[Mapping[str, Any]]) -> None:
        bare = [row["filename"] for row in data if row["calibrated_sensor_token"] not in self.calibrations]
        if bare:
            raise InputError(
                f"the calibration covers {len(data) - len(bare)} of {len(data)} sensors: none for {bare[0]}",
                where=self.folder / "calibrated_sensor.json",
                hint="complete the calibration",
            )
