"""A Q/DQ model in integer arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from integer_oracle import Oracle, convolve
from onnx import TensorProto, helper
from toy_depth import Builder, block, focals, normalised, pictures
from toy_search import OPTIONS, finished, int8, toy

from fsmde_edge.compiler import integer
from fsmde_edge.compiler.half import to_half
from fsmde_edge.compiler.integer import (
    EXACT,
    LARGEST_INTEGER,
    block_tensors,
    compare_blocks,
    integer_form,
    run,
    run_plainly,
    weight_parts,
)
from fsmde_edge.compiler.plan import PlanOptions
from fsmde_edge.errors import InputError
from fsmde_edge.graph.model import (
    add_constant,
    consumers,
    copy_model,
    infer_shapes,
    interface,
    set_constant,
    tensor_types,
    tidy,
    value_of,
)
from fsmde_edge.inference import unsigned


def dense() -> object:
    """Stride, residual sum, nearest Resize, Concat."""
    b = Builder(2)
    x = block(b, b.relu(b.conv(normalised(b), 3, 4, 5, 2, name="stem"), "stem.relu"), 4, 4, 1, "layer")
    return finished(
        b, b.conv(b.node("Concat", b.upsample(x, "up"), "scale.out", name="cat", axis=1), 7, 1, name="out")
    )


def grouped() -> object:
    """Groups, dilation, uneven padding, no bias."""
    b = Builder(2)
    x = b.relu(b.conv(normalised(b), 3, 6, name="first"), "first.relu")
    weight = b.const(b.random.normal(size=(4, 3, 3, 3)), "grouped.weight")
    x = b.node(
        "Conv", x, weight, name="grouped", group=2, dilations=[2, 1], pads=[3, 0, 1, 2], kernel_shape=[3, 3]
    )  # fmt: skip
    return finished(b, b.conv(b.relu(x, "relu"), 4, 1, name="out"))


def transposed(groups: int):
    def network():
        b = Builder(2)
        x = b.relu(b.conv(normalised(b), 3, 4, 3, 2, name="down"), "down.relu")
        weight = b.const(b.random.normal(size=(4, 6 // groups, 4, 4)), "up.weight")
        bias = b.const(b.random.normal(size=6), "up.bias")
        x = b.node("ConvTranspose", x, weight, bias, name="up", strides=[2, 2], pads=[1] * 4, group=groups)
        return finished(b, b.conv(b.relu(x, "relu"), 6, 1, name="out"))

    return network


def products() -> object:
    """A MatMul over the channels, and Gemms of both orders over the whole picture."""
    b = Builder(2)
    x = b.relu(b.conv(normalised(b), 3, 4, 3, 4, name="down"), "down.relu")
    x = b.node("Transpose", x, name="last", perm=[0, 2, 3, 1])
    x = b.node("MatMul", x, b.const(b.random.normal(size=(4, 5)), "mat.weight"), name="mat")
    x = b.node("Flatten", b.relu(x, "mat.relu"), name="flat")
    first = b.const(b.random.normal(size=(9, 40)), "one.weight"), b.const(np.ones(9), "one.bias")
    x = b.node("Gemm", x, *first, name="one", transB=1)
    x = b.node(
        "Gemm", b.relu(x, "one.relu"), b.const(b.random.normal(size=(9, 128)), "two.weight"), name="two"
    )
    x = b.node("Reshape", x, b.const([0, 1, 8, 16], dtype=np.int64), name="picture")
    return finished(b, b.conv(x, 1, 1, name="out"), size=(8, 16))


FORCED = PlanOptions(calibrator="max", force_int8=("*",))
NETWORKS = {
    "dense": (dense, OPTIONS),
    "grouped": (grouped, OPTIONS),
    "transposed": (transposed(1), FORCED),
    "transposed groups": (transposed(2), FORCED),
    "products": (products, OPTIONS),
}


@pytest.fixture(scope="module")
def model():
    return int8(toy())


@pytest.fixture(scope="module")
def feed():
    return {"images": pictures(seed=11), "focal": focals()}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_integer_is_that_of_int32_sums_in_numpy(name):
    build, options = NETWORKS[name]
    network = build()
    lowered = int8(network, options)
    views, height, width = tensor_types(network)["depth"].shape
    inputs = {"images": pictures(views, height, width, seed=5), "focal": focals(views)}
    oracle, found = Oracle(lowered, inputs), run(lowered, inputs)
    for tensor in block_tensors(lowered):
        np.testing.assert_array_equal(found[tensor], oracle.values[tensor], err_msg=tensor)
        assert len(np.unique(found[tensor])) > 5, tensor
    np.testing.assert_array_equal(found["depth"], oracle.values["depth"])


def test_the_form_keeps_the_interface_and_is_a_valid_network(model):
    form = integer_form(model)
    assert interface(form) == interface(model)
    assert interface(tidy(form)) == interface(model)
    assert not any(node.name.endswith("weight_DequantizeLinear") for node in form.graph.node)


def test_the_reference_is_float_execution_but_for_rounding_ties(model, feed):
    right, plain = run(model, feed), run_plainly(model, feed, block_tensors(model))
    for tensor in block_tensors(model):
        apart = np.abs(right[tensor].astype(int) - plain[tensor])
        assert apart.max() <= 1
        assert (apart > 0).mean() < 0.01


def wide_network(random):
    """A 1×1 convolution with so many inputs, all of them large, that sums pass 2^24."""
    b = Builder()
    names = [b.const(1.0, "one"), b.const(0, "zero", dtype=np.int8)]
    data = b.node("DequantizeLinear", b.node("QuantizeLinear", "x", *names, name="q"), *names, name="dq")
    weight = random.integers(60, 128, size=(3, 3000, 1, 1))
    weight = b.node(
        "DequantizeLinear", b.const(weight, "w", dtype=np.int8), b.const([2.0**-12] * 3, "steps"),
        b.const([0] * 3, "zeros", dtype=np.int8), name="wdq", axis=0,
    )  # fmt: skip
    x = b.node("Conv", data, weight, name="wide", kernel_shape=[1, 1])
    b.nodes.append(helper.make_node("QuantizeLinear", [x, b.const(600.0, "s"), "zero"], ["y"], name="yq"))
    shapes = {"x": (TensorProto.FLOAT, [1, 3000, 4, 4])}, {"y": (TensorProto.INT8, [1, 3, 4, 4])}
    return tidy(b.model(*shapes))


def test_sums_beyond_the_integers_of_float32_are_exact(monkeypatch):
    random = np.random.default_rng(0)
    model = wide_network(random)
    value = random.integers(60, 128, size=(1, 3000, 4, 4)).astype(np.float32)
    weight = value_of(model.graph, "w").astype(np.int32)
    total = convolve(value.astype(np.int32), weight, stride=[1, 1], dilation=[1, 1], pads=[0] * 4, groups=1)
    assert total.min() > EXACT
    right = total.astype(np.float32) * np.float32(2.0**-12)
    found = run(model, {"x": value}, ["wide.out"])["wide.out"]
    np.testing.assert_array_equal(found, right)
    monkeypatch.setattr(integer, "weight_parts", lambda w, axis: [w.astype(np.float32)])
    assert not np.array_equal(run(model, {"x": value}, ["wide.out"])["wide.out"], right)


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 4000), st.integers(0, 128), st.booleans())
def test_parts_of_a_weight_add_up_to_it_and_none_can_pass_the_limit(seed, outputs, inputs, largest, turned):
    random = np.random.default_rng(seed)
    weight = random.integers(-largest, min(largest, 127) + 1, size=(outputs, inputs, 1, 1)).astype(np.int8)
    weight[:, : random.integers(0, inputs)] //= 16
    given_weight, axis = (weight.swapaxes(0, 1), 1) if turned else (weight, 0)
    parts = weight_parts(given_weight, axis)
    np.testing.assert_array_equal(sum(part.astype(np.int64) for part in parts), given_weight)
    for part in parts:
        reach = np.abs(np.moveaxis(part, axis, 0)).reshape(outputs, -1).sum(axis=1) * LARGEST_INTEGER
        assert reach.max() <= EXACT
        assert len(parts) == 1 or part.any()


def test_a_part_may_begin_before_the_limit_of_the_one_before():
    """Parts of [kL, (k + 1) L) with L = 2^24 would let the second one reach 2^24 + 1024 here."""
    weight = np.array([127] * 2064 + [8, 8], dtype=np.int8).reshape(1, -1)
    for part in weight_parts(weight, 0):
        assert np.abs(part).sum() * LARGEST_INTEGER <= EXACT


def test_small_weights_stay_in_one_part_and_impossible_ones_are_refused():
    assert len(weight_parts(np.full((2, 1024), 127, dtype=np.int8), 0)) == 1
    assert len(weight_parts(np.full((2, 1100), 127, dtype=np.int8), 0)) == 2
    with pytest.raises(InputError, match="do not fit into 32 bits"):
        weight_parts(np.full((1, 140_000), 127, dtype=np.int8), 0)


def altered(model, change):
    found = copy_model(model)
    change(found.graph)
    return infer_shapes(found)


def with_zero_point(graph):
    set_constant(graph, "int8_zero", np.int8(3))


def with_unsigned_pair(graph):
    """uint8 with zero point 0, as ONNX Runtime's CPU wants it behind a ReLU."""
    zero = add_constant(graph, "unsigned_zero", np.uint8(0))
    for node in graph.node:
        if node.input[0] in {"stem.relu.out", "stem.relu.out_quantized"}:
            node.input[2] = zero


def with_scaled_product(graph):
    node = next(node for node in graph.node if node.op_type == "Gemm")
    node.attribute.append(helper.make_attribute("alpha", 0.5))


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (toy, "not quantised"),
        (lambda: to_half(int8(toy())), "not symmetric int8 with a float32 scale"),
        (lambda: unsigned.lower(int8(toy())), "not symmetric int8"),
        (lambda: altered(int8(toy()), with_zero_point), "not symmetric int8"),
        (lambda: altered(int8(toy()), with_unsigned_pair), "not symmetric int8"),
        (lambda: altered(int8(products()), with_scaled_product), "no plain product"),
    ],
    ids=["float32", "float16", "unsigned", "zero point", "zero uint8", "alpha"],
)
def test_other_arithmetic_is_refused(make, what):
    with pytest.raises(InputError, match=what):
        integer_form(make())


def test_a_nudge_is_reproducible_and_differs_between_seeds(model, feed):
    def nudged(seed, size=2.0**-11):
        return run_plainly(integer_form(model, nudge=size, seed=seed), feed, ["depth"])["depth"]

    np.testing.assert_array_equal(nudged(3), nudged(3))
    assert not np.array_equal(nudged(3), nudged(4))
    assert not np.array_equal(nudged(3), run(model, feed, ["depth"])["depth"])
    assert np.abs(nudged(3, 2.0**-23) / run(model, feed, ["depth"])["depth"] - 1).max() < 0.02


def test_a_nudge_moves_few_integers_of_a_block_by_one_step(model, feed):
    blocks = compare_blocks(model, integer_form(model, nudge=2.0**-11, seed=1), feed)
    assert [block.tensor for block in blocks] == list(block_tensors(model))
    assert all(block.steps <= 1 and block.differing < 0.03 for block in blocks)
    moved = {block.tensor for block in blocks if block.steps}
    assert {"layer1.relu2.out_quantized", "layer2.conv2.out_quantized", "dec.relu.out_quantized"} <= moved
    assert not moved & {"scale.out_quantized", "cat.out_quantized"}, "what is exact stays"


def test_a_nudge_draws_evenly_within_its_size(model, feed):
    form = integer_form(model, nudge=0.01, seed=1)
    found = run_plainly(form, feed, ["stem.out", "stem.out_plain"])
    ratio = found["stem.out"] / found["stem.out_plain"] - 1
    assert np.abs(ratio).max() <= 0.01 * 1.001
    assert np.abs(ratio.mean()) < 5e-4
    assert ratio.std() == pytest.approx(0.01 / np.sqrt(3), rel=0.05)


def test_blocks_compared_with_themselves_are_equal(model, feed):
    assert all(block.differing == 0 for block in compare_blocks(model, integer_form(model), feed))


def with_wrong_quantiser(model, tensor: str, factor: float):
    """The kernel that writes a tensor divides by a wrong scale; those that read it are right."""
    found = copy_model(model)
    node = next(node for node in found.graph.node if tensor in node.output)
    scale = value_of(found.graph, node.input[1]) * np.float32(factor)
    node.input[1] = add_constant(found.graph, "wrong_scale", scale)
    return found


def named(blocks) -> set[str]:
    """The blocks that differ by more than ties."""
    return {block.tensor for block in blocks if block.differing > 0.02}


@pytest.mark.parametrize("factor", [0.95, 1.05])
def test_only_the_block_that_writes_with_a_wrong_scale_is_named(model, feed, factor):
    for tensor in block_tensors(model):
        wrong = with_wrong_quantiser(model, tensor, factor)
        for other in (wrong, integer_form(wrong)):
            assert named(compare_blocks(model, other, feed)) == {tensor}


def test_a_wrong_weight_scale_names_the_block_that_it_is_in(model, feed):
    wrong = copy_model(model)
    name = "layer2.conv1.weight_scale"
    set_constant(wrong.graph, name, value_of(wrong.graph, name) * np.float32(1.05))
    assert named(compare_blocks(model, wrong, feed)) == {"layer2.relu1.out_quantized"}


def test_a_scale_that_is_wrong_on_both_sides_names_its_writer_and_its_readers(model, feed):
    wrong = copy_model(model)
    name = "layer2.relu1.out_scale"
    assert len(consumers(wrong.graph)[name]) == 2
    set_constant(wrong.graph, name, value_of(wrong.graph, name) * np.float32(1.05))
    assert named(compare_blocks(model, wrong, feed)) == {
        "layer2.relu1.out_quantized",
        "layer2.conv2.out_quantized",
    }
