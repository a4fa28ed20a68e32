"""Training losses."""

from __future__ import annotations

import torch
from torch import Tensor


def silog(depth: Tensor, truth: Tensor, *, forgive: float) -> Tensor:
    """Scale-invariant log error over the pixels that have ground truth.

    √(mean g² − λ (mean g)²) with g = log depth − log truth; 0 where no pixel has ground truth.
    Source: Eigen et al., "Depth Map Prediction from a Single Image", NeurIPS 2014, eq. 4, square root and
    λ = 0.85 as in Lee et al., "From Big to Small", 2019.

    Args:
        depth: float [N, H, W], metres, positive.
        truth: float [N, H, W], metres, 0 = none.
        forgive: λ.
    """
    valid = truth > 0
    if not bool(valid.any()):
        return depth.sum() * 0.0
    error = torch.log(depth[valid]) - torch.log(truth[valid])
    return torch.sqrt(error.square().mean() - forgive * error.mean().square() + 1e-8)
