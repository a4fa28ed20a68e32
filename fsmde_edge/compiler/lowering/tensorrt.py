"""The plan as TensorRT fuses it: explicit Quantize/Dequantize, signed, zero point 0.

A weight becomes an int8 initializer and a DequantizeLinear along its output channels. An activation gets one
Quantize → Dequantize pair, and all that read it read the pair's result. Biases stay float: TensorRT refuses
their INT32 form.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fsmde_edge.compiler.quantiser import quantise
from fsmde_edge.errors import InputError
from fsmde_edge.graph.model import (
    add_constant,
    constant,
    copy_model,
    drop_unused,
    has_quantisation,
    sort_nodes,
    tensor_types,
    tidy,
)

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

    from fsmde_edge.compiler.plan import Plan, Weight


def lower(model: ModelProto, plan: Plan) -> ModelProto:
    """Write a plan into its FP32 network.

    Args:
        model: the tidy FP32 model that the plan was made for.
        plan: what becomes INT8, and its scales.

    Returns:
        A new model, float32 where it is not INT8 (`half.to_half` makes the rest float16).

    Errors:
        InputError: the model is quantised already, or the plan names tensors that it lacks.
    """
    if has_quantisation(model):
        raise InputError("is quantised already", hint="lower the plan into the FP32 network")
    _check_names(model, plan)
    lowered = copy_model(model)
    graph = lowered.graph
    add_constant(graph, "int8_zero", np.zeros((), dtype=np.int8))
    for weight in plan.weights:
        if weight.int8:
            _lower_weight(graph, weight)
    for activation in plan.activations:
        if activation.scale is not None:
            scale_name = f"{activation.group}_scale"
            add_pair(graph, activation.tensor, activation.scale, constant_name=scale_name)
    drop_unused(graph)
    sort_nodes(graph)
    return tidy(lowered)


def _lower_weight(graph: GraphProto, weight: Weight) -> None:
    from onnx import helper

    name, axis = weight.tensor, weight.axis or 0
    value = constant(graph, name)
    assert value is not None
    scales = np.array(weight.scales, dtype=np.float32)
    _redirect(graph, name, f"{name}_dequantized")
    inputs = [
        add_constant(
            graph, f"{name}_quantized", quantise(value.astype(np.float32), weight.scales, axis=axis)
        ),
        add_constant(graph, f"{name}_scale", scales),
        add_constant(graph, f"{name}_zero", np.zeros(scales.shape, dtype=np.int8)),
    ]
    outputs = [f"{name}_dequantized"]
    node = helper.make_node("DequantizeLinear", inputs, outputs, name=f"{name}_DequantizeLinear", axis=axis)
    graph.node.append(node)


def add_pair(graph: GraphProto, name: str, scale: float, *, constant_name: str) -> None:
    """Put Quantize → Dequantize behind a tensor, for all that read it.

    Args:
        graph: with the constant `int8_zero`.
        name: the tensor.
        scale: the step of its integers.
        constant_name: of the scale in the graph; if it is there already, it is shared.
    """
    from onnx import helper

    if constant(graph, constant_name) is None:
        add_constant(graph, constant_name, np.array(scale, dtype=np.float32))
    quantised, back = f"{name}_quantized", f"{name}_dequantized"
    _redirect(graph, name, back)
    common = [constant_name, "int8_zero"]
    graph.node.extend(
        (
            helper.make_node("QuantizeLinear", [name, *common], [quantised], name=f"{name}_QuantizeLinear"),
            helper.make_node(
                "DequantizeLinear", [quantised, *common], [back], name=f"{name}_DequantizeLinear"
            ),
        )
    )


def _redirect(graph: GraphProto, old: str, new: str) -> None:
    """Make every reader of one tensor read another; the graph's outputs keep theirs."""
    for node in graph.node:
        for i, name in enumerate(node.input):
            if name == old:
                node.input[i] = new


def _check_names(model: ModelProto, plan: Plan) -> None:
    types = tensor_types(model)
    for name in (*(item.tensor for item in plan.activations), *(item.tensor for item in plan.weights)):
        if name not in types:
            raise InputError(
                f"the plan names tensor {name}, which the network lacks", hint="make the plan again"
            )
    for weight in plan.weights:
        shape = types[weight.tensor].shape or ()
        if weight.int8 and shape[weight.axis or 0] != len(weight.scales):
            raise InputError(
                f"the plan gives {len(weight.scales)} scales to weight {weight.tensor} of {list(shape)}",
                hint="make the plan again",
            )
