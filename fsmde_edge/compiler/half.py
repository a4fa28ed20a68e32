"""The float16 form of a network: weights and features in half precision, what is delicate in float32.

A network of one type for each tensor, as strongly typed TensorRT wants it: nothing is left to the builder.
Inputs and outputs keep their types. In float32 stay: exponentials, cumulative sums, divisions by a variable,
variances (`structure.DELICATE`); what works on one vector an image (bin centres); everything behind the last
computing node (bins, metres); nodes with a constant beyond float16.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fsmde_edge.errors import InputError
from fsmde_edge.graph.model import (
    FLOAT,
    FLOAT16,
    add_constant,
    attribute,
    constant,
    copy_model,
    drop_unused,
    initializers,
    sort_nodes,
    tensor_types,
    tidy,
)
from fsmde_edge.graph.structure import is_delicate, pooled_tensors, tail_nodes

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

LARGEST = float(np.finfo(np.float16).max)

_FLOAT32_INPUTS = {"Resize": (1, 2)}
"""Operands that ONNX wants in float32 whatever the data's type: node type to input positions."""


def to_half(model: ModelProto) -> ModelProto:
    """Make all but the delicate parts of a float32 network float16.

    Args:
        model: a tidy model; plain float32, or what `lowering.tensorrt.lower` returns.

    Returns:
        A new model of the same interface.

    Errors:
        InputError: the model is half already.
    """
    if any(item.data_type == FLOAT16 for item in model.graph.initializer):
        raise InputError("is half precision already", hint="give the float32 network")
    half = copy_model(model)
    graph = half.graph
    floats = {name for name, kind in tensor_types(model).items() if kind.dtype == FLOAT}
    in_half = {node.name for node in graph.node} - float32_nodes(model)
    typed = _Types(graph, floats, in_half)
    for node in list(graph.node):
        typed.convert(node)
    typed.restore_outputs()
    drop_unused(graph)
    sort_nodes(graph)
    return tidy(half)


def float32_nodes(model: ModelProto) -> set[str]:
    """Names of the nodes that keep float32."""
    graph = model.graph
    constants = initializers(graph)
    pooled, tail = pooled_tensors(model), tail_nodes(model)
    too_large = {
        name for name, item in constants.items() if item.data_type == FLOAT and _exceeds(graph, name)
    }
    return {
        node.name
        for node in graph.node
        if node.name in tail
        or is_delicate(node, set(constants))
        or pooled.intersection(node.output)
        or too_large.intersection(node.input)
        or any(item.HasField("t") or item.HasField("g") for item in node.attribute)
    }


class _Types:
    """Rewires a graph so that each node reads tensors of its own float type."""

    def __init__(self, graph: GraphProto, floats: set[str], in_half: set[str]) -> None:
        self.graph = graph
        self.floats = floats
        self.in_half = in_half
        self.constants = set(initializers(graph))
        self.half = {name for node in graph.node if node.name in in_half for name in node.output} & floats
        self.made: dict[tuple[str, bool], str] = {}

    def convert(self, node: NodeProto) -> None:
        half = node.name in self.in_half
        for i, name in enumerate(node.input):
            if name in self.floats:
                keeps = half and i in _FLOAT32_INPUTS.get(node.op_type, ())
                node.input[i] = self._as(name, half=half and not keeps)
        to = attribute(node, "to") if node.op_type == "Cast" else None
        if half and to is not None and to.i == FLOAT:
            to.i = FLOAT16

    def restore_outputs(self) -> None:
        """An output that a half node makes is cast back under its own name."""
        from onnx import helper

        for info in self.graph.output:
            if info.name not in self.half:
                continue
            inner = f"{info.name}_half"
            for node in self.graph.node:
                node.input[:] = [inner if name == info.name else name for name in node.input]
                node.output[:] = [inner if name == info.name else name for name in node.output]
            self.graph.node.append(helper.make_node("Cast", [inner], [info.name], to=FLOAT))

    def _as(self, name: str, *, half: bool) -> str:
        """The tensor in the wanted type: itself, a converted constant, or one cast for all its readers."""
        if (name in self.half) == half:
            return name
        if (name, half) not in self.made:
            self.made[name, half] = (
                self._convert_constant(name) if name in self.constants else self._cast(name, half)
            )
        return self.made[name, half]

    def _convert_constant(self, name: str) -> str:
        value = constant(self.graph, name)
        assert value is not None
        return add_constant(self.graph, f"{name}_half", value.astype(np.float16))

    def _cast(self, name: str, half: bool) -> str:
        from onnx import helper

        result = f"{name}_half" if half else f"{name}_float"
        to = FLOAT16 if half else FLOAT
        self.graph.node.append(helper.make_node("Cast", [name], [result], name=f"{result}_Cast", to=to))
        return result


def _exceeds(graph: GraphProto, name: str) -> bool:
    value = constant(graph, name)
    return value is not None and value.size > 0 and float(np.abs(value).max()) > LARGEST
