"""Training losses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fsmde_edge.distill.augment import SKY
from fsmde_edge.distill.losses import SKY_BEYOND, depth_error, silog, sky_hinge

depths = st.lists(st.tuples(st.floats(0.5, 200), st.floats(0.5, 200)), min_size=2, max_size=30)


def loss(pairs, forgive):
    depth, truth = torch.tensor(pairs, dtype=torch.float64).T[:, None, None]
    return float(silog(depth, truth, forgive=forgive))


@given(depths, st.floats(0.0, 0.99))
def test_silog_equals_its_definition(pairs, forgive):
    g = np.log([d / t for d, t in pairs])
    assert loss(pairs, forgive) == pytest.approx(
        np.sqrt((g**2).mean() - forgive * g.mean() ** 2 + 1e-8), rel=1e-6, abs=1e-6
    )


@given(depths, st.floats(0.2, 5))
def test_silog_forgives_scale_as_far_as_it_says(pairs, scale):
    scaled = [(d * scale, t) for d, t in pairs]
    assert loss(scaled, 1.0) == pytest.approx(loss(pairs, 1.0), abs=1e-4)
    perfect = [(t * scale, t) for _, t in pairs]
    assert loss(perfect, 0.85) == pytest.approx(np.sqrt(0.15) * abs(np.log(scale)), abs=2e-4)


@given(depths, st.floats(0.0, 3.0), st.floats(0.2, 5))
def test_the_depth_error_equals_its_definition_and_stays_when_all_is_scaled_together(pairs, weight, scale):
    depth, truth = torch.tensor(pairs, dtype=torch.float64).T[:, None, None]
    error = float(depth_error(depth, truth, relative_weight=weight))
    d, t = np.array(pairs).T
    assert error == pytest.approx(np.abs(np.log(d / t)).mean() + weight * (np.abs(d - t) / t).mean())
    assert float(depth_error(scale * depth, scale * truth, relative_weight=weight)) == pytest.approx(error)


def test_silog_looks_at_ground_truth_alone():
    depth = torch.rand(1, 4, 4) + 1
    truth = torch.zeros(1, 4, 4)
    truth[0, 1, 1] = 3.0
    changed = depth.clone()
    changed[0, 0, 0] = 100
    truth[0, 2, 2] = SKY
    assert silog(depth, truth, forgive=0.85) == silog(changed, truth, forgive=0.85)
    nothing = torch.zeros(1, 4, 4)
    depth.requires_grad_()
    silog(depth, nothing, forgive=0.85).backward()
    assert torch.equal(depth.grad, torch.zeros_like(depth))


def test_the_sky_is_pushed_away_and_no_farther():
    sky = torch.tensor([[[True, False]]])
    near, far = torch.tensor([[[10.0, 1.0]]]), torch.tensor([[[SKY_BEYOND * 2, 1.0]]])
    assert float(sky_hinge(near, sky)) == pytest.approx(np.log(SKY_BEYOND / 10))
    assert float(sky_hinge(far, sky)) == 0
    assert float(sky_hinge(near, torch.zeros_like(sky))) == 0
