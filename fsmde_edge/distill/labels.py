"""How much of the ground truth a student sees: for measuring how many labels a method needs."""

from __future__ import annotations

import hashlib

import numpy as np
import torch

from fsmde_edge.distill.batch import SetBatch
from fsmde_edge.distill.data import Draw
from fsmde_edge.distill.recipe import LabelsRecipe


def keep_labels(batch: SetBatch, labels: LabelsRecipe, draw: Draw) -> SetBatch:
    """Take away the ground truth that a recipe leaves out.

    What is kept of a frame set follows from its name alone, so that it stays the same in every epoch, run and
    process; a share keeps what any smaller share keeps.

    Args:
        batch: truth is [B, V, H, W].
        labels: the shares.
        draw: which frame sets these are.
    """
    if labels == LabelsRecipe():
        return batch
    truth = batch.truth.clone()
    for place, index in enumerate(draw.indices):
        name = draw.store.source.name(index)
        if _chance(f"scene {name}") >= labels.scenes:
            truth[place] = 0
        elif labels.points < 1:
            random = np.random.default_rng(_number(f"points {name}"))
            kept = torch.from_numpy(random.random(tuple(truth.shape[1:]), dtype=np.float32) < labels.points)
            truth[place] = torch.where(kept, truth[place], torch.zeros(()))
    return batch._replace(truth=truth)


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _chance(text: str) -> float:
    """A number in 0..1 that is the same wherever it is asked for."""
    return _number(text) / 2**64
