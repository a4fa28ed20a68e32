from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fsmde_edge.distill.align import FEWEST, SLACK, align
from fsmde_edge.distill.augment import SKY

SIZE = (24, 32)

seeds = st.integers(0, 2**31)
scales = st.floats(0.01, 100)
shifts = st.floats(-10, 10)


def scene(seed, *, points=200, dtype=torch.float64):
    """A view's inverse depth everywhere, and LiDAR at some pixels."""
    generator = torch.Generator().manual_seed(seed)
    inverse = torch.exp(-torch.rand(1, *SIZE, generator=generator, dtype=dtype) * 4.5)
    truth = torch.zeros_like(inverse)
    where = torch.randperm(inverse.numel(), generator=generator)[:points]
    truth.view(-1)[where] = 1 / inverse.view(-1)[where]
    return inverse, truth, torch.ones(1, *SIZE, dtype=torch.bool)


def spoil(truth, share, seed):
    """Wrong ground truth at a share of its pixels, all too near or all too far or both."""
    generator = torch.Generator().manual_seed(seed)
    where = truth.view(-1).nonzero()[:, 0]
    bad = where[torch.randperm(len(where), generator=generator)[: int(share * len(where))]]
    wild = torch.exp(torch.randn(len(bad), generator=generator, dtype=truth.dtype) * 3)
    side = int(torch.randint(0, 3, (1,), generator=generator))
    truth.view(-1)[bad] *= wild if side == 2 else (wild.abs() + 1.5) ** (1 - 2 * side)


@given(seeds, scales, shifts, st.integers(FEWEST, 300))
def test_affine_disparity_is_recovered_whatever_a_fifth_of_the_points_say(seed, scale, shift, points):
    inverse, truth, world = scene(seed, points=points)
    spoil(truth, 0.2, seed)
    aligned = align(scale * inverse + shift, truth, world)
    least = 1 / truth[truth > 0].max() / SLACK
    most = 1 / truth[truth > 0].min() * SLACK
    torch.testing.assert_close(aligned.inverse, inverse.clamp(least, most), rtol=1e-6, atol=1e-9)
    assert aligned.known.all()


def test_data_without_any_rounding_are_recovered_too():
    inverse = torch.arange(1, 41, dtype=torch.float64).view(1, 4, 10) / 64
    truth = 1 / inverse
    truth.view(-1)[::5] = 64.0
    found = align(2 * inverse + 1, truth, torch.ones_like(truth, dtype=torch.bool)).inverse
    torch.testing.assert_close(found, inverse)


@given(seeds, scales, shifts, st.sampled_from([3, 10, 200]))
def test_a_positive_scale_and_a_shift_of_the_disparity_change_nothing(seed, scale, shift, points):
    inverse, truth, world = scene(seed, points=points)
    noisy = inverse + 0.1 * torch.rand(inverse.shape, generator=torch.Generator().manual_seed(seed))
    expected = align(noisy, truth, world)
    found = align(scale * noisy + shift, truth, world)
    torch.testing.assert_close(found.inverse, expected.inverse, rtol=1e-6, atol=1e-9)


@given(seeds, st.floats(0.1, 10), st.sampled_from([3, 10, 200]))
def test_depth_scales_with_the_ground_truth(seed, scale, points):
    inverse, truth, world = scene(seed, points=points)
    noisy = inverse.sqrt()
    expected = align(noisy, truth, world)
    found = align(noisy, truth * scale, world)
    torch.testing.assert_close(found.inverse * scale, expected.inverse, rtol=1e-6, atol=1e-9)


@given(seeds, st.integers(2, FEWEST - 1), scales, shifts)
def test_few_points_are_aligned_by_median_and_spread(seed, points, scale, shift):
    inverse, truth, world = scene(seed, points=points)
    aligned = align(scale * inverse + shift, truth, world)
    seen = truth > 0
    torch.testing.assert_close(aligned.inverse[seen], inverse[seen], rtol=1e-6, atol=1e-9)


def test_few_points_that_disagree_are_given_the_lidars_median_and_spread():
    disparity = torch.tensor([[[1.0, 2.0, 3.0, 5.0, 9.0, 4.0]]], dtype=torch.float64)
    inverse = torch.tensor([[[0.1, 0.2, 0.25, 0.3, 0.9]]], dtype=torch.float64)
    truth = torch.nn.functional.pad(1 / inverse, (0, 1))
    found = align(disparity, truth, torch.ones_like(truth, dtype=torch.bool)).inverse
    scale = (0.9 / 5) / (11 / 5)  # around the medians 0.25 and 3
    assert float(found[0, 0, 5]) == pytest.approx(0.25 + scale * (4 - 3))


@given(seeds)
def test_noise_hardly_turns_the_line(seed):
    inverse, truth, world = scene(seed, points=300)
    generator = torch.Generator().manual_seed(seed)
    noise = 0.02 * torch.randn(inverse.shape, generator=generator, dtype=inverse.dtype)
    noisy = torch.where(truth > 0, 1 / (inverse + noise).clamp(min=0.005), 0.0)
    found = align(5 * inverse + 1, noisy, world).inverse
    assert (found - inverse).abs().max() < 0.03


@pytest.mark.parametrize("seed", range(5))
def test_a_wall_of_one_disparity_leaves_the_line_to_the_others(seed):
    """Slopes between points of one disparity say nothing, however many they are."""
    generator = torch.Generator().manual_seed(seed)
    inverse = torch.full((1, 10, 20), 0.5, dtype=torch.float64)
    inverse[:, :, 18:] = 0.1
    noise = 0.02 * torch.randn(inverse.shape, generator=generator, dtype=inverse.dtype)
    found = align(3 * inverse + 1, 1 / (inverse + noise), torch.ones_like(inverse, dtype=torch.bool)).inverse
    assert float(found.max() - found.min()) == pytest.approx(0.4, abs=0.02)


def test_a_teacher_that_contradicts_the_lidar_is_not_turned_around():
    inverse, truth, world = scene(0)
    aligned = align(-inverse, truth, world)
    assert aligned.known.all()
    order = torch.argsort(-inverse[0].flatten())
    assert (aligned.inverse[0].flatten()[order].diff() >= 0).all()


def test_the_result_stays_near_the_lidars_range_and_positive():
    inverse, truth, world = scene(1)
    disparity = inverse.clone()
    far, near = (tuple(pixel) for pixel in (truth == 0).nonzero()[:2].tolist())
    disparity[far], disparity[near] = -5.0, 50.0
    found = align(disparity, truth, world).inverse
    measured = 1 / truth[truth > 0]
    assert found[far] == measured.min() / SLACK > 0
    assert found[near] == measured.max() * SLACK


@pytest.mark.parametrize("kind", ["sky", "own car"])
def test_sky_and_own_car_do_not_count(kind):
    inverse, truth, world = scene(2)
    expected = align(inverse, truth, world)
    if kind == "sky":
        truth[truth == 0] = SKY
    else:
        world[0, :20] = False
        own = truth.clone()
        truth[0, :20] = 0.2
        own[0, :20] = 0
        expected = align(inverse, own, torch.ones_like(world))
    found = align(inverse, truth, world)
    torch.testing.assert_close(found.inverse, expected.inverse)


def test_every_view_has_a_fit_of_its_own():
    scenes = [scene(seed, points=points) for seed, points in ((0, 250), (1, 5), (2, 0), (3, 40))]
    parts = [torch.cat(part) for part in zip(*scenes, strict=True)]
    whole = align(*parts)
    assert whole.known.tolist() == [True, True, False, True]
    for i, alone in enumerate(scenes):
        torch.testing.assert_close(whole.inverse[i : i + 1], align(*alone).inverse)


@pytest.mark.parametrize("case", ["none", "one", "one distance", "one disparity"])
def test_what_cannot_be_aligned_says_so_with_finite_values(case):
    inverse, truth, world = scene(0, points={"none": 0, "one": 1}.get(case, 200))
    if case == "one distance":
        truth[truth > 0] = 7.0
    if case == "one disparity":
        inverse = torch.ones_like(inverse)
    aligned = align(inverse, truth, world)
    assert not aligned.known.any()
    assert (aligned.inverse == 1).all()


def test_disparity_of_another_size_and_precision_is_taken():
    _, truth, world = scene(0, dtype=torch.float32)
    flat = torch.full((1, 12, 16), 3.0, dtype=torch.float16)
    flat[0, :, 8:] = 5.0
    truth[truth > 0] = 10.0
    truth[..., 18:][truth[..., 18:] > 0] = 2.0
    truth[..., 14:18] = 0  # where the bilinear edge lies
    found = align(flat, truth, world)
    assert found.inverse.dtype == torch.float32
    torch.testing.assert_close(found.inverse[..., :14], torch.full((1, 24, 14), 0.1))
    torch.testing.assert_close(found.inverse[..., 18:], torch.full((1, 24, 14), 0.5))
