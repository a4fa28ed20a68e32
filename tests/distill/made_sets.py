"""Small frame sets and a small student for tests of training."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fsmde_edge.distill.data import TrainingSet
from fsmde_edge.distill.parallel import Team
from fsmde_edge.distill.recipe import StreetsRecipe, TrainRecipe
from fsmde_edge.distill.shards import DEPTH_STEPS, EGO_STORED, SKY_STORED, Row, SetStore
from fsmde_edge.distill.trainer import Course

HEIGHT, WIDTH, VIEWS = 32, 64, 3


@dataclass(frozen=True)
class Made:
    """Where a made store says it comes from."""

    key: str = "made"
    size: tuple[int, int] = (HEIGHT, WIDTH)
    sets: int = 3

    def __len__(self) -> int:
        return self.sets

    def name(self, index: int) -> str:
        return f"{self.key}/{index}"

    def rows(self, indices: range) -> Iterator[Row]:
        raise AssertionError("nothing is missing")


def ring_poses(views: int) -> np.ndarray:
    """Cameras that look around, counter-clockwise from ahead, 1.5 m high and 1 m from the middle."""
    poses = np.tile(np.eye(4, dtype=np.float32), (views, 1, 1))
    for i in range(views):
        angle = 2 * math.pi * i / views
        ahead = np.array([math.cos(angle), math.sin(angle), 0])
        right, down = np.array([ahead[1], -ahead[0], 0]), np.array([0, 0, -1])
        poses[i, :3, :3] = np.stack([right, down, ahead], axis=1)
        poses[i, :3, 3] = ahead + np.array([0, 0, 1.5])
    return poses


def made_store(
    sets: int = 3, seed: int = 0, focal: float = 60.0, views: int = VIEWS, key: str = "made"
) -> SetStore:
    """Noise with sparse depth; the first row of every picture is sky, the last is the own car."""
    rng = np.random.default_rng(seed)
    shape = (sets, views, HEIGHT, WIDTH)
    depth = (rng.uniform(2, 60, shape) * (rng.random(shape) < 0.3) * DEPTH_STEPS).astype(np.uint16)
    depth[:, :, 0], depth[:, :, -1] = SKY_STORED, EGO_STORED
    k = np.array([[focal, 0, WIDTH / 2 + 2], [0, focal, HEIGHT / 2 - 1], [0, 0, 1]], dtype=np.float32)
    row = Row(
        rng.integers(0, 255, (*shape, 3), dtype=np.uint8),
        depth,
        np.tile(k, (sets, views, 1, 1)),
        np.tile(ring_poses(views), (sets, 1, 1, 1)),
    )
    return SetStore((row,), Made(key=key, sets=sets))


def made_recipe(**change: object) -> TrainRecipe:
    """Six steps of a student that is called mini."""
    values: dict[str, object] = {
        "version": 1,
        "student": "mini",
        "streets": (StreetsRecipe(scenes=1, size=(HEIGHT, WIDTH), sets_per_batch=2),),
        "steps": 6,
        "warmup": 2,
        "seed": 4,
    }
    return TrainRecipe(**{**values, **change})  # type: ignore[arg-type]


def made_course(recipe: TrainRecipe, *stores: SetStore, **change: object) -> Course:
    """A course over these stores, or over one, in this process on the CPU."""
    import torch

    stores = stores or (made_store(),)
    data = TrainingSet(stores, recipe.streets * len(stores))
    values: dict[str, object] = {"team": Team(0, 1, torch.device("cpu"))}
    return Course(recipe, data, **{**values, **change})  # type: ignore[arg-type]
