"""What a recipe trains on: rendered streets and recordings, brought to network size once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from fsmde_edge.datasets.base import Dataset
from fsmde_edge.datasets.selection import open_selection
from fsmde_edge.distill.recipe import RecordingRecipe, SourceRecipe, StreetsRecipe, TrainRecipe
from fsmde_edge.distill.shards import Row, SetStore, Source, open_store, stored_depth
from fsmde_edge.errors import InputError
from fsmde_edge.evaluation.protocols import moved_down
from fsmde_edge.preprocess import own_pinholes, preprocess_set

FARTHEST = 250.0
"""Metres: what is farther than the LiDAR reaches counts as sky."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Streets:
    """Synthetic streets of the train split: LiDAR depth, and the sky, which a renderer knows."""

    recipe: StreetsRecipe
    data_seed: int

    @property
    def key(self) -> str:
        """Of what changes a rendered set: more scenes only add to fewer."""
        from fsmde_edge.datasets.synthetic import RENDERER_VERSION

        what = {**_told(self.recipe, but=("scenes",)), "data_seed": self.data_seed}
        return _key("streets", self.size, {**what, "renderer": RENDERER_VERSION})

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.recipe.size

    def __len__(self) -> int:
        return self.recipe.scenes * self.recipe.samples_per_scene

    def name(self, index: int) -> str:
        """Seed and number."""
        return f"synthetic-train-{self.data_seed}/{index}"

    def rows(self, indices: range) -> Iterator[Row]:
        """Rendered sets."""
        from fsmde_edge.datasets.synthetic import SyntheticStreets

        streets = SyntheticStreets(
            "train",
            scenes=self.recipe.scenes,
            samples_per_scene=self.recipe.samples_per_scene,
            width=self.size[1],
            height=self.size[0],
            seed=self.data_seed,
            rig_spread=self.recipe.rig_spread,
        )
        for index in indices:
            sample = streets[index]
            dense = streets.dense_depth(index)
            depth = [
                stored_depth(
                    sample.depth[camera.name],
                    sky=(dense[camera.name] == 0) | (dense[camera.name] > FARTHEST),
                    world=camera.ego_mask,
                )
                for camera in sample.rig.cameras
            ]
            yield Row(
                np.stack([frame.image for frame in sample.frame_set.frames]),
                np.stack(depth),
                np.stack([camera.intrinsics for camera in sample.rig.cameras]).astype(np.float32),
                np.stack([camera.camera_to_vehicle for camera in sample.rig.cameras]).astype(np.float32),
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """Frames of a data set on disk (DDAD, nuScenes); where its sky is, LiDAR does not say."""

    recipe: RecordingRecipe
    root: Path

    @property
    def key(self) -> str:
        """Of the selection and of which samples it finds; a data set that changes in place is not seen."""
        return _key("recording", self.size, {**_told(self.recipe), "samples": self._dataset().sample_names})

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.recipe.size

    def __len__(self) -> int:
        return len(self._dataset())

    def name(self, index: int) -> str:
        """The data set's own name of a sample."""
        return self._dataset().sample_names[index]

    def rows(self, indices: range) -> Iterator[Row]:
        """Samples at network size."""
        dataset = self._dataset()
        height, width = self.size
        for index in indices:
            sample = dataset[index]
            pinholes = own_pinholes(sample.rig, width, height)
            far = self.recipe.frames.max_depth
            depth = []
            for camera in sample.rig.cameras:
                if camera.name not in sample.depth:
                    raise InputError(f"camera {camera.name} has no LiDAR", where=sample.frame_set.name)
                metres = moved_down(sample.depth[camera.name], self.size)
                mask = camera.scaled(width, height).ego_mask
                near = np.where(metres < far, metres, np.float32(0))
                depth.append(stored_depth(near, sky=None, world=mask))
            yield Row(
                preprocess_set(sample.frame_set, sample.rig, pinholes)[0],
                np.stack(depth),
                np.stack([pinhole.intrinsics for pinhole in pinholes]).astype(np.float32),
                np.stack([camera.camera_to_vehicle for camera in sample.rig.cameras]).astype(np.float32),
            )

    def _dataset(self) -> Dataset:
        return open_selection(self.recipe.frames, size=self.size, root=self.root)


@dataclass(frozen=True, slots=True, eq=False)
class TrainingSet:
    """All that a recipe trains on.

    Attributes:
        stores: one a source.
        sources: their shares and batch sizes.
    """

    stores: tuple[SetStore, ...]
    sources: tuple[SourceRecipe, ...]

    def __len__(self) -> int:
        return sum(map(len, self.stores))

    def draw(self, *, seed: int, step: int) -> Draw:
        """The global batch of one step.

        It depends on seed and step alone: a resumed run sees the same, and so do several processes, which
        each take a part of it.
        """
        random = np.random.default_rng((seed, step))
        share = np.array([source.share for source in self.sources])
        which = int(random.choice(len(self.stores), p=share / share.sum()))
        store = self.stores[which]
        picked = random.integers(0, len(store), size=self.sources[which].sets_per_batch)
        return Draw(store, tuple(int(i) for i in picked))


@dataclass(frozen=True, slots=True, eq=False)
class Draw:
    """Which frame sets make a batch."""

    store: SetStore
    indices: tuple[int, ...]


def open_training_set(recipe: TrainRecipe, *, root: Path, cache: Path, workers: int) -> TrainingSet:
    """Make what is missing of a recipe's data, then open it.

    Args:
        recipe: names the sources.
        root: folder that paths of recordings are relative to.
        cache: folder of prepared frame sets.
        workers: processes that prepare.

    Raises:
        InputError: a recording is missing or cannot be used.
    """
    streets: list[Source] = [Streets(recipe=s, data_seed=recipe.data_seed) for s in recipe.streets]
    recordings: list[Source] = [Recording(recipe=r, root=root) for r in recipe.recordings]
    stores = tuple(open_store(source, cache=cache, workers=workers) for source in (*streets, *recordings))
    return TrainingSet(stores, (*recipe.streets, *recipe.recordings))


def _told(recipe: SourceRecipe, but: tuple[str, ...] = ()) -> Mapping[str, object]:
    """What of a source's recipe changes its frame sets."""
    return {k: v for k, v in asdict(recipe).items() if k not in ("share", "sets_per_batch", *but)}


def _key(kind: str, size: tuple[int, int], what: Mapping[str, object]) -> str:
    digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]
    return f"{kind}-{size[0]}x{size[1]}-{digest}"
