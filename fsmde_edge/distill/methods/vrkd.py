"""View-relational distillation: how alike ring-adjacent views are where they meet. The formulas are ours.

A descriptor is the mean of features over a band of a region that two neighbours share (see `overlap`).
Cosines of descriptors, centred within their frame set, are relations: no scale, no number of channels, no
other set.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from fsmde_edge.distill.losses import mean
from fsmde_edge.distill.methods.base import Step
from fsmde_edge.distill.methods.recipe import VrkdRecipe
from fsmde_edge.distill.overlap import RingLinks, ring_ends, ring_links
from fsmde_edge.distill.resize import mostly, resized

LEAST = 0.01
"""Share of a band that its region must cover for a descriptor."""

HUBER = 0.1
"""Difference of cosines from which on the loss is linear."""

STEADY = 1e-4
"""Share of the set's mean squared length that is added to each one's: none is divided by 0."""


class Relations(NamedTuple):
    """Likeness of neighbours.

    Attributes:
        cosine: float [B, L, M, M], of band m of one view with band n of the next, -1..1.
        known: bool [B, L, M, M].
    """

    cosine: Tensor
    known: Tensor


class ViewRelations(nn.Module):
    """The teacher's relations between ring neighbours, asked of the student's decoder features."""

    def __init__(self, recipe: VrkdRecipe) -> None:
        super().__init__()
        self.recipe = recipe

    def forward(self, step: Step) -> dict[str, Tensor]:
        """`relation`; 0 for a single view, and where no neighbours meet."""
        batch = step.batch
        links = ring_links(batch.intrinsics, batch.extrinsics, step.picture)
        student, teacher = (
            relations(features, links, batch.world, bands=self.recipe.bands)
            for features in (step.by_set(step.features.decoder), step.taught.features)
        )
        known = student.known & teacher.known
        apart = functional.smooth_l1_loss(
            student.cosine[known], teacher.cosine[known], reduction="none", beta=HUBER
        )
        return {"relation": self.recipe.weight * mean(apart, total=step.total)}


def relations(features: Tensor, links: RingLinks, world: Tensor, *, bands: int) -> Relations:
    """Centred cosines between the bands of ring neighbours.

    Args:
        features: float [B, V, C, h, w].
        links: regions of the ring, of any size.
        world: bool [B, V, H, W]; the own car is left out.
        bands: M, from top to bottom.
    """
    size = (features.shape[-2], features.shape[-1])
    inside = mostly(world.flatten(0, 1), size).reshape(*world.shape[:2], *size)
    ends = ring_ends(features.shape[1], features.device)
    described = [
        _descriptors(features[:, views], resized(region, size) * inside[:, views], bands)
        for views, region in zip(ends, (links.here, links.there), strict=True)
    ]
    descriptors = torch.stack([part for part, _ in described])
    known = torch.stack([part for _, part in described])
    here, there = _directions(descriptors, known)
    return Relations(
        torch.einsum("blmc,blnc->blmn", here, there), known[0][..., :, None] & known[1][..., None, :]
    )


def _descriptors(features: Tensor, region: Tensor, bands: int) -> tuple[Tensor, Tensor]:
    """Means over a region's bands, [B, L, M, C], and whether there is enough region for one, [B, L, M]."""
    rows = _bands(region.shape[-2], bands, like=region)
    mass = torch.einsum("blhw,mh->blm", region, rows)
    added = torch.einsum("blchw,blhw,mh->blmc", features, region, rows)
    known = mass / (rows.sum(dim=1) * region.shape[-1]) >= LEAST
    return added / torch.where(known, mass, 1.0)[..., None], known


def _bands(height: int, bands: int, *, like: Tensor) -> Tensor:
    """How much of each row lies in each of M equal bands, [M, height]."""
    edges = torch.arange(bands + 1, dtype=like.dtype, device=like.device)[:, None] * (height / bands)
    row = torch.arange(height, dtype=like.dtype, device=like.device)
    return (torch.minimum(edges[1:], row + 1) - torch.maximum(edges[:-1], row)).clamp(min=0)


def _directions(descriptors: Tensor, known: Tensor) -> Tensor:
    """Unit vectors from the set's mean, [2, B, L, M, C]; short ones stay short (see `STEADY`)."""
    weight = known.to(descriptors.dtype)[..., None]
    ways = (0, 2, 3)
    count = weight.sum(dim=ways, keepdim=True).clamp(min=1)
    centred = (descriptors - (descriptors * weight).sum(dim=ways, keepdim=True) / count) * weight
    squares = centred.square().sum(dim=-1, keepdim=True)
    usual = squares.detach().sum(dim=ways, keepdim=True) / count
    floor = torch.finfo(descriptors.dtype).tiny ** 0.5
    return centred * torch.rsqrt(squares + STEADY * usual + floor)
