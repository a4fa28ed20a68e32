"""Calibration: what range each tensor has on real frames, in one pass and constant memory.

The FP32 network runs in ONNX Runtime with the wanted tensors as outputs; each goes into its own histogram
and is dropped. Where the graph treats views one by one (checked on its shapes), so does calibration: memory
for one view, and nothing computed for views that a frame set lacks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.compiler.histogram import BINS, Histogram
from fsmde_edge.errors import InputError
from fsmde_edge.files import atomic_write
from fsmde_edge.graph.model import (
    attribute,
    copy_model,
    drop_unused,
    infer_shapes,
    interface,
    model_bytes,
    tensor_types,
)
from fsmde_edge.recipes import from_json

if TYPE_CHECKING:
    from onnx import ModelProto
    from onnxruntime import InferenceSession

VERSION = 1
SUMMARY_BINS = 32


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CalibrationBatch:
    """One frame set for calibration.

    Attributes:
        images: uint8 [V, H, W, 3], RGB, network size.
        focal: float32 [V], fx in network pixels.
        valid: the first `valid` views are pictures, the rest is filling.
    """

    images: NDArray[np.uint8]
    focal: NDArray[np.float32]
    valid: int

    def __post_init__(self) -> None:
        if not 1 <= self.valid <= len(self.images) == len(self.focal):
            raise InputError(
                f"{self.valid} valid views of {len(self.images)}, {len(self.focal)} focal lengths"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRange:
    """What calibration saw of one tensor.

    Attributes:
        count: values seen.
        max: the largest |x|.
        mean: mean of |x|.
        negative: whether any value was below zero.
        thresholds: range [-r, r] by calibrator (`histogram.CALIBRATORS`).
        histogram: share of the values in each 32nd of [0, limit).
        limit: where the histogram ends.
    """

    count: int
    max: float
    mean: float
    negative: bool
    thresholds: Mapping[str, float]
    histogram: tuple[float, ...]
    limit: float

    def __post_init__(self) -> None:
        if not all(value >= 0 for value in (self.max, *self.thresholds.values())):
            raise InputError("a range cannot be negative", hint="calibrate this network again")

    @classmethod
    def of(cls, histogram: Histogram) -> TensorRange:
        """Summarise a histogram."""
        shares = histogram.counts.reshape(SUMMARY_BINS, BINS // SUMMARY_BINS).sum(axis=1) / max(
            histogram.count, 1
        )
        return cls(
            count=histogram.count,
            max=histogram.largest,
            mean=float(f"{histogram.mean:.9g}"),
            negative=histogram.negative,
            thresholds=histogram.thresholds(),
            histogram=tuple(float(f"{share:.6g}") for share in shares),
            limit=histogram.limit,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranges:
    """The ranges of all calibrated tensors.

    Attributes:
        views: pictures seen.
        tensors: by name, in the graph's order.
    """

    version: int = VERSION
    views: int
    tensors: Mapping[str, TensorRange]

    def range_of(self, name: str, calibrator: str) -> float:
        """The range [-r, r] that a calibrator gives to a tensor.

        Errors:
            InputError: not calibrated, or no such calibrator.
        """
        if name not in self.tensors:
            raise InputError(f"tensor {name} was not calibrated", hint="calibrate this network again")
        thresholds = self.tensors[name].thresholds
        if calibrator not in thresholds:
            raise InputError(f"no calibrator '{calibrator}'", hint=f"choose one of: {', '.join(thresholds)}")
        return thresholds[calibrator]

    def to_json(self) -> str:
        """Canonical, readable JSON: one line a tensor would be too long, one a value."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, *, where: object = None) -> Ranges:
        """Read `to_json`'s text back to equal ranges.

        Errors:
            InputError: no ranges, or of a newer version.
        """
        return from_json(cls, text, version=VERSION, failing="holds no calibration ranges", where=where)

    def save(self, path: Path) -> None:
        """Write ranges.json, whole or not at all."""
        atomic_write(path, self.to_json().encode())

    @classmethod
    def load(cls, path: Path) -> Ranges:
        """Read ranges.json."""
        try:
            return cls.from_json(path.read_text(encoding="utf-8"), where=path)
        except (OSError, UnicodeDecodeError) as error:
            raise InputError("cannot be read as calibration ranges", where=path) from error


def calibrate(
    model: ModelProto,
    batches: Iterable[CalibrationBatch],
    tensors: Iterable[str],
    *,
    progress: Callable[[int], None] = lambda _: None,
    threads: int = 0,
) -> Ranges:
    """Run frames through the FP32 network and find each tensor's range.

    Args:
        model: a tidy FP32 model that keeps the model contract.
        batches: frame sets; read once, one at a time.
        tensors: names to look at (`plan.place(...).calibrate`).
        progress: called with the number of pictures done after each run.
        threads: ONNX Runtime's threads; 0 leaves the choice to it.

    Errors:
        InputError: no frames, frames of another size, or a tensor that takes no finite value.
    """
    names = list(dict.fromkeys(tensors))
    face = interface(model)
    probe, step = _probe(model, names, face.views)
    session = _session(probe, threads)
    takes_focal = any(item.name == "focal" for item in session.get_inputs())
    stacked = {n for n, kind in tensor_types(probe).items() if kind.shape and kind.shape[0] == step}
    del probe
    histograms = {name: Histogram() for name in names}
    views = 0
    for batch in batches:
        if batch.images.shape != (face.views, face.height, face.width, 3):
            raise InputError(
                f"calibration images have shape {list(batch.images.shape)}, the network takes "
                f"[{face.views}, {face.height}, {face.width}, 3]"
            )
        for start in range(0, batch.valid, step):
            rows = min(step, batch.valid - start)
            feed: dict[str, NDArray[Any]] = {"images": batch.images[start : start + step]}
            if takes_focal:
                feed["focal"] = batch.focal[start : start + step]
            _look(session, feed, histograms, stacked, rows)
            views += rows
            progress(views)
    if not views:
        raise InputError(
            "no frames to calibrate on", hint="check which frames the calibration recipe selects"
        )
    return Ranges(views=views, tensors={name: TensorRange.of(histograms[name]) for name in names})


def single_view(model: ModelProto, tensors: list[str]) -> ModelProto | None:
    """The part of the network before some tensors, for one view; None where views depend on each other.

    Views are independent if every tensor on the way has one row a view and keeps the rest of its shape when
    there is only one view.
    """
    probe = _cut(model, tensors)
    before = tensor_types(infer_shapes(probe))
    views = interface(model).views
    for info in probe.graph.input:
        info.type.tensor_type.shape.dim[0].dim_value = 1
    for info in probe.graph.output:
        info.type.tensor_type.ClearField("shape")
    try:
        probe = infer_shapes(probe)
    except InputError:
        return None
    after = tensor_types(probe)
    constants = {weight.name for weight in probe.graph.initializer}
    for node in probe.graph.node:
        if not set(node.input) - constants:
            constants |= set(node.output)  # a dequantised weight
            continue
        axis = attribute(node, "axis")
        if axis is not None and axis.i == 0:
            return None
        for name in node.output:
            old, new = (
                before[name].shape if name in before else None,
                after[name].shape if name in after else None,
            )
            if not old or not new or old[0] != views or new != (1, *old[1:]):
                return None
    return probe


def _probe(model: ModelProto, tensors: list[str], views: int) -> tuple[ModelProto, int]:
    """The network that shows the wanted tensors, and how many views it takes at once."""
    single = single_view(model, tensors)
    return (single, 1) if single is not None else (infer_shapes(_cut(model, tensors)), views)


def _cut(model: ModelProto, tensors: list[str]) -> ModelProto:
    """The part of a model before some tensors, with these as its outputs."""
    from onnx import helper

    types = tensor_types(model)
    missing = [name for name in tensors if name not in types]
    if missing:
        raise InputError(f"the network has no tensor {missing[0]}")
    probe = copy_model(model)
    del probe.graph.output[:]
    probe.graph.output.extend(
        helper.make_tensor_value_info(name, types[name].dtype, types[name].shape) for name in tensors
    )
    drop_unused(probe.graph)
    read = {name for node in probe.graph.node for name in node.input}
    kept = [info for info in probe.graph.input if info.name in read]
    if len(kept) < len(probe.graph.input):
        names = {info.name for info in kept}
        for i in reversed(range(len(probe.graph.input))):
            if probe.graph.input[i].name not in names:
                del probe.graph.input[i]
    return probe


def _session(model: ModelProto, threads: int) -> InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_cpu_mem_arena = False  # give memory back after each run
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model_bytes(model), options, providers=["CPUExecutionProvider"])


def _look(
    session: InferenceSession,
    feed: dict[str, NDArray[Any]],
    histograms: dict[str, Histogram],
    stacked: set[str],
    rows: int,
) -> None:
    """One run; every output goes into its histogram and is freed before the next one is counted."""
    values = session.run(list(histograms), feed)
    for name, histogram in reversed(histograms.items()):
        value = values.pop()
        try:
            histogram.add(value[:rows] if name in stacked else value)
        except InputError as error:
            raise InputError(
                f"{error.what}: tensor {name}", hint="the FP32 network overflows; check it"
            ) from error
