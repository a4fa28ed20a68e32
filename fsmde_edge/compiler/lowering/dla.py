"""The plan as TensorRT up to 10.7 takes it for a DLA: the float network beside a calibration cache.

The cache gives every tensor of the float network one scale, under its ONNX name, which is TensorRT's name
for it; what TensorRT inserts by itself has none and stays float. A scale comes from

1. the plan, where the tensor is INT8;
2. calibration's ranges, where it was only measured;
3. what an activation makes, where the tensor is read by that Relu or Clip alone: the two become one layer,
   and what the activation cuts off may saturate;
4. the golden frame set, run through the FP32 network, for every other one: its largest |x|.

A DLA wants one scale for both inputs of an element-wise layer and for both sides of a pooling (NvInfer.h,
IElementWiseLayer and IPoolingLayer), and what only moves values should not requantise: such tensors take the
largest scale among them that the plan chose, or else that was measured.

Scales for all would let TensorRT run in INT8 what the plan keeps float: a second file names those layers
and their precision, for trtexec's --layerPrecisions.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import numpy as np

from fsmde_edge.bundle import Bundle, Golden
from fsmde_edge.compiler.calibrate import CalibrationBatch, Ranges, calibrate
from fsmde_edge.compiler.half import float32_nodes
from fsmde_edge.compiler.plan import Plan
from fsmde_edge.compiler.predict.dla import Version, dla_way
from fsmde_edge.compiler.quantiser import scale_of
from fsmde_edge.errors import BundleError, InputError, OutputError, UsageError
from fsmde_edge.files import atomic_file, check_writable
from fsmde_edge.graph.model import (
    FLOAT,
    OPSET,
    check,
    constant,
    consumers,
    copy_model,
    first_line,
    import_onnx,
    initializers,
    load_model,
    model_bytes,
    tensor_types,
)
from fsmde_edge.graph.structure import commutes, computing_nodes, moved_inputs
from fsmde_edge.targets import load_target

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

_ELEMENTWISE = frozenset(["Add", "Sub", "Mul", "Max", "Min"])
_POOLING = frozenset(["MaxPool", "AveragePool"])


@dataclass(frozen=True, slots=True, kw_only=True)
class DlaExport:
    """What was written for a DLA.

    Attributes:
        cache: the calibration cache.
        network: the float network that it belongs to.
        precisions: one line, NODE:fp16,…, of the layers that stay float.
        sources: where the scales come from (plan, ranges, activation, golden, input) to how many.
    """

    cache: Path
    network: Path
    precisions: Path
    sources: Mapping[str, int]

    def trtexec(self) -> str:
        """The command that builds an engine of them on the device."""
        return (
            f"trtexec --onnx={quote(str(self.network))} --calib={quote(str(self.cache))} --int8 --fp16 "
            "--useDLACore=0 --allowGPUFallback --precisionConstraints=obey "
            f'--layerPrecisions="$(cat {quote(str(self.precisions))})"'
        )


def export_for_dla(
    bundle: Bundle, cache: Path, version: Version, *, threads: int, force: bool = False
) -> DlaExport:
    """Write a bundle's calibration cache, with its float network and the float layers' names beside it.

    Args:
        bundle: with an INT8 plan.
        cache: the file to write; the others have its name, with other endings.
        version: of the TensorRT that will read them.
        threads: to run the golden frames with.
        force: replace files that are there.

    Errors:
        UsageError: this TensorRT takes no calibration cache, or that is no name for one.
        BundleError: the bundle has no plan.
        OutputError: a file exists, or cannot be written; nothing was written then.
    """
    code = cache_version(version)
    network, precisions = _beside(cache)
    model, plan, ranges = read_decisions(bundle)
    refuse_to_write((network, precisions, cache), bundle, force=force)
    _refuse_unwritable_names(model)
    scales = tensor_scales(model, plan, ranges, bundle.golden(), threads=threads)
    export = DlaExport(
        cache=cache,
        network=network,
        precisions=precisions,
        sources=_count(scales),
    )
    floats = ",".join(f"{node}:{kind}" for node, kind in layer_precisions(model, plan).items())
    contents = (
        model_bytes(at_opset(model, opset_for(version))),
        f"{floats}\n".encode(),
        calibration_cache({name: scale.value for name, scale in scales.items()}, code),
    )
    with atomic_file(network) as one, atomic_file(precisions) as two, atomic_file(cache) as three:
        for path, content in zip((one, two, three), contents, strict=True):  # all three appear, or none
            path.write_bytes(content)
    return export


def refuse_to_write(files: Iterable[Path], bundle: Bundle, *, force: bool) -> None:
    """Nothing is written into a bundle, nor over a file unless `force`.

    Errors:
        UsageError, OutputError: one of the files cannot be written, for that reason or another.
    """
    for path in files:
        if path.resolve().is_relative_to(bundle.root.resolve()):
            raise UsageError("lies in the bundle, which is never changed", where=path, hint="write elsewhere")
        check_writable(path)
        if path.exists() and not force:
            raise OutputError(
                "already exists", where=path, hint="choose another name, or replace it with --force"
            )


def refuse_board_without_dla(target: str) -> None:
    """A board that has no DLA has no use for what is exported.

    Args:
        target: name of a profile; of one that is not shipped nothing is known.

    Errors:
        UsageError: it is such a board.
    """
    try:
        profile = load_target(target)[0]
    except InputError:
        return
    if profile.modes and not profile.dla_cores:
        raise UsageError(f"{target} has no DLA", hint="build with --target orin-agx-64gb")


def read_decisions(bundle: Bundle) -> tuple[ModelProto, Plan, Ranges]:
    """A bundle's FP32 network, and the plan and the ranges that were made for it.

    Errors:
        BundleError: it has none.
    """
    if bundle.manifest.precision != "int8":
        raise BundleError("has no INT8 plan", where=bundle.root, hint="build it again with --precision int8")
    model = load_model(bundle.model("fp32"))
    plan, ranges = Plan.load(bundle.root / "plan.json"), Ranges.load(bundle.root / "ranges.json")
    if {item.tensor for item in plan.activations} != set(_tensors(model)) - _inputs(model):
        raise BundleError(
            "is the plan of another network", where=bundle.root / "plan.json", hint="build the bundle again"
        )
    return model, plan, ranges


def _beside(cache: Path) -> tuple[Path, Path]:
    """Where the network and the names of its float layers go."""
    if cache.name in {"", ".."}:
        raise UsageError("is no name for a cache", where=cache, hint="name it, for example, dla.cache")
    network, precisions = cache.with_suffix(".onnx"), cache.with_suffix(".precisions")
    if cache in {network, precisions}:
        raise UsageError(f"a cache cannot end in {cache.suffix}", hint="name it, for example, dla.cache")
    return network, precisions


def _refuse_unwritable_names(model: ModelProto) -> None:
    """Both files are lines of names: one that holds their separators would be read as another."""
    names = [*_tensors(model), *(node.name for node in model.graph.node)]
    strange = next((name for name in names if not name or set(name) & set(" \t\r\n:,")), None)
    if strange is not None:
        raise InputError(
            f"a calibration cache cannot hold the name {strange!r}",
            hint="rename it in the ONNX file: no space, line break, colon or comma",
        )


def cache_version(version: Version) -> str:
    """A TensorRT version as a cache's first line writes it: NV_TENSORRT_VERSION of NvInferVersion.h.

    Errors:
        UsageError: no TensorRT of that version takes a cache, or its third number is needed.
    """
    if dla_way(version) != "implicit":
        raise UsageError(
            "TensorRT 11 takes no calibration cache: its DLA computes in the types of the network",
            hint="write a typed network: --placement dla --out FILE.onnx",
        )
    if version[0] < 10 and len(version) < 3:
        raise UsageError("a cache holds all three numbers of TensorRT 8", hint="give it as 8.5.2")
    major, minor, patch = (*version, 0)[:3]
    return str(major * (10_000 if major >= 10 else 1_000) + minor * 100 + patch)


def opset_for(version: Version) -> int:
    """The newest opset of ours that this TensorRT's parser reads (8.5 and 8.6: 17, operators/README.md of
    github.com/NVIDIA/Deep-Learning-Accelerator-SW).
    """
    return OPSET if version >= (10,) else 17


def calibration_cache(scales: Mapping[str, float], version: str) -> bytes:
    """A calibration cache: a header, then NAME: SCALE, as the eight hexadecimal digits of its float32.

    Args:
        scales: tensor to the step of its integers.
        version: as `cache_version` gives it.
    """
    lines = [f"{name}: {struct.pack('>f', scale).hex()}" for name, scale in scales.items()]
    return "\n".join([f"TRT-{version}-EntropyCalibration2", *lines, ""]).encode()


@dataclass(frozen=True, slots=True)
class Scale:
    """A tensor's scale, and where it comes from."""

    value: float
    source: str


def tensor_scales(
    model: ModelProto, plan: Plan, ranges: Ranges, golden: Golden, *, threads: int
) -> dict[str, Scale]:
    """A scale for every input, every output and every float tensor between, in the graph's order.

    Args:
        model: the float network.
        plan, ranges: of this network.
        golden: its frames, for tensors that calibration did not look at.
        threads: to run them with.
    """
    names, before = _tensors(model), _before_activations(model)
    scales = {item.tensor: Scale(item.scale, "plan") for item in plan.activations if item.scale is not None}
    for name in set(names) & set(ranges.tensors) - set(scales):
        scales[name] = Scale(scale_of(ranges.range_of(name, plan.calibrator)), "ranges")
    for info in model.graph.input:
        largest = np.abs(golden.focal).max() if info.name == "focal" else 255.0
        scales[info.name] = Scale(scale_of(float(largest)), "input")
    missing = [name for name in names if name not in scales and name not in before]
    batch = CalibrationBatch(images=golden.images, focal=golden.focal, valid=len(golden.images))
    seen = calibrate(model, [batch], missing, threads=threads).tensors if missing else {}
    scales |= {name: Scale(scale_of(found.max), "golden") for name, found in seen.items()}
    _share(model, scales)
    for name in reversed([name for name in names if name in before and name not in scales]):
        scales[name] = Scale(scales[before[name]].value, "activation")
    return {name: scales[name] for name in names}


def layer_precisions(model: ModelProto, plan: Plan) -> dict[str, str]:
    """The nodes that the plan keeps float, to fp16, or to fp32 where half precision would hurt."""
    int8 = {item.tensor for item in plan.activations if item.int8}
    weights = {item.tensor for item in plan.weights if item.int8}
    before, types, exact = _before_activations(model), tensor_types(model), float32_nodes(model)
    products = {node.name for node in computing_nodes(model)}
    found = {}
    for node in model.graph.node:
        if node.name in products:
            stays = node.input[0] not in int8 or node.input[1] not in weights
        else:
            made = {before.get(name, name) for name in node.output}
            stays = not made & int8 and all(types[name].dtype == FLOAT for name in node.output if name)
        if stays:
            found[node.name] = "fp32" if node.name in exact else "fp16"
    return found


def at_opset(model: ModelProto, opset: int) -> ModelProto:
    """The same network with an older opset, names and results kept.

    Errors:
        InputError: it uses what that opset has not.
    """
    if opset == OPSET:
        return model
    onnx = import_onnx()
    plain = copy_model(model)
    _drop_defaults(plain.graph, opset)
    try:
        older: ModelProto = onnx.version_converter.convert_version(plain, opset)
    except Exception as error:
        raise InputError(f"does not go into opset {opset} ({first_line(error)})") from error
    older.ir_version = 8
    check(older)
    return older


def _drop_defaults(graph: GraphProto, opset: int) -> None:
    """Remove attributes that say what an older opset does anyway, and has no name for."""
    from onnx import defs, helper

    for node in graph.node:
        newest = defs.get_schema(node.op_type, OPSET, "").attributes
        known = defs.get_schema(node.op_type, opset, "").attributes
        for item in list(node.attribute):
            default = newest[item.name].default_value if item.name in newest else None
            is_default = default is not None and helper.get_attribute_value(
                default
            ) == helper.get_attribute_value(item)
            if item.name not in known and is_default:
                node.attribute.remove(item)


def _tensors(model: ModelProto) -> list[str]:
    types = tensor_types(model)
    made = [name for node in model.graph.node for name in node.output if name]
    return [*(i.name for i in model.graph.input), *(name for name in made if types[name].dtype == FLOAT)]


def _inputs(model: ModelProto) -> set[str]:
    return {info.name for info in model.graph.input}


def _before_activations(model: ModelProto) -> dict[str, str]:
    """Tensors that one Relu, or Clip at 0, alone reads, to what it makes of them."""
    readers = consumers(model.graph)
    kept = {info.name for info in (*model.graph.input, *model.graph.output)}
    found = {}
    for node in model.graph.node:
        source = node.input[0] if node.input else ""
        alone = len(readers.get(source, [])) == 1 and source not in kept
        if alone and (node.op_type == "Relu" or (node.op_type == "Clip" and _at_zero(model.graph, node))):
            found[source] = node.output[0]
    return found


def _at_zero(graph: GraphProto, node: NodeProto) -> bool:
    low = constant(graph, node.input[1]) if len(node.input) > 1 and node.input[1] else None
    return low is not None and float(low.reshape(-1)[0]) >= 0


def _share(model: ModelProto, scales: dict[str, Scale]) -> None:
    """Give tensors that must agree the largest scale of theirs that was planned, or else measured."""
    parents = {name: name for name in scales}

    def root(name: str) -> str:
        while parents[name] != name:
            name = parents[name]
        return name

    constants = set(initializers(model.graph))
    for node in model.graph.node:
        together = [name for name in _together(node, constants) if name in scales]
        for name in together[1:]:
            parents[root(name)] = root(together[0])
    groups: dict[str, list[str]] = defaultdict(list)
    for name in scales:
        groups[root(name)].append(name)
    for members in groups.values():
        planned = [scales[name].value for name in members if scales[name].source == "plan"]
        value = max(planned or [scales[name].value for name in members])
        for name in members:
            scales[name] = Scale(value, scales[name].source)


def _together(node: NodeProto, constants: set[str]) -> list[str]:
    """The tensors around a node that a DLA wants in one scale."""
    if node.op_type in _ELEMENTWISE:
        return [name for name in node.input if name not in constants]
    if commutes(node) or node.op_type in _POOLING:
        return [*(name for name in moved_inputs(node) if name not in constants), *node.output]
    return []


def _count(scales: Mapping[str, Scale]) -> dict[str, int]:
    order = ("plan", "ranges", "activation", "golden", "input")
    sources = [scale.source for scale in scales.values()]
    return {name: sources.count(name) for name in order if name in sources}
