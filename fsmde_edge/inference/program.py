"""Models made ready on a backend: any inputs to any outputs, and the backend that makes them.

A `Backend` turns a model into an engine (bytes that are valid for one `identity`) and an engine into a
`Program`. `ModelSession` is a program of the model contract: pictures in, metric depth out. Engines of pieces
of a network are programs too, and that is how a wrong one is found.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.errors import DeviceError, InputError
from fsmde_edge.inference.session import Inference, Session
from fsmde_edge.targets import BuilderOptions

Tensors = Mapping[str, NDArray[Any]]
Say = Callable[[str], None]
Self = TypeVar("Self", bound="Program")


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """One input or output of a program.

    Attributes:
        dtype: of its elements, as NumPy names it.
        shape: None for an edge that is not fixed.
    """

    dtype: str
    shape: tuple[int | None, ...]

    def takes(self, value: NDArray[Any]) -> bool:
        """Whether an array is of this type and shape."""
        return (
            value.dtype == np.dtype(self.dtype)
            and value.ndim == len(self.shape)
            and all(edge in (None, size) for edge, size in zip(self.shape, value.shape, strict=True))
        )

    def __str__(self) -> str:
        return f"{self.dtype} [{', '.join('?' if edge is None else str(edge) for edge in self.shape)}]"


class Program(ABC):
    """A model ready to run.

    Attributes:
        backend: `onnxruntime`, …
        detail: what really runs, in words (provider, threads, arithmetic).
        inputs, outputs: name to type and shape.
    """

    def __init__(
        self, *, backend: str, detail: str, inputs: Mapping[str, Port], outputs: Mapping[str, Port]
    ) -> None:
        self.backend, self.detail, self.inputs, self.outputs = backend, detail, inputs, outputs
        self._open = True

    def run(self, feeds: Tensors) -> dict[str, NDArray[Any]]:
        """Run it once.

        Args:
            feeds: every input, by name.

        Returns:
            Every output, by name; the caller's own.

        Raises:
            InputError: an input is missing, unknown, or of another type or shape.
            DeviceError: the program is closed, or the backend failed.
        """
        if not self._open:
            raise DeviceError(f"the {self.backend} program is closed")
        if feeds.keys() != self.inputs.keys():
            raise InputError(f"the program takes {', '.join(self.inputs)}, not {', '.join(feeds)}")
        for name, port in self.inputs.items():
            if not port.takes(feeds[name]):
                found = f"{feeds[name].dtype} {list(feeds[name].shape)}"
                raise InputError(f"the program takes {port} for {name}, not {found}")
        return self._run(feeds)

    def inspect(self) -> Any:
        """What the backend says of its layers, as plain values; None where it says nothing."""
        return None

    def close(self) -> None:
        """Free what the backend holds; a second call does nothing."""
        if self._open:
            self._open = False
            self._close()

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @abstractmethod
    def _run(self, feeds: Tensors) -> dict[str, NDArray[Any]]: ...

    @abstractmethod
    def _close(self) -> None: ...


class Backend(Protocol):
    """What makes engines and runs them.

    Attributes:
        name: as in `backends.BACKENDS`.
        candidates: precisions worth trying, the one that should be fastest first.
        stores: whether an engine is too dear to build each time, so that it is kept in the engine store.
        hardware: keys of `identity` that name hardware; the others change with an upgrade.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def candidates(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def stores(self) -> bool: ...  # noqa: D102
    @property
    def hardware(self) -> tuple[str, ...]: ...  # noqa: D102

    def identity(self) -> Mapping[str, str]:
        """What an engine that is built here is valid for.

        Raises:
            MissingExtra: the backend is not installed.
            DeviceError: it is, but this machine has no device for it.
        """

    def build(self, model: bytes, *, precision: str, options: BuilderOptions, say: Say) -> bytes:
        """An engine.

        Args:
            model: a bundle's ONNX file of that precision, or a piece of it.
            precision: what the model is.
            options: what the builder may use.
            say: called with a line now and then where it takes long.

        Raises:
            InputError: the backend refuses the model.
            DeviceError: the build failed.
        """

    def meaning(self, model: bytes, *, precision: str) -> bytes:
        """The model as this backend computes it: run as ONNX says, it gives what a right engine gives.

        The model itself where the backend takes a Q/DQ graph at its word.
        """

    def load(self, engine: bytes, *, precision: str, threads: int | None) -> Program:
        """An engine ready to run.

        Args:
            engine: what `build` gave; native code for some backends, so load only what is trusted.
            precision: what the model was.
            threads: of one inference; None lets the backend decide.

        Raises:
            InputError, DeviceError: the engine cannot be loaded here.
        """


class ModelSession(Session):
    """A session over a program that keeps the model contract.

    Attributes:
        program: what runs.

    Args:
        program: owned: closed with the session, and at once where it does not keep the contract.
        precision: what it computes in.
        where: the file that it comes from, for messages.
    """

    def __init__(self, program: Program, *, precision: str, where: object = None) -> None:
        images, depth = program.inputs.get("images"), program.outputs.get("depth")
        shape = () if images is None else images.shape
        if depth is None or len(shape) != 4 or None in shape or program.inputs.keys() != {"images", "focal"}:
            program.close()
            raise InputError(
                "is not a model of our contract (images uint8 [V, H, W, 3] to depth [V, H, W])", where=where
            )
        self.program = program
        views, height, width = (int(edge or 0) for edge in shape[:3])
        super().__init__(
            backend=program.backend, precision=precision, detail=program.detail, shape=(views, height, width)
        )

    def _infer(self, images: NDArray[np.uint8], focal: NDArray[np.float32]) -> Inference:
        found = self.program.run({"images": images, "focal": focal})
        return Inference(depth=found["depth"], confidence=found.get("confidence"))

    def _close(self) -> None:
        self.program.close()
