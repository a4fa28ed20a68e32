"""Training losses: means over the whole batch, wherever its parts are (see `batch.Total`).

Every process asks for the same totals in the same order, also one that has nothing to add.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from fsmde_edge.distill.batch import Total, alone

SKY_BEYOND = 100.0
"""Metres: sky counts as right from here on."""


def mean(values: Tensor, *, total: Total = alone) -> Tensor:
    """Mean over all values of all processes; 0, with gradients of 0, where there are none.

    Args:
        values: float, any shape.
        total: adds over processes.
    """
    added, count = total(torch.stack((values.sum(), values.new_tensor(values.numel()))))
    average: Tensor = added / count.clamp(min=1)
    return average


def sky_hinge(depth: Tensor, sky: Tensor, *, total: Total = alone) -> Tensor:
    """How much nearer than 100 m the sky is put: mean of max(0, ln 100 − ln depth) over it. Ours.

    LiDAR says nothing about the sky; without this a network may put it anywhere, also right ahead.

    Args:
        depth: float [N, H, W], metres, positive.
        sky: bool [N, H, W].
        total: adds over processes.
    """
    return mean(torch.relu(math.log(SKY_BEYOND) - torch.log(depth[sky])), total=total)


def relative(depth: Tensor, truth: Tensor, *, total: Total = alone) -> Tensor:
    """Mean of |depth − truth| / truth over the pixels with ground truth: Abs Rel itself; 0 where none has.

    SILog forgives a near edge put far away as much as a far one put near; Abs Rel does not.

    Args:
        depth: float [N, H, W], metres, positive.
        truth: float [N, H, W], metres; 0 and below = none.
        total: adds over processes.
    """
    valid = truth > 0
    return mean((depth[valid] - truth[valid]).abs() / truth[valid], total=total)


def log_ratio(depth: Tensor, truth: Tensor, *, total: Total = alone) -> Tensor:
    """Mean of |log depth − log truth| over the pixels with ground truth; 0 where none has.

    Depth and truth that are scaled together keep it as it is.

    Args:
        depth: float [N, H, W], metres, positive.
        truth: float [N, H, W], metres; 0 and below = none.
        total: adds over processes.
    """
    valid = truth > 0
    return mean((torch.log(depth[valid]) - torch.log(truth[valid])).abs(), total=total)


def depth_error(depth: Tensor, truth: Tensor, *, relative_weight: float, total: Total = alone) -> Tensor:
    """Log ratio and, with its weight, relative error: both stay as they are when all is scaled together.

    The log ratio alone is least at the middle of what is uncertain; the relative error, which punishes what
    is put too far, nearer: a student whose LiDAR loss has it is pulled apart by a teacher's that has not.

    Args:
        depth, truth, total: see `log_ratio`.
        relative_weight: of the relative error.
    """
    error = log_ratio(depth, truth, total=total)
    if relative_weight > 0:
        error = error + relative_weight * relative(depth, truth, total=total)
    return error


def silog(depth: Tensor, truth: Tensor, *, forgive: float, total: Total = alone) -> Tensor:
    """Scale-invariant log error over the pixels that have ground truth.

    √(mean g² − λ (mean g)²) with g = log depth − log truth; 0 where no pixel has ground truth.
    Source: Eigen et al., "Depth Map Prediction from a Single Image", NeurIPS 2014, eq. 4, square root and
    λ = 0.85 as in Lee et al., "From Big to Small", 2019.

    Args:
        depth: float [N, H, W], metres, positive.
        truth: float [N, H, W], metres; 0 and below = none.
        forgive: λ.
        total: adds over processes.
    """
    valid = truth > 0
    error = torch.log(depth[valid]) - torch.log(truth[valid])
    count = error.new_tensor(error.numel())
    squares, added, count = total(torch.stack((error.square().sum(), error.sum(), count)))
    some = count.clamp(min=1)
    root = torch.sqrt(squares / some - forgive * (added / some).square() + 1e-8)
    loss: Tensor = root * (count > 0)
    return loss


def bin_divergence(teacher: Tensor, student: Tensor, *, temperature: float) -> Tensor:
    """τ² KL(softmax(teacher / τ) ‖ softmax(student / τ)) per pixel; it reaches the student alone.

    Source: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, sec. 2: τ² keeps the
    gradients' size as τ changes.

    Args:
        teacher, student: float [N, K, h, w], logits of one dtype over the same bins.
        temperature: τ.

    Returns:
        float [N, h, w], nats, not negative (up to rounding).
    """
    expected = torch.log_softmax(teacher.detach() / temperature, dim=1)
    said = torch.log_softmax(student / temperature, dim=1)
    apart = functional.kl_div(said, expected, reduction="none", log_target=True)
    return apart.sum(dim=1) * temperature**2
