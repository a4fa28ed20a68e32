"""Training losses."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SKY_BEYOND = 100.0
"""Metres: sky counts as right from here on."""


def sky_hinge(depth: Tensor, sky: Tensor) -> Tensor:
    """How much nearer than 100 m the sky is put: mean of max(0, ln 100 − ln depth) over it. Ours.

    LiDAR says nothing about the sky; without this a network may put it anywhere, also right ahead.

    Args:
        depth: float [N, H, W], metres, positive.
        sky: bool [N, H, W].
    """
    if not bool(sky.any()):
        return depth.sum() * 0.0
    return torch.relu(math.log(SKY_BEYOND) - torch.log(depth[sky])).mean()


def relative(depth: Tensor, truth: Tensor) -> Tensor:
    """Mean of |depth − truth| / truth over the pixels with ground truth: Abs Rel itself; 0 where none has.

    SILog forgives a near edge put far away as much as a far one put near; Abs Rel does not.

    Args:
        depth: float [N, H, W], metres, positive.
        truth: float [N, H, W], metres; 0 and below = none.
    """
    valid = truth > 0
    if not bool(valid.any()):
        return depth.sum() * 0.0
    return ((depth[valid] - truth[valid]).abs() / truth[valid]).mean()


def silog(depth: Tensor, truth: Tensor, *, forgive: float) -> Tensor:
    """Scale-invariant log error over the pixels that have ground truth.

    √(mean g² − λ (mean g)²) with g = log depth − log truth; 0 where no pixel has ground truth.
    Source: Eigen et al., "Depth Map Prediction from a Single Image", NeurIPS 2014, eq. 4, square root and
    λ = 0.85 as in Lee et al., "From Big to Small", 2019.

    Args:
        depth: float [N, H, W], metres, positive.
        truth: float [N, H, W], metres; 0 and below = none.
        forgive: λ.
    """
    valid = truth > 0
    if not bool(valid.any()):
        return depth.sum() * 0.0
    error = torch.log(depth[valid]) - torch.log(truth[valid])
    return torch.sqrt(error.square().mean() - forgive * error.mean().square() + 1e-8)
