"""Build a model ahead of time with TensorRT for RTX, on a machine without a GPU (extra `rtx`).

It proves that NVIDIA's parser and builder take the graph, strongly typed, and how large the plan is. It
proves nothing about Orin: RTX builds for SM 8.6, fuses by rules of its own (it writes an INT8 convolution's
result as float and requantises in another kernel) and times nothing. Full TensorRT's fusion is modelled in
`predict/fusion.py`.

The build runs in the child process that builds engines on a device too (`inference.builder`). The builder's
layer table stands in its verbose log; an engine inspector would need a GPU to load the plan.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fsmde_edge.errors import InputError, MissingExtra
from fsmde_edge.inference.builder import Job, build_in_child, installed
from fsmde_edge.targets import BuilderOptions

MODULE = "tensorrt_rtx_bindings"
ARCHITECTURE = "SM86"
"""The relative of Orin's SM 8.7 that RTX builds for."""

LONGEST = 600
"""Seconds that one build may take."""

_LAYER = re.compile(r"^Name: (?P<name>[^,]+), LayerType: (?P<kind>[^,]+), (?P<rest>.*)$", re.MULTILINE)
_TYPE = re.compile(r"Datatype: (\w+)")
_NODE = re.compile(r"\[ONNX Layer: ([^\]]+)\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer of a plan, as RTX's builder lists it.

    Attributes:
        name, kind: its name and its own word for what it is (correlation, kgen, …).
        reads, writes: element types of inputs and outputs.
        nodes: ONNX nodes that it comes from.
    """

    name: str
    kind: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AotBuild:
    """What came of one build.

    Attributes:
        version: of TensorRT for RTX.
        error: what the parser or builder said when it refused, its first line; empty if it accepted.
        plan_bytes: size of the plan; 0 if refused.
        seconds: of parsing and building.
        layers: of the plan.
        inputs, outputs: name to type and shape, as `inference.program.Port` prints them.
    """

    version: str
    error: str
    plan_bytes: int
    seconds: float
    layers: tuple[Layer, ...]
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)

    @property
    def accepted(self) -> bool:
        """Whether NVIDIA's parser and builder took the model."""
        return not self.error

    @property
    def kinds(self) -> dict[str, int]:
        """Kind and what it writes, as `correlation Float`, to the number of layers; most first."""
        return dict(Counter(f"{layer.kind} {'/'.join(layer.writes)}" for layer in self.layers).most_common())


def available() -> bool:
    """Whether the extra `rtx` is installed."""
    return installed(MODULE)


def build_ahead(path: Path) -> AotBuild:
    """Build a plan for SM 8.6 in a child process, and throw it away.

    Args:
        path: an ONNX file.

    Errors:
        MissingExtra: without the extra `rtx`.
        DeviceError: the child died (out of memory) or took longer than `LONGEST` seconds.
    """
    if not available():
        raise MissingExtra(MODULE, extra="rtx", why="building ahead of time")
    try:
        model = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=path, hint="check the path") from error
    job = Job(module=MODULE, options=BuilderOptions(), capability=ARCHITECTURE)
    built = build_in_child(model, job, limit=LONGEST, where=path)
    return AotBuild(
        version=built.answer.version,
        error=built.answer.error,
        plan_bytes=len(built.engine),
        seconds=built.answer.seconds,
        layers=tuple(_layers(built.answer.log)),
        inputs=built.answer.inputs,
        outputs=built.answer.outputs,
    )


def layer_diff(before: AotBuild, after: AotBuild) -> list[str]:
    """What differs between the layers of two plans: lines that start with - or +; empty if nothing does."""
    old, new = ([_line(layer) for layer in build.layers] for build in (before, after))
    lines = difflib.unified_diff(old, new, lineterm="", n=0)
    return [line for line in lines if not line.startswith(("---", "+++", "@@"))]


def _line(layer: Layer) -> str:
    """A layer without what only counts up (kernel and tensor numbers)."""
    nodes = ", ".join(sorted(layer.nodes)) or re.sub(r"\d+", "#", layer.name)
    return f"{layer.kind} {'/'.join(layer.reads)} -> {'/'.join(layer.writes)}: {nodes}"


def _layers(text: str) -> list[Layer]:
    found = []
    for match in _LAYER.finditer(text):
        inputs, _, outputs = match["rest"].partition("], Outputs: [")
        found.append(
            Layer(
                name=match["name"],
                kind=match["kind"],
                reads=tuple(_TYPE.findall(inputs.partition("], Constants: [")[0])),
                writes=tuple(_TYPE.findall(outputs)),
                nodes=tuple(_NODE.findall(outputs)),
            )
        )
    return found
