"""Build a model ahead of time with TensorRT for RTX, on a machine without a GPU (extra `rtx`).

It proves that NVIDIA's parser and builder take the graph, strongly typed, and how large the plan is. It
proves nothing about Orin: RTX builds for SM 8.6, fuses by rules of its own (it writes an INT8 convolution's
result as float and requantises in another kernel) and times nothing. Full TensorRT's fusion is modelled in
`predict/fusion.py`.

The build runs in a child process: native code that runs out of memory takes only the child with it. The
builder's layer table stands in its verbose log; an engine inspector would need a GPU to load the plan.
"""

from __future__ import annotations

import difflib
import json
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fsmde_edge.errors import DeviceError, MissingExtra
from fsmde_edge.recipes import from_mapping

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
    """

    version: str
    error: str
    plan_bytes: int
    seconds: float
    layers: tuple[Layer, ...]

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
    return find_spec(MODULE) is not None


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
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        command = [sys.executable, "-m", "fsmde_edge.compiler.aot", str(path), str(answer)]
        try:
            child = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST, check=False)
        except subprocess.TimeoutExpired as error:
            raise DeviceError(f"building ahead of time took more than {LONGEST} s", where=path) from error
        if child.returncode or not answer.is_file():
            raise DeviceError(
                f"the child that builds ahead of time died ({_reason(child)})",
                where=path,
                hint="free some memory and run again",
            )
        return from_mapping(AotBuild, json.loads(answer.read_text(encoding="utf-8")), where=path)


def layer_diff(before: AotBuild, after: AotBuild) -> list[str]:
    """What differs between the layers of two plans: lines that start with - or +; empty if nothing does."""
    old, new = ([_line(layer) for layer in build.layers] for build in (before, after))
    lines = difflib.unified_diff(old, new, lineterm="", n=0)
    return [line for line in lines if not line.startswith(("---", "+++", "@@"))]


def _line(layer: Layer) -> str:
    """A layer without what only counts up (kernel and tensor numbers)."""
    nodes = ", ".join(sorted(layer.nodes)) or re.sub(r"\d+", "#", layer.name)
    return f"{layer.kind} {'/'.join(layer.reads)} -> {'/'.join(layer.writes)}: {nodes}"


def _reason(child: subprocess.CompletedProcess[str]) -> str:
    if child.returncode < 0:
        return f"signal {-child.returncode}" + (", out of memory" if child.returncode == -9 else "")
    lines = child.stderr.strip().splitlines()
    return lines[-1][:200] if lines else f"exit code {child.returncode}"


def _build(path: Path) -> AotBuild:
    """The child's half."""
    import tensorrt_rtx_bindings as trt

    messages: list[tuple[Any, str]] = []

    class Log(trt.ILogger):  # type: ignore[misc]  # the class has no types
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            messages.append((severity, message))

    log, start = Log(), time.perf_counter()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    plan, error = None, ""
    if parser.parse(path.read_bytes()):
        plan = builder.build_serialized_network(network, _config(trt, builder))
    else:
        error = _first(parser.get_error(i).desc() for i in range(parser.num_errors))
    if plan is None and not error:
        error = _first(text for severity, text in messages if severity <= trt.ILogger.Severity.ERROR)
    return AotBuild(
        version=str(trt.__version__),
        error=error,
        plan_bytes=0 if plan is None else int(plan.nbytes),
        seconds=time.perf_counter() - start,
        layers=tuple(_layers("\n".join(text for _, text in messages))) if plan is not None else (),
    )


def _config(trt: Any, builder: Any) -> Any:
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, ARCHITECTURE), 0)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    return config


def _first(texts: Any) -> str:
    """The first line of the first text, with the next where it only names the node."""
    lines = [line.strip() for line in next(iter(texts), "").strip().splitlines()]
    if not lines:
        return "refused without a reason"
    return ": ".join(lines[:2]) if lines[0].startswith("Invalid Node") else str(lines[0])


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


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(asdict(_build(Path(sys.argv[1])))), encoding="utf-8")
