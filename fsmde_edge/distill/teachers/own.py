"""A student of ours as a teacher: the stand-in where no foundation model can be had."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fsmde_edge.distill.teachers.base import (
    TeacherOutput,
    at_picture_size,
    count_parameters,
    fingerprint,
    frozen,
    resize_pictures,
)
from fsmde_edge.distill.teachers.recipe import TeacherRecipe
from fsmde_edge.errors import InputError
from fsmde_edge.student.checkpoint import load_checkpoint
from fsmde_edge.student.config import SHIPPED_CHECKPOINT
from fsmde_edge.student.network import Student

SHIPPED = "shipped"

VERSION = 1
"""Of the arithmetic in this file: raise it with every change of an output, so that no old cache is read."""

SMALLEST_SPREAD = 1e-6
"""1/m: a picture flatter than this is divided by this, so that a flat one is all zeros."""


@dataclass(frozen=True, slots=True, eq=False)
class OwnTeacher:
    """A trained `Student` whose metric scale is thrown away; see `Teacher`.

    Features are its decoder's, at 1/4 of what it sees: what its own bin head reads depth from.
    """

    name: str
    fingerprint: str
    parameters: int
    student: Student
    device: torch.device
    recipe: TeacherRecipe

    @classmethod
    def load(cls, recipe: TeacherRecipe, device: torch.device) -> OwnTeacher:
        """Read the checkpoint that the recipe names; `shipped` is the student that comes with the package.

        Raises:
            InputError: it is missing or none of ours.
        """
        student, _ = load_checkpoint(SHIPPED_CHECKPOINT if recipe.source == SHIPPED else Path(recipe.source))
        frozen(student, device)
        settings = {
            "kind": recipe.kind,
            "version": VERSION,
            "student": student.config.to_json(),
            "size": recipe.size,
            "feature_stride": recipe.feature_stride,
        }
        return cls(
            name=f"own-{student.config.name}",
            fingerprint=fingerprint(student, settings),
            parameters=count_parameters(student),
            student=student,
            device=device,
            recipe=recipe,
        )

    @torch.no_grad()
    def __call__(self, pictures: Tensor) -> TeacherOutput:
        """See `Teacher`.

        Raises:
            InputError: pictures that are not in multiples of 32, where the recipe gives no size.
        """
        height, width = pictures.shape[-2:]
        if self.recipe.size is None and (height % 32 or width % 32):
            raise InputError(
                f"teacher {self.name} cannot look at pictures of {height}x{width}: not multiples of 32",
                hint="give it a size in the recipe",
            )
        seen = resize_pictures(pictures.to(self.device), self.recipe.size or (height, width))
        features = self.student.features(seen)
        # Any one focal length will do: it is a scale, and scale is what falls out.
        focal = torch.full((len(seen),), self.student.config.focal, device=self.device)
        depth = self.student.predict(features, focal).depth
        output = at_picture_size(1 / depth, features.decoder, pictures, self.recipe.feature_stride)
        return output._replace(disparity=affine_invariant(output.disparity))


def affine_invariant(disparity: Tensor) -> Tensor:
    """Each picture's disparity without its scale and shift: (d − median d) / mean |d − median d|.

    Source: the robust shift and scale of Ranftl et al., "Towards Robust Monocular Depth Estimation", TPAMI
    2022.

    Args:
        disparity: float [N, H, W].
    """
    flat = disparity.flatten(1)
    centred = flat - flat.median(dim=1, keepdim=True).values
    spread = centred.abs().mean(dim=1, keepdim=True).clamp_min(SMALLEST_SPREAD)
    return (centred / spread).view_as(disparity)
