"""Which frames a recipe or a command means: synthetic streets, or scenes and samples of a data set."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from fsmde_edge.datasets.base import Dataset, Kind
from fsmde_edge.errors import InputError
from fsmde_edge.frames import Sample

MOST_SETS = 1_000_000
"""Frame sets that one selection of synthetic streets may have."""

NEAREST = 0.1
"""Metres: LiDAR counts from here on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Some frames of one data set.

    Attributes:
        path: a data set's folder or file, relative to the data root; None means synthetic streets.
        split: of a data set; of synthetic streets train, dev or test.
        scenes: scene names to keep; all if None.
        samples: positions within each scene to keep; all if None.
        masks: folder of ego masks, relative to the data root.
        count: synthetic streets: how many scenes.
        length: synthetic streets: samples of each scene; at most a million samples in all.
        seed: synthetic streets; not negative.
        max_depth: LiDAR counts from 0.1 up to this many metres (DDAD 200, nuScenes 80).
    """

    path: str | None = None
    split: str | None = None
    scenes: tuple[str, ...] | None = None
    samples: tuple[int, ...] | None = None
    masks: str | None = None
    count: int = 8
    length: int = 1
    seed: int = 0
    max_depth: float = 200.0

    def __post_init__(self) -> None:
        if self.path is None and self.split not in ("train", "dev", "test"):
            raise InputError("synthetic frames need a split: train, dev or test", hint="or name a path")
        given = [name for name in ("scenes", "samples", "masks") if getattr(self, name) is not None]
        if self.path is None and given:
            raise InputError(
                f"synthetic frames have no {given[0]} to choose",
                hint="choose count, length and seed, or name a path",
            )
        if self.count < 1 or self.length < 1 or self.count * self.length > MOST_SETS or self.seed < 0:
            raise InputError(
                f"no synthetic frames have count {self.count}, length {self.length}, seed {self.seed}",
                hint=f"choose at least one scene and one sample, at most {MOST_SETS} in all; a seed from 0",
            )
        if not NEAREST < self.max_depth < math.inf:
            raise InputError(
                f"LiDAR cannot count from {NEAREST} up to {self.max_depth} metres",
                hint="choose a larger max_depth, as 80 or 200",
            )


def open_selection(selection: Selection, *, size: tuple[int, int], root: Path) -> Dataset:
    """The selected frames, read one at a time.

    Args:
        selection: what is meant.
        size: height and width at which synthetic streets are rendered.
        root: folder that paths are relative to.

    Raises:
        InputError: nothing is selected, or the data set cannot be used.
    """
    if selection.path is None:
        from fsmde_edge.datasets.synthetic import Split, SyntheticStreets

        return SyntheticStreets(
            cast(Split, selection.split),
            scenes=selection.count,
            samples_per_scene=selection.length,
            width=size[1],
            height=size[0],
            seed=selection.seed,
        )
    from fsmde_edge.datasets import open_dataset

    dataset = open_dataset(
        root / selection.path,
        scenes=selection.scenes,
        split=selection.split,
        masks=None if selection.masks is None else root / selection.masks,
    )
    return (
        dataset
        if selection.samples is None
        else _Positions(dataset, selection.samples, root / selection.path)
    )


class _Positions:
    """Those samples of a data set that stand at certain positions of their scenes."""

    def __init__(self, dataset: Dataset, positions: Sequence[int], where: Path) -> None:
        self._dataset = dataset
        seen: dict[str, int] = {}
        self._indices = []
        for index, name in enumerate(dataset.sample_names):
            scene = name.rpartition("/")[0]
            position = seen.get(scene, 0)
            seen[scene] = position + 1
            if position in positions:
                self._indices.append(index)
        if not self._indices:
            raise InputError(
                f"the selection holds no sample: no scene has one at position {list(positions)}",
                where=where,
                hint=f"its scenes have {min(seen.values())} to {max(seen.values())} samples, counted from 0",
            )

    @property
    def name(self) -> str:
        return self._dataset.name

    @property
    def kind(self) -> Kind:
        return self._dataset.kind

    @property
    def sample_names(self) -> tuple[str, ...]:
        return tuple(self._dataset.sample_names[index] for index in self._indices)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:
        return self._dataset[self._indices[index]]


def samples_of(datasets: Sequence[Dataset]) -> Iterator[Sample]:
    """All samples of several data sets, one at a time."""
    for dataset in datasets:
        for index in range(len(dataset)):
            yield dataset[index]
