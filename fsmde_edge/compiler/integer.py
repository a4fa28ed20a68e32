"""What any correct INT8 engine gives, up to rounding ties: a Q/DQ model in integer arithmetic.

For a convolution (or matrix product) whose operands are both dequantised, x = X·s and w = W·t, with int8 X
and W, one scale s and a scale t_c for each output channel c,

    A = Σ X·W           exactly, an int32
    y = fl(A) · fl(s·t_c) + b_c          float32: each operation rounded once, to nearest, half to even

and Q(y) = clip(round(y / s'), -128, 127), half to even, wherever the graph quantises y next, be it behind an
activation or a sum. Everything else is float32 as the graph says. What only moves values (Concat, MaxPool,
nearest Resize, …) is integer arithmetic too, though it runs on X·s: our scales have 11 bits, so X·s has 19,
is exact in float32, and is quantised by the same scale to X again.

The reference is itself an ONNX model, so that it is fast: float32 products and sums of integers are exact, in
whatever order they come, while no partial sum can pass 2²⁴. Where the weights would allow more they are cut
into parts that do not, and the parts are added as int32.

Engines differ from it where they round y otherwise (a fused multiply-add, s·t/s' as one factor, float16): a
value between two integers tips, by one step. `nudge` plays such an engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.compiler.prefix import Tensors, plain_session
from fsmde_edge.errors import InputError
from fsmde_edge.graph.model import (
    FLOAT,
    INT8,
    add_constant,
    attribute,
    constant,
    copy_model,
    drop_unused,
    has_quantisation,
    infer_shapes,
    initializers,
    producers,
    sort_nodes,
    tensor_types,
    value_of,
)
from fsmde_edge.graph.naming import name_nodes
from fsmde_edge.graph.structure import is_residual

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

EXACT = 2**24
"""Every integer up to here is a float32."""

COMPUTING = frozenset(["Conv", "ConvTranspose", "Gemm", "MatMul"])
LARGEST_SUM = 2**31 - 1
LARGEST_INTEGER = 128
_INT32 = 6
_HINT = "give the bundle's model.int8.onnx"


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockDifference:
    """How far two executions of one block are apart.

    Attributes:
        tensor: the integers that it makes.
        differing: share of them that differ, 0..1.
        steps: by how many steps at most.
    """

    tensor: str
    differing: float
    steps: int


def integer_form(model: ModelProto, *, nudge: float = 0.0, seed: int = 0) -> ModelProto:
    """A Q/DQ model with its INT8 products in integer arithmetic.

    Args:
        model: what `lowering.tensorrt.lower` returns (rest float32, zero points 0).
        nudge: relative error, drawn evenly from ±nudge, of what each computing node and each sum of two
            activations writes; 2⁻²³ is another float32, 2⁻¹¹ a float16.
        seed: of these errors.

    Returns:
        A model of the same interface and the same tensors; run it without graph optimisations.

    Errors:
        InputError: no Q/DQ model, an asymmetric or half precision one, or sums beyond int32.
    """
    _refuse_other_arithmetic(model)
    form = copy_model(model)
    graph, made_by = form.graph, producers(model.graph)
    constants = set(initializers(graph))
    computing = [node for node in graph.node if node.op_type in COMPUTING]
    types = tensor_types(model)
    sums = [node for node in graph.node if is_residual(node, types, constants)]
    outputs = [node.output[0] for node in (*computing, *sums)]
    for node in computing:
        if _is_integer_product(node, made_by, constants):
            _rewrite(graph, node, made_by)
    if nudge:
        for number, name in enumerate(outputs):
            _nudge(graph, name, nudge, 1 + seed * len(outputs) + number)
    drop_unused(graph)
    sort_nodes(graph)
    name_nodes(graph)
    return infer_shapes(form)


def run(
    model: ModelProto, feeds: Tensors, tensors: Iterable[str] = (), *, threads: int = 1
) -> dict[str, NDArray[Any]]:
    """Run a Q/DQ model in integer arithmetic.

    Args:
        model: see `integer_form`.
        feeds: its inputs.
        tensors: which ones to give; empty for the outputs and the integers of all blocks.
        threads: ONNX Runtime's.
    """
    names = list(tensors) or [*(info.name for info in model.graph.output), *block_tensors(model)]
    return run_plainly(integer_form(model), feeds, names, threads=threads)


def block_tensors(model: ModelProto) -> tuple[str, ...]:
    """The int8 activations of a Q/DQ model, in the graph's order: what its blocks make."""
    constants = initializers(model.graph)
    quantisers = (node for node in model.graph.node if node.op_type == "QuantizeLinear")
    return tuple(node.output[0] for node in quantisers if node.input[0] not in constants)


def block_form(model: ModelProto) -> ModelProto:
    """A Q/DQ model taken apart: each block reads its integers from outside, under the name `TENSOR.given`.

    So that one run says what every block makes of the same integers, whatever the blocks before it did.
    """
    from onnx import helper

    form = copy_model(model)
    names, types = block_tensors(model), tensor_types(model)
    for node in form.graph.node:
        node.input[:] = [f"{name}.given" if name in names else name for name in node.input]
    form.graph.input.extend(
        helper.make_tensor_value_info(f"{name}.given", INT8, types[name].shape) for name in names
    )
    return form


def compare_blocks(
    model: ModelProto, other: ModelProto, feeds: Tensors, *, threads: int = 1
) -> tuple[BlockDifference, ...]:
    """Run two models of the same blocks on the integers that the first one gives.

    Args:
        model: the Q/DQ model; it runs in integer arithmetic.
        other: the same or a faulty one, or `integer_form` of it; runs as it is.
        feeds: network inputs.
        threads: ONNX Runtime's.
    """
    right = run(model, feeds, block_tensors(model), threads=threads)
    return differences(right, other, feeds, threads=threads)


def differences(
    right: Tensors, other: ModelProto, feeds: Tensors, *, threads: int = 1
) -> tuple[BlockDifference, ...]:
    """What each block of a model makes of given integers.

    Args:
        right: the integers of all its blocks, by tensor.
        other: the model; runs as it is.
        feeds: network inputs.
        threads: ONNX Runtime's.
    """
    given = {f"{name}.given": value for name, value in right.items()}
    found = run_plainly(block_form(other), {**feeds, **given}, right, threads=threads)
    return tuple(_difference(name, value, found[name]) for name, value in right.items())


def run_plainly(
    model: ModelProto, feeds: Tensors, tensors: Iterable[str], *, threads: int = 1
) -> dict[str, NDArray[Any]]:
    """Run a model node by node as it is written, no optimisation, and give some of its tensors.

    Args:
        model: with types inferred.
        feeds: its inputs; those that it does not read are left out.
        tensors: names of tensors.
        threads: ONNX Runtime's.
    """
    from onnx import helper

    names, types, probe = list(tensors), tensor_types(model), copy_model(model)
    del probe.graph.output[:]
    probe.graph.output.extend(
        helper.make_tensor_value_info(name, types[name].dtype, types[name].shape) for name in names
    )
    session = plain_session(probe, threads=threads)
    read = {item.name for item in session.get_inputs()}
    values = session.run(names, {name: value for name, value in feeds.items() if name in read})
    return dict(zip(names, values, strict=True))


def weight_parts(integers: NDArray[np.int8], axis: int) -> list[NDArray[np.float32]]:
    """Integer weights as a sum of float32 ones with which no partial sum of products can pass 2²⁴.

    Args:
        integers: int8 weight.
        axis: its output-channel axis.

    Errors:
        InputError: their products with int8 can pass the range of int32.
    """
    rows = np.moveaxis(integers.astype(np.int64), axis, 0)
    flat = np.abs(rows).reshape(len(rows), -1)
    most = int(flat.sum(axis=1).max(initial=0)) * LARGEST_INTEGER
    if most > LARGEST_SUM:
        raise InputError("a weight has so many inputs that sums of its products do not fit into 32 bits")
    if most <= EXACT:
        return [integers.astype(np.float32)]
    # Inputs in order, a new part before the sum of the largest products of any channel passes the limit.
    reach = np.cumsum(flat.max(axis=0)) * LARGEST_INTEGER
    number = np.maximum(reach - 1, 0) // (EXACT - LARGEST_INTEGER**2)
    parts = []
    for part in np.unique(number):
        chosen = np.where((number == part).reshape(rows.shape[1:]), rows, 0)
        parts.append(np.ascontiguousarray(np.moveaxis(chosen, 0, axis), dtype=np.float32))
    return parts


def _difference(name: str, right: NDArray[np.int8], found: NDArray[np.int8]) -> BlockDifference:
    steps = np.abs(right.astype(np.int16) - found)
    return BlockDifference(tensor=name, differing=float((steps > 0).mean()), steps=int(steps.max(initial=0)))


def _is_integer_product(node: NodeProto, made_by: Mapping[str, NodeProto], constants: set[str]) -> bool:
    """Whether both operands of a computing node are dequantised, the second one from a constant.

    Errors:
        InputError: they are, but with a factor, a transposed operand or a bias that no engine of ours has.
    """
    data, weight = (made_by.get(name) for name in node.input[:2])
    if data is None or weight is None or {data.op_type, weight.op_type} != {"DequantizeLinear"}:
        return False
    if weight.input[0] not in constants or data.input[0] in constants:
        return False
    plain = all((found := attribute(node, name)) is None or found.f == 1 for name in ("alpha", "beta"))
    turned = attribute(node, "transA")
    if not plain or (turned is not None and turned.i) or {*node.input[2:]} - constants - {""}:
        raise InputError(f"{node.name} is no plain product of integers and constants", hint=_HINT)
    return True


def _rewrite(graph: GraphProto, node: NodeProto, made_by: Mapping[str, NodeProto]) -> None:
    """A node becomes A = product of integers; y = A × (s × t) + b."""
    from onnx import helper

    data, weight = made_by[node.input[0]], made_by[node.input[1]]
    scale, steps = (value_of(graph, item.input[1]).astype(np.float32) for item in (data, weight))
    axis, group = attribute(weight, "axis"), attribute(node, "group")
    integers = value_of(graph, weight.input[0]).astype(np.int8)
    if node.op_type == "ConvTranspose" and group is not None and steps.size > 1:
        steps = np.tile(steps, group.i)  # its axis 1 counts the channels of one group
    whole = f"{data.output[0]}_integers"
    if not any(whole in other.output for other in graph.node):
        graph.node.append(helper.make_node("Cast", [data.input[0]], [whole], name=whole, to=FLOAT))
    sums = []
    for i, part in enumerate(weight_parts(integers, 1 if axis is None else axis.i)):
        made = f"{node.name}_sum{i}"
        piece = helper.make_node(node.op_type, [whole, add_constant(graph, f"{made}_weight", part)], [made])
        piece.name = made
        piece.attribute.extend(node.attribute)
        graph.node.append(piece)
        sums.append(made)
    is_map = node.op_type in {"Conv", "ConvTranspose"}
    shape = (-1, *(1,) * (integers.ndim - 2)) if is_map else (-1,)
    factor = add_constant(graph, f"{node.name}_factor", (scale * steps).reshape(shape))
    out, bias = node.output[0], node.input[2] if len(node.input) > 2 else ""
    scaled = f"{node.name}_scaled" if bias else out
    total = _total(graph, node.name, sums)
    graph.node.append(helper.make_node("Mul", [total, factor], [scaled], name=f"{node.name}_scale"))
    if bias:
        value = value_of(graph, bias).astype(np.float32)
        value = value.reshape(shape) if is_map else value
        names = [scaled, add_constant(graph, f"{node.name}_bias", value)]
        graph.node.append(helper.make_node("Add", names, [out], name=f"{node.name}_shift"))
    graph.node.remove(node)


def _refuse_other_arithmetic(model: ModelProto) -> None:
    """Refuse what is not symmetric int8 with float32 scales, one an activation."""
    if not has_quantisation(model):
        raise InputError("is not quantised", hint=_HINT)
    types, constants = tensor_types(model), set(initializers(model.graph))
    for node in model.graph.node:
        if node.op_type not in {"QuantizeLinear", "DequantizeLinear"}:
            continue
        integers = node.output[0] if node.op_type == "QuantizeLinear" else node.input[0]
        zero = constant(model.graph, node.input[2]) if len(node.input) > 2 else np.zeros(())
        scale = types[node.input[1]]
        plain = types[integers].dtype == INT8 and scale.dtype == FLOAT and zero is not None and not zero.any()
        if not plain or (node.input[0] not in constants and scale.shape not in {(), (1,)}):
            raise InputError(f"{node.name} is not symmetric int8 with a float32 scale", hint=_HINT)


def _total(graph: GraphProto, name: str, sums: list[str]) -> str:
    """The sum of exact parts, added as int32 and rounded to float32 once."""
    from onnx import helper

    if len(sums) == 1:
        return sums[0]
    total = ""
    for part in sums:
        whole = f"{part}_int32"
        graph.node.append(helper.make_node("Cast", [part], [whole], name=whole, to=_INT32))
        if total:
            both = f"{part}_total"
            graph.node.append(helper.make_node("Add", [total, whole], [both], name=both))
            whole = both
        total = whole
    graph.node.append(helper.make_node("Cast", [total], [f"{name}_sum"], name=f"{name}_sum", to=FLOAT))
    return f"{name}_sum"


def _nudge(graph: GraphProto, out: str, size: float, seed: int) -> None:
    """Multiply what is made under a name by 1 ± size."""
    from onnx import helper

    names = {part: f"{out}_{part}" for part in ("plain", "factor")}
    for node in graph.node:
        node.output[:] = [names["plain"] if name == out else name for name in node.output]
    draw = helper.make_node("RandomUniformLike", [names["plain"]], [names["factor"]])
    limits = {"low": 1 - size, "high": 1 + size, "seed": float(seed)}
    draw.attribute.extend(helper.make_attribute(key, value) for key, value in limits.items())
    graph.node.extend((draw, helper.make_node("Mul", [names["plain"], names["factor"]], [out])))
