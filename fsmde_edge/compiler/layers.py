"""The layers of a model for people: kernels by our model of full TensorRT, and what RTX made of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from fsmde_edge.compiler.aot import ARCHITECTURE, AotBuild, available, build_ahead
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
