"""Factors moved between convolutions: another network of the same function."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_depth import Builder, focals, normalised, pictures
from toy_search import OPTIONS, feeds, finished, int8

from fsmde_edge.compiler.equalise import (
    LARGEST_FACTOR,
    Link,
    channel_limits,
    equalise,
    find_links,
    link_tensors,
)
from fsmde_edge.compiler.integer import run_plainly
from fsmde_edge.graph.model import copy_model, set_constant, tidy, value_of


def run(model, outputs=("depth",)):
    return run_plainly(model, batch_of(3), outputs)


def limits_of(model):
    names = link_tensors(find_links(model))
    return {name: np.abs(value).max(axis=(0, 2, 3)) for name, value in run(model, names).items()}


def branching():
    """One convolution's channels through ReLU, MaxPool, nearest Resize and two Concats to three readers."""
    b = Builder(1)
    source = b.relu(b.conv(normalised(b), 3, 4, name="source"), "relu")
    pooled = b.node("MaxPool", source, name="pool", kernel_shape=[2, 2], strides=[2, 2])
    other = b.node("LeakyRelu", b.conv(pooled, 4, 3, name="other"), name="leaky", alpha=0.1)
    first = b.node("Concat", other, pooled, name="cat1", axis=1)
    second = b.node("Concat", b.upsample(first, "up"), source, name="cat2", axis=1)
    return finished(b, b.conv(second, 11, 1, name="out"))


@pytest.fixture(scope="module")
def branches():
    return branching()


def chained(between, *, channels: int = 4, read: int | None = None):
    """source → between → out."""
    b = Builder(1)
    x = between(b, b.conv(normalised(b), 3, channels, name="source"))
    return finished(b, b.conv(x, read or channels, 1, name="out"))


def test_a_link_says_where_each_reader_finds_the_channels(branches):
    assert find_links(branches) == (
        Link(source="source", tensor="relu.out", readers=(("other", 0), ("out", 3), ("out", 7))),
        Link(source="other", tensor="leaky.out", readers=(("out", 0),)),
    )
    assert link_tensors(find_links(branches)) == ("relu.out", "leaky.out")


def test_channel_limits_are_the_largest_magnitudes_over_all_inputs(branches):
    names, inputs = link_tensors(find_links(branches)), feeds(branches, most=4)
    assert len(inputs) == 4
    found = channel_limits(branches, names, inputs, threads=1)
    runs = [run_plainly(branches, batch_of(seed), names) for seed in (7, 8)]
    for name in names:
        right = np.max([np.abs(values[name]).max(axis=(0, 2, 3)) for values in runs], axis=0)
        np.testing.assert_array_equal(found[name], right)


def batch_of(seed: int):
    return {"images": pictures(seed=seed), "focal": focals()}


def test_a_tensor_that_not_only_an_activation_reads_is_ranged_before_it():
    b = Builder(1)
    x = b.conv(normalised(b), 3, 4, name="source")
    joined = b.node("Concat", b.relu(x, "relu"), x, name="cat", axis=1)
    (link,) = find_links(finished(b, b.conv(joined, 8, 1, name="out")))
    assert (link.tensor, link.readers) == ("source.out", (("out", 0), ("out", 4)))


@settings(max_examples=25)
@given(
    strength=st.floats(0, 1),
    spread=st.lists(st.floats(1e-3, 1e3), min_size=7, max_size=7),
)
def test_the_function_stays_the_same_for_any_factors(branches, strength, spread):
    given_limits = {"relu.out": np.float32(spread[:4]), "leaky.out": np.float32(spread[4:])}
    right = run(branches)["depth"]
    found = run(equalise(branches, given_limits, strength=strength))["depth"]
    np.testing.assert_allclose(found, right, rtol=0, atol=2e-5 * np.abs(right).max())


def test_full_strength_makes_all_channels_of_an_activation_equally_large(branches):
    limits = limits_of(branches)
    even = equalise(branches, limits, strength=1.0)
    for name, value in run(even, tuple(limits)).items():
        reach = np.abs(value).max(axis=(0, 2, 3))
        assert reach.max() / reach.min() < 1.001
        assert limits[name].max() / limits[name].min() > 1.4
        assert reach.max() == pytest.approx(limits[name].max(), rel=1e-5)


def test_no_strength_makes_all_columns_of_the_weights_equally_large():
    model = chained(lambda b, x: b.relu(x, "relu"))
    before, after = (
        np.abs(value_of(found.graph, "out.weight")).max(axis=(0, 2, 3))
        for found in (model, equalise(model, limits_of(model), strength=0.0))
    )
    assert before.max() / before.min() > 1.1
    np.testing.assert_allclose(after, before.max(), rtol=1e-6)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_neither_activations_nor_the_weights_that_read_them_grow(strength):
    model = chained(lambda b, x: b.relu(x, "relu"))
    limits = limits_of(model)
    even = equalise(model, limits, strength=strength)
    (value,) = run(even, tuple(limits)).values()
    assert value.max() <= limits["relu.out"].max() * 1.0001
    before, after = (np.abs(value_of(found.graph, "out.weight")).max() for found in (model, even))
    assert after <= before * 1.0001


def test_dead_channels_keep_their_factor_and_no_factor_is_extreme():
    model = chained(lambda b, x: b.relu(x, "relu"))
    weight = value_of(model.graph, "out.weight").copy()
    weight[:, 1] = 0
    set_constant(model.graph, "out.weight", weight)
    limits = np.float32([1e6, 1, 0, 1])
    before = value_of(model.graph, "source.weight")
    ratio = before / value_of(equalise(model, {"relu.out": limits}).graph, "source.weight")
    factors = ratio.reshape(4, -1).mean(axis=1)
    assert factors[1] == factors[2] == 1
    assert factors[0] <= LARGEST_FACTOR
    assert factors[3] == pytest.approx(1 / LARGEST_FACTOR)


def fewer_channels(b, x):
    """A Resize along the channels."""
    return b.node("Resize", x, "", b.const([1, 0.5, 1, 1]), name="up", mode="nearest")


def cropped(b, x):
    """A Resize that writes a constant of its own beside the picture."""
    roi = b.const([0, 0, -0.1, -0.1, 1, 1, 1.1, 1.1])
    extra = {"coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 5.0}
    return b.node("Resize", x, roi, b.const([1, 1, 1, 1]), name="up", mode="linear", **extra)


def stacked(b, x):
    """A Concat along another axis; what stands behind it passes factors."""
    tall = b.node("Concat", x, b.relu(x, "relu"), name="cat", axis=2)
    return b.node("MaxPool", tall, name="pool", kernel_shape=[2, 1], strides=[2, 1])


@pytest.mark.parametrize(
    ("between", "read"),
    [
        (lambda b, x: b.node("Add", x, b.const(np.ones((1, 4, 1, 1))), name="sum"), 4),
        (lambda b, x: b.node("Add", b.relu(x, "relu"), x, name="sum"), 4),
        (lambda b, x: b.node("Sigmoid", x, name="sigmoid"), 4),
        (lambda b, x: b.conv(x, 4, 4, name="wise", group=4), 4),
        (lambda b, x: b.node("Concat", x, x, name="cat", axis=1), 8),
        (stacked, 4),
        (cropped, 4),
        (fewer_channels, 2),
    ],
    ids=["constant", "sum", "sigmoid", "depthwise", "twice", "axis", "border", "channels"],
)
def test_what_changes_with_a_factor_or_cannot_be_followed_is_no_link(between, read):
    links = find_links(chained(between, read=read))
    assert "source" not in {link.source for link in links}


def test_channels_that_are_an_output_as_well_stay():
    model = chained(lambda b, x: b.relu(x, "relu"))
    assert find_links(model)
    shown = copy_model(model)
    shown.graph.output.extend(info for info in model.graph.value_info if info.name == "relu.out")
    assert find_links(tidy(shown)) == ()


@pytest.mark.parametrize("shared", ["source.weight", "source.bias", "out.weight"])
def test_weights_that_another_convolution_uses_stay(shared):
    b = Builder(1)
    image = normalised(b)
    x = b.relu(b.conv(image, 3, 4, name="source"), "relu")
    y = b.conv(x, 4, 1, name="out")
    other = b.relu(b.conv(image, 3, 4, name="twin"), "twin.relu")
    z = b.conv(other, 4, 1, name="end")
    for node in b.nodes:
        twin = {"twin.weight": "source.weight", "twin.bias": "source.bias", "end.weight": "out.weight"}
        node.input[:] = [twin[name] if twin.get(name) == shared else name for name in node.input]
    model = finished(b, b.node("Add", y, z, name="add"))
    assert find_links(model) == ()


def test_a_bad_channel_costs_less_in_int8_behind_it():
    model = chained(lambda b, x: b.relu(x, "relu"), channels=8)
    spoilt = copy_model(model)
    for name, axis, factor in (("source.weight", 0, 40), ("source.bias", 0, 40), ("out.weight", 1, 1 / 40)):
        value = value_of(model.graph, name).copy()
        np.moveaxis(value, axis, 0)[2] *= np.float32(factor)
        set_constant(spoilt.graph, name, value)
    right = run(spoilt)["depth"]
    errors = [
        np.abs(run(int8(found, OPTIONS))["depth"] - right).mean()
        for found in (spoilt, equalise(spoilt, limits_of(spoilt)))
    ]
    assert errors[1] < 0.4 * errors[0]
