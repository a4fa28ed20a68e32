"""Supervision by LiDAR: the loss that every method has."""

from __future__ import annotations

from torch import Tensor, nn

from fsmde_edge.distill.losses import relative, silog, sky_hinge
from fsmde_edge.distill.methods.base import Step
from fsmde_edge.distill.methods.recipe import SupervisedRecipe


class Supervised(nn.Module):
    """SILog, optionally Abs Rel itself, and the hinge that keeps the sky far."""

    def __init__(self, recipe: SupervisedRecipe) -> None:
        super().__init__()
        self.recipe = recipe

    def forward(self, step: Step) -> dict[str, Tensor]:
        """`silog`, `relative` where it has a weight, and `sky`."""
        depth, recipe = step.depth, self.recipe
        losses = {"silog": silog(depth, step.truth, forgive=recipe.silog_lambda, total=step.total)}
        if recipe.relative_weight > 0:
            losses["relative"] = recipe.relative_weight * relative(depth, step.truth, total=step.total)
        losses["sky"] = recipe.sky_weight * sky_hinge(depth, step.sky, total=step.total)
        return losses
