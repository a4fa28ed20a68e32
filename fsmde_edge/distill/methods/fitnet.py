"""Distillation of features: the student's, through a 1×1 convolution, learn the teacher's.

Source: Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015; trained with the other losses instead
of before them, on normalised features (ours).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from fsmde_edge.distill.losses import mean
from fsmde_edge.distill.methods.base import Step
from fsmde_edge.distill.methods.recipe import FitNetRecipe
from fsmde_edge.distill.resize import mostly, resized


class FitNet(nn.Module):
    """Squared distance of features of length 1, over the world, at the size of the teacher's.

    Args:
        recipe: its settings.
        student: channels of the student's decoder features.
        teacher: channels of the teacher's features.
    """

    def __init__(self, recipe: FitNetRecipe, *, student: int, teacher: int) -> None:
        super().__init__()
        self.recipe = recipe
        self.adapter = nn.Conv2d(student, teacher, 1)

    def forward(self, step: Step) -> dict[str, Tensor]:
        """`fitnet`: 0 where the directions agree, 4 where they oppose."""
        teacher = step.taught.features.flatten(0, 1)
        size = (teacher.shape[-2], teacher.shape[-1])
        student = self.adapter(resized(step.features.decoder.to(teacher.dtype), size))
        here, there = (functional.normalize(part, dim=1, eps=1e-6) for part in (student, teacher))
        apart = (here - there).square().sum(dim=1)
        return {"fitnet": self.recipe.weight * mean(apart[mostly(step.world, size)], total=step.total)}
