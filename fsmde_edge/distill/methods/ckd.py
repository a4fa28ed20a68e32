"""Cross-interaction distillation: the teacher gives structure, LiDAR gives metres, each to its own factor.

The paper's idea from its abstract; the formulas are ours. Depth is Σ p c. The student's probabilities learn
the teacher's, in which there is no metre: scaling the ground truth changes nothing. The student's centres
learn from LiDAR under the *teacher's* probabilities, Σ p_T c_S: scaling centres and ground truth together
changes nothing. The encoder, from which both factors come, learns from both.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fsmde_edge.distill.align import align
from fsmde_edge.distill.binning import (
    Positions,
    TeacherBins,
    direct_bins,
    metric_index,
    positions,
    soft_bins,
)
from fsmde_edge.distill.losses import bin_divergence, depth_error, mean
from fsmde_edge.distill.methods.base import Step
from fsmde_edge.distill.methods.recipe import CkdRecipe
from fsmde_edge.distill.resize import resized


class CrossInteraction(nn.Module):
    """Probabilities from the teacher, centres from LiDAR.

    Args:
        recipe: its settings.
        student: channels of the student's decoder features.
        teacher: channels of the teacher's features.
    """

    def __init__(self, recipe: CkdRecipe, *, student: int, teacher: int) -> None:
        super().__init__()
        self.recipe = recipe
        self.shared = TeacherBins(teacher, student) if recipe.bins == "shared" else None

    def forward(self, step: Step) -> dict[str, Tensor]:
        """`probability` and `centre`, each for its factor, and `anchor` for shared bins.

        The anchor trains the adapter and, in the head, `refine` and `logits`: the module is shared.
        """
        recipe, student = self.recipe, step.logits
        size = (student.shape[-2], student.shape[-1])
        where = positions(step.taught.disparity.flatten(0, 1), step.world, size, warp=recipe.warp)
        teacher = direct_bins(where.u, student.shape[1], softness=recipe.softness)
        losses = {}
        if self.shared is not None:
            direct = teacher
            teacher = self.shared(step.taught.features.flatten(0, 1), where.u, step.head)
            anchor = self._divergence(direct, teacher, where, step)
            losses["anchor"] = recipe.anchor_weight * anchor
        elif recipe.bins == "student":
            teacher = self._on_students_scale(where, step)
        probability = self._divergence(teacher, student, where, step)
        losses["probability"] = recipe.probability_weight * probability
        losses["centre"] = recipe.centre_weight * self._centre(teacher, where, step)
        return losses

    def _on_students_scale(self, where: Positions, step: Step) -> Tensor:
        """The teacher's structure on the student's bins, by the scale and shift that bring it nearest to it.

        Ground truth has no part in it, so its scale changes nothing; nor does the scale of the centres.
        """
        bins = step.prediction.bins
        size = (bins.depth.shape[-2], bins.depth.shape[-1])
        depth = bins.depth[:, 0].detach().to(where.u.dtype)
        disparity = resized(step.taught.disparity.flatten(0, 1)[:, None], size)[:, 0]
        aligned = align(disparity, depth, where.known)
        centres = bins.centres.detach().to(where.u.dtype)
        return soft_bins(
            metric_index(1 / aligned.inverse, centres), centres.shape[1], softness=self.recipe.softness
        )

    def _divergence(self, teacher: Tensor, student: Tensor, where: Positions, step: Step) -> Tensor:
        apart = bin_divergence(teacher, student, temperature=self.recipe.temperature)
        return mean(apart[where.known], total=step.total)

    def _centre(self, teacher: Tensor, where: Positions, step: Step) -> Tensor:
        """Error of Σ p_T c_S, upsampled as the student's own depth is, where the teacher spoke."""
        probabilities = torch.softmax(teacher.detach(), dim=1)
        centres = step.prediction.bins.centres.to(probabilities.dtype)
        inverse = 1 / (probabilities * centres[..., None, None]).sum(dim=1)
        depth = step.zoom[:, None, None] / resized(inverse[:, None], step.picture)[:, 0]
        spoken = where.known.flatten(1).any(dim=1)[:, None, None]
        weight = self.recipe.relative_weight
        return depth_error(depth, step.truth * spoken, relative_weight=weight, total=step.total)
