"""Which tensors become INT8, with which scales."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto
from toy_depth import Builder, depth_network, focals, normalised, pictures

from fsmde_edge.compiler.calibrate import CalibrationBatch, calibrate
from fsmde_edge.compiler.plan import Plan, make_plan, names_node, place, refuse_idle
from fsmde_edge.compiler.quantiser import scale_of
from fsmde_edge.errors import InputError
from fsmde_edge.graph.model import tidy


@pytest.fixture(scope="module")
def model():
    return depth_network()


@pytest.fixture(scope="module")
def ranges(model):
    batch = CalibrationBatch(images=pictures(), focal=focals(), valid=2)
    return calibrate(model, [batch], place(model).calibrate, threads=1)


@pytest.fixture(scope="module")
def plan(model, ranges) -> Plan:
    return make_plan(model, ranges)


def small(build) -> object:
    """A network of the contract around `build(b, normalised) -> features of 4 channels`."""
    b = Builder()
    x = b.conv(build(b, normalised(b)), 4, 1, name="out")
    b.node("Squeeze", x, b.const([1], dtype=np.int64), name="squeeze")
    b.nodes[-1].output[0] = "depth"
    inputs = {"images": (TensorProto.UINT8, [2, 32, 64, 3]), "focal": (TensorProto.FLOAT, [2])}
    return tidy(b.model(inputs, {"depth": (TensorProto.FLOAT, [2, 32, 64])}))


def test_every_convolution_of_the_network_is_int8_and_the_pooled_head_is_not(model, plan):
    convolutions = {node.name for node in model.graph.node if node.op_type == "Conv"}
    assert set(place(model).nodes) == convolutions
    assert place(model).floats == {"head": "pooled head"}
    assert plan.int8_mac_share > 0.99


def test_every_float_tensor_and_every_weight_has_a_line_with_a_reason(model, plan):
    made = {name for node in model.graph.node for name in node.output}
    assert {item.tensor for item in plan.activations} == made
    assert {item.tensor for item in plan.weights} >= {
        "stem.weight",
        "stem.bias",
        "head.weight",
        "head.bias",
    } - {"head.bias"}
    assert all(item.reason for item in (*plan.activations, *plan.weights))


def test_biases_softmax_sums_logits_and_metres_stay_float(plan):
    int8 = {item.tensor for item in plan.activations if item.int8}
    for name in ("softmax", "widths", "edges", "centres", "expect", "logits", "gap", "head"):
        assert f"{name}.out" not in int8
    assert "depth" not in int8
    assert not any(item.int8 for item in plan.weights if item.tensor.endswith(".bias"))


def test_both_inputs_of_a_residual_addition_are_int8(plan):
    int8 = {item.tensor: item for item in plan.activations if item.int8}
    assert int8["layer1.conv2.out"].reason == "added in layer1.add"
    for name in ("layer1.conv2", "pool", "layer2.conv2", "layer2.short", "dec1.relu", "skip8"):
        assert f"{name}.out" in int8
    assert "layer1.add.out" not in int8, "the sum is quantised behind its ReLU"


def test_operations_that_move_values_share_one_scale(plan):
    item = {item.tensor: item for item in plan.activations}
    concat = [item[name] for name in ("dec2.cat.out", "up2.out", "dec1.out.out", "layer1.relu2.out")]
    assert len({(one.group, one.scale, one.range) for one in concat}) == 1
    pool = [item[name] for name in ("pool.out", "stem.relu.out")]
    assert len({(one.group, one.scale) for one in pool}) == 1
    assert item["pool.out"].group != item["dec2.cat.out"].group


def test_a_shared_scale_holds_the_widest_member(plan, ranges):
    item = {item.tensor: item for item in plan.activations}
    widest = max(ranges.range_of(name, "mse") for name in ("dec1.out.out", "layer1.relu2.out"))
    assert item["dec2.cat.out"].range == widest
    assert item["dec2.cat.out"].scale == scale_of(widest)


def test_the_image_is_quantised_without_error(plan):
    image = next(item for item in plan.activations if item.tensor == "scale.out")
    assert image.scale == 1 / 64
    pixels = (np.arange(256) - 128) / 64
    assert (np.rint(pixels / image.scale) == np.arange(256) - 128).all()


def test_an_image_with_another_mean_takes_its_calibrated_range():
    def shifted(b, x):
        return b.conv(
            b.node("Sub", x, b.const(np.float32([0.1, 0, 0]).reshape(1, 3, 1, 1)), name="mean"),
            3,
            4,
            name="c",
        )

    model = small(shifted)
    batch = CalibrationBatch(images=pictures(), focal=focals(), valid=2)
    plan = make_plan(model, calibrate(model, [batch], place(model).calibrate, threads=1), calibrator="max")
    image = next(item for item in plan.activations if item.tensor == "mean.out")
    assert image.range is not None
    assert image.scale == scale_of(image.range) != 1 / 64


@pytest.mark.parametrize(
    ("name", "build", "reason"),
    [
        (
            "wise",
            lambda b, x: b.conv(b.conv(x, 3, 4, name="c"), 4, 4, name="wise", group=4),
            "depthwise convolution",
        ),
        (
            "after",
            lambda b, x: b.conv(b.node("Softmax", x, axis=1), 3, 4, name="after"),
            "its input cannot be INT8",
        ),
        (
            "up",
            lambda b, x: b.node("ConvTranspose", x, b.const(np.ones((3, 4, 1, 1))), name="up"),
            "transposed convolution",
        ),
    ],
)
def test_what_stays_float_says_why(name: str, build, reason: str):
    assert place(small(build)).floats[name] == reason


def test_a_bilinear_resize_separates_scales_and_its_input_stays_float():
    def build(b, x):
        x = b.relu(b.conv(x, 3, 4, stride=2, name="c"), "r")
        return b.upsample(x, "up", mode="linear")

    placement = place(small(build))
    assert "up.out" in placement.reasons
    assert "r.out" not in placement.reasons


def test_patterns_overrule_the_placement(model):
    kept = place(model, keep_float=["dec*"])
    assert not any(name.startswith("dec") for name in kept.nodes)
    assert kept.floats["dec1"] == "kept in float on request"
    assert "dec1.relu.out" not in kept.reasons
    back = place(model, keep_float=["dec*"], force_int8=["dec2"])
    assert "dec2" in back.nodes
    with pytest.raises(InputError, match="'nothing\\*' matches no node"):
        place(model, keep_float=["nothing*"])
    with pytest.raises(InputError, match=r"nothing of the network can be INT8 \(kept in float on request"):
        place(model, keep_float=["*"])


def test_forcing_a_depthwise_convolution():
    model = small(lambda b, x: b.conv(b.conv(x, 3, 4, name="c"), 4, 4, name="wise", group=4))
    assert "wise" in place(model, force_int8=["wise"]).nodes


def test_forcing_what_cannot_be_int8_is_refused(model):
    for pattern, why in (("softmax", "no convolution"), ("head", "pooled head")):
        with pytest.raises(InputError, match=f"'{pattern}' names nothing that can be forced.*{why}"):
            refuse_idle([pattern], place(model, force_int8=[pattern]))
    refuse_idle(["*", "dec*"], place(model, force_int8=["*", "dec*"]))


def test_a_plan_comes_back_equal_from_json(plan, tmp_path):
    plan.save(tmp_path / "plan.json")
    loaded = Plan.load(tmp_path / "plan.json")
    assert loaded == plan
    assert loaded.to_json() == plan.to_json()
    with pytest.raises(InputError, match="version 9"):
        Plan.from_json(plan.to_json().replace('"version": 1', '"version": 9'))
    for text in ("", "[]", "{}", '{"version": 1, "activations": 3}'):
        with pytest.raises(InputError, match="not a precision plan"):
            Plan.from_json(text)


def test_a_missing_range_and_an_unknown_calibrator_are_named(model, ranges):
    with pytest.raises(InputError, match="no calibrator 'best'"):
        make_plan(model, ranges, calibrator="best")
    other = small(lambda b, x: b.conv(x, 3, 4, name="other"))
    with pytest.raises(InputError, match=r"other\.out was not calibrated"):
        make_plan(other, ranges)


@pytest.mark.parametrize(
    ("pattern", "node", "named"),
    [
        ("/a/*", "net//a/a.0/Conv", True),
        ("net//a/*", "net//a/a.0/Conv", True),
        ("a/*", "net/b/a/c", False),
        ("/a/*", "other//a/c", False),
    ],
)
def test_a_pattern_may_name_nodes_as_the_file_does(pattern, node, named):
    assert names_node(pattern, node) is named
