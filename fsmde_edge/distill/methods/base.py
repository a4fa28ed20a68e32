"""What a method sees of one training step."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from fsmde_edge.distill.augment import SKY
from fsmde_edge.distill.batch import SetBatch, TeacherViews, Total, alone
from fsmde_edge.student.bins import BinHead
from fsmde_edge.student.network import Features, Prediction


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """One batch, and what student and teacher say of it; N = B V views, sets first.

    Attributes:
        batch: the frame sets; the dtype of its ground truth is the one that losses are computed in.
        features: the student's, [N, ...].
        prediction: the student's, [N, ...].
        head: the student's bin head.
        f0: focal length, in pixels, for which the bin head's metres hold.
        teacher: what the teacher says; None if there is none.
        total: adds over processes.
    """

    batch: SetBatch
    features: Features
    prediction: Prediction
    head: BinHead
    f0: float
    teacher: TeacherViews | None = None
    total: Total = alone

    @property
    def taught(self) -> TeacherViews:
        """The teacher's views, in the losses' dtype.

        Raises:
            ValueError: there is no teacher.
        """
        if self.teacher is None:
            raise ValueError("this method needs a teacher")
        return TeacherViews(*(part.to(self.batch.truth.dtype) for part in self.teacher))

    @cached_property
    def world(self) -> Tensor:
        """Bool [N, H, W], as in the batch."""
        return self.batch.world.flatten(0, 1)

    @cached_property
    def truth(self) -> Tensor:
        """Float [N, H, W], metres; 0 = none, also on the own car; `SKY` = sky."""
        return torch.where(self.world, self.batch.truth.flatten(0, 1), 0.0)

    @property
    def sky(self) -> Tensor:
        """Bool [N, H, W]: known to be sky."""
        return self.truth == SKY

    @property
    def zoom(self) -> Tensor:
        """Fx / f0, [N]: metres over the bin head's metres."""
        return self.batch.focal.flatten() / self.f0

    @property
    def depth(self) -> Tensor:
        """The student's depth, [N, H, W], metres, in the losses' dtype."""
        return self.prediction.depth.to(self.batch.truth.dtype)

    @property
    def logits(self) -> Tensor:
        """The student's bins, [N, K, h, w], in the losses' dtype."""
        return self.prediction.bins.logits.to(self.batch.truth.dtype)

    @property
    def picture(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        return self.truth.shape[-2], self.truth.shape[-1]

    def by_set(self, views: Tensor) -> Tensor:
        """[N, ...] as [B, V, ...], in the losses' dtype."""
        return views.to(self.batch.truth.dtype).reshape(*self.batch.truth.shape[:2], *views.shape[1:])


class Term(Protocol):
    """A part of a method's loss; a `torch.nn.Module`, since some own parameters."""

    def __call__(self, step: Step) -> dict[str, Tensor]:
        """Named losses, scalars, already weighted."""
