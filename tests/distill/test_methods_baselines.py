from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from teaching import (
    CENTRES,
    CHANNELS,
    PROBABILITIES,
    part_of,
    set_batch,
    step_of,
    teacher_views,
    tiny_student,
    trained_by,
)

from fsmde_edge.distill.augment import SKY
from fsmde_edge.distill.batch import TeacherViews
from fsmde_edge.distill.losses import relative, silog, sky_hinge
from fsmde_edge.distill.methods.build import build_method
from fsmde_edge.distill.methods.fitnet import FitNet
from fsmde_edge.distill.methods.hinton import Hinton
from fsmde_edge.distill.methods.recipe import (
    FitNetRecipe,
    HintonRecipe,
    MethodRecipe,
    ResponseRecipe,
    RkdRecipe,
    SupervisedRecipe,
)
from fsmde_edge.distill.methods.response import Response
from fsmde_edge.distill.methods.rkd import Relational, angles, distances
from fsmde_edge.distill.methods.supervised import Supervised
from fsmde_edge.distill.resize import resized

BATCH = set_batch()
TEACHER = teacher_views(BATCH)
STUDENT = tiny_student()


def step(batch=BATCH, teacher=TEACHER, student=STUDENT):
    return step_of(student, batch, teacher)


def metric_teacher(batch, depth, scale=3.0, shift=0.7):
    """A teacher that knows this depth [N, H, W], up to scale and shift."""
    return TeacherViews(scale / depth.detach().view_as(batch.truth) + shift, TEACHER.features)


def labelled(batch, depth):
    """Ground truth is this depth, where there is any."""
    return batch._replace(
        truth=torch.where(batch.truth > 0, depth.detach().view_as(batch.truth), batch.truth)
    )


# Supervised


def test_supervision_is_what_the_losses_say_of_the_world():
    found = Supervised(SupervisedRecipe(silog_lambda=0.5, relative_weight=2.0, sky_weight=0.3))(step())
    truth = torch.where(BATCH.world, BATCH.truth, 0.0).flatten(0, 1)
    depth = step().prediction.depth
    torch.testing.assert_close(found["silog"], silog(depth, truth, forgive=0.5))
    torch.testing.assert_close(found["relative"], 2 * relative(depth, truth))
    torch.testing.assert_close(found["sky"], 0.3 * sky_hinge(depth, truth == SKY))
    assert set(Supervised(SupervisedRecipe())(step())) == {"silog", "sky"}


def test_supervision_trains_everything_and_needs_no_teacher():
    method = build_method(MethodRecipe(name="supervised"), student=8)
    found = method(step(teacher=None))
    assert trained_by(sum(found.values()), STUDENT) == {"encoder", "decoder", *PROBABILITIES, *CENTRES}
    assert not list(method.parameters())


# Response


def response(given):
    return Response(ResponseRecipe(weight=2.0))(given)["response"]


def test_a_student_that_says_what_the_aligned_teacher_says_has_no_response_loss():
    depth = step().prediction.depth
    batch = labelled(BATCH, depth)
    assert float(response(step(batch, metric_teacher(batch, depth))).detach()) == pytest.approx(0, abs=1e-6)
    twice = labelled(BATCH, 2 * depth)
    found = response(step(twice, metric_teacher(twice, depth)))
    assert float(found.detach()) == pytest.approx(2 * 0.6931, rel=1e-3)


def test_response_reaches_every_factor_and_every_world_pixel():
    found = response(step())
    assert trained_by(found, STUDENT) == {"encoder", "decoder", *PROBABILITIES, *CENTRES}
    given = step()
    (gradient,) = torch.autograd.grad(response(given), given.prediction.depth)
    told = BATCH.world & (BATCH.truth != SKY)
    assert torch.equal(gradient != 0, told.flatten(0, 1))


@pytest.mark.parametrize("loss", [response, lambda given: Hinton(HintonRecipe())(given)["hinton"]])
def test_a_view_without_lidar_adds_nothing_to_metric_distillation(loss):
    truth = BATCH.truth.clone()
    truth[:, 4] = 0
    kept = (slice(None), [0, 1, 2, 3, 5])
    torch.testing.assert_close(
        loss(step(BATCH._replace(truth=truth))), loss(step(part_of(BATCH, kept), part_of(TEACHER, kept)))
    )


# Hinton


def hinton(given, **settings):
    return Hinton(HintonRecipe(**settings))(given)["hinton"]


def test_hinton_trains_probabilities_alone():
    assert trained_by(hinton(step()), STUDENT) == {"encoder", "decoder", *PROBABILITIES}


def test_hinton_is_least_for_bins_around_the_teachers_depth():
    given = step()
    n, k, h, w = given.logits.shape
    chosen = torch.randint(1, k - 1, (n, 1, 1), generator=torch.Generator().manual_seed(0)).expand(n, h, w)
    depth = given.prediction.bins.centres.gather(1, chosen[:, 0, :1])[:, :, None] * given.zoom[:, None, None]
    lean = torch.linspace(0.7, 1.4, 96, dtype=depth.dtype)  # a teacher of one depth is no teacher
    depth = (depth * lean).expand(n, 64, 96)
    batch = labelled(BATCH, depth)
    batch = batch._replace(world=torch.ones_like(batch.world))

    def loss(shift):
        there = step(batch, metric_teacher(batch, depth))
        each = torch.arange(k)[:, None, None]
        there.prediction.bins.logits.data.copy_(-0.5 * (each - chosen[:, None] - shift).square())
        return float(hinton(there).detach())

    assert loss(0) < 0.5 * min(loss(-1), loss(1))


def test_hinton_follows_the_ground_truths_scale():
    farther = BATCH._replace(truth=torch.where(BATCH.truth > 0, BATCH.truth * 3, BATCH.truth))
    assert not torch.isclose(hinton(step(farther)), hinton(step()))


def test_hinton_is_silent_on_own_car_and_sky():
    wild = TEACHER.disparity.clone()
    wild[:, 2:4, 42:, 18:61] = 9.0  # inside it
    other = TEACHER._replace(disparity=wild)
    given, changed = step(), step(teacher=other)
    torch.testing.assert_close(hinton(changed), hinton(given), rtol=1e-2, atol=0)
    (gradient,) = torch.autograd.grad(hinton(given), given.prediction.bins.logits)
    assert not gradient[2:4, :, 12:, 6:16].any()
    assert not gradient[:, :, :2].any()  # the sky
    assert gradient[:, :, 2:12].any(dim=1).all()


# FitNet


def fitnet(given, term=None):
    return (term or hint())(given)["fitnet"]


def hint():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return FitNet(FitNetRecipe(), student=8, teacher=CHANNELS).double()


@settings(max_examples=10)
@given(st.floats(0.01, 100))
def test_fitnet_does_not_hear_the_teachers_scale(factor):
    scaled = TEACHER._replace(features=TEACHER.features * factor)
    torch.testing.assert_close(fitnet(step(teacher=scaled)), fitnet(step()), rtol=1e-4, atol=0)


def test_fitnet_trains_features_and_its_adapter():
    term = hint()
    assert trained_by(fitnet(step(), term), STUDENT) == {"encoder", "decoder"}
    assert all(g.any() for g in torch.autograd.grad(fitnet(step(), term), list(term.parameters())))


def test_an_adapter_learns_features_that_the_students_hold():
    given = step()
    mixed = resized(given.features.decoder.detach(), (5, 7))
    mixed = torch.einsum("kc,nchw->nkhw", torch.eye(8, dtype=torch.float64)[:CHANNELS], mixed) + 0.01
    features = given.features._replace(decoder=given.features.decoder.detach())
    teacher = TEACHER._replace(features=mixed.view_as(TEACHER.features))
    given = replace(given, features=features, teacher=teacher)
    term = hint()
    optimiser = torch.optim.Adam(term.parameters(), lr=0.05)
    before = float(fitnet(given, term).detach())
    for _ in range(60):
        optimiser.zero_grad()
        fitnet(given, term).backward()
        optimiser.step()
    assert float(fitnet(given, term).detach()) < 0.1 * before


def test_fitnet_does_not_look_at_the_own_car():
    wild = TEACHER.features.clone()
    wild[:, 2:4, :, 4, 2:5] *= -1
    assert torch.equal(fitnet(step(teacher=TEACHER._replace(features=wild))), fitnet(step()))


def test_fitnet_is_the_squared_distance_of_directions():
    class Same(torch.nn.Module):
        def forward(self, features):
            return TEACHER.features.flatten(0, 1)

    class Opposite(torch.nn.Module):
        def forward(self, features):
            return -TEACHER.features.flatten(0, 1)

    for adapter, expected in ((Same(), 0.0), (Opposite(), 4.0)):
        term = hint()
        term.adapter = adapter
        assert float(fitnet(step(), term)) == pytest.approx(expected, abs=1e-9)


# RKD


def test_rkd_relates_the_views_of_a_set_as_the_paper_does():
    x = torch.randn(1, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pairs = [(i, j) for i in range(4) for j in range(4) if i != j]
    apart = torch.stack([(x[0, i] - x[0, j]).norm() for i, j in pairs])
    torch.testing.assert_close(distances(x)[0], apart / apart.mean())
    triples = [(i, j, k) for i in range(4) for j in range(4) for k in range(4) if len({i, j, k}) == 3]

    def cosine(i, j, k):
        return torch.nn.functional.cosine_similarity(x[0, i] - x[0, j], x[0, k] - x[0, j], dim=0)

    torch.testing.assert_close(angles(x)[0], torch.stack([cosine(*t) for t in triples]))


def test_rkd_does_not_hear_scale_turn_or_number_of_channels():
    x = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(9, 9, dtype=torch.float64)).Q[:, :5]
    y = 7 * x @ turn.T + 3
    torch.testing.assert_close(distances(y), distances(x))
    torch.testing.assert_close(angles(y), angles(x))


def test_rkd_trains_features_and_hears_its_weights():
    one = Relational(RkdRecipe(distance_weight=1.0, angle_weight=1.0))(step())
    other = Relational(RkdRecipe(distance_weight=3.0, angle_weight=5.0))(step())
    torch.testing.assert_close(other["rkd_distance"], 3 * one["rkd_distance"])
    torch.testing.assert_close(other["rkd_angle"], 5 * one["rkd_angle"])
    for loss in one.values():
        assert trained_by(loss, STUDENT) == {"encoder", "decoder"}


@pytest.mark.parametrize("views", [1, 2])
def test_rkd_of_few_views_is_finite(views):
    kept = (slice(None), list(range(views)))
    found = Relational(RkdRecipe())(step(part_of(BATCH, kept), part_of(TEACHER, kept)))
    assert float(found["rkd_angle"].detach()) == 0
    assert all(loss.isfinite() for loss in found.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_views_that_look_the_same_give_finite_gradients(dtype):
    x = torch.ones(1, 6, 5, dtype=dtype, requires_grad=True)
    (distances(x).sum() + angles(x).sum()).backward()
    assert x.grad.isfinite().all()
