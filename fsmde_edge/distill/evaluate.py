"""A student's accuracy and consistency on frame sets, without a bundle: what training is judged by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fsmde_edge.datasets.base import Dataset
from fsmde_edge.distill.parallel import Team
from fsmde_edge.evaluation.cross_view import CrossView, cross_view, pool
from fsmde_edge.evaluation.protocols import PROTOCOLS, ViewErrors, pair_set, summarise
from fsmde_edge.frames import Sample
from fsmde_edge.preprocess import own_pinholes, preprocess_set
from fsmde_edge.student.network import Student


@dataclass(frozen=True, slots=True, kw_only=True)
class SetScore:
    """One frame set's.

    Attributes:
        name: the sample's.
        abs_rel: mean over images.
        overlap_accuracy, depth_consistency: see `cross_view`; None where no point is seen twice.
    """

    name: str
    abs_rel: float
    overlap_accuracy: float | None
    depth_consistency: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Of all frame sets, by protocol `deploy`.

    Attributes:
        abs_rel, rmse, d1: means over images, then cameras.
        overlap_accuracy, depth_consistency: over all points that two cameras see.
        per_camera: Abs Rel by camera.
        sets: every frame set's own.
    """

    abs_rel: float
    rmse: float
    d1: float
    overlap_accuracy: float | None
    depth_consistency: float | None
    per_camera: Mapping[str, float]
    sets: tuple[SetScore, ...]


def evaluate(
    student: Student, dataset: Dataset, *, size: tuple[int, int], team: Team, max_depth: float = 200.0
) -> Score:
    """Score a student; the frame sets are shared out over the processes, and every one gets the result.

    Args:
        student: in evaluation mode, on the team's device.
        dataset: with LiDAR.
        size: height and width of the network's input.
        team: the processes.
        max_depth: LiDAR counts up to here, metres.

    Raises:
        InputError: no frame set has LiDAR.
    """
    part = [_one(student, dataset[i], size, team.device, max_depth) for i in team.part(range(len(dataset)))]
    parts = team.gather(part)
    every = [parts[i % team.size][i // team.size] for i in range(len(dataset))]
    accuracy = summarise([one.errors for one in every], PROTOCOLS["deploy"], where=dataset.name)
    consistency = pool([one.consistency for one in every])
    mean = accuracy.cameras["mean"]
    return Score(
        abs_rel=mean.abs_rel,
        rmse=mean.rmse,
        d1=mean.d1,
        overlap_accuracy=consistency.overlap_accuracy,
        depth_consistency=consistency.depth_consistency,
        per_camera={name: m.abs_rel for name, m in accuracy.cameras.items() if name != "mean"},
        sets=tuple(one.score for one in every if one.errors),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _One:
    """What one frame set gives."""

    name: str
    errors: list[ViewErrors]
    consistency: CrossView

    @property
    def score(self) -> SetScore:
        images = [v for v in self.errors if v.truth.size]
        return SetScore(
            name=self.name,
            abs_rel=float(np.mean([np.mean(np.abs(v.depth - v.truth) / v.truth) for v in images])),
            overlap_accuracy=self.consistency.overlap_accuracy,
            depth_consistency=self.consistency.depth_consistency,
        )


def _one(
    student: Student, sample: Sample, size: tuple[int, int], device: torch.device, max_depth: float
) -> _One:
    depth = _depth(student, sample, size, device)
    errors = [v for v in pair_set(depth, sample, PROTOCOLS["deploy"].up_to(max_depth)) if v.truth.size]
    return _One(sample.frame_set.name, errors, cross_view([depth], [sample], max_depth=max_depth))


def _depth(
    student: Student, sample: Sample, size: tuple[int, int], device: torch.device
) -> NDArray[np.float32]:
    height, width = size
    images, focal = preprocess_set(sample.frame_set, sample.rig, own_pinholes(sample.rig, width, height))
    pictures = torch.from_numpy(images).permute(0, 3, 1, 2).float().to(device)
    with torch.no_grad():
        depth = student(pictures, torch.from_numpy(focal).to(device)).depth
    return np.asarray(depth.float().cpu().numpy())
