"""A teacher's depth as probabilities over ordered bins, with no metre in it. The formulas are ours.

Disparity that is known up to a scale and a shift becomes a *position* u, from 0 (far) to 1 (near), by
statistics of the view itself; K bins of equal width in u, far to near like the student's, take it softly.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from fsmde_edge.distill.resize import mostly, resized
from fsmde_edge.student.bins import BinHead

FAR, NEAR = 0.01, 0.99
"""Quantiles of a view's disparity that count as its farthest and its nearest."""


class Positions(NamedTuple):
    """Where between far and near the teacher puts things.

    Attributes:
        u: float [N, h, w], 0 (far) to 1 (near).
        known: bool [N, h, w], False on the own car and in views of one disparity.
    """

    u: Tensor
    known: Tensor


@torch.no_grad()
def positions(disparity: Tensor, world: Tensor, size: tuple[int, int], *, warp: float) -> Positions:
    """Positions by a view's own statistics: a positive scale and a shift of its disparity change nothing.

    u = log(1 + κ n) / log(1 + κ), n the place between two quantiles of the world's disparity, clipped to
    0..1. The disparity is averaged to the size first. κ gives far things, which crowd at n = 0, bins of
    their own: for n = z_near / z and κ z_near well above z, u falls evenly with log z.

    Args:
        disparity: float [N, h', w'], larger is nearer.
        world: bool [N, H, W]; the own car counts neither in the statistics nor as known.
        size: height and width of the result.
        warp: κ, above 0.
    """
    coarse = resized(disparity[:, None], size)[:, 0]
    inside = mostly(world, size)
    spoken = torch.where(inside, coarse, torch.nan).flatten(1)
    far, near = torch.nanquantile(spoken, coarse.new_tensor((FAR, NEAR)), dim=1)[..., None, None]
    differs = near > far  # False where they are NaN: nothing but the own car
    place = ((coarse - far) / torch.where(differs, near - far, 1.0)).clamp(0, 1)
    u = torch.log1p(warp * torch.where(differs, place, 0.0)) / math.log1p(warp)
    return Positions(u, inside & differs)


def soft_bins(index: Tensor, bins: int, *, softness: float) -> Tensor:
    """Logits of a normal distribution over bins around a fractional bin index.

    Args:
        index: float [N, h, w]; k is the middle of bin k.
        bins: K.
        softness: standard deviation, in bins.

    Returns:
        float [N, K, h, w].
    """
    each = torch.arange(bins, dtype=index.dtype, device=index.device)[:, None, None]
    return -0.5 * ((each - index[:, None]) / softness).square()


def direct_bins(u: Tensor, bins: int, *, softness: float) -> Tensor:
    """Logits [N, K, h, w] over K equal bins of the position u [N, h, w]; `softness` as in `soft_bins`."""
    return soft_bins(u * bins - 0.5, bins, softness=softness)


def metric_index(depth: Tensor, centres: Tensor) -> Tensor:
    """Fractional index of depth among a view's bin centres, linear in log depth between two of them.

    Args:
        depth: float [N, h, w], metres, positive.
        centres: float [N, K], metres, far to near, K ≥ 2.

    Returns:
        float [N, h, w]; beyond the outermost centres at most half a bin farther.
    """
    values, marks = -torch.log(depth).flatten(1), -torch.log(centres)
    upper = torch.searchsorted(marks, values).clamp(1, centres.shape[1] - 1)
    low, high = marks.gather(1, upper - 1), marks.gather(1, upper)
    step = (high - low).clamp(min=torch.finfo(values.dtype).eps)
    along = (upper - 1 + (values - low) / step).clamp(-0.5, centres.shape[1] - 0.5)
    return along.view_as(depth)


class TeacherBins(nn.Module):
    """Teacher features through a light adapter into the student's own bin head.

    Features are normalised per pixel, so their scale does not matter, and joined by u, as strong as all of
    them together; the adapter is a 1×1 convolution and a norm per view, so no view depends on its batch.

    Args:
        teacher: channels of the teacher's features.
        student: channels of the student's decoder features, which the bin head takes.
    """

    def __init__(self, teacher: int, student: int) -> None:
        super().__init__()
        self.adapter = nn.Sequential(
            nn.Conv2d(teacher + 1, student, 1, bias=False), nn.GroupNorm(1, student), nn.ReLU()
        )

    def forward(self, features: Tensor, u: Tensor, head: BinHead) -> Tensor:
        """Logits over the head's bins.

        Args:
            features: float [N, C, h', w'].
            u: float [N, h, w], positions.
            head: the student's; its batch-norm statistics stay as they are.

        Returns:
            float [N, K, h, w].
        """
        size = (u.shape[-2], u.shape[-1])
        level = functional.layer_norm(features.movedim(1, -1), features.shape[1:2]).movedim(-1, 1)
        rank = (2 * u - 1)[:, None] * math.sqrt(features.shape[1])
        adapted = self.adapter(torch.cat((resized(level, size), rank), dim=1))
        logits: Tensor = head.logits(_refined(head, adapted))
        return logits


def _refined(head: BinHead, features: Tensor) -> Tensor:
    """The head's refinement, leaving no trace of these features in its running statistics."""
    convolution, norm, activation = head.refine
    assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
    x = convolution(features)
    if norm.training:
        x = functional.batch_norm(x, None, None, norm.weight, norm.bias, training=True, eps=norm.eps)
    else:
        x = norm(x)
    refined: Tensor = activation(x)
    return refined
