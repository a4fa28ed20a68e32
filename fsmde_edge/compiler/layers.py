"""The layers of a model for people: kernels by our model of full TensorRT, what RTX made of it, and what a
DLA would take.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from fsmde_edge.compiler.aot import ARCHITECTURE, AotBuild, available, build_ahead
from fsmde_edge.compiler.predict.dla import (
    LOADABLES,
    Way,
    count_loadables,
    dla_placement,
    dla_way,
    parse_version,
)
from fsmde_edge.compiler.predict.fusion import Kernel, fuse
from fsmde_edge.compiler.predict.rules import check_rules
from fsmde_edge.graph.model import has_quantisation, load_model


def layer_lines(path: Path) -> Iterator[str]:
    """Lines to print: our kernels, broken rules if it is a Q/DQ model, RTX's layers if its extra is there.

    Args:
        path: an ONNX file.
    """
    model = load_model(path)
    kernels = fuse(model)
    kinds = Counter(f"{kernel.kind} {kernel.precision}" for kernel in kernels)
    yield f"\nkernels of {path.name} by our model of TensorRT, not what a device built: {_counted(kinds)}"
    yield from map(_kernel_line, kernels)
    if has_quantisation(model):
        broken = check_rules(model)
        yield f"\nrules of Q/DQ for TensorRT: {len(broken)} broken"
        yield from (f"  {violation}" for violation in broken)
    if available():
        yield from _rtx_lines(build_ahead(path))
    else:
        yield "\nTensorRT for RTX is not installed: its layers are not shown (pip install 'fsmde-edge[rtx]')"


_WAYS = {
    "implicit": "scales beside the float network: fsmde-edge export --calibration-cache",
    "typed": "INT8 and float16 by the network's types: fsmde-edge export --placement dla",
}
"""How a DLA is used, in words."""


def dla_lines(path: Path, tensorrt: str) -> Iterator[str]:
    """Lines to print: how this TensorRT uses a DLA, what runs on it, and what falls back and why.

    Args:
        path: the bundle's FP32 network.
        tensorrt: a version.

    Errors:
        UsageError: no version, or one without DLA.
    """
    way: Way = dla_way(parse_version(tensorrt))
    model = load_model(path)
    placement = dla_placement(model, way)
    inside = [item for item in placement if item.on_dla]
    pieces = count_loadables(model, placement)
    yield f"\nDLA with TensorRT {tensorrt}: {_WAYS[way]}"
    yield "by NVIDIA's documentation, not what a device built (trtexec --verbose lists what it really did):"
    yield (
        f"{len(inside)} of {len(placement)} nodes run on the DLA, in at least {pieces} loadables (a core "
        f"holds {LOADABLES}): {_counted(Counter(item.kind for item in inside))}"
    )
    yield f"{len(placement) - len(inside)} fall back to the GPU:"
    yield from (f"  {item.kind:14s} {item.node}: {item.reason}" for item in placement if not item.on_dla)


def _kernel_line(kernel: Kernel) -> str:
    kib = (kernel.read_bytes + kernel.write_bytes + kernel.weight_bytes) / 1024
    note = f"  [{kernel.note}]" if kernel.note else ""
    nodes = " + ".join(kernel.nodes) or kernel.name
    cost = f"{kernel.macs / 1e6:9.2f} MMAC {kib:9.1f} KiB"
    return f"  {kernel.kind:11s} {kernel.precision:4s} {cost}  {nodes}{note}"


def _rtx_lines(build: AotBuild) -> Iterator[str]:
    label = f"TensorRT for RTX {build.version}, {ARCHITECTURE}, ahead of time (not Orin's fusion)"
    if not build.accepted:
        yield f"\n{label}: refused: {build.error}"
        return
    yield f"\n{label}: plan {build.plan_bytes / 1e6:.2f} MB, {_counted(Counter(build.kinds))}"
    for layer in build.layers:
        types = f"{'/'.join(layer.reads)} -> {'/'.join(layer.writes)}"
        yield f"  {layer.kind:16s} {types:24s} {' + '.join(layer.nodes) or layer.name}"


def _counted(kinds: Counter[str]) -> str:
    return ", ".join(f"{count} {kind.strip()}" for kind, count in kinds.most_common())
