"""The plan as a typed graph for a DLA: TensorRT 11.4.1 and later, on AGX Orin.

For the GPU a convolution and its ReLU are one kernel, so the tensor between them needs no scale. A DLA's part
of the network is compiled as one piece, and a tensor without a scale in it makes that piece float16 or sends
it to the GPU (github.com/NVIDIA/Model-Optimizer, pull request 1661, which places Q/DQ for a DLA). So here
every tensor that a DLA makes has its Q/DQ, but for the layers that the plan keeps float. Scales are those of
the calibration cache (`dla.tensor_scales`); weights and biases are the bundle's INT8 model's own, with what
rounding and bias correction have learnt.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import numpy as np

from fsmde_edge.bundle import Bundle, Golden
from fsmde_edge.compiler.calibrate import Ranges
from fsmde_edge.compiler.half import to_half
from fsmde_edge.compiler.lowering.dla import layer_precisions, read_decisions, refuse_to_write, tensor_scales
from fsmde_edge.compiler.lowering.tensorrt import add_pair
from fsmde_edge.compiler.plan import Plan
from fsmde_edge.compiler.predict.dla import Version, dla_placement, dla_way
from fsmde_edge.errors import UsageError
from fsmde_edge.files import atomic_file
from fsmde_edge.graph.model import (
    FLOAT,
    add_constant,
    copy_model,
    load_model,
    model_bytes,
    sort_nodes,
    tensor_types,
    tidy,
)
from fsmde_edge.inference.onnxruntime import OnnxRuntimeSession

if TYPE_CHECKING:
    from onnx import ModelProto


@dataclass(frozen=True, slots=True, kw_only=True)
class TypedExport:
    """What was written.

    Attributes:
        network: the ONNX file.
        pairs: how many tensors have Q/DQ in it, and `gpu_pairs`, how many have for the GPU.
        deviation: mean |d - d32| / |d32| over the golden frame set, and `gpu_deviation`, the same of the
            bundle's own INT8 model.
    """

    network: Path
    pairs: int
    gpu_pairs: int
    deviation: float
    gpu_deviation: float

    def trtexec(self) -> str:
        """The command that builds an engine of it on the device."""
        return f"trtexec --onnx={quote(str(self.network))} --useDLACore=0 --allowGPUFallback"


def export_typed(
    bundle: Bundle, network: Path, version: Version, *, threads: int, force: bool = False
) -> TypedExport:
    """Write a bundle's network with Q/DQ where a DLA wants them, the rest in float16.

    Args:
        bundle: with an INT8 plan.
        network: the ONNX file to write.
        version: of the TensorRT that will read it.
        threads: to run the golden frames with.
        force: replace a file that is there.

    Errors:
        UsageError: this TensorRT has no DLA, or takes a calibration cache for it.
        BundleError: the bundle has no plan.
        OutputError: the file exists, or cannot be written; nothing was written then.
    """
    if dla_way(version) != "typed":
        raise UsageError(
            f"the DLA of TensorRT {'.'.join(map(str, version))} takes scales, not a typed graph",
            hint="write them with --calibration-cache FILE",
        )
    model, plan, ranges = read_decisions(bundle)
    refuse_to_write((network,), bundle, force=force)
    golden = bundle.golden()
    gpu = load_model(bundle.model("int8"))
    lowered = lower_for_dla(model, gpu, plan, ranges, golden, threads=threads)
    with atomic_file(network) as path:
        path.write_bytes(model_bytes(to_half(lowered)))
        deviation = _deviation(path, "int8-fp16", golden, threads)
    return TypedExport(
        network=network,
        pairs=_count_pairs(lowered),
        gpu_pairs=_count_pairs(gpu),
        deviation=deviation,
        gpu_deviation=_deviation(bundle.model("int8"), "int8", golden, threads),
    )


def lower_for_dla(
    model: ModelProto, lowered: ModelProto, plan: Plan, ranges: Ranges, golden: Golden, *, threads: int
) -> ModelProto:
    """Add to a lowered network the Q/DQ that a DLA wants, and give tensors that it wants in one scale one.

    Args:
        model: the FP32 network.
        lowered: its Q/DQ form for the GPU.
        plan, ranges: that it was lowered by.
        golden: frames, for tensors that calibration did not look at.
        threads: to run them with.

    Returns:
        A new network, float32 where it is not INT8.
    """
    scales = tensor_scales(model, plan, ranges, golden, threads=threads)
    planned = {item.tensor for item in plan.activations if item.int8}
    made = copy_model(lowered)
    for name in planned:
        _rescale(made, name, scales[name].value)
    for name in _wanted(model, plan):
        if name not in planned:
            add_pair(made.graph, name, scales[name].value, constant_name=f"{name}_scale")
    sort_nodes(made.graph)
    return tidy(made)


def _wanted(model: ModelProto, plan: Plan) -> Iterable[str]:
    """The tensors that a DLA makes in INT8, in the graph's order; the network's outputs stay float."""
    floats, types = layer_precisions(model, plan), tensor_types(model)
    inside = {item.node for item in dla_placement(model, "typed") if item.on_dla}
    outputs = {info.name for info in model.graph.output}
    for node in model.graph.node:
        if node.name in inside and node.name not in floats:
            yield from (n for n in node.output if n not in outputs and types[n].dtype == FLOAT)


def _rescale(model: ModelProto, name: str, scale: float) -> None:
    """Give one tensor's pair a scale of its own."""
    own = add_constant(model.graph, f"{name}_dla_scale", np.array(scale, dtype=np.float32))
    for node in model.graph.node:
        if node.name in {f"{name}_QuantizeLinear", f"{name}_DequantizeLinear"}:
            node.input[1] = own


def _count_pairs(model: ModelProto) -> int:
    return sum(node.op_type == "QuantizeLinear" for node in model.graph.node)


def _deviation(path: Path, precision: str, golden: Golden, threads: int) -> float:
    """Mean relative deviation of a network's exact depth from the golden FP32 depth."""
    with OnnxRuntimeSession(path, precision=precision, threads=threads, exact=True) as session:
        depth = session.infer(golden.images, golden.focal).depth
    reference = golden.depth["fp32"]
    return float(np.mean(np.abs(depth - reference) / np.abs(reference)))
