"""Synthetic street scenes as a data set: pictures, sparse LiDAR depth, and dense depth on request."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.datasets.base import Kind
from fsmde_edge.datasets.synthetic import lidar
from fsmde_edge.datasets.synthetic.film import Film, develop, random_film
from fsmde_edge.datasets.synthetic.materials import PaintTable
from fsmde_edge.datasets.synthetic.raycast import SKY, RayGrid, cast
from fsmde_edge.datasets.synthetic.rig import Split, ego_parts, random_rig
from fsmde_edge.datasets.synthetic.scene import Scene, random_scene
from fsmde_edge.datasets.synthetic.shading import paint_view, shadow_map
from fsmde_edge.datasets.synthetic.solids import Solid, SolidTable
from fsmde_edge.errors import InputError
from fsmde_edge.frames import Clock, ExposurePoint, Frame, FrameSet, Sample, Stamp
from fsmde_edge.rig import Camera, Rig

PERIOD_S = 0.1
_FINE = 2
"""Rays a pixel's side in pictures."""
_START_NS = 1_600_000_000_000_000_000
_SPLITS: tuple[Split, ...] = ("train", "dev", "test")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _World:
    """A scene with the rig that drives through it."""

    scene: Scene
    rig: Rig
    ego: tuple[Solid, ...]
    film: Film

    def table(self, seconds: float) -> tuple[SolidTable, NDArray[np.float64]]:
        """Everything but the own car, in the world at an instant; and vehicle to world."""
        return SolidTable(tuple(s.at(seconds) for s in self.scene.solids)), self.scene.vehicle_pose(seconds)


class SyntheticStreets:
    """Procedural street scenes seen by six cameras and a LiDAR.

    As in DDAD, the sparse depth of a sample is not masked: points behind the own car fall on it. The rig's
    ego masks say where.

    Everything follows from (seed, split, scene, sample): the order of access does not matter, and two
    splits share neither seeds nor textures nor, dev and test, camera heights. Samples of one scene are
    0.1 s apart.

    Args:
        split: "train" spreads rigs, light and places widely; "dev" and "test" stay near one rig.
        scenes: how many.
        samples_per_scene: consecutive instants of each.
        width, height: size of the pictures.
        seed: of the whole data set.
        ego_share: share of scenes in which the own car is seen (and masked).
        rig_spread: how widely the train split draws camera heights and angles (1 = all that it can).
    """

    def __init__(
        self,
        split: Split,
        *,
        scenes: int,
        samples_per_scene: int = 1,
        width: int = 320,
        height: int = 192,
        seed: int = 0,
        ego_share: float = 0.6,
        rig_spread: float = 1.0,
    ) -> None:
        if split not in _SPLITS:
            raise InputError(f"synthetic streets have no split '{split}'", hint="use train, dev or test")
        if scenes < 1 or samples_per_scene < 1 or width < 16 or height < 16:
            raise InputError(
                f"{scenes} scenes of {samples_per_scene} samples at {width}x{height} are not a data set",
                hint="ask for at least one scene, one sample and 16x16 pixels",
            )
        self.split: Split = split
        self.scenes = scenes
        self.samples_per_scene = samples_per_scene
        self.width, self.height = width, height
        self.seed = seed
        self.ego_share = ego_share
        self.rig_spread = rig_spread
        self._last: tuple[int, _World] | None = None

    @property
    def name(self) -> str:
        """Split and seed, for reports."""
        return f"synthetic-{self.split}-{self.seed}"

    @property
    def kind(self) -> Kind:
        """Synthetic."""
        return "synthetic"

    @property
    def sample_names(self) -> tuple[str, ...]:
        """Split, seed, scene and instant of every sample."""
        return tuple(self._sample_name(index) for index in range(len(self)))

    def __len__(self) -> int:
        return self.scenes * self.samples_per_scene

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Sample:
        """Render one instant."""
        number, instant = self._locate(index)
        world, seconds = self._world(number), instant * PERIOD_S
        table, pose = world.table(seconds)
        whole = SolidTable((*table.solids, *(_in_world(part, world.scene, seconds) for part in world.ego)))
        paints, shadows = PaintTable.of(whole), shadow_map(table, world.scene, float(pose[0, 3]))
        stamp = Stamp(
            _START_NS + number * 3_600_000_000_000 + instant * 100_000_000,
            Clock.RECORDED,
            ExposurePoint.MIDDLE,
        )
        frames = []
        for order, camera in enumerate(world.rig.cameras):
            grid = RayGrid.of_pinhole(camera.intrinsics, camera.width, camera.height, _FINE)
            hits = cast(whole, grid, pose @ camera.camera_to_vehicle)
            light = paint_view(
                world.scene, whole, paints, shadows, grid, pose @ camera.camera_to_vehicle, hits
            )
            image = develop(light, world.film, self._generator(number, 10 + order, instant))
            frames.append(Frame(camera=camera.name, image=image, stamp=stamp, sequence=instant))
        points = self._scan(world, number, instant, table, pose)
        return Sample(
            frame_set=FrameSet(frames=tuple(frames), index=index % len(self), name=self._sample_name(index)),
            rig=world.rig,
            depth={c.name: lidar.depth_map(points, c) for c in world.rig.cameras},
        )

    def dense_depth(self, index: int) -> dict[str, NDArray[np.float32]]:
        """Exact depth at the centre of every pixel.

        Returns:
            for each camera float32 [H, W], metres along z; 0 for the sky and on the own car.
        """
        number, instant = self._locate(index)
        world = self._world(number)
        table, pose = world.table(instant * PERIOD_S)
        maps = {}
        for camera in world.rig.cameras:
            grid = RayGrid.of_pinhole(camera.intrinsics, camera.width, camera.height)
            maps[camera.name] = _masked(cast(table, grid, pose @ camera.camera_to_vehicle).depth(), camera)
        return maps

    def lidar_points(self, index: int) -> NDArray[np.float32]:
        """The sweep, float32 [N, 4]: x, y, z in the vehicle frame in metres, intensity in 0..1."""
        number, instant = self._locate(index)
        world = self._world(number)
        return self._scan(world, number, instant, *world.table(instant * PERIOD_S))

    def vehicle_pose(self, index: int) -> NDArray[np.float64]:
        """Vehicle to world, float64 [4, 4]."""
        number, instant = self._locate(index)
        return self._world(number).scene.vehicle_pose(instant * PERIOD_S)

    def _scan(
        self, world: _World, number: int, instant: int, table: SolidTable, pose: NDArray[np.float64]
    ) -> NDArray[np.float32]:
        roof = max(camera.height_m for camera in world.rig.cameras) + 0.25
        return lidar.scan(table, pose, roof, self._generator(number, 2, instant))

    def _world(self, number: int) -> _World:
        """One scene with its rig; the last one is kept, since it is asked for several times in a row."""
        last = self._last
        if last is None or last[0] != number:
            last = (number, self._make_world(number))
            self._last = last
        return last[1]

    def _make_world(self, number: int) -> _World:
        generator = self._generator(number, 0)
        scene = random_scene(generator, self.split, self.samples_per_scene * PERIOD_S)
        generator = self._generator(number, 1)
        rig = random_rig(generator, self.split, self.width, self.height, self.rig_spread)
        film = random_film(generator, scene.light.exposure)
        ego = ego_parts(generator, rig) if generator.random() < self.ego_share else ()
        if ego:
            table = SolidTable(ego)
            rig = rig.with_ego_masks({camera.name: _ego_mask(table, camera) for camera in rig.cameras})
        return _World(scene=scene, rig=rig, ego=ego, film=film)

    def _sample_name(self, index: int) -> str:
        number, instant = self._locate(index)
        return f"{self.name}/{number:06d}/{instant:03d}"

    def _locate(self, index: int) -> tuple[int, int]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        return divmod(index % len(self), self.samples_per_scene)

    def _generator(self, *path: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, zlib.crc32(self.split.encode()), *path))


def _ego_mask(table: SolidTable, camera: Camera) -> NDArray[np.bool_]:
    grid = RayGrid.of_pinhole(camera.intrinsics, camera.width, camera.height, _FINE)
    world = cast(table, grid, camera.camera_to_vehicle).solid == SKY
    return np.asarray(world.reshape(camera.height, _FINE, camera.width, _FINE).all(axis=(1, 3)))


def _masked(depth: NDArray[np.float32], camera: Camera) -> NDArray[np.float32]:
    return depth if camera.ego_mask is None else np.where(camera.ego_mask, depth, np.float32(0))


def _in_world(part: Solid, scene: Scene, seconds: float) -> Solid:
    pose = scene.vehicle_pose(seconds)
    return replace(part, origin=pose[:3, :3] @ part.origin + pose[:3, 3], yaw=part.yaw + scene.yaw)
