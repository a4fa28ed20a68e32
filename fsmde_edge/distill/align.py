"""A teacher's relative disparity in metres: scale and shift of each view from its own LiDAR points.

Medians of slopes find the line through four in five points wherever the fifth lies; weighted least squares
then use what those four say in full (the plan of Yohai, "High Breakdown-Point and High Efficiency Robust
Estimates for Regression", 1987).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fsmde_edge.distill.resize import resized

FEWEST = 16
"""Points from which on a line is fitted; below, the median and the spread of few are steadier than slopes."""

ROUNDS = 3
"""Of reweighted least squares."""

CUT, NORMAL = 4.685, 1.4826
"""Residuals beyond CUT standard deviations count nothing (95 % efficiency, Beaton and Tukey, 1974); NORMAL is
the standard deviation of normal noise over its median absolute value."""

SLACK = 4.0
"""Aligned inverse depth stays between the view's smallest LiDAR one over this and its largest times this."""


class Aligned(NamedTuple):
    """A teacher's depth in metres.

    Attributes:
        inverse: float [N, H, W], 1 / m along z, positive.
        known: bool [N], whether the view had LiDAR to align to; where not, `inverse` is 1.
    """

    inverse: Tensor
    known: Tensor


class _Points(NamedTuple):
    """Where LiDAR and teacher both speak, by rising disparity: [N, M] each, but `counts` [N, 1]."""

    disparity: Tensor
    inverse: Tensor
    there: Tensor
    counts: Tensor


@torch.no_grad()
def align(disparity: Tensor, truth: Tensor, world: Tensor) -> Aligned:
    """Fit inverse depth = scale × disparity + shift to each view's LiDAR.

    The start is the median of the slopes between points half the ranks apart and the median of what is left
    (Theil, "A rank-invariant method of linear and polynomial regression analysis", 1950, the incomplete
    method): exact for affine data of which less than a quarter are outliers. `ROUNDS` of least squares with
    Tukey's biweight follow. With fewer than `FEWEST` points, or where the slope is not positive, scale and
    shift come from median and mean absolute deviation (Ranftl et al., "Towards Robust Monocular Depth
    Estimation", TPAMI 2022, eq. 5). The result is clamped to the view's LiDAR range, widened by `SLACK` both
    ways (ours): always positive, and scaled with the ground truth. No gradient passes.

    Args:
        disparity: [N, h, w], larger is nearer.
        truth: float [N, H, W], metres; 0 and below = none (so also the sky).
        world: bool [N, H, W]; points on the own car do not count.
    """
    wide = resized(disparity.to(truth.dtype)[:, None], (truth.shape[-2], truth.shape[-1]))[:, 0]
    points = _points(wide, truth, world & (truth > 0))
    scale, shift = _line(points)
    for _ in range(ROUNDS):
        scale, shift = _polished(points, scale, shift)
    usable = (points.counts >= FEWEST) & (scale > 0) & shift.isfinite()
    rough_scale, rough_shift = _median_and_spread(points)
    scale, shift = torch.where(usable, scale, rough_scale), torch.where(usable, shift, rough_shift)
    known = (scale > 0) & scale.isfinite() & shift.isfinite()
    least = torch.where(points.there, points.inverse, torch.inf).amin(dim=1) / SLACK
    most = torch.where(points.there, points.inverse, 0.0).amax(dim=1) * SLACK
    inverse = scale[..., None] * wide + shift[..., None]
    inverse = torch.minimum(torch.maximum(inverse, least[:, None, None]), most[:, None, None])
    return Aligned(torch.where(known[..., None], inverse, 1.0), known[:, 0])


def _points(disparity: Tensor, truth: Tensor, valid: Tensor) -> _Points:
    """Gather the valid pixels of every view, sorted by disparity, padded to the longest."""
    count = valid.flatten(1).sum(dim=1, keepdim=True)
    most = max(1, int(count.max()))
    order = torch.where(valid, disparity, torch.inf).flatten(1).argsort(dim=1)[:, :most]
    there = torch.arange(most, device=order.device) < count
    inverse = torch.where(there, 1 / truth.flatten(1).gather(1, order), 0.0)
    return _Points(disparity.flatten(1).gather(1, order), inverse, there, count)


def _line(points: _Points) -> tuple[Tensor, Tensor]:
    """Scale and shift [N, 1] by medians of slopes; NaN where no two points differ in disparity."""
    rank = torch.arange(points.there.shape[1], device=points.there.device)
    half = points.counts // 2
    partner = (rank + points.counts - half).clamp(max=len(rank) - 1)
    run = points.disparity.gather(1, partner) - points.disparity
    rise = points.inverse.gather(1, partner) - points.inverse
    slope = _median(rise / run, (rank < half) & (run > 0))
    return slope, _median(points.inverse - slope * points.disparity, points.there)


def _polished(points: _Points, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """One round of least squares, residuals weighted by Tukey's biweight; a falling line stays as it is."""
    left = points.inverse - (scale * points.disparity + shift)
    # Exact data leave rounding alone, which is no measure: a millionth is noise too.
    noise = NORMAL * _median(left.abs(), points.there) + 1e-6 * _median(points.inverse, points.there)
    weight = torch.where(points.there, (1 - (left / (CUT * noise)).square()).clamp(min=0).square(), 0.0)

    def average(values: Tensor) -> Tensor:
        return (weight * values).sum(dim=1, keepdim=True) / weight.sum(dim=1, keepdim=True)

    middle, level = average(points.disparity), average(points.inverse)
    run = points.disparity - middle
    slope = average(run * (points.inverse - level)) / average(run.square())
    rises = scale > 0
    return torch.where(rises, slope, scale), torch.where(rises, level - slope * middle, shift)


def _median_and_spread(points: _Points) -> tuple[Tensor, Tensor]:
    """Scale and shift [N, 1] that give the disparity the median and the spread of the LiDAR."""
    middles, spreads = [], []
    for values in (points.disparity, points.inverse):
        middle = _median(values, points.there)
        deviation = torch.where(points.there, (values - middle).abs(), 0.0).sum(dim=1, keepdim=True)
        middles.append(middle)
        spreads.append(deviation / points.counts)
    scale = spreads[1] / spreads[0]
    return scale, middles[1] - scale * middles[0]


def _median(values: Tensor, there: Tensor) -> Tensor:
    """The (lower) median [N, 1] of the values [N, M] that are there; NaN where none is."""
    return torch.where(there, values, torch.nan).nanmedian(dim=1, keepdim=True).values
