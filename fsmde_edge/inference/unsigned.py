"""The same plan for ONNX Runtime on a CPU: unsigned activations, done when a session opens.

ONNX Runtime fuses a quantised convolution and its ReLU only if clipping at the zero point is the ReLU,
that is with uint8 and zero point 0; and its INT8 kernels are fastest, and its additions fuse at all, where
every activation is unsigned. So each signed Quantize/Dequantize pair of `lowering.tensorrt` becomes

- uint8 with zero point 0 and scale × 127/255 (the same range, twice as fine) where no value is negative,
- uint8 with zero point 128 and the same scale elsewhere: the same integers, shifted.

Tensors that share a scale are changed alike, so that nothing is requantised between them.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fsmde_edge.errors import InputError
from fsmde_edge.graph.model import (
    INT8,
    add_constant,
    attribute,
    constant,
    copy_model,
    drop_unused,
    initializers,
    model_bytes,
    producers,
    sort_nodes,
    tidy,
)
from fsmde_edge.graph.structure import commutes, moved_inputs

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

_NOT_NEGATIVE = frozenset(["Relu", "Sigmoid", "HardSigmoid", "Softmax", "Exp", "Abs", "Sqrt", "Softplus"])


def lower(model: ModelProto) -> ModelProto:
    """Make the activations of a signed Q/DQ model unsigned.

    Args:
        model: what `lowering.tensorrt.lower` returns.

    Returns:
        A new model of the same interface. Lowered again it would be refused.

    Errors:
        InputError: the model has no signed activation pairs.
    """
    lowered = copy_model(model)
    graph = lowered.graph
    groups = _signed_groups(graph)
    if not groups:
        raise InputError("has no signed INT8 activations", hint="give the bundle's model.int8.onnx")
    positive = _not_negative(graph)
    for scale, pairs in groups.items():
        rectified = all(node.input[0] in positive for node in pairs if node.op_type == "QuantizeLinear")
        _make_unsigned(graph, scale, pairs, rectified=rectified)
    drop_unused(graph)
    return tidy(lowered)


def count_qlinearconv(model: bytes) -> tuple[int, int]:
    """What ONNX Runtime makes of a network's convolutions on this machine's CPU.

    Args:
        model: a serialised model, as given to a session.

    Returns:
        (convolutions in integer arithmetic, convolutions in float).
    """
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimised.onnx"
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        kinds = [node.op_type for node in onnx.load(path).graph.node]
    return kinds.count("QLinearConv"), kinds.count("Conv") + kinds.count("FusedConv")


def lower_bytes(model: bytes) -> bytes:
    """`lower` from file contents to what a session is opened with."""
    from onnx import load_model_from_string

    return model_bytes(lower(load_model_from_string(model)))


def round_half(model: ModelProto) -> ModelProto:
    """Make a float16 Q/DQ model mean in ONNX Runtime what ONNX says.

    Its CPU QuantizeLinear truncates float16 where the standard rounds half to even (seen in 1.23.2); behind a
    cast to float32 it rounds. For checking `model.int8-fp16.onnx` on a CPU; never for a bundle.

    Args:
        model: what `half.to_half` makes of a Q/DQ model.
    """
    from onnx import TensorProto, helper

    rounded = copy_model(model)
    graph = rounded.graph
    halves = {name for name, value in initializers(graph).items() if value.data_type == TensorProto.FLOAT16}
    for node in list(graph.node):
        if node.op_type == "QuantizeLinear" and node.input[1] in halves:
            wide = [f"{name}_rounded" for name in node.input[:2]]
            names = zip(list(node.input[:2]), wide, strict=True)
            casts = [helper.make_node("Cast", [old], [new], to=TensorProto.FLOAT) for old, new in names]
            known = {name for other in graph.node for name in other.output}
            graph.node.extend(cast for cast in casts if cast.output[0] not in known)
            node.input[:2] = wide
    sort_nodes(graph)
    return tidy(rounded)


def _signed_groups(graph: GraphProto) -> dict[str, list[NodeProto]]:
    """The activations' Quantize and Dequantize nodes with int8 zero point, by the scale that they share."""
    signed = {name for name, value in initializers(graph).items() if value.data_type == INT8}
    groups: dict[str, list[NodeProto]] = defaultdict(list)
    for node in graph.node:
        is_pair = node.op_type in {"QuantizeLinear", "DequantizeLinear"} and len(node.input) > 2
        if is_pair and node.input[2] in signed and node.input[0] not in signed:
            groups[node.input[1]].append(node)
    return dict(groups)


def _make_unsigned(graph: GraphProto, scale: str, pairs: list[NodeProto], *, rectified: bool) -> None:
    value = constant(graph, scale)
    assert value is not None
    zero = "uint8_zero" if rectified else "uint8_middle"
    if constant(graph, zero) is None:
        add_constant(graph, zero, np.array(0 if rectified else 128, dtype=np.uint8))
    if rectified:
        finer = (value.astype(np.float64) * 127 / 255).astype(value.dtype)
        scale = add_constant(graph, f"{scale}_unsigned", finer)
    for node in pairs:
        node.input[1], node.input[2] = scale, zero


def _not_negative(graph: GraphProto) -> set[str]:
    """Tensors of which no value can be negative."""
    made_by, found = producers(graph), set[str]()
    for node in graph.node:
        sources = [name for name in moved_inputs(node) if name]
        passes_on = commutes(node) or node.op_type in {"QuantizeLinear", "DequantizeLinear", "AveragePool"}
        if (
            node.op_type in _NOT_NEGATIVE
            or (node.op_type == "Clip" and _clips_at_zero(graph, node))
            or (passes_on and sources and all(name in found and name in made_by for name in sources))
            or (node.op_type in {"Add", "Mul"} and all(name in found for name in node.input))
        ):
            found.update(node.output)
    return found


def _clips_at_zero(graph: GraphProto, node: NodeProto) -> bool:
    if len(node.input) > 1 and node.input[1]:
        low = constant(graph, node.input[1])
        return low is not None and float(low.reshape(-1)[0]) >= 0
    low_attribute = attribute(node, "min")
    return low_attribute is not None and low_attribute.f >= 0
