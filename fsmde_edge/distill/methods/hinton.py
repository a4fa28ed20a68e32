"""Distillation of bin probabilities in metres: the aligned teacher's depth, on the student's own centres.

Source: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015; what stands for the
teacher's logits is ours, since the teacher has no bins.
"""

from __future__ import annotations

from torch import Tensor, nn

from fsmde_edge.distill.align import align
from fsmde_edge.distill.binning import metric_index, soft_bins
from fsmde_edge.distill.losses import bin_divergence, mean
from fsmde_edge.distill.methods.base import Step
from fsmde_edge.distill.methods.recipe import HintonRecipe
from fsmde_edge.distill.resize import mostly, resized


class Hinton(nn.Module):
    """Divergence of the student's probabilities from the metric teacher's; its centres are not reached."""

    def __init__(self, recipe: HintonRecipe) -> None:
        super().__init__()
        self.recipe = recipe

    def forward(self, step: Step) -> dict[str, Tensor]:
        """`hinton`; a view without LiDAR adds nothing."""
        student, recipe = step.logits, self.recipe
        size = (student.shape[-2], student.shape[-1])
        aligned = align(step.taught.disparity.flatten(0, 1), step.truth, step.world)
        inverse = resized(aligned.inverse[:, None], size)[:, 0] * step.zoom[:, None, None]
        centres = step.prediction.bins.centres.to(inverse.dtype)
        teacher = soft_bins(metric_index(1 / inverse, centres), student.shape[1], softness=recipe.softness)
        told = mostly(step.world & ~step.sky, size) & aligned.known[:, None, None]
        apart = bin_divergence(teacher, student, temperature=recipe.temperature)
        return {"hinton": recipe.weight * mean(apart[told], total=step.total)}
