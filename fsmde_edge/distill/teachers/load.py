"""From a recipe to a teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from fsmde_edge.distill.teachers.base import Teacher
from fsmde_edge.distill.teachers.depth_anything import DepthAnything
from fsmde_edge.distill.teachers.own import OwnTeacher
from fsmde_edge.distill.teachers.recipe import TeacherRecipe

TEACHERS: Mapping[str, Callable[[TeacherRecipe, torch.device], Teacher]] = {
    "depth-anything": DepthAnything.load,
    "own": OwnTeacher.load,
}


def load_teacher(recipe: TeacherRecipe, device: torch.device) -> Teacher:
    """The recipe's teacher, frozen, on a device.

    Raises:
        MissingExtra: its package is not installed.
        InputError: its source cannot be used.
    """
    return TEACHERS[recipe.kind](recipe, device)
