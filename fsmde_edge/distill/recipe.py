"""Training recipes: YAML files read into frozen data; an unknown key is an error."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fsmde_edge.datasets.selection import MOST_SETS
from fsmde_edge.errors import InputError
from fsmde_edge.recipes import from_mapping, read_yaml, refuse_size

SMALLEST = 1e-12
"""What must be above zero is at least this."""

LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class StreetsRecipe:
    """Rendered training data of one picture size.

    Attributes:
        scenes: how many scenes of the synthetic train split.
        samples_per_scene: frame sets of each.
        size: picture height and width, multiples of 32.
        share: how often a batch is drawn from this source, relative to the others.
        sets_per_batch: frame sets in one batch.
        rig_spread: how widely camera heights and angles are drawn (see `SyntheticStreets`).
    """

    scenes: int
    size: tuple[int, int]
    samples_per_scene: int = 1
    share: float = 1.0
    sets_per_batch: int = 4
    rig_spread: float = 1.0

    def __post_init__(self) -> None:
        refuse_size(self.size)
        _within(self, 1, MOST_SETS, "scenes", "samples_per_scene", "sets_per_batch")
        _within(self, SMALLEST, math.inf, "share")
        _within(self, 0, math.inf, "rig_spread")
        if self.scenes * self.samples_per_scene > MOST_SETS:
            raise InputError(f"more than {MOST_SETS} frame sets in one source", hint="write fewer scenes")


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentRecipe:
    """How widely a view's framing is drawn. Near the defaults' ends a network sees every camera; near 1 and 0
    it learns where the horizon of the rigs in its data lies.

    Attributes:
        zoom: the most that a crop magnifies; 1 = never.
        vertical_shift: the most that a crop moves up or down, as a share of half the height.
    """

    zoom: float = 1.6
    vertical_shift: float = 0.06

    def __post_init__(self) -> None:
        _within(self, 1, 8, "zoom")
        _within(self, 0, 1, "vertical_shift")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRecipe:
    """A supervised training run.

    Attributes:
        version: of this file format; 1.
        student: a name in `STUDENTS`.
        streets: the rendered data, one entry a picture size.
        steps: optimiser steps.
        learning_rate, warmup, weight_decay, clip: AdamW with linear warm-up (steps) and cosine decay.
        silog_lambda: share of the mean log error that the loss forgives (0 none, 1 scale-invariant).
        relative_weight: of the mean relative error, beside SILog.
        sky_weight: of the loss that keeps the sky far.
        augment: how widely framing is drawn.
        ema: decay of the averaged weights that are saved.
        seed: of weights, batches and augmentation; data has its own.
        data_seed: of the rendered scenes.
        start: a checkpoint of the same student to go on from; its batch-norm statistics are taken anew from
            this recipe's data.
        freeze_norm: keep the batch-norm statistics as they are at the start, so that a view's depth never
            depends on the other views of its batch.
        init: an ImageNet ResNet-18 state dict (safetensors), for `base` alone.
        mixed_precision: bfloat16 where PyTorch's autocast takes it; faster or slower by processor.
    """

    version: int
    student: str
    streets: tuple[StreetsRecipe, ...]
    steps: int
    learning_rate: float = 1e-3
    warmup: int = 300
    weight_decay: float = 0.01
    clip: float = 1.0
    silog_lambda: float = 0.85
    relative_weight: float = 0.0
    sky_weight: float = 0.1
    augment: AugmentRecipe = field(default_factory=AugmentRecipe)
    ema: float = 0.999
    seed: int = 0
    data_seed: int = 0
    init: str | None = None
    start: str | None = None
    freeze_norm: bool = False
    mixed_precision: bool = True

    def __post_init__(self) -> None:
        if self.version != 1:
            raise InputError(f"training recipe version {self.version} is not known", hint="update fsmde-edge")
        if not self.streets or self.steps < 1:
            raise InputError("a training recipe needs data (streets) and steps", hint="add them")
        _within(self, SMALLEST, math.inf, "learning_rate", "clip")
        _within(self, 0, math.inf, "warmup", "weight_decay", "relative_weight", "sky_weight")
        _within(self, 0, 1, "silog_lambda", "ema")
        _within(self, 0, LARGEST_SEED, "seed", "data_seed")

    @property
    def sha256(self) -> str:
        """Hash of the recipe's values; what a resumed run must agree with."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def load_train_recipe(path: Path) -> TrainRecipe:
    """Read a recipe.

    Raises:
        InputError: missing, not YAML, unknown or missing keys, impossible values.
    """
    values: Mapping[str, Any] = read_yaml(path)
    return from_mapping(TrainRecipe, values, where=path)


def _within(recipe: object, least: float, most: float, *names: str) -> None:
    for name in names:
        value = getattr(recipe, name)
        if not (least <= value <= most and math.isfinite(value)):
            limits = f"from {least:g}" + (f" to {most:g}" if math.isfinite(most) else "")
            raise InputError(f"{name} cannot be {value}", hint=f"choose a finite number {limits}")
