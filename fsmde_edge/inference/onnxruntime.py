"""ONNX Runtime on the CPU: the backend that runs everywhere."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from fsmde_edge.errors import DeviceError, FsmdeError, InputError
from fsmde_edge.inference.machine import instructions, processor
from fsmde_edge.inference.program import ModelSession, Port, Program, Say, Tensors
from fsmde_edge.targets import BuilderOptions

NAME = "onnxruntime"

_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"} | {
    f"tensor({name})": name for name in ("uint8", "int8", "int32", "int64", "bool")
}


class OnnxRuntimeBackend:
    """An engine is an ONNX model, INT8 activations rewritten to unsigned ones (see `unsigned`)."""

    name = NAME
    candidates = ("int8", "fp32")
    stores = False
    hardware = ("processor", "instructions")

    def identity(self) -> Mapping[str, str]:
        """The processor, and the runtime that chooses kernels for it."""
        import onnxruntime

        return {
            "processor": processor(),
            "instructions": instructions(),
            "onnxruntime": str(onnxruntime.__version__),
        }

    def build(self, model: bytes, *, precision: str, options: BuilderOptions, say: Say) -> bytes:  # noqa: ARG002
        """The model as ONNX Runtime's CPU kernels fuse it."""
        return for_this_runtime(model, precision, exact=False)

    def meaning(self, model: bytes, *, precision: str) -> bytes:
        """The model with unsigned activations: twice as fine where no value is negative."""
        return for_this_runtime(model, precision, exact=False)

    def load(self, engine: bytes, *, precision: str, threads: int | None) -> Program:
        """A program with all of ONNX Runtime's optimisations."""
        return OnnxRuntimeProgram(engine, precision=precision, threads=threads)


class OnnxRuntimeProgram(Program):
    """A serialised model in ONNX Runtime, as it is.

    Args:
        model: serialised.
        precision: what it is, for the description.
        threads: of one inference; None lets ONNX Runtime decide.
        exact: compute Q/DQ in float32, node by node, as the graph says.
        where: the file that it comes from, for messages.
    """

    def __init__(
        self,
        model: bytes,
        *,
        precision: str,
        threads: int | None = None,
        exact: bool = False,
        where: object = None,
    ) -> None:
        import onnxruntime as ort

        options = _options(ort, threads, exact=exact)
        try:
            self._session: Any = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime raises a dozen classes of its own
            raise InputError(f"ONNX Runtime refuses the model ({_first_line(error)})", where=where) from error
        arithmetic = "Q/DQ in float" if exact or precision == "int8-fp16" else "fused kernels"
        super().__init__(
            backend=NAME,
            detail=f"ONNX Runtime {ort.__version__}, CPU, {threads or 'all'} threads, {arithmetic}",
            inputs=_ports(self._session.get_inputs()),
            outputs=_ports(self._session.get_outputs()),
        )

    def _run(self, feeds: Tensors) -> dict[str, NDArray[Any]]:
        names = list(self.outputs)
        try:
            return dict(zip(names, self._session.run(names, dict(feeds)), strict=True))
        except Exception as error:
            raise DeviceError(f"ONNX Runtime failed ({_first_line(error)})") from error

    def _close(self) -> None:
        self._session = None


class OnnxRuntimeSession(ModelSession):
    """A model of the contract in ONNX Runtime.

    INT8 models are rewritten to unsigned activations when the session opens, unless `exact`: the same plan,
    the way ONNX Runtime's CPU kernels fuse it (see `unsigned`).

    Args:
        model: path, or the serialised model.
        precision: what the model is.
        threads: of one inference; None lets ONNX Runtime decide.
        exact: compute Q/DQ in float32, node by node, as the graph says (for the gate and golden frames);
            otherwise integer kernels are fused where the CPU has them.
    """

    def __init__(
        self, model: Path | bytes, *, precision: str, threads: int | None = None, exact: bool = False
    ) -> None:
        where = None if isinstance(model, bytes) else model
        source = for_this_runtime(_content(model), precision, exact=exact, where=where)
        program = OnnxRuntimeProgram(source, precision=precision, threads=threads, exact=exact, where=where)
        super().__init__(program, precision=precision, where=where)


def for_this_runtime(model: bytes, precision: str, *, exact: bool, where: object = None) -> bytes:
    """A model as ONNX Runtime's CPU computes it best, or, `exact`, as the standard says.

    Raises:
        InputError: it is no ONNX, keeps weights in other files, or is no signed Q/DQ model though its
            precision is INT8.
    """
    from fsmde_edge.graph.model import import_onnx, model_bytes, refuse_external_data
    from fsmde_edge.inference.unsigned import lower, round_half

    try:
        proto = import_onnx().load_model_from_string(model)
        refuse_external_data(proto, where)
        if not precision.startswith("int8"):
            return model
        if precision == "int8-fp16":
            return model_bytes(round_half(proto))
        return model if exact else model_bytes(lower(proto))
    except InputError as error:
        raise InputError(error.what, where=error.where or where, hint=error.hint) from error
    except FsmdeError:
        raise
    except Exception as error:  # ONNX and protobuf raise a dozen classes of their own
        raise InputError(f"ONNX Runtime refuses the model ({_first_line(error)})", where=where) from error


def _content(model: Path | bytes) -> bytes:
    if isinstance(model, bytes):
        return model
    try:
        return model.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=model, hint="check the path") from error


def _ports(entries: Any) -> dict[str, Port]:
    """Names of edges that are not fixed are dropped; types beyond ours stay ONNX Runtime's own words."""
    return {
        entry.name: Port(
            dtype=_DTYPES.get(entry.type, entry.type),
            shape=tuple(edge if isinstance(edge, int) else None for edge in entry.shape),
        )
        for entry in entries
    }


def _options(ort: Any, threads: int | None, *, exact: bool) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    if exact:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    return options


def _first_line(error: Exception) -> str:
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error))
    return text.strip().splitlines()[0][:200] if text.strip() else type(error).__name__
