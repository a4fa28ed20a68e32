"""The bin head: depth = Σ p_k c_k, probabilities per pixel, metric centres per picture.

Bins partition inverse depth. The centres come from one softmax over bin widths (as in Bhat et al.,
"AdaBins", CVPR 2021, there over depth): it starts at logarithmically spaced depths and moves per picture.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fsmde_edge.student.decoder import ConvNormRelu


class BinDepth(NamedTuple):
    """What the bin head says, at 1/4 of the picture, for a camera of focal length f0.

    Attributes:
        logits: [N, K, h, w], before the softmax over K.
        centres: [N, K] in metres, far to near.
        depth: [N, 1, h, w], expectation over the bins, metres.
        confidence: [N, 1, h, w] in 0..1: 1 / (1 + (σ / depth)²), σ the spread of the distribution.
    """

    logits: Tensor
    centres: Tensor
    depth: Tensor
    confidence: Tensor


class BinHead(nn.Module):
    """Features to a depth distribution per pixel.

    Args:
        features: channels of the decoder's features at 1/4.
        context: channels of the encoder's features at 1/32, pooled for the centres.
        bins: K.
        depth_range: nearest and farthest bin edge, metres.
    """

    def __init__(self, features: int, context: int, bins: int, depth_range: tuple[float, float]) -> None:
        super().__init__()
        near, far = depth_range
        self.inverse_far, self.inverse_near = 1 / far, 1 / near
        self.refine = ConvNormRelu(features, features)
        self.logits = nn.Conv2d(features, bins, 1)
        self.hidden = nn.Linear(context, 64)
        self.widths = nn.Linear(64, bins)
        with torch.no_grad():
            edges = torch.tensor([math.exp(-math.log(far / near) * k / bins) / near for k in range(bins + 1)])
            self.widths.weight.mul_(0.1)
            self.widths.bias.copy_((edges[:-1] - edges[1:]).flip(0).log())

    def forward(self, features: Tensor, context: Tensor) -> BinDepth:
        """[N, features, h, w] and [N, context, h/8, w/8] to depth."""
        logits = self.logits(self.refine(features))
        centres = self.centres(context)
        probabilities = torch.softmax(_full(logits), dim=1)
        depth = (probabilities * centres[:, :, None, None]).sum(dim=1, keepdim=True)
        second = (probabilities * (centres * centres)[:, :, None, None]).sum(dim=1, keepdim=True)
        return BinDepth(logits, centres, depth, (depth * depth / second).clamp(0, 1))

    def centres(self, context: Tensor) -> Tensor:
        """Bin centres [N, K] in metres, far to near: midpoints of inverse depth, always ordered."""
        pooled = _full(context).mean(dim=(2, 3))
        widths = torch.softmax(_full(self.widths(torch.relu(self.hidden(pooled)))), dim=1)
        upper = torch.cumsum(widths, dim=1)
        middle = upper - 0.5 * widths
        return 1 / (self.inverse_far + (self.inverse_near - self.inverse_far) * middle)


def _full(x: Tensor) -> Tensor:
    """Autocast's half precision as float32; float64 as it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
