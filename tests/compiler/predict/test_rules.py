"""Every fault planted in a real lowered model: our checker names it, NVIDIA's parser or plan shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from fsmde_edge.compiler.aot import available, build_ahead
from fsmde_edge.compiler.half import to_half
from fsmde_edge.compiler.predict.rules import check_rules, refuse_violations
from fsmde_edge.errors import InputError
from fsmde_edge.graph.model import copy_model, infer_shapes, model_bytes, sort_nodes

needs_rtx = pytest.mark.skipif(not available(), reason="the extra rtx is not installed")


class Planter:
    """A copy of a lowered model, and the few cuts that faults are planted with."""

    def __init__(self, model: ModelProto) -> None:
        self.model = copy_model(model)
        self.graph = self.model.graph

    def node(self, name: str) -> NodeProto:
        return next(node for node in self.graph.node if node.name == name)

    def set(self, name: str, value: np.ndarray) -> str:
        kept = [item for item in self.graph.initializer if item.name != name]
        del self.graph.initializer[:]
        self.graph.initializer.extend([*kept, numpy_helper.from_array(value, name)])
        return name

    def value(self, name: str) -> np.ndarray:
        return numpy_helper.to_array(next(i for i in self.graph.initializer if i.name == name))

    def redirect(self, reader: str, old: str, new: str) -> None:
        node = self.node(reader)
        node.input[:] = [new if name == old else name for name in node.input]

    def add(self, op: str, inputs: list[str], name: str, **attributes) -> str:
        self.graph.node.append(helper.make_node(op, inputs, [f"{name}.new"], name=name, **attributes))
        return f"{name}.new"

    def done(self) -> ModelProto:
        sort_nodes(self.graph)
        return self.model


def integer_bias(p: Planter) -> None:
    bias = p.value("dec2.bias")
    p.set("b32", np.round(bias / 1e-4).astype(np.int32))
    p.set("b32_scale", np.float32(1e-4).reshape(()))
    p.redirect("dec2", "dec2.bias", p.add("DequantizeLinear", ["b32", "b32_scale"], "bias_dq"))


def shifted_zero(p: Planter) -> None:
    p.set("three", np.int8(3).reshape(()))
    for op in ("QuantizeLinear", "DequantizeLinear"):
        p.node(f"stem.relu.out_{op}").input[2] = "three"


def unsigned_integers(p: Planter) -> None:
    p.set("u8", np.uint8(0).reshape(()))
    for op in ("QuantizeLinear", "DequantizeLinear"):
        p.node(f"stem.relu.out_{op}").input[2] = "u8"


def float_weights(p: Planter) -> None:
    weight = p.value("dec2.weight_quantized").astype(np.float32) * 0.01
    p.redirect("dec2", "dec2.weight_dequantized", p.set("dec2.float", weight))


def float_data(p: Planter) -> None:
    p.redirect("dec2", "dec2.cat.out_dequantized", "dec2.cat.out")


def float_skip(p: Planter) -> None:
    p.redirect("layer1.add", "pool.out_dequantized", "pool.out")


def two_float_operands(p: Planter) -> None:
    for name in ("layer2.conv2.out", "layer2.short.out"):
        p.redirect("layer2.add", f"{name}_dequantized", name)


def scales_per_channel(p: Planter) -> None:
    p.set("many", np.full(32, 0.05, np.float32))
    p.set("zeros", np.zeros(32, np.int8))
    for op in ("QuantizeLinear", "DequantizeLinear"):
        p.node(f"layer1.relu1.out_{op}").input[1:] = ["many", "zeros"]


def raw_pixels(p: Planter) -> None:
    moved = p.add("Transpose", ["images"], "early", perm=[0, 3, 1, 2])
    p.redirect("cast", "images", moved)
    p.redirect("centre", "nchw.out", "cast.out")


def two_scales(p: Planter) -> None:
    p.set("other", np.float32(0.123).reshape(()))
    p.node("pool.out_QuantizeLinear").input[1] = "other"
    p.node("pool.out_DequantizeLinear").input[1] = "other"


def quantised_softmax(p: Planter) -> None:
    p.set("s", np.float32(1 / 127).reshape(()))
    q = p.add("QuantizeLinear", ["softmax.out", "s", "int8_zero"], "soft_q")
    p.redirect("weigh", "softmax.out", p.add("DequantizeLinear", [q, "s", "int8_zero"], "soft_dq"))


def quantised_logits(p: Planter) -> None:
    p.set("s", np.float32(1 / 12).reshape(()))
    q = p.add("QuantizeLinear", ["logits.out", "s", "int8_zero"], "logits_q")
    p.redirect("softmax", "logits.out", p.add("DequantizeLinear", [q, "s", "int8_zero"], "logits_dq"))


def newer_opset(p: Planter) -> None:
    p.model.opset_import[0].version = 21


def newer_format(p: Planter) -> None:
    p.model.ir_version = 11


def weights_elsewhere(p: Planter) -> None:
    p.graph.initializer[0].data_location = TensorProto.EXTERNAL


@dataclass(frozen=True)
class Fault:
    """A fault, the rule and the node that we name, and what NVIDIA's parser says or its plan gains by it."""

    plant: Callable[[Planter], None]
    rule: str
    node: str
    refusal: str = ""
    gains: str = ""


FAULTS = [
    Fault(integer_bias, "bias", "bias_dq", refusal="bias_dq"),
    Fault(shifted_zero, "zero point", "stem.relu.out_QuantizeLinear", refusal="shiftIsAllZeros"),
    Fault(raw_pixels, "uint8", "early", refusal="early"),
    Fault(weights_elsewhere, "contract", "the graph", refusal="importInitializers"),
    Fault(float_weights, "half-quantised", "dec2", gains="kgen Float"),
    Fault(float_skip, "broken residual", "layer1.add", gains="maxpool Float"),
    Fault(
        scales_per_channel,
        "per-channel activation",
        "layer1.relu1.out_QuantizeLinear",
        gains="kgen Float",
    ),
    # RTX takes these without a trace in its table of layers: its fusion is not TensorRT's.
    Fault(unsigned_integers, "unsigned", "stem.relu.out_QuantizeLinear"),
    Fault(float_data, "half-quantised", "dec2"),
    Fault(two_float_operands, "broken residual", "layer2.add"),
    Fault(two_scales, "requantisation", "pool"),
    Fault(quantised_softmax, "delicate", "softmax"),
    Fault(quantised_logits, "delicate", "softmax"),
    Fault(newer_opset, "contract", "the graph"),
    Fault(newer_format, "contract", "the graph"),
]
SEEN_BY_NVIDIA = [fault for fault in FAULTS if fault.refusal or fault.gains]


def name_of(fault: Fault) -> str:
    return fault.plant.__name__


def planted(model: ModelProto, fault: Fault) -> ModelProto:
    planter = Planter(model)
    fault.plant(planter)
    return planter.done()


@pytest.fixture(scope="module")
def build_of_the_right_model(toy_int8, tmp_path_factory):
    path = tmp_path_factory.mktemp("right") / "model.onnx"
    path.write_bytes(model_bytes(toy_int8))
    return build_ahead(path)


def test_what_we_lower_breaks_no_rule(toy_int8):
    assert check_rules(toy_int8) == ()
    assert check_rules(to_half(toy_int8)) == ()
    refuse_violations(toy_int8)


@pytest.mark.parametrize("fault", FAULTS, ids=name_of)
def test_a_planted_fault_is_named_with_its_node(toy_int8, fault):
    found = check_rules(with_types(planted(toy_int8, fault)))
    assert {violation.rule for violation in found} == {fault.rule}
    assert found[0].node == fault.node
    assert found[0].why
    assert found[0].fix


@pytest.mark.parametrize("fault", FAULTS, ids=name_of)
def test_a_planted_fault_is_refused_in_one_line(toy_int8, fault):
    with pytest.raises(InputError, match=fault.node.replace(".", r"\.")) as caught:
        refuse_violations(with_types(planted(toy_int8, fault)), where="model.int8.onnx")
    assert "\n" not in str(caught.value)


@needs_rtx
@pytest.mark.parametrize("fault", SEEN_BY_NVIDIA, ids=name_of)
def test_nvidias_parser_or_plan_shows_the_fault(toy_int8, build_of_the_right_model, tmp_path, fault):
    path = tmp_path / "model.onnx"
    path.write_bytes(model_bytes(planted(toy_int8, fault)))
    build = build_ahead(path)
    if fault.refusal:
        assert fault.refusal in build.error
        return
    assert build.accepted
    assert build.kinds[fault.gains] > build_of_the_right_model.kinds.get(fault.gains, 0)


def test_the_convolutions_own_operand_of_a_sum_may_stay_float(toy_int8):
    planter = Planter(toy_int8)
    planter.redirect("layer1.add", "layer1.conv2.out_dequantized", "layer1.conv2.out")
    assert [v.rule for v in check_rules(planter.done())] == []


def test_build_seals_nothing_that_breaks_a_rule(small_recipe, small_checkpoint, tmp_path, monkeypatch):
    from fsmde_edge.compiler import build as chain
    from fsmde_edge.compiler import quantise as middle

    def lower_wrongly(model, plan):
        planter = Planter(lower(model, plan))
        biased = (node for node in planter.graph.node if node.op_type == "Conv" and len(node.input) == 3)
        bias = next(biased).input[2]
        planter.set("b32", np.zeros(planter.value(bias).shape, np.int32))
        planter.set("b32_scale", np.float32(1e-4).reshape(()))
        for node in list(planter.graph.node):
            planter.redirect(node.name, bias, "bias_dq.new")
        planter.add("DequantizeLinear", ["b32", "b32_scale"], "bias_dq")
        return planter.done()

    lower = middle.tensorrt.lower
    monkeypatch.setattr(middle.tensorrt, "lower", lower_wrongly)
    out = tmp_path / "bundle"
    options = chain.BuildOptions(
        precision="int8",
        out=out,
        checkpoint=small_checkpoint,
        recipe=str(small_recipe),
        search=False,
        threads=1,
    )
    with pytest.raises(InputError, match="bias at bias_dq"):
        chain.build(options, lambda _: None)
    assert not out.exists()


def with_types(model: ModelProto) -> ModelProto:
    """Shapes and types inferred where ONNX can: some faults are of types that it would refuse."""
    return model if model.ir_version > 10 else infer_shapes(model)
