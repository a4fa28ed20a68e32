"""Simplify an exported graph without changing what it computes.

onnxsim folds constants, removes what does nothing and merges normalisation into convolutions; what it leaves
of BatchNormalization is folded here. The result is compared with the original on
pictures, and refused if it differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.errors import InputError, MissingExtra
from fsmde_edge.graph.model import (
    UINT8,
    attribute,
    constant,
    consumers,
    copy_model,
    drop_unused,
    first_line,
    model_bytes,
    producers,
    sort_nodes,
    tensor_types,
    tidy,
)
from fsmde_edge.graph.naming import name_tensors

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

TOLERANCE = 1e-4
"""Largest difference that is float rounding, relative to the largest value of the output."""


def simplify(
    model: ModelProto, feeds: Mapping[str, NDArray[Any]] | None = None, *, where: object = None
) -> ModelProto:
    """Simplify a tidy FP32 model and check that it still computes the same.

    Args:
        model: any tidy model of static shapes.
        feeds: real inputs by name, for the comparison; None for a fixed pattern of waves.
        where: the network's file, for messages.

    Returns:
        A tidy model of the same interface, its tensors named after the nodes.

    Errors:
        InputError: the simplifier fails, or its result computes something else.
        MissingExtra: without onnxsim.
    """
    simple = _onnxsim(model, where)
    fold_batch_norms(simple.graph)
    drop_unused(simple.graph)
    sort_nodes(simple.graph, where)
    name_tensors(simple.graph)
    simple = tidy(simple, where=where)
    _compare(model, simple, waves(model) if feeds is None else feeds, where)
    return simple


def fold_constants(model: ModelProto, *, where: object = None) -> ModelProto:
    """Compute once what depends on constants alone: shapes that an exporter left open become known.

    Args:
        model: a tidy model whose inputs have static shapes.
        where: the network's file, for messages.

    Errors:
        InputError, MissingExtra: as `simplify`.
    """
    folded = tidy(_onnxsim(model, where), where=where)
    _compare(model, folded, waves(model), where)
    return folded


def waves(model: ModelProto) -> dict[str, NDArray[Any]]:
    """A fixed input that is smooth and differs from view to view: pictures, and 1 to 2 for the rest."""
    types = tensor_types(model)
    feeds: dict[str, NDArray[Any]] = {}
    for info in model.graph.input:
        shape = types[info.name].shape or ()
        index = np.arange(prod(shape), dtype=np.float64)
        row = max(prod(shape[1:]), 1)
        wave = np.sin(index % row * 0.37 / (1 + index // row) + index // row).reshape(shape)
        is_picture = types[info.name].dtype == UINT8
        feeds[info.name] = (
            (127.5 + 127 * wave).astype(np.uint8) if is_picture else (1.5 + wave / 2).astype(np.float32)
        )
    return feeds


def fold_batch_norms(graph: GraphProto) -> int:
    """Merge each BatchNormalization into the convolution that alone feeds it; exact up to float rounding.

    Returns:
        How many were folded.
    """
    made_by, readers = producers(graph), consumers(graph)
    outputs = {info.name for info in graph.output}
    folded = 0
    for norm in [node for node in graph.node if node.op_type == "BatchNormalization"]:
        conv = made_by.get(norm.input[0])
        if (
            conv is None
            or conv.op_type != "Conv"
            or len(readers[norm.input[0]]) > 1
            or norm.input[0] in outputs
        ):
            continue
        folded += _fold(graph, conv, norm)
    return folded


def run_model(model: ModelProto, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Run a model once in ONNX Runtime as it stands, without graph optimisations.

    Returns:
        Its outputs by name.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model_bytes(model), options, providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def _onnxsim(model: ModelProto, where: object) -> ModelProto:
    try:
        import onnxsim
    except ImportError as error:
        raise MissingExtra("onnxsim", extra="compile", why="simplifying the network") from error
    try:
        simple, _ = onnxsim.simplify(copy_model(model))  # its own check feeds random numbers; ours real ones
    except Exception as error:
        raise InputError(f"cannot be simplified ({first_line(error)})", where=where) from error
    return cast("ModelProto", simple)


def _fold(graph: GraphProto, conv: NodeProto, norm: NodeProto) -> int:
    from onnx import numpy_helper

    values = [constant(graph, name) for name in (conv.input[1], *norm.input[1:5])]
    old_bias = constant(graph, conv.input[2]) if len(conv.input) > 2 else np.zeros(1, dtype=np.float32)
    if any(value is None for value in (*values, old_bias)):
        return 0
    weight, gamma, beta, mean, variance = (np.asarray(value, dtype=np.float64) for value in values)
    epsilon = attribute(norm, "epsilon")
    factor = gamma / np.sqrt(variance + (epsilon.f if epsilon is not None else 1e-5))
    new_weight = weight * factor.reshape(-1, *(1,) * (weight.ndim - 1))
    new_bias = (np.asarray(old_bias, dtype=np.float64) - mean) * factor + beta
    names = [f"{conv.name}.folded_weight", f"{conv.name}.folded_bias"]
    for name, value in zip(names, (new_weight, new_bias), strict=True):
        graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
    data = conv.input[0]
    del conv.input[:]
    conv.input.extend((data, *names))
    conv.output[0] = norm.output[0]
    graph.node.remove(norm)
    return 1


@np.errstate(all="ignore")  # what is not a number is refused, not warned of
def _compare(model: ModelProto, simple: ModelProto, feeds: Mapping[str, NDArray[Any]], where: object) -> None:
    before, after = run_model(model, feeds), run_model(simple, feeds)
    for name, expected in before.items():
        found = after.get(name)
        if found is None or found.shape != expected.shape:
            raise InputError(
                f"lost its output {name} in simplification", where=where, hint="report this network"
            )
        if not np.isfinite(expected).all():
            raise InputError(
                f"gives values of {name} that are not finite", where=where, hint="check the FP32 network"
            )
        reach = float(np.abs(expected).max()) or 1.0
        worst = float(np.abs(found.astype(np.float64) - expected).max()) / reach if expected.size else 0.0
        if not worst <= TOLERANCE:
            raise InputError(
                f"computes something else once simplified: {name} is off by {worst:.2g} of its largest value",
                where=where,
                hint="simplify the network yourself and check it, then give that file",
            )
