"""Training recipes: YAML files read into frozen data; an unknown key is an error."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from fsmde_edge.datasets.selection import MOST_SETS, Selection
from fsmde_edge.distill.limits import SMALLEST, within
from fsmde_edge.distill.methods.recipe import METHODS, MethodRecipe
from fsmde_edge.distill.teachers.recipe import TeacherRecipe
from fsmde_edge.errors import InputError
from fsmde_edge.recipes import from_mapping, read_yaml, refuse_size

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
        within(self, 1, MOST_SETS, "scenes", "samples_per_scene", "sets_per_batch")
        within(self, SMALLEST, math.inf, "share")
        within(self, 0, math.inf, "rig_spread")
        if self.scenes * self.samples_per_scene > MOST_SETS:
            raise InputError(f"more than {MOST_SETS} frame sets in one source", hint="write fewer scenes")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingRecipe:
    """Frames of a data set on disk.

    Attributes:
        frames: which; paths are relative to the data root.
        size, share, sets_per_batch: as in `StreetsRecipe`.
    """

    frames: Selection
    size: tuple[int, int]
    share: float = 1.0
    sets_per_batch: int = 4

    def __post_init__(self) -> None:
        refuse_size(self.size)
        within(self, 1, MOST_SETS, "sets_per_batch")
        within(self, SMALLEST, math.inf, "share")
        if self.frames.path is None:
            raise InputError("a recording needs a path", hint="write synthetic streets under streets")


SourceRecipe: TypeAlias = StreetsRecipe | RecordingRecipe


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentRecipe:
    """How widely a frame set's looks are drawn.

    Attributes:
        each_view: every view draws on its own, mirrored in place: more variety for a network that sees one
            view, but views of a set no longer fit together. Otherwise one draw serves the whole rig.
        zoom: the most that a crop magnifies; 1 = never.
        vertical_shift: the most that a crop moves up or down, as a share of half the height.
    """

    each_view: bool = False
    zoom: float = 1.6
    vertical_shift: float = 0.06

    def __post_init__(self) -> None:
        within(self, 1, 8, "zoom")
        within(self, 0, 1, "vertical_shift")


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelsRecipe:
    """How much of the ground truth the student sees; a teacher sees every picture.

    Attributes:
        points: share of the LiDAR returns of each view that count.
        scenes: share of the frame sets that have any.
    """

    points: float = 1.0
    scenes: float = 1.0

    def __post_init__(self) -> None:
        within(self, SMALLEST, 1, "points", "scenes")


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantiseRecipe:
    """Quantisation-aware training: a short finish for a student whose INT8 network strays too far.

    Attributes:
        bundle: a bundle that `build` made from the recipe's `start`; its plan says what is INT8, and how.
        agreement: weight of the log error between the student's INT8 depth and its float depth: what the
            gate looks at.
    """

    bundle: str
    agreement: float = 1.0

    def __post_init__(self) -> None:
        within(self, 0, math.inf, "agreement")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRecipe:
    """A training run, supervised alone or with a teacher.

    Attributes:
        version: of this file format; 1.
        student: a name in `STUDENTS`.
        streets: rendered data, one entry a picture size.
        recordings: frames of data sets on disk.
        labels: how much of the ground truth counts.
        teacher: whose knowledge the student gets; None for none.
        method: how it gets it, beside the supervised loss.
        steps: optimiser steps.
        learning_rate, warmup, weight_decay, clip: AdamW with linear warm-up (steps) and cosine decay.
        augment: how widely framing is drawn.
        ema: decay of the averaged weights that are saved.
        seed: of weights, batches and augmentation; data has its own.
        data_seed: of the rendered scenes.
        start: a checkpoint of the same student to go on from; its batch-norm statistics are taken anew from
            this recipe's data, unless it quantises.
        freeze_norm: keep the batch-norm statistics as they are at the start, so that a view's depth never
            depends on the other views of its batch.
        init: an ImageNet ResNet-18 state dict (safetensors), for `base` alone.
        quantise: compute in INT8 arithmetic while training; needs `start` and `freeze_norm`.
        mixed_precision: bfloat16 where PyTorch's autocast takes it; faster or slower by processor.
    """

    version: int
    student: str
    steps: int
    streets: tuple[StreetsRecipe, ...] = ()
    recordings: tuple[RecordingRecipe, ...] = ()
    labels: LabelsRecipe = field(default_factory=LabelsRecipe)
    teacher: TeacherRecipe | None = None
    method: MethodRecipe = field(default_factory=MethodRecipe)
    learning_rate: float = 1e-3
    warmup: int = 300
    weight_decay: float = 0.01
    clip: float = 1.0
    augment: AugmentRecipe = field(default_factory=AugmentRecipe)
    ema: float = 0.999
    seed: int = 0
    data_seed: int = 0
    init: str | None = None
    start: str | None = None
    freeze_norm: bool = False
    quantise: QuantiseRecipe | None = None
    mixed_precision: bool = True

    def __post_init__(self) -> None:
        if self.version != 1:
            raise InputError(f"training recipe version {self.version} is not known", hint="update fsmde-edge")
        if not (self.streets or self.recordings) or self.steps < 1:
            raise InputError("a training recipe needs data (streets, recordings) and steps", hint="add them")
        within(self, SMALLEST, math.inf, "learning_rate", "clip")
        within(self, 0, math.inf, "warmup", "weight_decay")
        within(self, 0, 1, "ema")
        within(self, 0, LARGEST_SEED, "seed", "data_seed")
        self._refuse_what_does_not_fit()

    def _refuse_what_does_not_fit(self) -> None:
        terms = METHODS[self.method.name]
        if terms and self.teacher is None:
            raise InputError(f"method {self.method.name} needs a teacher", hint="add teacher to the recipe")
        if not terms and self.teacher is not None:
            raise InputError("supervised training asks no teacher", hint="take teacher out, or name a method")
        if self.quantise is not None and not (self.start and self.freeze_norm and not self.mixed_precision):
            raise InputError(
                "INT8 arithmetic is trained from a student that is done, in float32",
                hint="give start, freeze_norm: true and mixed_precision: false",
            )
        if self.augment.each_view and "vrkd" in terms:
            raise InputError(
                "views that are framed one by one have no relations to distil",
                hint="take each_view out of augment",
            )

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
