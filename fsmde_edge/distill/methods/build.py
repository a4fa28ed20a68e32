"""From a method's recipe to its loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from fsmde_edge.distill.methods.base import Step
from fsmde_edge.distill.methods.ckd import CrossInteraction
from fsmde_edge.distill.methods.fitnet import FitNet
from fsmde_edge.distill.methods.hinton import Hinton
from fsmde_edge.distill.methods.recipe import (
    METHODS,
    CkdRecipe,
    FitNetRecipe,
    HintonRecipe,
    MethodRecipe,
    ResponseRecipe,
    RkdRecipe,
    VrkdRecipe,
)
from fsmde_edge.distill.methods.response import Response
from fsmde_edge.distill.methods.rkd import Relational
from fsmde_edge.distill.methods.supervised import Supervised
from fsmde_edge.distill.methods.vrkd import ViewRelations

TERMS: Mapping[str, Callable[[MethodRecipe, int, int], nn.Module]] = {
    "ckd": lambda recipe, student, teacher: CrossInteraction(
        recipe.ckd or CkdRecipe(), student=student, teacher=teacher
    ),
    "vrkd": lambda recipe, *_: ViewRelations(recipe.vrkd or VrkdRecipe()),
    "response": lambda recipe, *_: Response(recipe.response or ResponseRecipe()),
    "hinton": lambda recipe, *_: Hinton(recipe.hinton or HintonRecipe()),
    "fitnet": lambda recipe, student, teacher: FitNet(
        recipe.fitnet or FitNetRecipe(), student=student, teacher=teacher
    ),
    "rkd": lambda recipe, *_: Relational(recipe.rkd or RkdRecipe()),
}
"""Term to how it is made from recipe, student's and teacher's channels."""


class Method(nn.Module):
    """The sum of terms, told apart; its parameters are the adapters that train beside the student.

    Args:
        terms: each gives losses of names of its own.
    """

    def __init__(self, terms: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.terms = nn.ModuleDict(dict(terms))

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Named losses, scalars, already weighted; their sum is the loss."""
        return {name: loss for term in self.terms.values() for name, loss in term(step).items()}


def build_method(recipe: MethodRecipe, *, student: int, teacher: int = 0) -> Method:
    """A method's loss, its adapters initialised from PyTorch's generator.

    Args:
        recipe: the method and its settings.
        student: channels of the student's decoder features.
        teacher: channels of the teacher's features; 0 where there is none.
    """
    terms: dict[str, nn.Module] = {"supervised": Supervised(recipe.supervised)}
    for name in METHODS[recipe.name]:
        terms[name] = TERMS[name](recipe, student, teacher)
    return Method(terms)
