"""A student with its method's loss, as one module: what DDP wraps."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from fsmde_edge.distill.batch import SetBatch, TeacherViews, Total, alone
from fsmde_edge.distill.losses import log_ratio
from fsmde_edge.distill.methods.base import Step
from fsmde_edge.distill.methods.build import build_method
from fsmde_edge.distill.qat import FakeQuantisation
from fsmde_edge.distill.recipe import TrainRecipe
from fsmde_edge.student.network import Student


class Learner(nn.Module):
    """Frame sets in, named losses out.

    Args:
        student: what is trained.
        recipe: names the method and the precision.
        teacher_channels: of the teacher's features; 0 where there is none.
        total: adds over processes.
        quantisation: of the student, where it trains in INT8 arithmetic.
    """

    def __init__(
        self,
        student: Student,
        recipe: TrainRecipe,
        *,
        teacher_channels: int = 0,
        total: Total = alone,
        quantisation: FakeQuantisation | None = None,
    ) -> None:
        super().__init__()
        self.student = student
        self.method = build_method(recipe.method, student=student.config.decoder[3], teacher=teacher_channels)
        self.mixed_precision = recipe.mixed_precision
        self.total = total
        self.quantisation = quantisation
        self.agreement = 0.0 if recipe.quantise is None else recipe.quantise.agreement

    def forward(
        self, batch: SetBatch, teacher: TeacherViews | None, total: Total | None = None
    ) -> dict[str, Tensor]:
        """Losses of a batch, scalars, already weighted; their sum is what is minimised.

        Args:
            batch: this process's part.
            teacher: what the teacher says of it.
            total: instead of the learner's own.
        """
        pictures = batch.pictures.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        focal = batch.focal.flatten()
        arithmetic = nullcontext() if self.quantisation is None else self.quantisation.on()
        autocast = torch.autocast(pictures.device.type, torch.bfloat16, enabled=self.mixed_precision)
        with arithmetic, autocast:
            features = self.student.features(pictures)
            prediction = self.student.predict(features, focal)
        step = Step(
            batch=batch,
            features=features,
            prediction=prediction,
            head=self.student.head,
            f0=self.student.config.focal,
            teacher=teacher,
            total=total or self.total,
        )
        losses: dict[str, Tensor] = self.method(step)
        if self.agreement > 0:
            with torch.no_grad():
                in_float = self.student(pictures, focal).depth
            here = torch.where(step.world, in_float, 0.0)
            losses["agreement"] = self.agreement * log_ratio(step.depth, here, total=step.total)
        return losses
