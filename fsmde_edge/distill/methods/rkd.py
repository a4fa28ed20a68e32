"""Relational distillation: distances and angles between the embeddings of a frame set's views.

Source: Park et al., "Relational Knowledge Distillation", CVPR 2019, eq. 5–10. The examples that they relate
are those of a mini-batch; here the views of a frame set, so that a batch may lie in several processes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from fsmde_edge.distill.losses import mean
from fsmde_edge.distill.methods.base import Step
from fsmde_edge.distill.methods.recipe import RkdRecipe

TINY = 1e-12
"""Least square of a distance."""


class Relational(nn.Module):
    """Huber losses on distances (over their mean) and on cosines at the corners of triangles."""

    def __init__(self, recipe: RkdRecipe) -> None:
        super().__init__()
        self.recipe = recipe

    def forward(self, step: Step) -> dict[str, Tensor]:
        """`rkd_distance` (0 for a single view) and `rkd_angle` (0 for fewer than three)."""
        student = step.by_set(step.features.decoder).mean(dim=(-2, -1))
        teacher = step.taught.features.mean(dim=(-2, -1))

        def loss(measure: Callable[[Tensor], Tensor]) -> Tensor:
            apart = functional.smooth_l1_loss(measure(student), measure(teacher), reduction="none")
            return mean(apart, total=step.total)

        return {
            "rkd_distance": self.recipe.distance_weight * loss(distances),
            "rkd_angle": self.recipe.angle_weight * loss(angles),
        }


def distances(embeddings: Tensor) -> Tensor:
    """Distances between different views over their mean in the set: [B, V, C] to [B, V (V - 1)]."""
    views = embeddings.shape[1]
    apart = _lengths(embeddings[:, :, None] - embeddings[:, None])[..., 0]
    pairs = apart[:, ~torch.eye(views, dtype=torch.bool, device=embeddings.device)]
    return pairs / pairs.mean(dim=1, keepdim=True)


def angles(embeddings: Tensor) -> Tensor:
    """Cosines at view j between views i and k, all different: [B, V, C] to [B, V (V - 1) (V - 2)]."""
    views = embeddings.shape[1]
    apart = embeddings[:, :, None] - embeddings[:, None]
    unit = apart / _lengths(apart)
    cosines = torch.einsum("bijc,bkjc->bijk", unit, unit)
    other = ~torch.eye(views, dtype=torch.bool, device=embeddings.device)
    return cosines[:, other[:, :, None] & other[None] & other[:, None]]


def _lengths(vectors: Tensor) -> Tensor:
    return vectors.square().sum(dim=-1, keepdim=True).clamp(min=TINY).sqrt()
