"""Which regions of ring-adjacent views belong together, from the rig's geometry alone."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

DISTANCES = (5.0, 20.0, 80.0)
"""Metres at which rays are looked at, as in `rig.overlap`."""

LEAST = 0.01
"""Share of either picture from which on two views overlap, as in `Rig.neighbours`."""

REACH_DEG = 15.0
"""How far beyond its picture a view without overlap is looked for; beyond, the ring has a gap."""

GRID = (40, 64)


class RingLinks(NamedTuple):
    """Regions of neighbours: link l joins view l and the next one, (l + 1) mod V.

    Two views have one link, a single one none (L = V, 1, 0).

    Attributes:
        here: float [B, L, h, w] in 0..1, how much of view l's picture belongs to the link.
        there: float [B, L, h, w], the same in the next view; both are empty where the ring has a gap.
    """

    here: Tensor
    there: Tensor


@torch.no_grad()
def ring_links(
    intrinsics: Tensor, extrinsics: Tensor, picture: tuple[int, int], *, grid: tuple[int, int] = GRID
) -> RingLinks:
    """What ring neighbours both see; where that is nothing, the strips that are nearest to each other.

    A pixel's membership is the share of some distances along its ray at which the neighbour sees the point
    (its mean over a picture is `rig.overlap`). Where less than `LEAST` of both pictures overlaps, the
    neighbour's picture is widened by `REACH_DEG` to both sides; views that do not meet even so have empty
    regions.

    Args:
        intrinsics: float [B, V, 3, 3], pixels, views in ring order.
        extrinsics: float [B, V, 4, 4], camera to vehicle.
        picture: height and width in pixels.
        grid: height and width of the regions.
    """
    here, there = ring_ends(intrinsics.shape[1], intrinsics.device)
    points = _points(intrinsics, extrinsics, picture, grid)
    local = tuple(_in_camera(points[:, a], extrinsics[:, b]) for a, b in ((here, there), (there, here)))
    cameras = (intrinsics[:, there], intrinsics[:, here])
    both, strips = (
        torch.stack(
            [sees(p, k, picture).to(p.dtype).mean(dim=-1) for p, k in zip(local, cameras, strict=True)]
        )
        for sees in (_sees, _nearly_sees)
    )
    overlapping = both.mean(dim=(3, 4)).amax(dim=0) >= LEAST
    regions = torch.where(overlapping[..., None, None], both, strips)
    return RingLinks(regions[0], regions[1])


def ring_ends(views: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The views that each link of a ring joins: int64 [L] and [L]."""
    here = torch.arange(views if views > 2 else views - 1, device=device)
    return here, (here + 1) % views


def _points(
    intrinsics: Tensor, extrinsics: Tensor, picture: tuple[int, int], grid: tuple[int, int]
) -> Tensor:
    """Points of the vehicle's frame, [B, V, h, w, distances, 3], on the rays through the grid's pixels."""
    v, u = (
        (torch.arange(cells, dtype=intrinsics.dtype, device=intrinsics.device) + 0.5) * (edge / cells)
        for cells, edge in zip(grid, picture, strict=True)
    )
    rows, columns = torch.meshgrid(v, u, indexing="ij")
    pixels = torch.stack((columns, rows, torch.ones_like(rows)), dim=-1)
    rays = torch.einsum("bvij,hwj->bvhwi", torch.linalg.inv(intrinsics), pixels)
    rays = rays / rays.norm(dim=-1, keepdim=True)
    points = rays[..., None, :] * rays.new_tensor(DISTANCES)[:, None]
    return _moved(points, extrinsics)


def _in_camera(points: Tensor, extrinsics: Tensor) -> Tensor:
    """Points [B, L, h, w, distances, 3] of the vehicle's frame in those of cameras [B, L, 4, 4]."""
    return _moved(points, torch.linalg.inv(extrinsics))


def _moved(points: Tensor, pose: Tensor) -> Tensor:
    turned = torch.einsum("blij,blhwdj->blhwdi", pose[..., :3, :3], points)
    moved: Tensor = turned + pose[:, :, None, None, None, :3, 3]
    return moved


def _sees(points: Tensor, intrinsics: Tensor, picture: tuple[int, int]) -> Tensor:
    """Whether points of a camera's frame lie in its picture: bool [B, L, h, w, distances]."""
    u, v, z = torch.einsum("blij,blhwdj->iblhwd", intrinsics, points)
    ahead = z > 0
    depth = torch.where(ahead, z, 1.0)
    across, down = u / depth, v / depth
    inside = (across >= 0) & (across < picture[1]) & (down >= 0) & (down < picture[0])
    seen: Tensor = ahead & inside
    return seen


def _nearly_sees(points: Tensor, intrinsics: Tensor, picture: tuple[int, int]) -> Tensor:
    """Whether points lie in the picture's columns, widened by `REACH_DEG` to both sides, at any height."""
    azimuth = torch.atan2(points[..., 0], points[..., 2])
    fx, cx = (intrinsics[..., 0, i][..., None, None, None] for i in (0, 2))
    reach = math.radians(REACH_DEG)
    return (azimuth >= torch.atan(-cx / fx) - reach) & (azimuth <= torch.atan((picture[1] - cx) / fx) + reach)
