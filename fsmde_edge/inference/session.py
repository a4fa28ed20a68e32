"""What every backend gives: frame sets in, metric depth out.

The base class checks state and shapes; a backend writes `_infer` and `_close` alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.errors import DeviceError, InputError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Inference:
    """Depth of one frame set.

    Attributes:
        depth: float32 [V, H, W], metres (or the raw output of a network without metres).
        confidence: float32 [V, H, W] in 0..1, or None.
    """

    depth: NDArray[np.float32]
    confidence: NDArray[np.float32] | None = None


class Session(ABC):
    """A model ready to run.

    Attributes:
        backend: `onnxruntime`, …
        precision: `fp32`, `fp16`, `int8` or `int8-fp16`.
        detail: what really runs, in words (provider, threads, arithmetic).
        shape: (V, H, W).
    """

    def __init__(self, *, backend: str, precision: str, detail: str, shape: tuple[int, int, int]) -> None:
        self.backend, self.precision, self.detail, self.shape = backend, precision, detail, shape
        self._open = True

    def infer(self, images: NDArray[np.uint8], focal: NDArray[np.float32]) -> Inference:
        """Run one frame set.

        Args:
            images: uint8 [V, H, W, 3], RGB, from `preprocess`.
            focal: float32 [V], fx in network pixels.

        Raises:
            InputError: wrong shape or dtype.
            DeviceError: the session is closed, or the backend failed.
        """
        if not self._open:
            raise DeviceError(f"the {self.backend} session is closed")
        expected = (*self.shape, 3)
        if images.shape != expected or images.dtype != np.uint8:
            raise InputError(
                f"the network takes uint8 pictures of shape {expected}, not {images.dtype} {images.shape}"
            )
        if focal.shape != self.shape[:1] or focal.dtype != np.float32:
            raise InputError(f"the network takes {self.shape[0]} float32 focal lengths, not {focal.shape}")
        result = self._infer(images, focal)
        if result.depth.shape != self.shape or result.depth.dtype != np.float32:
            raise DeviceError(
                f"the network gave {result.depth.dtype} depth of shape {result.depth.shape}, not float32 "
                f"{self.shape}"
            )
        return result

    def close(self) -> None:
        """Free what the backend holds; a second call does nothing."""
        if self._open:
            self._open = False
            self._close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @abstractmethod
    def _infer(self, images: NDArray[np.uint8], focal: NDArray[np.float32]) -> Inference: ...

    @abstractmethod
    def _close(self) -> None: ...
