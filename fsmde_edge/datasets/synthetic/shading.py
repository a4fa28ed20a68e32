"""Light what the rays met: albedo, sun and sky, shadows, mirrored sky, haze; linear RGB radiance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.datasets.synthetic.light import Light, sky_radiance
from fsmde_edge.datasets.synthetic.materials import Indices, PaintTable, Surface, albedo
from fsmde_edge.datasets.synthetic.raycast import SKY, Hits, RayGrid
from fsmde_edge.datasets.synthetic.scene import Scene
from fsmde_edge.datasets.synthetic.solids import Material, SolidTable
from fsmde_edge.datasets.synthetic.textures import Values, cloud_cover, texture_stack

Floats = NDArray[np.float64]

_SHADOW_CELL = 0.125
_SHADOW_AHEAD, _SHADOW_BEHIND, _SHADOW_ASIDE = 90.0, 50.0, 35.0


@dataclass(frozen=True, slots=True, eq=False)
class ShadowMap:
    """How dark the ground is, seen from above.

    Attributes:
        corner: world x, y of the first cell.
        sun: float32 [X, Y], share of the sun that is hidden.
        contact: float32 [X, Y], share of the sky that is hidden by what stands close.
    """

    corner: tuple[float, float]
    sun: Values
    contact: Values

    def at(self, x: Values, y: Values) -> tuple[Values, Values]:
        """(sun, contact) at points of the ground; 0 outside."""
        i = ((x - self.corner[0]) / _SHADOW_CELL).astype(np.int32)
        j = ((y - self.corner[1]) / _SHADOW_CELL).astype(np.int32)
        inside = (i >= 0) & (j >= 0) & (i < self.sun.shape[0]) & (j < self.sun.shape[1])
        i, j = np.where(inside, i, 0), np.where(inside, j, 0)
        return self.sun[i, j] * inside, self.contact[i, j] * inside


def shadow_map(table: SolidTable, scene: Scene, x: float) -> ShadowMap:
    """Project everything along the sun onto the ground around world x."""
    import cv2

    corner = (x - _SHADOW_BEHIND, -_SHADOW_ASIDE)
    shape = (int((_SHADOW_AHEAD + _SHADOW_BEHIND) / _SHADOW_CELL), int(2 * _SHADOW_ASIDE / _SHADOW_CELL))
    sun, contact = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    lean = scene.light.sun[:2] / max(scene.light.sun[2], 0.08)
    heights = table.corners[..., 2] - scene.street.profile(table.corners[..., 0])
    shadows = table.corners[..., :2] - np.maximum(heights, 0)[..., None] * lean
    shrink = np.where([s.leafiness > 0 for s in table.solids], 0.8, 1.0)[:, None, None]
    shadows = shadows.mean(axis=1, keepdims=True) * (1 - shrink) + shadows * shrink
    to_cells = 8 / _SHADOW_CELL  # three bits of fraction
    shadow_cells = np.clip((shadows - corner) * to_cells, -(2**20), 2**20)[..., ::-1].astype(np.int32)
    foot_cells = np.clip((table.corners[..., :2] - corner) * to_cells, -(2**20), 2**20)[..., ::-1].astype(
        np.int32
    )
    limit = np.array((shape[1], shape[0])) * 8
    near = (shadow_cells.max(axis=1) > 0).all(axis=1) & (shadow_cells.min(axis=1) < limit).all(axis=1)
    for index in np.flatnonzero(near).tolist():
        if not table.solids[index].casts_shadow:
            continue
        cv2.fillConvexPoly(sun, cv2.convexHull(shadow_cells[index]), 255, shift=3)
        if heights[index].min() < 0.6:
            cv2.fillConvexPoly(contact, cv2.convexHull(foot_cells[index]), 255, shift=3)
    soft_sun = cv2.GaussianBlur(sun, (0, 0), 1.0) / np.float32(255)
    soft_contact = cv2.GaussianBlur(contact, (0, 0), 0.3 / _SHADOW_CELL) / np.float32(255)
    return ShadowMap(corner, soft_sun, soft_contact)


def paint_view(
    scene: Scene,
    table: SolidTable,
    paints: PaintTable,
    shadows: ShadowMap,
    grid: RayGrid,
    pose: Floats,
    hits: Hits,
) -> Values:
    """Radiance that reaches the pixels of a camera, from two by two rays each.

    Where the four rays meet one face, its middle stands for all (the mean inverse depth is exact on a
    plane); elsewhere each ray is painted and the four are averaged.

    Args:
        scene: street, light and textures.
        table, paints, shadows: what was cast, at this instant.
        grid, pose: the rays, two a pixel's side.
        hits: what they met.

    Returns:
        float32 [H / 2, W / 2, 3].
    """
    solid, face, inverse = _quads(hits.solid), _quads(hits.face), _quads(hits.inverse)
    even = ((solid == solid[:1]) & (face == face[:1])).all(axis=0)
    edge = ~even
    x, y = (_quads(np.broadcast_to(axis, grid.shape)) for axis in (grid.x, grid.y))
    step = np.float32(grid.x[0, 1] - grid.x[0, 0])

    def gather(quads: Values) -> Values:
        return np.concatenate((quads[:, even].mean(axis=0), quads[:, edge].ravel()))

    steps = np.full(int(even.sum()) + 4 * int(edge.sum()), step)
    steps[: int(even.sum())] *= 2
    rays = np.stack((gather(x), gather(y), np.ones_like(steps)), axis=1) @ pose[:3, :3].T.astype(np.float32)
    solids = np.concatenate((solid[0, even], solid[:, edge].ravel())).astype(np.intp)
    faces = np.concatenate((face[0, even], face[:, edge].ravel()))
    colours = _paint_rays(scene, table, paints, shadows, pose, rays, (solids, faces, gather(inverse), steps))
    radiance = np.empty((*even.shape, 3), np.float32)
    count = int(even.sum())
    radiance[even] = colours[:count]
    radiance[edge] = colours[count:].reshape(4, -1, 3).mean(axis=0)
    return radiance


def _quads(values: NDArray[Any]) -> NDArray[Any]:
    """[H, W] to [4, H / 2, W / 2]: the four rays of each pixel."""
    return np.stack((values[::2, ::2], values[::2, 1::2], values[1::2, ::2], values[1::2, 1::2]))


def _paint_rays(
    scene: Scene,
    table: SolidTable,
    paints: PaintTable,
    shadows: ShadowMap,
    pose: Floats,
    rays: Values,
    met: tuple[Indices, NDArray[np.int8], Values, Values],
) -> Values:
    """Radiance along rays [P, 3]; `met`: solid, face, inverse depth and angular step of each."""
    solid, face, inverse, step = met
    stack, clouds = texture_stack(scene.texture_seed), cloud_cover(scene.texture_seed)
    length = np.sqrt(np.einsum("ij,ij->i", rays, rays))
    seen = solid != SKY
    sky = ~seen
    radiance = np.empty_like(rays)
    radiance[sky] = sky_radiance(scene.light, rays[sky] / length[sky, None], clouds)
    z = 1 / inverse[seen]
    surface = _surface(table, solid[seen], face[seen], rays[seen], length[seen], z, step[seen], pose)
    lit = albedo(scene.street, paints, table, surface, stack) * _light_on(scene, paints, shadows, surface)
    lit += _mirror(scene.light, paints, surface, clouds)
    clear = np.exp(-np.float32(scene.light.haze) * z * length[seen])[:, None]
    air = np.array(scene.light.horizon, np.float32) * np.float32(0.75)
    radiance[seen] = lit * clear + air * (1 - clear)
    return radiance


def _surface(
    table: SolidTable,
    solid: Indices,
    face: NDArray[np.int8],
    ray: Values,
    distance: Values,
    z: Values,
    step: Values,
    pose: Floats,
) -> Surface:
    point = pose[:3, 3].astype(np.float32) + z[:, None] * ray
    cosine, sine = (
        table.rotation[:, 0, 0].astype(np.float32)[solid],
        table.rotation[:, 1, 0].astype(np.float32)[solid],
    )
    away = point - table.origin.astype(np.float32)[solid]
    local = np.stack(
        (cosine * away[:, 0] + sine * away[:, 1], cosine * away[:, 1] - sine * away[:, 0], away[:, 2]), axis=1
    )
    own = table.face_normals[solid, face]
    round_ones = np.array([not len(offsets) for offsets in table.offsets])[solid]
    if round_ones.any():
        bent = local[round_ones] / table.half.astype(np.float32)[solid[round_ones]] ** 2
        own[round_ones] = bent / np.linalg.norm(bent, axis=1, keepdims=True)
    normal = np.stack(
        (cosine * own[:, 0] - sine * own[:, 1], sine * own[:, 0] + cosine * own[:, 1], own[:, 2]), axis=1
    )
    facing = np.abs(np.einsum("ij,ij->i", normal, ray)) / distance
    return Surface(solid, point, ray, normal, local, own, z, z * step, np.maximum(facing, np.float32(0.02)))


def _light_on(scene: Scene, paints: PaintTable, shadows: ShadowMap, surface: Surface) -> Values:
    """Irradiance by sun and sky, float32 [P, 3]."""
    light = scene.light
    direct = np.maximum(surface.normal @ light.sun.astype(np.float32), 0)
    sky = 0.62 + 0.38 * surface.normal[:, 2]
    material = paints.material[surface.solid]
    leaves = material == Material.FOLIAGE
    direct[leaves] = 0.25 + 0.5 * direct[leaves]
    sky[leaves] *= 0.8
    ground = np.flatnonzero(material == Material.GROUND)
    hidden, contact = shadows.at(surface.point[ground, 0], surface.point[ground, 1])
    direct[ground] *= 1 - hidden
    sky[ground] *= 1 - np.float32(0.85) * contact
    return np.asarray(
        direct[:, None] * np.array(light.sun_colour, np.float32)
        + sky[:, None] * np.array(light.sky_colour, np.float32),
        dtype=np.float32,
    )


def _mirror(light: Light, paints: PaintTable, surface: Surface, clouds: Values) -> Values:
    """Sky mirrored by glossy surfaces, float32 [P, 3]."""
    result = np.zeros_like(surface.point)
    gloss = paints.gloss[surface.solid]
    level = (paints.material[surface.solid] == Material.FACADE) & (surface.normal[:, 2] > 0.5)
    which = np.flatnonzero((gloss > 0) & ~level)
    if not len(which):
        return result
    n, ray = surface.normal[which], surface.ray[which]
    ray = ray / np.linalg.norm(ray, axis=1, keepdims=True)
    bounce = ray - 2 * np.einsum("ij,ij->i", n, ray)[:, None] * n
    fresnel = 0.05 + 0.95 * (1 - np.clip(surface.facing[which], 0, 1)) ** 4
    sky = sky_radiance(light, bounce, clouds)
    horizon = np.clip(bounce[:, 2] * 6 - 0.6, 0.12, 1)  # what stands around hides the low sky
    share = gloss[which] * (np.float32(0.25) + fresnel) * horizon
    result[which] = np.minimum(share, 1)[:, None] * np.minimum(sky, 4)
    return result
