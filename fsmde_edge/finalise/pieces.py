"""Pieces of a Q/DQ network: all of it up to a cut, or its blocks taken apart up to there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.graph.model import (
    consumers,
    copy_model,
    drop_unused,
    producers,
    sort_nodes,
    subgraph_inputs,
    tensor_types,
    tidy,
    value_of,
)

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Piece:
    """A part of a network as a model of its own.

    Attributes:
        model: it.
        outputs: what it gives, dequantised: name to the int8 tensor's name.
        scales: the same names to the step of the integers.
        given: inputs beside the network's own, dequantised: name to the int8 tensor's name.
    """

    model: ModelProto
    outputs: Mapping[str, str]
    scales: Mapping[str, float]
    given: Mapping[str, str]

    def feeds(self, integers: Mapping[str, NDArray[np.int8]]) -> dict[str, NDArray[Any]]:
        """The values of `given`, from the integers that it stands for."""
        scales = {block: self.scales[name] for name, block in self.outputs.items()}
        types = tensor_types(self.model)
        return {
            name: (integers[block] * np.float32(scales[block])).astype(_numpy_type(types[name].dtype))
            for name, block in self.given.items()
        }


def piece_up_to(model: ModelProto, names: tuple[str, ...]) -> Piece:
    """The part of a Q/DQ model that makes its first int8 tensors, which gives those that live at the cut.

    Args:
        model: with types inferred.
        names: its int8 tensors, from the first one to the cut.
    """
    readers = consumers(model.graph)
    back = {name: _dequantiser(readers, name).output[0] for name in names}
    inside = _ancestors(model, names)
    live = {
        back[name]: name
        for name in names
        if name == names[-1] or any(node.name not in inside for node in readers.get(back[name], []))
    }
    return _piece(copy_model(model), live, {})


def blocks_up_to(model: ModelProto, names: tuple[str, ...]) -> Piece:
    """The same part taken apart: each block reads its tensors from outside, and all of them are given.

    So that one run says what every block makes of the right integers, whatever the blocks before it did. A
    tensor comes as float and is quantised again, exactly, so that each backend fuses what it always does.
    """
    from onnx import helper

    apart, types, readers = copy_model(model), tensor_types(model), consumers(model.graph)
    outputs, given = dict[str, str](), dict[str, str]()
    for name in names:
        back = _dequantiser(readers, name)
        outputs[back.output[0]], given[f"{name}.given"] = name, name
        for node in apart.graph.node:
            node.input[:] = [f"{name}.back" if item == back.output[0] else item for item in node.input]
        constants, attributes = list(back.input[1:]), list(back.attribute)
        pair = (
            helper.make_node("QuantizeLinear", [f"{name}.given", *constants], [f"{name}.again"]),
            helper.make_node("DequantizeLinear", [f"{name}.again", *constants], [f"{name}.back"]),
        )
        for node in pair:
            node.name = f"{node.output[0]}.{node.op_type}"
            node.attribute.extend(attributes)
        apart.graph.node.extend(pair)
        kind = types[back.output[0]]
        apart.graph.input.append(helper.make_tensor_value_info(f"{name}.given", kind.dtype, kind.shape))
    return _piece(apart, outputs, given)


def _piece(model: ModelProto, outputs: Mapping[str, str], given: Mapping[str, str]) -> Piece:
    """Cut a model down to some outputs; it is changed."""
    from onnx import helper

    graph, types = model.graph, tensor_types(model)
    del graph.output[:]
    graph.output.extend(
        helper.make_tensor_value_info(name, types[name].dtype, types[name].shape) for name in outputs
    )
    drop_unused(graph)
    sort_nodes(graph)
    read = {name for node in graph.node for name in subgraph_inputs(node)}
    for info in [info for info in graph.input if info.name not in read]:
        graph.input.remove(info)
    made_by = producers(graph)
    return Piece(
        model=tidy(model),
        outputs=outputs,
        scales={name: float(value_of(graph, made_by[name].input[1])) for name in outputs},
        given={name: block for name, block in given.items() if name in read},
    )


def _dequantiser(readers: Mapping[str, list[NodeProto]], name: str) -> NodeProto:
    return next(node for node in readers[name] if node.op_type == "DequantizeLinear")


def _ancestors(model: ModelProto, names: tuple[str, ...]) -> set[str]:
    """Names of the nodes that make some tensors, and of all that lead to them."""
    made_by, waiting, inside = producers(model.graph), list(names), set[str]()
    while waiting:
        node = made_by.get(waiting.pop())
        if node is not None and node.name not in inside:
            inside.add(node.name)
            waiting.extend(subgraph_inputs(node))
    return inside


def _numpy_type(dtype: int) -> np.dtype[Any]:
    from onnx import helper

    return np.dtype(helper.tensor_dtype_to_np_dtype(dtype))
