"""A teacher's outputs for a training set: asked for once, read from disk at every step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.distill.batch import TeacherViews
from fsmde_edge.distill.data import Draw, TrainingSet
from fsmde_edge.distill.shards import SetStore
from fsmde_edge.distill.teachers.base import Teacher
from fsmde_edge.distill.teachers.cache import TeacherCache


@dataclass(frozen=True, slots=True, eq=False)
class CachedLessons:
    """Outputs of one teacher, by content of the pictures.

    Attributes:
        cache: where they lie.
        hashes: for each store (by identity) its pictures' hashes, [sets][V].
        channels: of the teacher's features.
    """

    cache: TeacherCache
    hashes: dict[int, list[tuple[str, ...]]]
    channels: int

    def of(self, draw: Draw) -> TeacherViews:
        """What the teacher says of a batch, as stored."""
        sets = [self.hashes[id(draw.store)][index] for index in draw.indices]
        output = self.cache.read([name for views in sets for name in views])
        shape = (len(sets), len(sets[0]))
        return TeacherViews(*(part.reshape(*shape, *part.shape[1:]) for part in output))


def prepare_lessons(data: TrainingSet, teacher: Teacher, root: Path) -> CachedLessons:
    """Ask the teacher about every picture that it was not yet asked about.

    Args:
        data: the frame sets.
        teacher: whom to ask.
        root: folder of the caches of all teachers.
    """
    cache = TeacherCache(root, teacher.fingerprint)
    hashes = {}
    for store in data.stores:
        views = len(store.row(0).images)
        names = cache.fill(_pictures(store), teacher, total=views * len(store))
        hashes[id(store)] = [tuple(names[i : i + views]) for i in range(0, len(names), views)]
    first = data.stores[0]
    return CachedLessons(cache, hashes, cache.read(hashes[id(first)][0][:1]).features.shape[1])


def _pictures(store: SetStore) -> Iterator[NDArray[np.uint8]]:
    for index in range(len(store)):
        yield from store.row(index).images
