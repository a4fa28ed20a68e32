"""ONNX graphs: load, check, index and save, always to the same bytes.

Every model of a bundle keeps one form: self-contained (no external data), IR version at most 10, opset 19,
nodes in topological order with unique names, constants as initializers, no doc strings and no metadata
(exporters leave paths and stack traces there), equal bytes for equal graphs.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.errors import InputError, MissingExtra
from fsmde_edge.files import atomic_write
from fsmde_edge.graph.naming import name_by_module, name_nodes

if TYPE_CHECKING:
    from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

IR_VERSION = 10
"""The newest format that ONNX Runtime 1.23 reads, the last one for Python 3.10."""

OPSET = 19
"""The opset of every model in a bundle."""

LARGEST_FILE = 1_900_000_000
"""Bytes; protobuf ends at 2 GiB."""

FLOAT, UINT8, INT8, FLOAT16, DOUBLE = 1, 2, 3, 10, 11
"""Element types, `onnx.TensorProto.DataType`; here so that they need no import of onnx."""

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TensorType:
    """A tensor's element type (an `onnx.TensorProto.DataType`) and its static shape; None if not static."""

    dtype: int
    shape: Shape | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """What a network that keeps the model contract takes and gives.

    Attributes:
        views: V.
        height: H, network pixels.
        width: W, network pixels.
        confidence: whether there is a second output `confidence`.
    """

    views: int
    height: int
    width: int
    confidence: bool


def load_model(path: Path) -> ModelProto:
    """Read an ONNX file, bring it to the house's form and check it.

    Errors:
        InputError: no such file, no ONNX, external data, a newer format, or a graph that does not check.
        MissingExtra: without the package onnx.
    """
    onnx = import_onnx()
    if path.exists() and not path.is_file():
        raise InputError("is no regular file", where=path, hint="give a network saved as ONNX")
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=path) from error
    except Exception as error:  # protobuf's DecodeError; its module differs between versions
        raise InputError("is not an ONNX file", where=path, hint="give a network saved as ONNX") from error
    if not model.graph.node:
        raise InputError("is not an ONNX file, or a network without nodes", where=path)
    return tidy(model, where=path)


def save_model(model: ModelProto, path: Path) -> None:
    """Write a model, whole or not at all."""
    atomic_write(path, model_bytes(model))


def model_bytes(model: ModelProto) -> bytes:
    """Serialise a model: equal models give equal bytes.

    Errors:
        InputError: larger than a self-contained file may be.
    """
    if model.ByteSize() > LARGEST_FILE:
        raise InputError(f"the network has {model.ByteSize() / 1e9:.1f} GB; a file holds at most 1.9 GB")
    return bytes(model.SerializeToString(deterministic=True))


def copy_model(model: ModelProto) -> ModelProto:
    """An independent copy."""
    copy = type(model)()
    copy.CopyFrom(model)
    return copy


def tidy(model: ModelProto, *, where: object = None) -> ModelProto:
    """A copy of the model in the house's form, shapes inferred and checked. Tidying twice changes nothing.

    Args:
        model: any ONNX model.
        where: its file, for messages.

    Errors:
        InputError: external data, opset newer than 19 that cannot be converted, or an invalid graph.
    """
    model = copy_model(model)
    refuse_external_data(model, where)
    _set_versions(model, where)
    name_by_module(model.graph)
    strip(model)
    constants_to_initializers(model.graph)
    drop_unused(model.graph)
    sort_nodes(model.graph, where)
    name_nodes(model.graph)
    model = infer_shapes(model, where)
    check(model, where)
    return model


def check(model: ModelProto, where: object = None) -> None:
    """Run ONNX's checker.

    Errors:
        InputError: with the checker's first line.
    """
    onnx = import_onnx()
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise InputError(f"is not a valid network ({first_line(error)})", where=where) from error


def infer_shapes(model: ModelProto, where: object = None) -> ModelProto:
    """A copy with the type and shape of every tensor that ONNX can infer, inferred afresh.

    Errors:
        InputError: the graph's types or shapes contradict each other.
    """
    onnx = import_onnx()
    model = copy_model(model)
    del model.graph.value_info[:]
    try:
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except Exception as error:
        raise InputError(f"has contradicting shapes ({first_line(error)})", where=where) from error
    ordered = sorted(inferred.graph.value_info, key=lambda info: info.name)
    del inferred.graph.value_info[:]
    inferred.graph.value_info.extend(ordered)
    return cast("ModelProto", inferred)


def interface(model: ModelProto, where: object = None) -> Interface:
    """Check the model contract of inputs and outputs.

    Errors:
        InputError: with what was expected and found.
    """
    from onnx import TensorProto

    types = tensor_types(model)
    found = {info.name: types.get(info.name) for info in (*model.graph.input, *model.graph.output)}
    hint = "describe its input and output in a YAML and give it with --convention"
    images, depth = found.get("images"), found.get("depth")
    if images is None or images.dtype != TensorProto.UINT8 or not images.shape or len(images.shape) != 4:
        raise InputError("has no input `images` uint8 [V,H,W,3] of static shape", where=where, hint=hint)
    views, height, width, channels = images.shape
    expected = {
        "images": TensorType(TensorProto.UINT8, (views, height, width, 3)),
        "focal": TensorType(TensorProto.FLOAT, (views,)),
        "depth": TensorType(TensorProto.FLOAT, (views, height, width)),
    }
    if "confidence" in found:
        expected["confidence"] = expected["depth"]
    for name in (*expected, *found):
        if found.get(name) != expected.get(name):
            raise InputError(
                f"has {name} {_say(found.get(name))}, expected {_say(expected.get(name))}",
                where=where,
                hint=hint,
            )
    assert depth is not None
    assert channels == 3
    return Interface(views=views, height=height, width=width, confidence="confidence" in found)


def tensor_types(model: ModelProto) -> dict[str, TensorType]:
    """Type and static shape of every tensor that is known: inputs, outputs, inferred ones, initializers."""
    graph = model.graph
    types = {}
    for info in (*graph.value_info, *graph.output, *graph.input):
        tensor = info.type.tensor_type
        static = tensor.HasField("shape") and all(axis.HasField("dim_value") for axis in tensor.shape.dim)
        shape = tuple(axis.dim_value for axis in tensor.shape.dim) if static else None
        types[info.name] = TensorType(tensor.elem_type, shape)
    for weight in graph.initializer:
        types[weight.name] = TensorType(weight.data_type, tuple(weight.dims))
    return types


def producers(graph: GraphProto) -> dict[str, NodeProto]:
    """Tensor name to the node that makes it; inputs and initializers are absent."""
    return {name: node for node in graph.node for name in node.output if name}


def consumers(graph: GraphProto) -> dict[str, list[NodeProto]]:
    """Tensor name to the nodes that read it, in order, each once."""
    found: dict[str, list[NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in dict.fromkeys(node.input):
            if name:
                found[name].append(node)
    return dict(found)


def initializers(graph: GraphProto) -> dict[str, TensorProto]:
    """Name to constant."""
    return {weight.name: weight for weight in graph.initializer}


def constant(graph: GraphProto, name: str) -> NDArray[np.generic] | None:
    """The value of an initializer, or None if the tensor is no constant."""
    from onnx import numpy_helper

    weight = next((weight for weight in graph.initializer if weight.name == name), None)
    return None if weight is None else np.asarray(numpy_helper.to_array(weight))


def value_of(graph: GraphProto, name: str) -> NDArray[np.generic]:
    """The value of an initializer that is known to be one."""
    value = constant(graph, name)
    assert value is not None, name
    return value


def add_constant(graph: GraphProto, name: str, value: NDArray[np.generic]) -> str:
    """Add an initializer and return its name."""
    from onnx import numpy_helper

    graph.initializer.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
    return name


def set_constant(graph: GraphProto, name: str, value: NDArray[np.generic]) -> None:
    """Give an initializer another value."""
    from onnx import numpy_helper

    initializers(graph)[name].CopyFrom(numpy_helper.from_array(np.asarray(value, order="C"), name))


def attribute(node: NodeProto, name: str) -> AttributeProto | None:
    """A node's attribute, or None."""
    return next((attribute for attribute in node.attribute if attribute.name == name), None)


def has_quantisation(model: ModelProto) -> bool:
    """Whether the graph already holds Quantize or Dequantize nodes."""
    return any(node.op_type in {"QuantizeLinear", "DequantizeLinear"} for node in model.graph.node)


def strip(model: ModelProto) -> None:
    """Remove what does not change a result: doc strings, metadata, producer."""
    model.producer_name, model.producer_version = "fsmde-edge", ""
    model.doc_string, model.domain = "", ""
    model.ClearField("model_version")
    del model.metadata_props[:]
    graph = model.graph
    graph.name, graph.doc_string = "depth", ""
    items = (graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info)
    for item in items:
        item.doc_string = ""
        if hasattr(item, "metadata_props"):
            del item.metadata_props[:]


def constants_to_initializers(graph: GraphProto) -> None:
    """Turn tensor-valued Constant nodes into initializers; IR below 4 listed initializers as inputs too."""
    kept = []
    for node in graph.node:
        value = attribute(node, "value") if node.op_type == "Constant" else None
        if value is None:
            kept.append(node)
            continue
        tensor = graph.initializer.add()
        tensor.CopyFrom(value.t)
        tensor.name = node.output[0]
        tensor.doc_string = ""
    _replace(graph.node, kept)
    names = {weight.name for weight in graph.initializer}
    _replace(graph.input, [info for info in graph.input if info.name not in names])


def drop_unused(graph: GraphProto) -> None:
    """Remove nodes that lead to no output, and initializers that nobody reads."""
    made_by = producers(graph)
    wanted = [info.name for info in graph.output]
    live: set[str] = set()
    while wanted:
        name = wanted.pop()
        if name in live:
            continue
        live.add(name)
        if name in made_by:
            wanted.extend(subgraph_inputs(made_by[name]))
    _replace(graph.node, [node for node in graph.node if any(name in live for name in node.output)])
    _replace(graph.initializer, [weight for weight in graph.initializer if weight.name in live])


def sort_nodes(graph: GraphProto, where: object = None) -> None:
    """Order nodes so that each comes after all that it reads: as they stood, what is missing right before.

    So inserting nodes anywhere leaves the order of the others, and what an inserted node makes comes just
    before its first reader.

    Errors:
        InputError: the graph has a cycle or reads a tensor that nobody makes.
    """
    ready = {info.name for info in graph.input} | {weight.name for weight in graph.initializer} | {""}
    made_by = producers(graph)
    ordered: list[NodeProto] = []
    for first in graph.node:
        path = [first]  # each node reads something of the one behind it
        while path:
            node = path[-1]
            missing = next((name for name in subgraph_inputs(node) if name not in ready), None)
            if missing is not None and (missing not in made_by or len(path) > len(made_by)):
                raise InputError(f"node {node.name} reads a tensor that nobody makes", where=where)
            if missing is not None:
                path.append(made_by[missing])
                continue
            path.pop()
            if not ready.issuperset(node.output):
                ordered.append(node)
                ready.update(node.output)
    _replace(graph.node, ordered)
    _replace(graph.initializer, sorted(graph.initializer, key=lambda weight: weight.name))


def subgraph_inputs(node: NodeProto) -> list[str]:
    """What a node reads, with what the bodies of its If or Loop read from outside."""
    names = list(node.input)
    for item in node.attribute:
        for body in ([item.g] if item.HasField("g") else []) + list(item.graphs):
            inside = {name for inner in body.node for name in inner.output}
            inside |= {info.name for info in body.input} | {weight.name for weight in body.initializer}
            names += [n for inner in body.node for n in subgraph_inputs(inner) if n not in inside]
            names += [info.name for info in body.output if info.name not in inside]
    return names


def first_line(error: BaseException) -> str:
    """The first line of an error's text, shortened: foreign messages run over pages."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]


def import_onnx() -> ModuleType:
    """The package onnx with its checker and shape inference.

    Errors:
        MissingExtra: it is not installed.
    """
    try:
        import onnx
        import onnx.checker
        import onnx.shape_inference
        import onnx.version_converter
    except ImportError as error:
        raise MissingExtra("onnx", extra="compile", why="working on ONNX graphs") from error
    return onnx


def refuse_external_data(model: ModelProto, where: object) -> None:
    """Refuse a network that keeps weights in other files: whoever loads it would read what it points to.

    Errors:
        InputError: it does.
    """
    from onnx import TensorProto

    if any(weight.data_location == TensorProto.EXTERNAL for weight in model.graph.initializer):
        raise InputError(
            "keeps its weights in another file",
            where=where,
            hint="save it in one: torch.onnx.export(..., external_data=False), or onnx.save(onnx.load(A), B)",
        )


def _set_versions(model: ModelProto, where: object) -> None:
    onnx = import_onnx()
    opset = next((item.version for item in model.opset_import if item.domain in {"", "ai.onnx"}), 0)
    if opset != OPSET:
        try:
            model.CopyFrom(onnx.version_converter.convert_version(model, OPSET))
        except Exception as error:
            raise InputError(
                f"uses opset {opset}, which cannot be converted to {OPSET} ({first_line(error)})",
                where=where,
                hint=f"export it again with opset {OPSET}",
            ) from error
    used = {node.domain for node in model.graph.node}
    kept = [(item.domain, item.version) for item in model.opset_import if item.domain in used]
    del model.opset_import[:]
    for domain, version in sorted({("", OPSET), *((d, v) for d, v in kept if d not in {"", "ai.onnx"})}):
        model.opset_import.add(domain=domain, version=version)
    model.ir_version = IR_VERSION


def _replace(field, items) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001 - a protobuf list
    copies = [type(item).FromString(item.SerializeToString()) for item in items]
    del field[:]
    field.extend(copies)


def _say(kind: TensorType | None) -> str:
    if kind is None:
        return "nothing"
    from onnx import TensorProto

    shape = "dynamic shape" if kind.shape is None else f"[{','.join(map(str, kind.shape))}]"
    return f"{TensorProto.DataType.Name(kind.dtype).lower()} {shape}"
