from __future__ import annotations

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
from fsmde_edge.distill.binning import direct_bins, positions
from fsmde_edge.distill.losses import bin_divergence
from fsmde_edge.distill.methods.build import build_method
from fsmde_edge.distill.methods.ckd import CrossInteraction
from fsmde_edge.distill.methods.recipe import CkdRecipe, MethodRecipe

BATCH = set_batch(sets=1)
TEACHER = teacher_views(BATCH)
STUDENT = tiny_student()
BINS = ("direct", "shared", "student")


def crossed(bins="direct", **settings):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return CrossInteraction(CkdRecipe(bins=bins, **settings), student=8, teacher=CHANNELS).double()


def losses(batch=BATCH, teacher=TEACHER, student=STUDENT, *, bins="direct", centres=None, **settings):
    step = step_of(student, batch, teacher)
    if centres is not None:
        step.prediction.bins.centres.mul_(centres)
        step.prediction.bins.depth.mul_(centres)
    return crossed(bins, **settings)(step)


def scaled(batch, factor):
    return batch._replace(truth=torch.where(batch.truth > 0, batch.truth * factor, batch.truth))


@settings(max_examples=10)
@given(st.floats(0.05, 20), st.sampled_from(BINS))
def test_scaling_the_ground_truth_leaves_the_probabilities_loss_as_it_is(factor, bins):
    plain, changed = losses(bins=bins), losses(scaled(BATCH, factor), bins=bins)
    assert torch.equal(plain["probability"], changed["probability"])
    assert not torch.equal(plain["centre"], changed["centre"]) or factor == 1
    if bins == "shared":
        assert torch.equal(plain["anchor"], changed["anchor"])


@settings(max_examples=10)
@given(st.floats(0.05, 20), st.sampled_from(BINS), st.sampled_from((0.0, 2.0)))
def test_centres_and_ground_truth_that_scale_together_leave_the_centres_loss(factor, bins, relative):
    options = {"bins": bins, "relative_weight": relative}
    with torch.no_grad():
        plain, changed = losses(**options), losses(scaled(BATCH, factor), **options, centres=factor)
        alone = losses(**options, centres=1.01)
    torch.testing.assert_close(changed["centre"], plain["centre"], rtol=1e-6, atol=1e-9)
    assert not torch.isclose(alone["centre"], plain["centre"], rtol=1e-6)


@settings(max_examples=10)
@given(st.floats(0.01, 100), st.floats(-50, 50))
def test_scale_and_shift_of_the_teacher_change_nothing(scale, shift):
    moved = TEACHER._replace(disparity=TEACHER.disparity * scale + shift)
    for bins in ("direct", "student"):
        plain, changed = losses(bins=bins), losses(teacher=moved, bins=bins)
        told_alike(plain, changed)


def told_alike(plain, changed):
    for name, loss in plain.items():
        torch.testing.assert_close(changed[name], loss, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("bins", BINS)
@pytest.mark.parametrize("frozen", [True, False])
def test_each_term_trains_its_own_factor(bins, frozen):
    student = tiny_student(frozen=frozen)
    found = losses(student=student, bins=bins)
    assert trained_by(found["probability"], student) == {"encoder", "decoder", *PROBABILITIES}
    assert trained_by(found["centre"], student) == {"encoder", *CENTRES}
    if bins == "shared":
        assert trained_by(found["anchor"], student) == PROBABILITIES


def test_the_anchor_alone_trains_the_adapter():
    term = crossed("shared")
    found = term(step_of(STUDENT, BATCH, TEACHER))
    for name, loss in found.items():
        reached = torch.autograd.grad(loss, list(term.parameters()), allow_unused=True, retain_graph=True)
        assert all((g is not None and bool(g.any())) == (name == "anchor") for g in reached), name


def test_direct_bins_own_nothing():
    assert not list(crossed("direct").parameters())
    assert set(losses()) == {"probability", "centre"}


def test_probabilities_that_agree_with_the_teacher_cost_nothing_and_centres_can_meet_the_lidar():
    """Where the student says what the teacher does, and ground truth is its depth, all is done."""
    step = step_of(STUDENT, BATCH, TEACHER)
    where = positions(TEACHER.disparity.flatten(0, 1), step.world, (16, 24), warp=50.0)
    step.prediction.bins.logits.data.copy_(3 + direct_bins(where.u, 8, softness=1.0))
    found = crossed()(step)
    assert float(found["probability"].detach()) == pytest.approx(0, abs=1e-12)
    inverse = 1 / (torch.softmax(step.logits, 1) * step.prediction.bins.centres[..., None, None]).sum(1)
    up = torch.nn.functional.interpolate(inverse[:, None], scale_factor=4, mode="bilinear")[:, 0]
    depth = (step.batch.focal.flatten() / STUDENT.config.focal)[:, None, None] / up
    truth = torch.where(BATCH.truth > 0, depth.view_as(BATCH.truth), BATCH.truth).detach()
    again = crossed()(step_of(STUDENT, BATCH._replace(truth=truth), TEACHER))
    assert float(again["centre"].detach()) == pytest.approx(0, abs=1e-6)


def test_on_the_students_bins_its_own_structure_is_its_own_depth_whatever_the_scale():
    student = tiny_student()
    with torch.no_grad():
        student.head.logits.weight.mul_(200)  # untrained, it says the same everywhere
        depth = step_of(student, BATCH, TEACHER).prediction.bins.depth[:, 0]
        own = TEACHER._replace(disparity=(7 / depth - 3).unflatten(0, BATCH.truth.shape[:2]))
        apart = []
        for teacher in (own, TEACHER):
            step = step_of(student, BATCH, teacher)
            disparity = teacher.disparity.flatten(0, 1)
            where = positions(disparity, step.world, depth.shape[-2:], warp=50.0)
            bins = torch.softmax(crossed("student", softness=0.3)._on_students_scale(where, step), dim=1)
            told = (bins * step.prediction.bins.centres[..., None, None]).sum(dim=1)
            apart.append((told.log() - depth.log())[where.known].abs().mean())
    assert apart[0] < 0.3 * apart[1], apart


def test_weights_and_temperature_are_heard():
    plain = losses(bins="shared")
    doubled = losses(bins="shared", probability_weight=2.0, centre_weight=3.0, anchor_weight=4.0)
    for name, factor in (("probability", 2), ("centre", 3), ("anchor", 4)):
        torch.testing.assert_close(doubled[name], factor * plain[name])
    warm = losses(bins="shared", temperature=5.0)
    assert not torch.isclose(warm["probability"], plain["probability"])
    assert torch.equal(warm["centre"], plain["centre"])


def test_the_own_car_teaches_nothing():
    wild = BATCH._replace(truth=torch.where(BATCH.world, BATCH.truth, 0.1))
    assert torch.equal(losses(wild)["centre"], losses()["centre"])
    student = step_of(STUDENT, BATCH, TEACHER)
    student.prediction.bins.logits.data[2:4, :, 13:, 7:16] += torch.rand(2, 8, 3, 9)  # wholly inside it
    assert torch.equal(crossed()(student)["probability"], losses()["probability"])


def test_the_sky_is_far_for_probabilities_and_silent_for_centres():
    other = BATCH._replace(truth=torch.where(BATCH.truth == SKY, 0.0, BATCH.truth))
    assert torch.equal(losses(other)["centre"], losses()["centre"])
    assert torch.equal(losses(other)["probability"], losses()["probability"])


def test_a_teacher_that_says_nothing_of_a_view_leaves_it_out():
    disparity = TEACHER.disparity.clone()
    disparity[:, 1] = 0.5
    flat = losses(teacher=TEACHER._replace(disparity=disparity))
    others = [0, 2, 3, 4, 5]
    alone = losses(part_of(BATCH, (slice(None), others)), part_of(TEACHER, (slice(None), others)))
    for name, loss in alone.items():
        torch.testing.assert_close(flat[name], loss, rtol=1e-6, atol=1e-9)


def test_the_method_adds_supervision():
    method = build_method(MethodRecipe(name="ckd"), student=8, teacher=CHANNELS).double()
    assert set(method(step_of(STUDENT, BATCH, TEACHER))) == {
        "silog",
        "sky",
        "anchor",
        "probability",
        "centre",
    }


def test_without_a_teacher_it_is_refused():
    with pytest.raises(ValueError, match="needs a teacher"):
        crossed()(step_of(STUDENT, BATCH, None))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_divergence_is_its_definition(temperature):
    generator = torch.Generator().manual_seed(0)
    teacher, student = torch.randn(2, 3, 5, 4, 6, generator=generator, dtype=torch.float64)
    p, q = (torch.softmax(x / temperature, dim=1) for x in (teacher, student))
    expected = temperature**2 * (p * (p / q).log()).sum(dim=1)
    torch.testing.assert_close(bin_divergence(teacher, student, temperature=temperature), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1e4, 1e30])
def test_extreme_logits_stay_finite(dtype, size):
    teacher = torch.tensor([size, -size, 0.0], dtype=dtype)[None, :, None, None]
    student = (-teacher).clone().requires_grad_()
    found = bin_divergence(teacher, student, temperature=1.0).sum()
    found.backward()
    assert found.isfinite()
    assert student.grad.isfinite().all()
