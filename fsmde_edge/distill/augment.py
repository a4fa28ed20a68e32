"""Augmentation of frame sets that keeps their geometry honest, drawn from a generator a set.

Zooming in by s makes the focal length s times as long; mirroring reverses the ring and mirrors every pose.
Depth values stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from fsmde_edge.distill.batch import SetBatch, TeacherViews
from fsmde_edge.distill.recipe import AugmentRecipe

SKY = -1.0
"""Marks sky in a map of true depth."""


@dataclass(frozen=True, slots=True, eq=False)
class Framing:
    """How each view of a batch is cropped and mirrored; every tensor is [B, V].

    Attributes:
        mirror: -1 where mirrored, else 1.
        zoom: how much the crop magnifies, ≥ 1.
        right, down: where the crop's centre lies, in half pictures from the picture's centre.
        ring: int64 [B, V], which view comes to each place.
    """

    mirror: Tensor
    zoom: Tensor
    right: Tensor
    down: Tensor
    ring: Tensor


def augment(
    batch: SetBatch,
    teacher: TeacherViews | None,
    recipe: AugmentRecipe,
    generators: Sequence[torch.Generator],
) -> tuple[SetBatch, TeacherViews | None]:
    """Mirror, zoom with crop, and colour.

    Args:
        batch: frame sets.
        teacher: what the teacher says of them; framed alike.
        recipe: how widely is drawn.
        generators: one a frame set, so that a set looks the same in whichever process it is.
    """
    views = batch.pictures.shape[1]
    framing = draw_framing(recipe, views, generators)
    framed = reframe(batch, framing)
    pictures = torch.stack(
        [
            _recolour(one, generator, each_view=recipe.each_view)
            for one, generator in zip(framed.pictures, generators, strict=True)
        ]
    )
    return framed._replace(pictures=pictures), None if teacher is None else _reframed(teacher, framing)


def draw_framing(recipe: AugmentRecipe, views: int, generators: Sequence[torch.Generator]) -> Framing:
    """Draw how a batch is framed."""
    drawn = [_draw_one(recipe, views, generator) for generator in generators]
    mirror, zoom, right, down = (torch.stack(parts) for parts in zip(*drawn, strict=True))
    ahead = torch.arange(views).expand(len(drawn), views)
    reversed_ring = (-ahead) % views
    turned = torch.zeros_like(mirror, dtype=torch.bool) if recipe.each_view else mirror < 0
    return Framing(mirror, zoom, right, down, torch.where(turned, reversed_ring, ahead))


def reframe(batch: SetBatch, framing: Framing) -> SetBatch:
    """Crop, zoom and mirror pictures, ground truth, intrinsics and poses alike."""
    height, width = batch.pictures.shape[-2:]
    return SetBatch(
        pictures=_warp(batch.pictures, framing, mode="bilinear"),
        truth=_warp(batch.truth[:, :, None], framing, mode="nearest")[:, :, 0],
        world=_warp(batch.world[:, :, None].float(), framing, mode="nearest")[:, :, 0] > 0.5,
        intrinsics=_intrinsics(_turned(batch.intrinsics, framing), framing, height, width),
        extrinsics=_mirrored_poses(_turned(batch.extrinsics, framing), framing),
    )


def _reframed(teacher: TeacherViews, framing: Framing) -> TeacherViews:
    return TeacherViews(
        disparity=_warp(teacher.disparity[:, :, None], framing, mode="bilinear")[:, :, 0],
        features=_warp(teacher.features, framing, mode="bilinear"),
    )


def _draw_one(
    recipe: AugmentRecipe, views: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    count = views if recipe.each_view else 1
    zoom = 1 + (recipe.zoom - 1) * _uniform(generator, count).square()
    mirror = torch.where(_uniform(generator, count) < 0.5, -1.0, 1.0)
    slack = 1 - 1 / zoom
    # A crop stays within its picture.
    right = (2 * _uniform(generator, count) - 1) * slack
    down = (2 * _uniform(generator, count) - 1) * recipe.vertical_shift
    down = torch.minimum(torch.maximum(down, -slack), slack)
    return mirror.expand(views), zoom.expand(views), right.expand(views), down.expand(views)


def _turned(values: Tensor, framing: Framing) -> Tensor:
    """Views in the order of the framed ring."""
    index = framing.ring.reshape(*framing.ring.shape, *(1 for _ in values.shape[2:]))
    return values.gather(1, index.expand(-1, -1, *values.shape[2:]))


def _warp(maps: Tensor, framing: Framing, *, mode: str) -> Tensor:
    """Maps [B, V, C, h, w] as the framing shows them; what lies beyond repeats the border."""
    flat = _turned(maps, framing).flatten(0, 1)
    theta = torch.zeros(len(flat), 2, 3, dtype=maps.dtype)
    theta[:, 0, 0], theta[:, 0, 2] = (framing.mirror / framing.zoom).flatten(), framing.right.flatten()
    theta[:, 1, 1], theta[:, 1, 2] = 1 / framing.zoom.flatten(), framing.down.flatten()
    grid = functional.affine_grid(theta.to(maps.device), list(flat.shape), align_corners=False)
    warped = functional.grid_sample(flat, grid, mode=mode, padding_mode="border", align_corners=False)
    return warped.reshape(maps.shape)


def _intrinsics(k: Tensor, framing: Framing, height: int, width: int) -> Tensor:
    """K of the cropped pictures; a mirrored camera's x runs to its picture's right again."""
    framed = k.clone()
    framed[..., 0, 0] = k[..., 0, 0] * framing.zoom
    framed[..., 1, 1] = k[..., 1, 1] * framing.zoom
    left = k[..., 0, 2] - width / 2 * (1 + framing.right)
    above = k[..., 1, 2] - height / 2 * (1 + framing.down)
    framed[..., 0, 2] = width / 2 + framing.mirror * framing.zoom * left
    framed[..., 1, 2] = height / 2 + framing.zoom * above
    return framed


def _mirrored_poses(poses: Tensor, framing: Framing) -> Tensor:
    """Camera to vehicle in the mirrored world: y of the vehicle and x of the camera change sign."""
    vehicle = torch.diag(torch.tensor([1.0, -1.0, 1.0, 1.0])).to(poses)
    camera = torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0])).to(poses)
    return torch.where((framing.mirror < 0)[..., None, None], vehicle @ poses @ camera, poses)


def _recolour(pictures: Tensor, generator: torch.Generator, *, each_view: bool) -> Tensor:
    """Other light, film and sharpness for the views [V, 3, H, W] of one set."""
    count = len(pictures) if each_view else 1

    def draw(low: float, high: float, channels: int = 1) -> Tensor:
        return low + (high - low) * _uniform(generator, count, channels, 1, 1)

    x = pictures / 255
    x = x.clamp(1e-4, 1) ** torch.exp(draw(-0.4, 0.4))
    grey = x.mean(dim=1, keepdim=True)
    saturation = torch.where(draw(0, 1) < 0.1, torch.zeros(1), draw(0.3, 1.7))
    x = grey + (x - grey) * saturation
    x = x * draw(0.85, 1.15, 3) * draw(0.7, 1.3)
    centre = x.mean(dim=(1, 2, 3), keepdim=True)
    x = centre + (x - centre) * draw(0.6, 1.4)
    soft = functional.avg_pool2d(functional.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    x = soft + (x - soft) * draw(0.0, 1.8)
    # One grain for all views of a set: they have their own strength, and drawing it per view took longest.
    x = x + torch.randn(x.shape[1:], generator=generator) * draw(0.0, 0.03)
    return (x * 255).clamp(0, 255)


def _uniform(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(shape, generator=generator)
