"""ONNX Runtime on the CPU: the backend that runs everywhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.errors import DeviceError, FsmdeError, InputError
from fsmde_edge.inference.session import Inference, Session


class OnnxRuntimeSession(Session):
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
        import onnxruntime as ort

        where = None if isinstance(model, bytes) else model
        try:
            options = _options(ort, threads, exact=exact)
            source = model if isinstance(model, bytes) else model.read_bytes()
            if precision.startswith("int8"):
                source = _for_this_runtime(source, precision, exact=exact)
            self._session: Any = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except InputError as error:
            raise InputError(error.what, where=error.where or where, hint=error.hint) from error
        except FsmdeError:
            raise
        except Exception as error:  # ONNX and ONNX Runtime raise a dozen classes of their own
            raise InputError(f"ONNX Runtime refuses the model ({_first_line(error)})", where=where) from error
        outputs = {output.name: output for output in self._session.get_outputs()}
        self._outputs = [name for name in ("depth", "confidence") if name in outputs]
        shape = {entry.name: entry.shape for entry in self._session.get_inputs()}.get("images", [])
        if "depth" not in outputs or len(shape) != 4 or not all(isinstance(n, int) for n in shape):
            raise InputError(
                "is not a model of our contract (images uint8 [V, H, W, 3] to depth [V, H, W])", where=where
            )
        arithmetic = "Q/DQ in float" if exact or precision == "int8-fp16" else "fused kernels"
        super().__init__(
            backend="onnxruntime",
            precision=precision,
            detail=f"ONNX Runtime {ort.__version__}, CPU, {threads or 'all'} threads, {arithmetic}",
            shape=(shape[0], shape[1], shape[2]),
        )

    def _infer(self, images: NDArray[np.uint8], focal: NDArray[np.float32]) -> Inference:
        try:
            values = self._session.run(self._outputs, {"images": images, "focal": focal})
        except Exception as error:
            raise DeviceError(f"ONNX Runtime failed ({_first_line(error)})") from error
        named = dict(zip(self._outputs, values, strict=True))
        return Inference(depth=named["depth"], confidence=named.get("confidence"))

    def _close(self) -> None:
        self._session = None


def _options(ort: Any, threads: int | None, *, exact: bool) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    if exact:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    return options


def _for_this_runtime(model: bytes, precision: str, *, exact: bool) -> bytes:
    """An INT8 model as ONNX Runtime's CPU computes it best, or, `exact`, as the standard says."""
    from fsmde_edge.graph.model import import_onnx, model_bytes
    from fsmde_edge.inference.unsigned import lower, round_half

    proto = import_onnx().load_model_from_string(model)
    if precision == "int8-fp16":
        return model_bytes(round_half(proto))
    return model if exact else model_bytes(lower(proto))


def _first_line(error: Exception) -> str:
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error))
    return text.strip().splitlines()[0][:200] if text.strip() else type(error).__name__
