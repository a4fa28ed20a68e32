"""Augmentation of a batch of views that keeps its geometry honest, drawn from a given generator.

Zooming in by s makes the focal length s times as long; mirroring leaves it. Depth values stay as they are.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from fsmde_edge.distill.recipe import AugmentRecipe

SKY = -1.0
"""Marks sky in a map of true depth."""


class Views(NamedTuple):
    """A batch of views.

    Attributes:
        pictures: float [N, 3, H, W] in 0..255.
        truth: float [N, H, W], sparse depth in metres, 0 = none, `SKY` = sky.
        focal: float [N], fx in pixels.
    """

    pictures: Tensor
    truth: Tensor
    focal: Tensor


def augment(views: Views, recipe: AugmentRecipe, generator: torch.Generator) -> Views:
    """Mirror, zoom with crop, and colour, every view on its own draw."""
    return _recolour(_reframe(views, recipe, generator), generator)


def _reframe(views: Views, recipe: AugmentRecipe, generator: torch.Generator) -> Views:
    count = len(views.focal)
    zoom = 1 + (recipe.zoom - 1) * _uniform(generator, count).square()
    mirror = torch.where(_uniform(generator, count) < 0.5, -1.0, 1.0)
    slack = 1 - 1 / zoom
    right = (2 * _uniform(generator, count) - 1) * slack
    down = (2 * _uniform(generator, count) - 1) * recipe.vertical_shift
    down = torch.minimum(torch.maximum(down, -slack), slack)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 0, 2] = mirror / zoom, right
    theta[:, 1, 1], theta[:, 1, 2] = 1 / zoom, down
    grid = functional.affine_grid(theta, list(views.pictures.shape), align_corners=False)
    pictures = functional.grid_sample(
        views.pictures, grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    truth = functional.grid_sample(views.truth[:, None], grid, mode="nearest", align_corners=False)[:, 0]
    return Views(pictures, truth, views.focal * zoom)


def _recolour(views: Views, generator: torch.Generator) -> Views:
    count = len(views.focal)

    def draw(low: float, high: float, channels: int = 1) -> Tensor:
        return low + (high - low) * _uniform(generator, count, channels, 1, 1)

    x = views.pictures / 255
    x = x.clamp(1e-4, 1) ** torch.exp(draw(-0.4, 0.4))
    grey = x.mean(dim=1, keepdim=True)
    saturation = torch.where(draw(0, 1) < 0.1, torch.zeros(1), draw(0.3, 1.7))
    x = grey + (x - grey) * saturation
    x = x * draw(0.85, 1.15, 3) * draw(0.7, 1.3)
    centre = x.mean(dim=(1, 2, 3), keepdim=True)
    x = centre + (x - centre) * draw(0.6, 1.4)
    soft = functional.avg_pool2d(functional.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    x = soft + (x - soft) * draw(0.0, 1.8)
    # One grain for the whole batch: views have their own strength, and drawing it per view took longest.
    x = x + torch.randn(x.shape[1:], generator=generator) * draw(0.0, 0.03)
    return views._replace(pictures=(x * 255).clamp(0, 255))


def _uniform(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(shape, generator=generator)
