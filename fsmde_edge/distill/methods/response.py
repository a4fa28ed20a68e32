"""Response distillation: the student's depth learns the teacher's, put into metres by LiDAR."""

from __future__ import annotations

from torch import Tensor, nn

from fsmde_edge.distill.align import align
from fsmde_edge.distill.losses import depth_error
from fsmde_edge.distill.methods.base import Step
from fsmde_edge.distill.methods.recipe import ResponseRecipe


class Response(nn.Module):
    """Error against the teacher's depth over the world, sky aside, of views that LiDAR could align."""

    def __init__(self, recipe: ResponseRecipe) -> None:
        super().__init__()
        self.recipe = recipe

    def forward(self, step: Step) -> dict[str, Tensor]:
        """`response`; a view without LiDAR adds nothing."""
        aligned = align(step.taught.disparity.flatten(0, 1), step.truth, step.world)
        told = step.world & ~step.sky & aligned.known[:, None, None]
        loss = depth_error(
            step.depth,
            told / aligned.inverse,
            relative_weight=self.recipe.relative_weight,
            total=step.total,
        )
        return {"response": self.recipe.weight * loss}
