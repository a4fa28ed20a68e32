"""Names that say where a node comes from, and that are equal for equal networks.

Exporters number tensors from counters that depend on what else they did; recipes name nodes. So a node is
named after the module that made it where the file tells (its weight's name, or the exporter's scope), and
everything between nodes after the nodes.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

_SCOPES = "pkg.torch.onnx.name_scopes"
_OPERANDS = {
    "Conv": ("", "weight", "bias"),
    "ConvTranspose": ("", "weight", "bias"),
    "Gemm": ("", "weight", "bias"),
    "MatMul": ("", "weight"),
    "Resize": ("", "roi", "scales", "sizes"),
}


def name_by_module(graph: GraphProto) -> None:
    """Name nodes after their weight (`conv1.weight` makes `conv1`), or after the exporter's scope.

    To be called before metadata is stripped; nodes of which neither is known keep their names.
    """
    weights = {weight.name for weight in graph.initializer}
    for node in graph.node:
        owners = [name for name in node.input[1:2] if name in weights and name.endswith(".weight")]
        module = owners[0].removesuffix(".weight") if owners else _scope(node)
        if module:
            node.name = module
    name_nodes(graph)


def name_nodes(graph: GraphProto) -> None:
    """Give every node a unique name: its own, else one from its first output."""
    taken: set[str] = set()
    for node in graph.node:
        node.name = _free(node.name or f"{node.op_type}_{node.output[0]}", taken)
        taken.add(node.name)


def name_tensors(graph: GraphProto) -> None:
    """Name every tensor after the node that makes it, every constant after the node that first reads it.

    The graph's inputs and outputs keep their names, as does what goes by this rule already.
    """
    kept = {info.name for info in (*graph.input, *graph.output)} | {""}
    names: dict[str, str] = {}
    for node in graph.node:
        for i, name in enumerate(node.output):
            names[name] = f"{node.name}:{i}" if i else f"{node.name}.out"
    for node in graph.node:
        operands = _OPERANDS.get(node.op_type, ())
        for i, name in enumerate(node.input):
            names.setdefault(name, f"{node.name}.{operands[i] if i < len(operands) else f'operand{i}'}")
    names = _unique({old: new for old, new in names.items() if old not in kept}, kept)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for weight in graph.initializer:
        weight.name = names.get(weight.name, weight.name)
    del graph.value_info[:]


def _scope(node: NodeProto) -> str:
    """`module.Op` from the exporter's list of scopes; empty without one."""
    text = next((item.value for item in node.metadata_props if item.key == _SCOPES), "")
    try:
        scopes = ast.literal_eval(text) if text else []
    except (ValueError, SyntaxError):
        return ""
    module = scopes[-2] if isinstance(scopes, list) and len(scopes) > 1 else ""
    return f"{module}.{node.op_type}" if isinstance(module, str) and module else ""


def _unique(names: dict[str, str], taken: set[str]) -> dict[str, str]:
    used, found = set(taken), {}
    for old, new in names.items():
        found[old] = _free(new, used)
        used.add(found[old])
    return found


def _free(name: str, taken: set[str]) -> str:
    """The name, with a number where it is taken."""
    free, copies = name, 1
    while free in taken:
        copies += 1
        free = f"{name}_{copies}"
    return free
