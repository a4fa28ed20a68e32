"""What every method promises: sharding, emptiness, extremes, precision, and its recipe."""

from __future__ import annotations

import math

import pytest
import torch
from teaching import CHANNELS, part_of, set_batch, step_of, teacher_views, tiny_student

from fsmde_edge.distill.augment import SKY
from fsmde_edge.distill.losses import log_ratio, mean, relative, silog, sky_hinge
from fsmde_edge.distill.methods.build import TERMS, build_method
from fsmde_edge.distill.methods.recipe import (
    METHODS,
    CkdRecipe,
    FitNetRecipe,
    HintonRecipe,
    MethodRecipe,
    ResponseRecipe,
    RkdRecipe,
    SupervisedRecipe,
    VrkdRecipe,
)
from fsmde_edge.errors import InputError
from fsmde_edge.recipes import from_mapping

every_method = pytest.mark.parametrize("name", METHODS)


def built(name, dtype=torch.float64, **settings):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        recipe = MethodRecipe(name=name, supervised=SupervisedRecipe(relative_weight=0.5), **settings)
        return build_method(recipe, student=8, teacher=CHANNELS).to(dtype)


class Records:
    """Totals of one process, kept for another."""

    def __init__(self):
        self.values = []

    def __call__(self, value):
        self.values.append(value.detach())
        return value


class Adds:
    """Adds what other processes had at the same call."""

    def __init__(self, *others):
        self.others = [iter(other.values) for other in others]

    def __call__(self, value):
        return value + sum(next(other) for other in self.others)


def gradients(loss, *modules):
    parameters = [p for module in modules for p in module.parameters()]
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


@every_method
def test_a_batch_in_two_processes_trains_as_a_whole_one(name):
    batch, student, method = set_batch(sets=3), tiny_student(), built(name)
    batch.truth[0] = torch.where(batch.truth[0] > 0, 0.0, batch.truth[0])  # no LiDAR in the first set
    batch.truth[2, :, :40] = 0  # and less, and no sky, in the last
    teacher = teacher_views(batch)
    whole = method(step_of(student, batch, teacher))
    expected = gradients(sum(whole.values()), student, method)
    parts = [[0], [1, 2]]
    records = [Records() for _ in parts]
    for part, record in zip(parts, records, strict=True):
        method(step_of(student, part_of(batch, part), part_of(teacher, part), total=record))
    assert len({len(record.values) for record in records}) == 1, "as many totals in every process"
    found = [torch.zeros_like(g) for g in expected]
    for i, part in enumerate(parts):
        total = Adds(*(record for j, record in enumerate(records) if j != i))
        losses = method(step_of(student, part_of(batch, part), part_of(teacher, part), total=total))
        for key, loss in losses.items():
            torch.testing.assert_close(loss, whole[key], rtol=1e-9, atol=1e-12)
        found = [f + g for f, g in zip(found, gradients(sum(losses.values()), student, method), strict=True)]
    for f, g in zip(found, expected, strict=True):
        torch.testing.assert_close(f, g, rtol=1e-6, atol=1e-9)


@every_method
@pytest.mark.parametrize("what", ["no LiDAR", "nothing but the own car"])
def test_without_anything_to_learn_from_losses_are_zero_and_gradients_finite(name, what):
    batch, student, method = set_batch(sets=1), tiny_student(), built(name)
    batch.truth.zero_()
    if what != "no LiDAR":
        batch.world.zero_()
    losses = method(step_of(student, batch, teacher_views(batch)))
    metric = {"silog", "relative", "sky", "centre", "response", "hinton"}
    for key, loss in losses.items():
        assert loss.isfinite()
        if key in metric or (what != "no LiDAR" and not key.startswith("rkd")):
            assert float(loss.detach()) == 0, key
    assert all(g.isfinite().all() for g in gradients(sum(losses.values()), student, method))


@every_method
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", ["huge", "tiny", "flat", "one point", "teacher in half"])
def test_extremes_stay_finite(name, dtype, case):
    batch = set_batch(sets=1, dtype=dtype)
    student, method = tiny_student(dtype), built(name, dtype)
    teacher = teacher_views(batch)
    if case in ("huge", "tiny"):
        factor = 1e6 if case == "huge" else 1e-6
        teacher = type(teacher)(*(part * factor for part in teacher))
        batch.truth[batch.truth > 0] = 1e5 if case == "huge" else 1e-3
    if case == "flat":
        teacher = type(teacher)(*(torch.zeros_like(part) for part in teacher))
        batch.pictures.zero_()
    if case == "one point":
        batch.truth[batch.truth > 0] = 0
        batch.truth[0, 0, 20, 20] = 5.0
    if case == "teacher in half":
        teacher = type(teacher)(*(part.half() for part in teacher))
    losses = method(step_of(student, batch, teacher))
    for key, loss in losses.items():
        assert loss.isfinite(), key
        assert loss.dtype == dtype, key
        assert loss.ndim == 0, key
    assert all(g.isfinite().all() for g in gradients(sum(losses.values()), student, method))


@every_method
def test_single_precision_says_what_double_says(name):
    batch = set_batch(sets=1)
    teacher = teacher_views(batch)
    double, single = (
        built(name, dtype)(step_of(tiny_student(dtype), cast(batch, dtype), cast(teacher, dtype)))
        for dtype in (torch.float64, torch.float32)
    )
    for key, loss in double.items():
        assert float(single[key].detach()) == pytest.approx(float(loss.detach()), rel=1e-4, abs=1e-5), key


def cast(batch, dtype):
    return type(batch)(*(part.to(dtype) if part.is_floating_point() else part for part in batch))


@every_method
def test_a_student_under_autocast_is_taken(name):
    batch, student = set_batch(sets=1, dtype=torch.float32), tiny_student(torch.float32)
    method = built(name, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        step = step_of(student, batch, teacher_views(batch))
    assert step.prediction.bins.logits.dtype == torch.bfloat16
    losses = method(step)
    assert all(loss.isfinite() and loss.dtype == torch.float32 for loss in losses.values())
    sum(losses.values()).backward()


@every_method
def test_nothing_is_made_on_a_device_of_its_own(name):
    """Whatever a method makes lies where its batch does: with another default, mixing the two would fail."""
    batch, student, method = set_batch(sets=1), tiny_student(), built(name)
    step = step_of(student, batch, teacher_views(batch))
    with torch.device("meta"):
        losses = method(step)
    for key, loss in method(step).items():
        assert torch.equal(losses[key], loss), key  # an index of another device is no error, but it is wrong


@every_method
def test_a_method_is_supervision_and_its_terms(name):
    batch = set_batch(sets=1)
    found = built(name)(step_of(tiny_student(), batch, teacher_views(batch)))
    alone = built("supervised")(step_of(tiny_student(), batch, None))
    assert all(torch.equal(found[key], loss) for key, loss in alone.items())
    assert (len(found) > len(alone)) == MethodRecipe(name=name).needs_teacher


def test_both_is_ckd_and_vrkd():
    batch = set_batch(sets=1)
    ckd, vrkd, both = (
        built(name)(step_of(tiny_student(), batch, teacher_views(batch))) for name in ("ckd", "vrkd", "both")
    )
    assert both.keys() == ckd.keys() | vrkd.keys()
    for key, loss in both.items():
        torch.testing.assert_close(loss, {**ckd, **vrkd}[key])


# Recipes


def test_every_term_can_be_built_and_configured():
    assert set(TERMS) == {term for terms in METHODS.values() for term in terms}
    for name in METHODS:
        recipe = from_mapping(MethodRecipe, {"name": name}, where=None)
        assert recipe.name == name


def test_a_recipe_is_read_from_plain_values():
    values = {"name": "both", "ckd": {"bins": "direct", "temperature": 3}, "vrkd": {"weight": 5, "bands": 2}}
    recipe = from_mapping(MethodRecipe, values, where=None)
    assert recipe.ckd == CkdRecipe(bins="direct", temperature=3.0)
    assert recipe.vrkd == VrkdRecipe(weight=5.0, bands=2)
    terms = build_method(recipe, student=8, teacher=4).terms
    assert terms["ckd"].recipe is recipe.ckd
    assert terms["vrkd"].recipe is recipe.vrkd


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "magic"}, "must be one of supervised, ckd"),
        ({"name": "ckd", "rkd": {}}, "method ckd has no term rkd; take 'rkd' out"),
        ({"name": "supervised", "ckd": {}}, "method supervised has no term ckd"),
        ({"name": "ckd", "ckd": {"tau": 2}}, r"unknown key 'ckd\.tau'"),
        ({"name": "ckd", "ckd": {"temperature": 0}}, "temperature cannot be 0"),
        ({"name": "ckd", "ckd": {"warp": 0}}, "warp cannot be 0"),
        ({"name": "ckd", "ckd": {"softness": 0.0}}, "softness cannot be 0"),
        ({"name": "ckd", "ckd": {"centre_weight": -1}}, "centre_weight cannot be -1"),
        ({"name": "ckd", "ckd": {"bins": "own"}}, "must be one of direct, shared"),
        ({"name": "ckd", "ckd": {"anchor_weight": 0}}, "never trained; set anchor_weight above 0"),
        ({"name": "vrkd", "vrkd": {"bands": 0}}, "bands cannot be 0"),
        ({"name": "vrkd", "vrkd": {"weight": -1}}, "weight cannot be -1"),
        ({"name": "supervised", "supervised": {"silog_lambda": 2}}, "silog_lambda cannot be 2"),
        ({"name": "supervised", "supervised": {"sky_weight": -1}}, "sky_weight cannot be -1"),
    ],
)
def test_an_impossible_method_is_refused(values, message):
    with pytest.raises(InputError, match=message):
        from_mapping(MethodRecipe, values, where=None)


@pytest.mark.parametrize("kind", [ResponseRecipe, HintonRecipe, FitNetRecipe, VrkdRecipe])
@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_an_impossible_weight_is_refused(kind, weight):
    with pytest.raises(InputError, match="weight cannot be"):
        kind(weight=weight)


@pytest.mark.parametrize("name", ["distance_weight", "angle_weight"])
def test_an_impossible_relational_weight_is_refused(name):
    with pytest.raises(InputError, match=f"{name} cannot be -1"):
        RkdRecipe(**{name: -1.0})


def test_an_unknown_name_is_refused_in_code_too():
    with pytest.raises(InputError, match="no method is called magic; choose from supervised, ckd"):
        MethodRecipe(name="magic")


# Means over processes


def pixels(seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    depth, truth = torch.rand(2, 3, 8, 9, generator=generator, dtype=dtype) * 50 + 1
    truth[torch.rand(truth.shape, generator=generator) < 0.5] = 0
    truth[:, 0] = SKY
    return depth, truth


def test_in_one_process_losses_are_means():
    depth, truth = pixels()
    valid = truth > 0
    error = (depth[valid] / truth[valid]).log()
    exact = torch.sqrt(error.square().mean() - 0.85 * error.mean().square() + 1e-8)
    torch.testing.assert_close(silog(depth, truth, forgive=0.85), exact)
    torch.testing.assert_close(relative(depth, truth), ((depth - truth).abs() / truth)[valid].mean())
    torch.testing.assert_close(log_ratio(depth, truth), error.abs().mean())


@pytest.mark.parametrize(
    "loss",
    [
        lambda d, t, total: silog(d, t, forgive=0.5, total=total),
        lambda d, t, total: relative(d, t, total=total),
        lambda d, t, total: log_ratio(d, t, total=total),
        lambda d, t, total: sky_hinge(d, t == SKY, total=total),
        lambda d, t, total: mean(d, total=total),
    ],
)
@pytest.mark.parametrize("split", [0, 1, 2])
def test_pixels_weigh_the_same_in_whichever_process(loss, split):
    depth, truth = pixels(dtype=torch.float64)
    truth[0] = 0
    there = (slice(0, split), slice(split, None))
    records = [Records(), Records()]
    for part, record in zip(there, records, strict=True):
        loss(depth[part], truth[part], record)
    for part, other in zip(there, reversed(records), strict=True):
        torch.testing.assert_close(
            loss(depth[part], truth[part], Adds(other)), loss(depth, truth, lambda x: x)
        )


def test_the_log_ratio_forgets_a_common_scale():
    depth, truth = pixels(dtype=torch.float64)
    torch.testing.assert_close(log_ratio(depth * 3, truth * 3), log_ratio(depth, truth))
    assert float(log_ratio(truth.clamp(min=1) * math.e, truth)) == pytest.approx(1, abs=0.05)
