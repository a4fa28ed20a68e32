"""What TensorRT refuses, or fuses badly, in a Q/DQ model: each violation with its reason and its remedy.

`build` checks what it lowers and seals nothing that breaks a rule: there it is a bug guard. For a graph that
somebody else quantised it is advice. Sources: NVIDIA's "Working with Quantized Types" (Q/DQ Layer-Placement
Recommendations, Q/DQ limitations), the ONNX-TensorRT parser's operator notes, and what its parser was seen to
say (tests/compiler/predict/test_rules.py plants every fault).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from fsmde_edge.errors import InputError
from fsmde_edge.graph.model import IR_VERSION, OPSET, UINT8, TensorType, initializers, tensor_types
from fsmde_edge.graph.structure import (
    ACTIVATIONS,
    NEVER_INT8,
    commutes,
    is_residual,
    moved_inputs,
    pooled_tensors,
)

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

COMPUTING = frozenset(["Conv", "ConvTranspose", "Gemm", "MatMul"])
_INT32, _EXTERNAL = 6, 1
"""`onnx.TensorProto.INT32`, `.EXTERNAL`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One rule broken at one node.

    Attributes:
        rule: its name.
        node: of the node, or of the graph.
        why: what TensorRT makes of it.
        fix: what to do.
    """

    rule: str
    node: str
    why: str
    fix: str

    def __str__(self) -> str:
        return f"{self.rule} at {self.node}: {self.why}; {self.fix}"


def check_rules(model: ModelProto) -> tuple[Violation, ...]:
    """All violations of a Q/DQ model, in the graph's order; empty for a model that TensorRT fuses well.

    Args:
        model: with static shapes inferred.
    """
    graph = _Graph(model)
    rules = (
        _contract,
        _raw_pixels,
        _integer_bias,
        _integer_types,
        _per_channel_activation,
        _half_quantised,
        _broken_residual,
        _needless_requantisation,
        _delicate,
    )
    return tuple(violation for rule in rules for violation in rule(graph))


def refuse_violations(model: ModelProto, where: object = None, *, allow: Iterable[str] = ()) -> None:
    """Refuse a model that breaks a rule.

    Args:
        model: see `check_rules`.
        where: its file, for the message.
        allow: names of rules that may be broken, for a price that is known.

    Errors:
        InputError: with the first violation, and how many there are.
    """
    allowed = set(allow)
    found = [violation for violation in check_rules(model) if violation.rule not in allowed]
    if found:
        more = f" ({len(found)} such faults)" if len(found) > 1 else ""
        raise InputError(
            f"TensorRT would not take the INT8 network as it is meant: {found[0].rule} at {found[0].node}, "
            f"{found[0].why}{more}",
            where=where,
            hint=f"{found[0].fix}, or keep the node in float with keep_float",
        )


@dataclass(slots=True)
class _Graph:
    """A model and what the rules look up in it."""

    model: ModelProto
    nodes: list[NodeProto] = field(init=False)
    types: dict[str, TensorType] = field(init=False)
    constants: dict[str, TensorProto] = field(init=False)
    made_by: dict[str, NodeProto] = field(init=False)
    readers: dict[str, list[NodeProto]] = field(init=False, default_factory=dict)
    pooled: set[str] = field(init=False)
    weights: set[str] = field(init=False)

    def __post_init__(self) -> None:
        self.nodes = list(self.model.graph.node)
        self.types = tensor_types(self.model)
        self.constants = initializers(self.model.graph)
        self.made_by = {name: node for node in self.nodes for name in node.output}
        self.pooled = pooled_tensors(self.model)
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                self.readers.setdefault(name, []).append(node)
        self.weights = {
            node.output[0]
            for node in self.nodes
            if node.op_type == "DequantizeLinear" and node.input[0] in self.constants
        }

    def of(self, *kinds: str) -> Iterator[NodeProto]:
        return (node for node in self.nodes if node.op_type in kinds)

    def is_dequantised(self, name: str) -> bool:
        """Whether a tensor is an activation that comes out of integers."""
        maker = self.made_by.get(name)
        return maker is not None and maker.op_type == "DequantizeLinear" and name not in self.weights

    def computes_int8(self, node: NodeProto | None) -> bool:
        if node is None or node.op_type not in COMPUTING:
            return False
        return all(self.is_dequantised(name) or name in self.weights for name in node.input[:2])

    def scale(self, node: NodeProto) -> object:
        """A scalar scale's value; the name of one that is not constant or not scalar."""
        from onnx import numpy_helper

        item = self.constants.get(node.input[1])
        if item is None or prod(item.dims) != 1:
            return node.input[1]
        return float(numpy_helper.to_array(item).reshape(-1)[0])

    def quantisers(self, name: str) -> list[NodeProto]:
        return [node for node in self.readers.get(name, []) if node.op_type == "QuantizeLinear"]


def _contract(graph: _Graph) -> Iterator[Violation]:
    model = graph.model
    opset = next((item.version for item in model.opset_import if item.domain in {"", "ai.onnx"}), 0)
    outside = [item.name for item in model.graph.initializer if item.data_location == _EXTERNAL]
    faults = {
        f"opset {opset} is not {OPSET}": opset != OPSET,
        f"IR version {model.ir_version} is newer than {IR_VERSION}": model.ir_version > IR_VERSION,
        f"{outside[:1]} lies in another file": bool(outside),
    }
    for why, broken in faults.items():
        if broken:
            yield Violation(
                rule="contract", node="the graph", why=why, fix="tidy the model (graph.model.tidy)"
            )


def _raw_pixels(graph: _Graph) -> Iterator[Violation]:
    for node in graph.nodes:
        raw = [name for name in node.input if name and graph.types.get(name, _ANY).dtype == UINT8]
        if raw and node.op_type not in {"Cast", "DequantizeLinear", "QuantizeLinear"}:
            yield Violation(
                rule="uint8",
                node=node.name,
                why=f"{node.op_type} reads uint8, which the parser takes into Cast alone",
                fix="put the Cast first",
            )


def _integer_bias(graph: _Graph) -> Iterator[Violation]:
    for node in graph.of("DequantizeLinear"):
        stored = graph.constants.get(node.input[0])
        readers = graph.readers.get(node.output[0], [])
        bias = any(node.output[0] in reader.input[2:] for reader in readers if reader.op_type in COMPUTING)
        if bias or (stored is not None and stored.data_type == _INT32):
            yield Violation(
                rule="bias",
                node=node.name,
                why="the parser refuses the Dequantize of an INT32 bias",
                fix="keep the bias in float",
            )


def _integer_types(graph: _Graph) -> Iterator[Violation]:
    for node in graph.of("QuantizeLinear", "DequantizeLinear"):
        zero = graph.constants.get(node.input[2]) if len(node.input) > 2 else None
        integers = node.output[0] if node.op_type == "QuantizeLinear" else node.input[0]
        if graph.types.get(integers, _ANY).dtype == UINT8:
            yield Violation(
                rule="unsigned",
                node=node.name,
                why="TensorRT's integers are signed",
                fix="quantise to int8 with zero point 0",
            )
        elif len(node.input) > 2 and (zero is None or _any(zero)):
            yield Violation(
                rule="zero point",
                node=node.name,
                why="TensorRT quantises symmetrically: a zero point other than 0 is refused",
                fix="take a range symmetric around 0",
            )


def _per_channel_activation(graph: _Graph) -> Iterator[Violation]:
    for node in graph.of("QuantizeLinear", "DequantizeLinear"):
        shape = graph.types.get(node.input[1], _ANY).shape or ()
        if node.input[0] not in graph.constants and prod(shape) != 1:
            yield Violation(
                rule="per-channel activation",
                node=node.name,
                why="an activation with one scale a channel fuses with nothing",
                fix="give it one scale",
            )


def _half_quantised(graph: _Graph) -> Iterator[Violation]:
    for node in graph.of(*COMPUTING):
        data, weight = node.input[:2]
        fix = "quantise both operands, or neither"
        if weight in graph.weights and not graph.is_dequantised(data):
            why = "its weights are integers and its data is not: it computes in float"
            yield Violation(rule="half-quantised", node=node.name, why=why, fix=fix)
        elif graph.is_dequantised(data) and weight in graph.constants and _only_floats(graph, data):
            why = "its data is quantised for nobody but it, and its weights are float: it computes in float"
            yield Violation(rule="half-quantised", node=node.name, why=why, fix=fix)


def _only_floats(graph: _Graph, data: str) -> bool:
    """Whether all who read what a Dequantize makes are products with float weights."""
    readers = graph.readers[data]
    return all(reader.op_type in COMPUTING and reader.input[1] in graph.constants for reader in readers)


def _broken_residual(graph: _Graph) -> Iterator[Violation]:
    constants = {*graph.constants, *graph.weights}
    for node in graph.of("Add"):
        if not is_residual(node, graph.types, constants) or not _is_quantised_behind(graph, node.output[0]):
            continue
        integer = [graph.is_dequantised(name) for name in node.input]
        fused = [graph.computes_int8(graph.made_by.get(name)) for name in node.input]
        meant = [_may_be_float(graph, name) for name in node.input]
        operands = tuple(zip(integer, fused, meant, strict=True))
        broken = any(not (i or f or m) for i, f, m in operands) or (all(fused) and not any(integer))
        if broken and (any(integer) or any(fused)):
            yield Violation(
                rule="broken residual",
                node=node.name,
                why="an operand of the sum stays float, so the convolution in its kernel writes float "
                "and the sum is quantised once more",
                fix="quantise the sum's other operand as well",
            )


def _is_quantised_behind(graph: _Graph, name: str) -> bool:
    after = graph.readers.get(name, [])
    if len(after) == 1 and after[0].op_type in ACTIVATIONS:
        name = after[0].output[0]
    return bool(graph.quantisers(name))


def _may_be_float(graph: _Graph, name: str) -> bool:
    """Whether a tensor is float by decision: an input, pooled, delicate, or of a product kept in float."""
    maker = graph.made_by.get(name)
    if maker is None or name in graph.pooled or maker.op_type in NEVER_INT8:
        return True
    return maker.op_type in COMPUTING and not graph.computes_int8(maker)


def _needless_requantisation(graph: _Graph) -> Iterator[Violation]:
    for node in graph.nodes:
        if not commutes(node):
            continue
        makers = [graph.made_by.get(name) for name in moved_inputs(node)]
        before = {graph.scale(maker) for maker in makers if maker and maker.op_type == "DequantizeLinear"}
        after = {graph.scale(q) for name in node.output for q in graph.quantisers(name)}
        if before and after and (len(before | after) > 1):
            yield Violation(
                rule="requantisation",
                node=node.name,
                why=f"{node.op_type} only moves values, but what goes in and out has different scales",
                fix="share one scale",
            )


def _delicate(graph: _Graph) -> Iterator[Violation]:
    for node in graph.of(*NEVER_INT8):
        made = any(graph.quantisers(name) for name in node.output)
        data = node.input[0]
        alone = all(reader.op_type in NEVER_INT8 for reader in graph.readers.get(data, []))
        if made or (graph.is_dequantised(data) and alone):
            yield Violation(
                rule="delicate",
                node=node.name,
                why=f"{node.op_type} loses its small values in eight bits",
                fix="keep its input and its result in float",
            )


def _any(zero: TensorProto) -> bool:
    from onnx import numpy_helper

    return bool(np.any(numpy_helper.to_array(zero)))


def lines(violations: Iterable[Violation]) -> list[str]:
    """One line a violation, for people."""
    return [str(violation) for violation in violations]


_ANY = TensorType(0, None)
