"""Learnt rounding and bias correction."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from toy_depth import Builder, focals, normalised, pictures
from toy_search import OPTIONS, chain, feeds, finished, ranges_of, toy, toy_ranges

from fsmde_edge.compiler import reconstruct as module
from fsmde_edge.compiler.integer import run_plainly
from fsmde_edge.compiler.lowering.tensorrt import lower
from fsmde_edge.compiler.plan import Weight
from fsmde_edge.compiler.prefix import Walk, one_view, plain_session
from fsmde_edge.compiler.quantiser import LEVELS, channel_scales, quantise
from fsmde_edge.compiler.reconstruct import Reconstruction, reconstruct, round_columns
from fsmde_edge.graph.model import initializers, tidy, value_of

BIAS, ROUNDING, BOTH = (
    Reconstruction(rounding=rounding, bias=bias)
    for rounding, bias in ((False, True), (True, False), (True, True))
)


def lowered_toy():
    plan = OPTIONS.plan(toy(), toy_ranges())
    return plan, lower(toy(), plan)


def rebuilt(what, **options):
    plan, lowered = lowered_toy()
    return reconstruct(toy(), lowered, plan, feeds(toy()), what, threads=1, **options)


@pytest.fixture(scope="module")
def corrected():
    return rebuilt(BIAS)


@pytest.fixture(scope="module")
def learnt():
    return rebuilt(ROUNDING)


def mean_errors(model, lowered, inputs) -> dict[str, float]:
    """Each INT8 layer's mean error, of its worst channel, over the channel's spread in FP32."""
    names = [node.name for node in model.graph.node if node.op_type == "Conv"]
    found = {}
    walks = [Walk(one_view(part) or part, inputs, threads=1) for part in (model, lowered)]
    for name in names:
        right, made = (np.concatenate(walk.output_of(name)) for walk in walks)
        error = np.abs((made - right).mean(axis=(0, 2, 3)))
        found[name] = float((error / right.std(axis=(0, 2, 3))).max())
    return found


def problem(seed: int, outputs: int, inputs: int, rank: int):
    """Random weights, their scales, and correlated readings: X = mixing × few sources, and a little noise."""
    random = np.random.default_rng(seed)
    weights = random.normal(size=(outputs, inputs)).astype(np.float32)
    columns = random.normal(size=(inputs, rank)) @ random.normal(size=(rank, 300))
    columns += 0.1 * random.normal(size=columns.shape)
    return weights, np.array(channel_scales(weights, 0), dtype=np.float32), columns


def errors_of(weights, scales, columns):
    """|Q X − W X|² of each row, rounded with learning and to nearest."""
    learnt = round_columns(weights, scales, columns @ columns.T)
    assert np.abs(learnt.astype(int)).max() <= LEVELS
    return [
        np.square((integers * scales[:, None].astype(np.float64) - weights) @ columns).sum(axis=1)
        for integers in (learnt, quantise(weights, tuple(scales)))
    ]


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(2, 40), st.integers(1, 8))
def test_learnt_rounding_is_worse_than_nearest_in_no_row(seed, outputs, inputs, rank):
    learnt, nearest = errors_of(*problem(seed, outputs, inputs, rank))
    assert (learnt <= nearest * (1 + 1e-9)).all()


def test_learnt_rounding_is_much_better_where_inputs_are_alike():
    learnt, nearest = (
        np.sum(errors)
        for errors in zip(*(errors_of(*problem(seed, 8, 36, 6)) for seed in range(5)), strict=True)
    )
    assert learnt < 0.3 * nearest


def test_learnt_rounding_finds_the_least_error_of_a_problem_that_can_be_searched_whole():
    weights = np.float32([[0.4, 0.4, 0.4]])
    hessian = np.ones((3, 3)) + 1e-3 * np.eye(3)
    scales = np.float32([1.0])
    grid = np.stack(np.meshgrid(*[np.arange(-1, 3)] * 3), axis=-1).reshape(-1, 3)
    errors = grid - weights
    least = np.einsum("ij,jk,ik->i", errors, hessian, errors).min()
    found = round_columns(weights, scales, hessian) - weights
    assert found @ hessian @ found.T == pytest.approx(least)
    assert round_columns(weights, scales, hessian).sum() == 1, "plain rounding gives 0 three times"


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 300))
def test_inputs_that_have_nothing_in_common_are_rounded_to_nearest(seed, outputs, inputs):
    weights, scales, _ = problem(seed, outputs, inputs, 1)
    diagonal = np.diag(np.random.default_rng(seed).uniform(0.1, 10, size=inputs))
    np.testing.assert_array_equal(round_columns(weights, scales, diagonal), quantise(weights, tuple(scales)))


def test_rounding_is_learnt_for_what_varies_the_mean_is_for_the_bias():
    weights, scales, columns = problem(3, 8, 36, 6)
    weight = Weight(tensor="w", node="n", int8=True, axis=0, scales=tuple(map(float, scales)), reason="")
    kernel, means = weights.reshape(8, 4, 3, 3), np.linspace(-40, 40, 36)[:, None]
    plain, shifted = (
        module._learn(kernel, weight, readings.astype(np.float32)) for readings in (columns, columns + means)
    )
    assert plain.shape == kernel.shape
    assert (plain != shifted).mean() < 0.02


def test_many_inputs_are_rounded_as_one_block_would_be(monkeypatch):
    weights, scales, columns = problem(5, 4, 90, 6)
    hessian = columns @ columns.T
    whole = round_columns(weights, scales, hessian)
    monkeypatch.setattr(module, "_BLOCK", 7)
    np.testing.assert_array_equal(round_columns(weights, scales, hessian), whole)


@pytest.mark.parametrize(
    ("kernel", "attributes"),
    [
        ((1, 1), {}),
        ((3, 3), {"pads": [1, 1, 1, 1]}),
        ((3, 3), {"pads": [0, 1, 2, 0], "strides": [2, 1]}),
        ((5, 2), {"pads": [2, 0, 2, 1], "strides": [2, 3], "dilations": [2, 4]}),
        ((3, 3), {"dilations": [3, 3], "strides": [2, 2]}),
    ],
)
def test_what_a_layer_reads_is_what_its_convolution_multiplies(kernel, attributes):
    """W × patches at every position are ONNX Runtime's convolution, whatever the geometry."""
    random = np.random.default_rng(0)
    value = random.normal(size=(2, 3, 13, 17)).astype(np.float32)
    weight = random.normal(size=(5, 3, *kernel)).astype(np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=list(kernel), **attributes)
    patches = module._patches(node, weight.shape, [value])
    right = convolved(node, value, weight)
    made = weight.reshape(5, -1) @ patches
    expected = right.transpose(1, 0, 2, 3).reshape(5, -1)
    assert made.shape == expected.shape
    order, wanted = np.lexsort(made.round(4)), np.lexsort(expected.round(4))
    np.testing.assert_allclose(made[:, order], expected[:, wanted], atol=2e-4)


def convolved(node, value, weight):
    """ONNX Runtime's convolution."""
    infos = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)]
        for name, shape in (("x", value.shape), ("y", None))
    ]
    graph = helper.make_graph([node], "one", *infos, [numpy_helper.from_array(weight, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)
    return plain_session(model, threads=1).run(None, {"x": value})[0]


def test_large_layers_are_looked_at_in_some_places_of_every_view(monkeypatch):
    monkeypatch.setattr(module, "POSITIONS", 30)
    values = [np.full((1, 2, 9, 9), number, dtype=np.float32) for number in range(3)]
    node = helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[1, 1])
    patches = module._patches(node, (4, 2, 1, 1), values)
    assert patches.shape == (2, 30)
    assert np.bincount(patches[0].astype(int)).tolist() == [10, 10, 10]


def test_bias_correction_leaves_no_mean_error_in_any_layer(corrected):
    before = mean_errors(toy(), lowered_toy()[1], feeds(toy()))
    after = mean_errors(toy(), corrected, feeds(toy()))
    assert max(before.values()) > 0.01
    assert max(after.values()) < 1e-5


def test_bias_correction_changes_biases_alone(corrected):
    before, after = (initializers(model.graph) for model in (lowered_toy()[1], corrected))
    for name, item in before.items():
        assert name.endswith(".bias") or after[name] == item, name
    assert {name for name in after if name not in before} == {
        f"{node.name}_bias_corrected" for node in toy().graph.node if node.op_type == "Conv"
    }


def test_learnt_rounding_changes_integers_alone_and_by_a_step_or_so(learnt):
    before, after = (initializers(model.graph) for model in (lowered_toy()[1], learnt))
    assert set(before) == set(after)
    changed = {name for name in before if before[name] != after[name]}
    assert changed
    assert all(name.endswith(".weight_quantized") for name in changed)
    for name in changed:
        left, right = (value_of(m.graph, name).astype(int) for m in (lowered_toy()[1], learnt))
        assert np.abs(left - right).max() <= 3


def test_learnt_rounding_brings_each_layers_output_nearer(learnt):
    """Of the same readings: the first layer's are the pixels themselves."""
    right, plain, better = (
        Walk(one_view(model), feeds(toy()), threads=1).output_of("stem")
        for model in (toy(), lowered_toy()[1], learnt)
    )
    errors = [
        sum(
            np.square((a - b) - (a - b).mean(axis=(2, 3), keepdims=True)).sum()
            for a, b in zip(right, made, strict=True)
        )
        for made in (plain, better)
    ]
    assert errors[1] < 0.8 * errors[0]


def test_both_together_bring_depth_nearer_on_other_pictures():
    feed = {"images": pictures(seed=21), "focal": focals()}
    right = run_plainly(toy(), feed, ["depth"])["depth"]
    errors = [
        np.abs(run_plainly(model, feed, ["depth"])["depth"] - right).mean()
        for model in (lowered_toy()[1], rebuilt(BOTH))
    ]
    assert errors[1] < errors[0]


def test_progress_counts_every_layer():
    seen = []
    rebuilt(BIAS, progress=seen.append)
    assert seen == list(range(1, sum(node.op_type == "Conv" for node in toy().graph.node) + 1))


def test_nothing_asked_for_changes_nothing():
    assert rebuilt(Reconstruction(rounding=False, bias=False)) == lowered_toy()[1]


@pytest.mark.parametrize("bias", [True, False])
def test_views_that_depend_on_each_other_are_corrected_once(bias):
    model = chain(views=3, mixing=True)
    if not bias:
        for node in model.graph.node:
            del node.input[2 if node.op_type == "Conv" else len(node.input) :]
        model = tidy(model)
    plan = OPTIONS.plan(model, ranges_of(model))
    inputs = feeds(model, most=3)
    made = reconstruct(model, lower(model, plan), plan, inputs, BOTH, threads=1)
    assert max(mean_errors(model, made, inputs).values()) < 1e-5


def test_a_bias_that_two_layers_share_is_corrected_for_each():
    b = Builder(3)
    x = b.relu(b.conv(normalised(b), 3, 4, name="one"), "one.relu")
    y = b.relu(b.conv(x, 4, 4, name="two"), "two.relu")
    next(node for node in b.nodes if node.name == "two").input[2] = "one.bias"
    model = finished(b, b.conv(y, 4, 1, name="out"))
    plan = OPTIONS.plan(model, ranges_of(model))
    made = reconstruct(model, lower(model, plan), plan, feeds(model), BIAS, threads=1)
    assert max(mean_errors(model, made, feeds(model)).values()) < 1e-5
    assert not np.array_equal(*(value_of(made.graph, f"{name}_bias_corrected") for name in ("one", "two")))


def test_layers_that_do_not_lead_to_depth_stay_as_they_are():
    model = chain()
    second = Builder(9)
    sure = second.conv("relu1.out", 4, 1, name="sure")
    axes = next(node for node in model.graph.node if node.name == "squeeze").input[1]
    flat = helper.make_node("Squeeze", [sure, axes], ["confidence"], name="sure.flat")
    model.graph.node.extend((*second.nodes, flat))
    model.graph.initializer.extend(second.constants)
    model.graph.output.append(helper.make_tensor_value_info("confidence", TensorProto.FLOAT, [2, 32, 64]))
    model = tidy(model)
    plan = OPTIONS.plan(model, ranges_of(model))
    lowered = lower(model, plan)
    made = reconstruct(model, lowered, plan, feeds(model), BOTH, threads=1)
    before, after = (initializers(part.graph) for part in (lowered, made))
    assert all(after[name] == item for name, item in before.items() if name.startswith("sure"))
    assert "out_bias_corrected" in after


def test_grouped_convolutions_keep_their_rounding_and_get_their_bias():
    b = Builder(3)
    x = b.relu(b.conv(normalised(b), 3, 4, name="first"), "relu")
    x = b.relu(b.conv(x, 4, 4, name="grouped", group=2), "grouped.relu")
    model = finished(b, b.conv(x, 4, 1, name="out"))
    plan = OPTIONS.plan(model, ranges_of(model))
    lowered = lower(model, plan)
    made = reconstruct(model, lowered, plan, feeds(model), BOTH, threads=1)
    np.testing.assert_array_equal(*(value_of(m.graph, "grouped.weight_quantized") for m in (lowered, made)))
    assert mean_errors(model, made, feeds(model))["grouped"] < 1e-5
