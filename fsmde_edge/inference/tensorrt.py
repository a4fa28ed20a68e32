"""TensorRT 10.3 and later on an NVIDIA GPU: engines that a child process builds, run on one stream.

One path for all versions: strongly typed, tensors by name, `execute_async_v3`. Every tensor has memory on the
device and pinned memory here for as long as the program lives.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.bundle import canonical_json
from fsmde_edge.errors import DeviceError, InputError, MissingExtra
from fsmde_edge.gpu.cuda import DeviceMemory, PinnedArray, Stream, describe, runtime
from fsmde_edge.inference.builder import Job, build_in_child
from fsmde_edge.inference.program import Port, Program, Say, Tensors
from fsmde_edge.inference.store import Store
from fsmde_edge.inference.tensorrt_log import collecting_logger, first_error
from fsmde_edge.targets import BuilderOptions

NAME = "tensorrt"
Writer = Callable[[int], None]
"""Starts what writes an input, given where that lies on the device."""


class TensorRtBackend:
    """An engine is a TensorRT plan: native code for one GPU and one version."""

    name = NAME
    candidates = ("int8-fp16", "fp16")
    stores = True
    hardware = ("gpu", "sm")

    def identity(self) -> Mapping[str, str]:
        """The GPU, and the versions that a plan is bound to."""
        return {NAME: str(_import_tensorrt().__version__), **describe(runtime())}

    def build(self, model: bytes, *, precision: str, options: BuilderOptions, say: Say) -> bytes:
        """A plan, built in a child process with the timings that the store kept of earlier builds."""
        store, name = Store(), f"timing-{_digest(self.identity())}"
        built = build_in_child(
            model,
            Job(module=NAME, options=options),
            cache=store.cache(name) or b"",
            say=lambda line: say(f"{NAME} {precision}: {line}"),
        )
        if built.answer.error:
            raise InputError(f"TensorRT {built.answer.version} refuses the model ({built.answer.error})")
        if built.cache:
            store.keep_cache(name, built.cache)
        return built.engine

    def meaning(self, model: bytes, *, precision: str) -> bytes:  # noqa: ARG002
        """The model itself: a strongly typed Q/DQ graph is taken at its word."""
        return model

    def load(self, engine: bytes, *, precision: str, threads: int | None) -> Program:  # noqa: ARG002
        """A program on a stream of its own."""
        return TensorRtProgram(engine)


class TensorRtProgram(Program):
    """A plan, ready to run on the first GPU.

    Args:
        engine: native code: load only what the engine store vouches for.
    """

    def __init__(self, engine: bytes) -> None:
        trt, bindings = _import_tensorrt(), runtime()
        self._messages: list[tuple[Any, str]] = []
        self._trt, self._log = trt, collecting_logger(trt, self._messages)
        self._runtime: Any = trt.Runtime(self._log)
        self._engine: Any = self._runtime.deserialize_cuda_engine(engine)
        if self._engine is None:
            raise DeviceError(f"TensorRT cannot load the engine ({first_error(trt, self._messages)})")
        self._context: Any = self._engine.create_execution_context()
        if self._context is None:
            raise DeviceError(
                f"TensorRT has no room to run the engine ({first_error(trt, self._messages)})",
                hint="free some memory and run again",
            )
        inputs, outputs = self._ports(trt.TensorIOMode.INPUT), self._ports(trt.TensorIOMode.OUTPUT)
        device = describe(bindings)
        with ExitStack() as owned:
            self._stream = Stream(bindings)
            owned.callback(self._stream.close)
            self._device: dict[str, DeviceMemory] = {}
            self._pinned: dict[str, PinnedArray] = {}
            for name, port in {**inputs, **outputs}.items():
                self._own(owned, bindings, name, port)
            self._owned = owned.pop_all()
        super().__init__(
            backend=NAME,
            detail=f"TensorRT {trt.__version__}, {device['gpu']} (SM {device['sm']}), CUDA {device['cuda']}, "
            f"{self._engine.num_layers} layers",
            inputs=inputs,
            outputs=outputs,
        )

    def inspect(self) -> Any:
        """The engine's layers, as TensorRT's inspector lists them."""
        inspector = self._engine.create_engine_inspector()
        return json.loads(inspector.get_engine_information(self._trt.LayerInformationFormat.JSON))

    @property
    def stream(self) -> Stream:
        """Where it runs; owned by the program."""
        return self._stream

    def run_in_place(self, writers: Mapping[str, Writer], feeds: Tensors) -> dict[str, NDArray[Any]]:
        """Run it once with inputs that the device writes itself, straight where the network reads them.

        Args:
            writers: some inputs, by name, each with what starts its writing on `stream`.
            feeds: the others.

        Returns:
            Every output, by name; the caller's own.

        Raises:
            InputError: an input is missing, unknown, or of another type or shape.
            DeviceError: the program is closed, a writer failed, or TensorRT did.
        """
        if not self._open:
            raise DeviceError(f"the {self.backend} program is closed")
        if sorted((*writers, *feeds)) != sorted(self.inputs):
            raise InputError(
                f"the program takes {', '.join(self.inputs)}, not {', '.join((*writers, *feeds))}"
            )
        for name, value in feeds.items():
            if not self.inputs[name].takes(value):
                raise InputError(
                    f"the program takes {self.inputs[name]} for {name}, not {value.dtype} {value.shape}"
                )
        for name, write in writers.items():
            write(self._device[name].pointer)
        return self._run(feeds)

    def _run(self, feeds: Tensors) -> dict[str, NDArray[Any]]:
        self._messages.clear()
        for name, value in feeds.items():
            np.copyto(self._pinned[name].array, value)
            self._stream.upload(self._device[name], self._pinned[name])
        if not self._context.execute_async_v3(self._stream.handle):
            raise DeviceError(f"TensorRT failed ({first_error(self._trt, self._messages)})")
        for name in self.outputs:
            self._stream.download(self._pinned[name], self._device[name])
        self._stream.wait()
        return {name: self._pinned[name].array.copy() for name in self.outputs}

    def _close(self) -> None:
        self._context = self._engine = self._runtime = None  # before the memory that they point to
        self._owned.close()

    def _ports(self, mode: Any) -> dict[str, Port]:
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        return {
            name: Port(
                dtype=np.dtype(self._trt.nptype(self._engine.get_tensor_dtype(name))).name,
                shape=tuple(int(edge) for edge in self._engine.get_tensor_shape(name)),
            )
            for name in names
            if self._engine.get_tensor_mode(name) == mode
        }

    def _own(self, owned: ExitStack, bindings: Any, name: str, port: Port) -> None:
        """Memory for one tensor, here and there; the context is told where."""
        shape, dtype = tuple(int(edge or 0) for edge in port.shape), np.dtype(port.dtype)
        pinned = PinnedArray(bindings, shape, dtype)
        owned.callback(pinned.close)
        device = DeviceMemory(bindings, pinned.array.nbytes)
        owned.callback(device.close)
        self._pinned[name], self._device[name] = pinned, device
        if not self._context.set_tensor_address(name, device.pointer):
            raise DeviceError(
                f"TensorRT takes no memory for {name} ({first_error(self._trt, self._messages)})"
            )


def _import_tensorrt() -> Any:
    try:
        import tensorrt
    except ModuleNotFoundError as error:
        if error.name != NAME:
            raise DeviceError(f"TensorRT does not load ({error})", hint="run: fsmde-edge doctor") from error
        raise MissingExtra(NAME, extra="tensorrt", why=f"the backend {NAME}") from error
    except ImportError as error:
        raise DeviceError(f"TensorRT does not load ({error})", hint="run: fsmde-edge doctor") from error
    return tensorrt


def _digest(identity: Mapping[str, str]) -> str:
    return hashlib.sha256(canonical_json(dict(identity))).hexdigest()[:16]
