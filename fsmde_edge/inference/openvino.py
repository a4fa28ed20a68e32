"""OpenVINO on the CPU: INT8 straight from the signed Q/DQ model, and FP32 that is FP32.

The bundle's `model.int8.onnx` needs no lowering of its own: OpenVINO runs signed Q/DQ with zero point 0
as integers throughout, where the unsigned form that suits ONNX Runtime would leave the first convolution
float. By itself it takes bfloat16 for what is float on CPUs that have it: here the hint says float32.
What it really chose is read from its execution graph and told in `detail`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from fsmde_edge.errors import DeviceError, InputError, MissingExtra
from fsmde_edge.inference.machine import instructions, processor
from fsmde_edge.inference.program import Port, Program, Say, Tensors
from fsmde_edge.targets import BuilderOptions

NAME = "openvino"

PRODUCTS = frozenset(["Convolution", "Deconvolution", "FullyConnected", "MatMul"])
"""Kinds of layer that do the work, as the execution graph names them (products of a pooled vector may be
fused into one of its Subgraphs, and are not counted).
"""

_INTEGERS = frozenset(["u8", "i8"])


class OpenVinoBackend:
    """An engine is the bundle's ONNX model as it is."""

    name = NAME
    candidates = ("int8", "fp32")
    stores = False
    hardware = ("processor", "instructions")

    def identity(self) -> Mapping[str, str]:
        """The processor, and the runtime that chooses kernels for it."""
        version = str(_import_openvino().get_version())
        return {"processor": processor(), "instructions": instructions(), NAME: version}

    def build(self, model: bytes, *, precision: str, options: BuilderOptions, say: Say) -> bytes:  # noqa: ARG002
        """The model itself: OpenVINO fuses while it loads, in a second or so."""
        _import_openvino()
        return model

    def meaning(self, model: bytes, *, precision: str) -> bytes:  # noqa: ARG002
        """The model itself."""
        return model

    def load(self, engine: bytes, *, precision: str, threads: int | None) -> Program:
        """A program for one inference at a time."""
        return OpenVinoProgram(engine, precision=precision, threads=threads)


class OpenVinoProgram(Program):
    """A serialised ONNX model in OpenVINO.

    Args:
        model: serialised.
        precision: what it is; a Q/DQ model of which nothing runs in INT8 is refused.
        threads: of one inference; None lets OpenVINO decide.
        where: the file that it comes from, for messages.

    Attributes:
        layers: (kind of layer, runtime precision) to how many the execution graph has.
    """

    def __init__(
        self, model: bytes, *, precision: str, threads: int | None = None, where: object = None
    ) -> None:
        openvino = _import_openvino()
        try:
            core = openvino.Core()
            self._compiled: Any = core.compile_model(core.read_model(model), "CPU", _options(threads))
            self._request: Any = self._compiled.create_infer_request()
            hint = self._compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        except Exception as error:  # OpenVINO raises RuntimeError for everything
            raise InputError(f"OpenVINO refuses the model ({_reason(error)})", where=where) from error
        self.layers = layers_of(self._compiled)
        integer, total = count_int8(self.layers)
        if hint != "f32" or (not integer and precision.startswith("int8") and _multiplies_integers(model)):
            self._close()
            ran = f"{hint}, {integer} of {total} convolutions and products in INT8"
            raise DeviceError(f"OpenVINO would not run {precision} on this processor ({ran})", where=where)
        self._read = _ports(self._compiled.inputs)
        super().__init__(
            backend=NAME,
            detail=f"OpenVINO {openvino.get_version().partition('-')[0]}, CPU, {threads or 'all'} threads, "
            f"float32, {integer} of {total} convolutions and products in INT8",
            inputs={**_declared(model), **self._read},
            outputs=_ports(self._compiled.outputs),
        )

    def _run(self, feeds: Tensors) -> dict[str, NDArray[Any]]:
        try:
            values = self._request.infer({name: feeds[name] for name in self._read}).to_tuple()
        except Exception as error:
            raise DeviceError(f"OpenVINO failed ({_reason(error)})") from error
        return dict(zip(self.outputs, values, strict=True))

    def _close(self) -> None:
        self._request = self._compiled = None


def layers_of(compiled: Any) -> dict[tuple[str, str], int]:
    """What a compiled model's execution graph holds: (kind of layer, runtime precision) to how many."""
    found: dict[tuple[str, str], int] = {}
    for node in compiled.get_runtime_model().get_ordered_ops():
        facts = node.get_rt_info()
        key = (facts["layerType"].astype(str), facts["runtimePrecision"].astype(str))
        found[key] = found.get(key, 0) + 1
    return found


def count_int8(layers: Mapping[tuple[str, str], int]) -> tuple[int, int]:
    """How many convolutions and products compute in integers, and how many there are."""
    work = {precision: 0 for _, precision in layers}
    for (kind, precision), count in layers.items():
        work[precision] += count if kind in PRODUCTS else 0
    return sum(work.get(name, 0) for name in _INTEGERS), sum(work.values())


def _multiplies_integers(model: bytes) -> bool:
    """Whether a convolution or product has two dequantised operands: a piece of a network may have none."""
    from fsmde_edge.graph.model import import_onnx
    from fsmde_edge.graph.structure import computing_nodes

    proto = import_onnx().load_model_from_string(model)
    nodes = [node for node in proto.graph.node if node.op_type == "DequantizeLinear"]
    dequantised = {name for node in nodes for name in node.output}
    return any(dequantised.issuperset(node.input[:2]) for node in computing_nodes(proto))


def _declared(model: bytes) -> dict[str, Port]:
    """The inputs that a model declares: OpenVINO drops those that nothing reads."""
    from onnx.helper import tensor_dtype_to_np_dtype

    from fsmde_edge.graph.model import import_onnx

    return {
        info.name: Port(
            dtype=tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type).name,
            shape=tuple(edge.dim_value or None for edge in info.type.tensor_type.shape.dim),
        )
        for info in import_onnx().load_model_from_string(model).graph.input
    }


def _options(threads: int | None) -> dict[str, object]:
    options: dict[str, object] = {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "CACHE_DIR": "",
    }
    return options if threads is None else {**options, "INFERENCE_NUM_THREADS": threads}


def _ports(entries: Any) -> dict[str, Port]:
    """In order; of several names that OpenVINO knows for one tensor, the first in the alphabet."""
    return {
        min(entry.get_names()): Port(
            dtype=entry.element_type.to_dtype().name,
            shape=tuple(edge.get_length() if edge.is_static else None for edge in entry.partial_shape),
        )
        for entry in entries
    }


def _reason(error: Exception) -> str:
    """The line that says what is wrong: OpenVINO puts the places in its own code before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Exception from", "Check "))]
    return (told or lines or [type(error).__name__])[0][:200]


def _import_openvino() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise MissingExtra(NAME, extra=NAME, why="the backend openvino") from error
    return openvino
