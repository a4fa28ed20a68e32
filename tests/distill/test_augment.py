"""Augmentation keeps the geometry of a frame set honest."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_sets import HEIGHT, WIDTH, made_store, ring_poses

from fsmde_edge.distill.augment import Framing, augment, draw_framing, reframe
from fsmde_edge.distill.batch import SetBatch, TeacherViews
from fsmde_edge.distill.recipe import AugmentRecipe

WIDE = AugmentRecipe(zoom=1.5)


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def ramps(sets=2, views=6):
    """Pictures whose channels are column, row and view; depth is column + 1 and the own car in the corner."""
    row, column = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    one = torch.stack([column, row, torch.zeros_like(row)]).float()
    pictures = one.expand(sets, views, 3, HEIGHT, WIDTH).clone()
    pictures[:, :, 2] = torch.arange(views)[:, None, None]
    world = torch.ones(sets, views, HEIGHT, WIDTH, dtype=torch.bool)
    world[..., :8, :8] = False
    k = torch.tensor([[50.0, 0, 31], [0, 40, 17], [0, 0, 1]]).expand(sets, views, 3, 3)
    poses = torch.from_numpy(ring_poses(views)).expand(sets, views, 4, 4)
    return SetBatch(pictures, pictures[:, :, 0] + 1, world, k, poses)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.booleans())
def test_every_pixel_sees_along_the_ray_that_it_saw_along(seed, each_view):
    """What a pixel shows and the direction that K and pose give it in the vehicle go together."""
    before = ramps(sets=1)
    recipe = AugmentRecipe(zoom=1.5, vertical_shift=0.2, each_view=each_view)
    framing = draw_framing(recipe, 6, generators(seed))
    after = reframe(before, framing)
    for place in range(6):
        came_from = round(float(after.pictures[0, place, 2, 16, 32]))
        x, y = 40, 20
        shown = after.pictures[0, place, :2, y, x] + 0.5  # column and row, as positions
        new = direction(after, place, torch.tensor([x + 0.5, y + 0.5]))
        old = direction(before, came_from, shown)
        if framing.mirror[0, place] < 0:
            old = old * torch.tensor([1.0, -1.0, 1.0])
        assert torch.allclose(new, old, atol=2e-3), (place, came_from)


def direction(batch, view, pixel):
    ray = torch.linalg.inv(batch.intrinsics[0, view]) @ torch.cat((pixel, torch.ones(1)))
    ray = batch.extrinsics[0, view, :3, :3] @ ray
    return ray / ray.norm()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_a_mirrored_rig_still_goes_round_counter_clockwise_from_ahead(seed):
    after = reframe(ramps(), draw_framing(WIDE, 6, generators(seed, seed + 1)))
    ahead = after.extrinsics[..., :3, 2]
    azimuth = torch.atan2(ahead[..., 1], ahead[..., 0])
    turn = torch.remainder(azimuth - azimuth[:, :1], 2 * np.pi)
    assert torch.allclose(turn, torch.arange(6) * (2 * np.pi / 6), atol=1e-5)
    rotations = after.extrinsics[..., :3, :3]
    assert torch.allclose(torch.linalg.det(rotations), torch.ones(2, 6), atol=1e-5)


def test_depth_and_own_car_move_with_their_picture():
    after = reframe(ramps(), draw_framing(WIDE, 6, generators(3, 4)))
    assert ((after.truth - 1 - after.pictures[:, :, 0]).abs() <= 0.5 + 1e-3).all()
    was_car = (after.pictures[:, :, 0] < 7) & (after.pictures[:, :, 1] < 7)
    was_world = (after.pictures[:, :, 0] > 8) | (after.pictures[:, :, 1] > 8)
    assert not after.world[was_car].any()
    assert after.world[was_world].all()


def test_the_teacher_is_framed_as_its_pictures_are():
    batch = ramps()
    teacher = TeacherViews(disparity=batch.pictures[:, :, 0], features=batch.pictures)
    kept, told = augment(batch, teacher, WIDE, generators(5, 6))
    framed = reframe(batch, draw_framing(WIDE, 6, generators(5, 6)))
    assert torch.allclose(told.disparity, framed.pictures[:, :, 0])
    assert torch.allclose(told.features, framed.pictures)
    assert torch.equal(kept.truth, framed.truth)


def test_one_draw_serves_a_rig_or_each_view_has_its_own():
    def drawn(**change):
        return draw_framing(AugmentRecipe(**change), 6, generators(*range(20)))

    rig, views = drawn(), drawn(each_view=True)
    for name in ("mirror", "zoom", "right", "down"):
        assert (getattr(rig, name) == getattr(rig, name)[:, :1]).all()
        assert (getattr(views, name) != getattr(views, name)[:, :1]).any()
    assert 4 < int((rig.mirror[:, 0] < 0).sum()) < 16
    assert len(rig.zoom[:, 0].unique()) == 20


def test_a_recipe_may_leave_the_framing_alone():
    framing = draw_framing(AugmentRecipe(zoom=1, vertical_shift=0.5), 6, generators(*range(8)))
    still = Framing(torch.ones(8, 6), *(getattr(framing, n) for n in ("zoom", "right", "down", "ring")))
    assert (framing.zoom == 1).all()
    assert (framing.right.abs() < 1e-6).all()
    assert (framing.down.abs() < 1e-6).all()
    assert (still.mirror == 1).all()


def test_a_frame_set_looks_the_same_in_whichever_batch_it_is():
    whole = made_store().batch((0, 1, 2))
    together, _ = augment(whole, None, WIDE, generators(1, 2, 3))
    alone, _ = augment(made_store().batch((1,)), None, WIDE, generators(2))
    for a, b in zip(together, alone, strict=True):
        assert torch.equal(a[1:2], b)


@pytest.mark.parametrize("each_view", [False, True])
def test_colours_change_and_geometry_does_not(each_view):
    batch, recipe = ramps(), AugmentRecipe(each_view=each_view)
    first, again = (augment(batch, None, recipe, generators(5, 6))[0] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert float(first.pictures.min()) >= 0
    assert float(first.pictures.max()) <= 255
    plain = reframe(batch, draw_framing(recipe, 6, generators(5, 6)))
    assert not torch.allclose(first.pictures, plain.pictures, atol=1)
    for name in ("truth", "world", "intrinsics", "extrinsics"):
        assert torch.equal(getattr(first, name), getattr(plain, name))
