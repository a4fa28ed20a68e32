from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from teaching import (
    CENTRES,
    HEIGHT,
    PROBABILITIES,
    WIDTH,
    ddad_like,
    part_of,
    set_batch,
    step_of,
    teacher_views,
    tiny_student,
    trained_by,
)

from fsmde_edge.distill.batch import TeacherViews
from fsmde_edge.distill.methods.recipe import VrkdRecipe
from fsmde_edge.distill.methods.vrkd import ViewRelations, relations
from fsmde_edge.distill.overlap import RingLinks, ring_links

BATCH = set_batch(sets=3)
TEACHER = teacher_views(BATCH)
STUDENT = tiny_student()
LINKS = ring_links(BATCH.intrinsics, BATCH.extrinsics, (HEIGHT, WIDTH))

seeds = st.integers(0, 2**31)


def loss(batch=BATCH, teacher=TEACHER, student=STUDENT, **settings):
    return ViewRelations(VrkdRecipe(**settings))(step_of(student, batch, teacher))["relation"]


def related(features, batch=BATCH, bands=3):
    links = LINKS if batch is BATCH else ring_links(batch.intrinsics, batch.extrinsics, (HEIGHT, WIDTH))
    return relations(features, links, batch.world, bands=bands)


def features(seed=0, channels=5, size=(9, 13)):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, 6, channels, *size, generator=generator, dtype=torch.float64)


# Free of scale, dimension and layout


@settings(max_examples=15)
@given(seeds, st.floats(1e-3, 1e3), st.floats(-100, 100))
def test_relations_know_neither_the_scale_nor_the_offset_of_features(seed, scale, offset):
    plain = related(features(seed))
    found = related(features(seed) * scale + offset)
    torch.testing.assert_close(found.cosine, plain.cosine, rtol=0, atol=1e-6)


@settings(max_examples=15)
@given(seeds, st.integers(1, 30))
def test_relations_have_no_dimension(seed, more):
    """Channels may be turned, and padded with others that say nothing, to any number."""
    generator = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(5 + more, 5 + more, generator=generator, dtype=torch.float64)).Q[:, :5]
    plain = features(seed)
    wide = torch.einsum("kc,bvchw->bvkhw", turn, plain)
    assert wide.shape[2] == 5 + more
    torch.testing.assert_close(related(wide).cosine, related(plain).cosine, rtol=0, atol=1e-9)


@settings(max_examples=10)
@given(st.permutations(range(3)))
def test_the_order_of_sets_does_not_matter(order):
    torch.testing.assert_close(loss(part_of(BATCH, order), part_of(TEACHER, order)), loss())


@pytest.mark.parametrize("start", range(1, 6))
def test_nor_does_the_view_that_a_ring_starts_with(start):
    turned = (slice(None), [(i + start) % 6 for i in range(6)])
    torch.testing.assert_close(loss(part_of(BATCH, turned), part_of(TEACHER, turned)), loss())


def test_relations_stay_within_a_frame_set():
    whole = related(features())
    for i in range(3):
        alone = related(features()[i : i + 1], part_of(BATCH, slice(i, i + 1)))
        torch.testing.assert_close(whole.cosine[i : i + 1], alone.cosine)
    other = features()
    other[1] = features(9)[1] * 100
    found = related(other)
    for i in (0, 2):
        assert torch.equal(found.cosine[i], whole.cosine[i])
    assert not torch.allclose(found.cosine[1], whole.cosine[1])


def test_a_set_of_one_view_and_a_ring_with_a_gap_have_fewer_relations():
    single = (slice(None), [0])
    found = loss(part_of(BATCH, single), part_of(TEACHER, single))
    assert float(found.detach()) == 0
    found.backward()
    gap = (slice(None), [0, 1, 2])  # front, left, back left: nobody looks right
    assert (
        related(features()[gap], part_of(BATCH, gap)).known.flatten(2).any(dim=2).tolist()
        == [[True, True, False]] * 3
    )
    assert loss(part_of(BATCH, gap), part_of(TEACHER, gap)) > 0


# What a relation is


def test_what_both_views_see_is_alike_and_what_they_do_not_see_does_not_matter():
    """A world painted by direction: bands of neighbours that look at the same paint agree most."""
    batch = part_of(BATCH, slice(0, 1))
    batch = batch._replace(world=torch.ones_like(batch.world))
    painted = torch.stack([paint(camera) for camera in ddad_like().cameras])[None]
    found = related(painted, batch)
    assert found.known.all()
    same = found.cosine.diagonal(dim1=2, dim2=3)
    assert (same > 0.6).all()
    assert (same.mean() - found.cosine.mean()) > 0.3
    links = ring_links(batch.intrinsics, batch.extrinsics, (64, 96), grid=(64, 96))
    shared = torch.maximum(links.here, links.there.roll(1, 1))  # of view v, with the next or the last one
    own = torch.nn.functional.max_pool2d(shared, 7, 1, 3) == 0
    assert own.double().mean() > 0.2
    changed = torch.where(own[:, :, None], 77.0, painted)
    torch.testing.assert_close(related(changed, batch).cosine, found.cosine)


def paint(camera):
    """Features [5, H, W] that depend on a ray's direction alone."""
    rows, columns = np.mgrid[0 : camera.height, 0 : camera.width] + 0.5
    rays = camera.rays(np.stack((columns, rows), axis=-1)) @ camera.camera_to_vehicle[:3, :3].T
    azimuth = np.arctan2(rays[..., 1], rays[..., 0])
    height = rays[..., 2] / np.linalg.norm(rays, axis=-1)
    waves = [np.sin(azimuth), np.cos(azimuth), np.sin(2 * azimuth), 4 * height, np.cos(8 * height)]
    return torch.tensor(np.stack(waves))


def test_equal_relations_cost_nothing():
    student = step_of(STUDENT, BATCH, None).by_set(step_of(STUDENT, BATCH, None).features.decoder).detach()
    same = TeacherViews(TEACHER.disparity, student * 3 + 1)
    assert float(loss(teacher=same).detach()) == pytest.approx(0, abs=1e-6)
    assert float(loss().detach()) > 0.01


def test_the_own_car_is_left_out():
    plain, changed = features(size=(64, 96)), features(size=(64, 96))
    changed[~BATCH.world[:, :, None].expand_as(changed)] = 1e3
    assert torch.equal(related(changed).cosine, related(plain).cosine)


def test_a_band_that_is_all_own_car_has_no_relations():
    batch = BATCH._replace(world=BATCH.world.clone())
    batch.world[:, 2, 32:] = False  # the lower half of the back left view
    known = related(features(size=(64, 96)), batch, bands=2).known
    assert known[:, 1, :, 0].all()  # with the left view: its upper band
    assert not known[:, 1, :, 1].any()
    assert not known[:, 2, 1].any()
    assert known[:, 4].all()


@pytest.mark.parametrize("bands", [1, 2, 5])
@pytest.mark.parametrize("height", [2, 7, 40])
def test_bands_share_out_every_row(bands, height):
    from fsmde_edge.distill.methods.vrkd import _bands

    rows = _bands(height, bands, like=torch.zeros(1, dtype=torch.float64))
    torch.testing.assert_close(rows.sum(dim=0), torch.ones(height, dtype=torch.float64))
    torch.testing.assert_close(rows.sum(dim=1), torch.full((bands,), height / bands, dtype=torch.float64))
    assert loss(bands=bands).isfinite()


def test_a_relation_that_the_teachers_map_is_too_coarse_for_is_not_asked():
    batch = BATCH._replace(world=BATCH.world.clone())
    batch.world[..., 24:, :] = False
    assert related(features(size=(16, 24)), batch).known.any()
    coarse = TEACHER._replace(features=TEACHER.features[..., :1, :1])
    assert float(loss(batch, coarse).detach()) == 0


# Training


def test_relations_train_what_makes_features():
    assert trained_by(loss(), STUDENT) == {"encoder", "decoder"}
    assert not trained_by(loss(), STUDENT) & (PROBABILITIES | CENTRES)


def test_descending_the_loss_makes_the_students_relations_the_teachers():
    wanted = related(TEACHER.features)
    found = torch.randn(3, 6, 4, 16, 24, generator=torch.Generator().manual_seed(3)).double().requires_grad_()
    optimiser = torch.optim.Adam([found], lr=0.05)

    def apart():
        return (related(found).cosine - wanted.cosine)[wanted.known].square().mean()

    before = float(apart().detach())
    for _ in range(60):
        optimiser.zero_grad()
        apart().backward()
        optimiser.step()
    assert float(apart().detach()) < 0.1 * before


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 1.0, 1e-20, 1e15])
def test_features_that_say_nothing_give_finite_gradients(dtype, value):
    batch = set_batch(sets=1, dtype=dtype)
    dead = torch.full((1, 6, 4, 16, 24), value, dtype=dtype, requires_grad=True)
    found = related(dead, batch)
    found.cosine.square().sum().backward()
    assert found.cosine.isfinite().all()
    assert dead.grad.isfinite().all()


def test_no_link_at_all_costs_nothing():
    nowhere = torch.zeros(3, 6, 8, 8, dtype=torch.float64)
    found = relations(features(), RingLinks(nowhere, nowhere), BATCH.world, bands=3)
    assert not found.known.any()
    assert found.cosine.isfinite().all()


def test_the_weight_is_heard():
    torch.testing.assert_close(loss(weight=2.5), 2.5 * loss())
