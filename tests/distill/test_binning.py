from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from teaching import tiny_student

from fsmde_edge.distill.binning import TeacherBins, direct_bins, metric_index, positions, soft_bins
from fsmde_edge.distill.resize import mostly, resized

SIZE = (12, 16)

seeds = st.integers(0, 2**31)


def disparities(seed, views=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(views, 48, 64, generator=generator, dtype=torch.float64) ** 3


def all_world(views=2):
    return torch.ones(views, 96, 128, dtype=torch.bool)


def place(disparity, world=None, warp=50.0, size=SIZE):
    return positions(disparity, all_world(len(disparity)) if world is None else world, size, warp=warp)


@given(seeds, st.floats(0.01, 100), st.floats(-50, 50))
def test_positions_know_neither_scale_nor_shift(seed, scale, shift):
    disparity = disparities(seed)
    expected = place(disparity)
    found = place(scale * disparity + shift)
    torch.testing.assert_close(found.u, expected.u, rtol=0, atol=1e-6)
    assert torch.equal(found.known, expected.known)


@given(seeds)
def test_positions_run_from_far_to_near_and_use_their_range(seed):
    disparity = disparities(seed)
    u = place(disparity).u
    average = resized(disparity[:, None], SIZE)[:, 0]
    for view in range(2):
        rising = u[view].flatten()[average[view].flatten().argsort()]
        assert (rising.diff() >= 0).all()
        assert rising[0] == 0
        assert rising[-1] == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_distance_fills_bins_evenly_on_a_log_scale(dtype):
    distance = torch.logspace(0, 2, 4096, dtype=dtype).view(1, 1, 4096)
    u = positions(1 / distance, torch.ones(1, 1, 4096, dtype=torch.bool), (1, 4096), warp=100.0).u
    assert u.dtype == dtype
    steps = u[0, 0, [400, 1200, 2000, 2800]].diff().abs()
    assert steps.max() / steps.min() < 1.5
    flat = positions(1 / distance, torch.ones(1, 1, 4096, dtype=torch.bool), (1, 4096), warp=1e-3).u
    steps = flat[0, 0, [400, 1200, 2000, 2800]].diff().abs()
    assert steps.max() / steps.min() > 4


def test_sky_lies_in_the_far_bins():
    disparity = disparities(3) + 0.2
    disparity[:, :16] = 0.01  # a third of the view
    p = torch.softmax(direct_bins(place(disparity).u, 8, softness=0.5), dim=1)
    assert (p[:, 0, :4] > 0.8).all()
    assert (p[:, 0, 4:] < 0.5).any()


def test_the_own_car_moves_nothing_and_is_not_known():
    disparity = disparities(4)
    world = all_world()
    world[:, 64:] = False
    expected = place(disparity, world)
    disparity[:, 32:] = 1000.0
    found = place(disparity, world)
    torch.testing.assert_close(found.u[:, :8], expected.u[:, :8])
    assert found.known[:, :8].all()
    assert not found.known[:, 8:].any()


@pytest.mark.parametrize("what", ["flat", "own car alone"])
def test_a_view_that_says_nothing_is_not_known_and_finite(what):
    disparity, world = disparities(5), all_world()
    if what == "flat":
        disparity[0] = 0.3
    else:
        world[0] = False
    found = place(disparity, world)
    assert not found.known[0].any()
    assert found.known[1].all()
    assert found.u.isfinite().all()


def test_probabilities_gather_around_their_index_and_reach_no_farther_than_asked():
    index = torch.tensor([[[0.0, 3.0, 3.4, 7.5]]])
    p = torch.softmax(soft_bins(index, 8, softness=0.7), dim=1)[0, :, 0]
    assert p.argmax(dim=0).tolist() == [0, 3, 3, 7]
    k = torch.arange(8.0)
    assert float((p[:, 1] * k).sum()) == pytest.approx(3.0, abs=1e-4)
    assert float((p[:, 2] * k).sum()) == pytest.approx(3.4, abs=1e-3)
    spread = float((p[:, 1] * (k - 3).square()).sum().sqrt())
    assert spread == pytest.approx(0.7, rel=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_bin_covers_its_share_of_the_positions(dtype):
    u = torch.tensor([[[0.0, 0.09, 0.11, 0.55, 0.89, 0.91, 1.0]]], dtype=dtype)
    p = torch.softmax(direct_bins(u, 10, softness=1e-2), dim=1)[0, :, 0]
    assert p.isfinite().all()
    assert p.argmax(dim=0).tolist() == [0, 0, 1, 5, 8, 9, 9]


@given(st.floats(0.6, 400), st.integers(2, 40))
def test_a_metric_index_is_where_its_depth_lies_between_centres(depth, bins):
    centres = torch.logspace(math.log10(300), 0, bins, dtype=torch.float64)[None]
    found = float(metric_index(torch.tensor([[[depth]]], dtype=torch.float64), centres))
    exact = math.log(300 / depth) / math.log(300) * (bins - 1)
    assert found == pytest.approx(min(max(exact, -0.5), bins - 0.5), abs=1e-9)


def test_bins_that_have_run_together_are_finite():
    centres = torch.tensor([[10.0, 10.0, 10.0, 5.0]])
    assert metric_index(torch.tensor([[[1.0, 10.0, 7.0, 100.0]]]), centres).isfinite().all()


# The shared module


def shared(channels=7):
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return TeacherBins(channels, 8).double(), torch.randn(3, channels, 5, 7, dtype=torch.float64)


@pytest.mark.parametrize("frozen", [True, False])
def test_teacher_features_leave_no_trace_in_the_students_statistics(frozen):
    module, features = shared()
    student = tiny_student(frozen=frozen)
    before = copy.deepcopy(student.state_dict())
    logits = module(features, torch.rand(3, *SIZE, dtype=torch.float64), student.head)
    assert logits.shape == (3, 8, *SIZE)
    for name, value in student.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_the_teacher_goes_through_the_students_own_head():
    module, features = shared()
    student = tiny_student()
    u = torch.rand(3, *SIZE, dtype=torch.float64)
    before = module(features, u, student.head)
    with torch.no_grad():
        student.head.logits.bias += torch.arange(8)
    torch.testing.assert_close(
        module(features, u, student.head), before + torch.arange(8.0).double()[:, None, None]
    )
    before = module(features, u, student.head)
    with torch.no_grad():
        student.head.refine[0].weight *= torch.rand(8, 1, 1, 1, dtype=torch.float64)
    assert not torch.allclose(module(features, u, student.head), before)


@pytest.mark.parametrize("frozen", [True, False])
def test_shared_bins_hear_features_and_position(frozen):
    module, features = shared()
    head = tiny_student(frozen=frozen).head
    u = torch.rand(3, *SIZE, dtype=torch.float64)
    said = module(features, u, head)
    assert not torch.allclose(module(features.roll(1, 0), u, head), said)
    assert not torch.allclose(module(features, u.roll(1, 0), head), said)
    torch.testing.assert_close(module(features * 30 + 4, u, head), said, rtol=1e-4, atol=1e-4)


def test_with_frozen_statistics_a_view_does_not_depend_on_its_batch():
    module, features = shared()
    head, u = tiny_student().head, torch.rand(3, *SIZE, dtype=torch.float64)
    torch.testing.assert_close(module(features, u, head)[1:2], module(features[1:2], u[1:2], head))


# Sizes


def test_a_shrunken_map_is_an_average_and_a_grown_one_lies_between():
    maps = torch.arange(16.0).view(1, 1, 4, 4)
    torch.testing.assert_close(resized(maps, (2, 2)), torch.tensor([[[[2.5, 4.5], [10.5, 12.5]]]]))
    torch.testing.assert_close(
        resized(maps[..., :3] ** 2, (1, 1)), (maps[..., :3] ** 2).mean().view(1, 1, 1, 1)
    )
    grown = resized(maps, (8, 8))
    assert grown.min() == 0
    assert grown.max() == 15
    torch.testing.assert_close(resized(grown, (4, 4)).mean(), maps.mean())
    assert resized(maps, (4, 4)) is maps


def test_a_pixel_of_a_smaller_mask_needs_more_than_half():
    mask = torch.tensor([[[True, True, True, False], [True, False, False, False]]])
    assert mostly(mask, (1, 2)).tolist() == [[[True, False]]]
