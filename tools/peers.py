"""One quantiser on one network and the same frames, in a process of its own: time and peak memory.

    PYTHON tools/peers.py NAME FP32.onnx CALIBRATION.npz OUT.onnx

NAME is a key of `QUANTISERS`; PYTHON is an environment that has it (see tools/measure_peers.py). The npz
holds `images` uint8 [N, H, W, 3] and `focal` float32 [N], N a multiple of the network's views. Prints one
JSON object.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Feed = dict[str, NDArray[Any]]


def main() -> int:
    """Quantise, and say how long it took and how much memory."""
    name, source, frames, out = sys.argv[1], *map(Path, sys.argv[2:5])
    with np.load(frames) as file:
        data = {key: file[key] for key in file.files}
    start = time.perf_counter()
    QUANTISERS[name](source, data, out)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "peak_mb": peak_mb()}))
    return 0


def peak_mb() -> float:
    """Most resident memory of this program; getrusage would tell the parent's, where that was more."""
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


def sets(source: Path, data: Feed) -> Iterator[Feed]:
    """The frames in batches of the network's views."""
    import onnx

    views = onnx.load(source).graph.input[0].type.tensor_type.shape.dim[0].dim_value
    for start in range(0, len(data["focal"]), views):
        yield {key: value[start : start + views] for key, value in data.items()}


Quantiser = Callable[[Path, Feed, Path], None]
CONV = ["Conv"]
"""What a careful user restricts a quantiser to: nothing behind the last convolution becomes INT8."""


def onnxruntime(calibrator: str, kinds: list[str] | None = None, *, biases: bool = False) -> Quantiser:
    """ONNX Runtime's `quantize_static`: Q/DQ, signed, symmetric, per channel.

    Args:
        calibrator: a name of its `CalibrationMethod`.
        kinds: of nodes that become INT8; None for all that it can.
        biases: quantise them too, as it does by itself, and as TensorRT refuses.
    """

    def run(source: Path, data: Feed, out: Path) -> None:
        from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.calibrate import CalibrationDataReader

        class Reader(CalibrationDataReader):  # type: ignore[misc]  # the class has no types
            def __init__(self) -> None:
                self.frames = sets(source, data)

            def get_next(self) -> Mapping[str, NDArray[Any]] | None:
                return next(self.frames, None)

        quantize_static(
            str(source),
            str(out),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=getattr(CalibrationMethod, calibrator),
            op_types_to_quantize=kinds,
            extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": biases},
        )

    return run


def modelopt(calibrator: str, kinds: list[str] | None = None) -> Quantiser:
    """NVIDIA Model Optimizer's ONNX quantiser, on the CPU."""

    def run(source: Path, data: Feed, out: Path) -> None:
        from modelopt.onnx.quantization import quantize

        quantize(
            str(source),
            quantize_mode="int8",
            calibration_data=data,
            calibration_method=calibrator,
            calibration_eps=["cpu"],
            op_types_to_quantize=kinds,
            high_precision_dtype="fp32",
            output_path=str(out),
        )

    return run


def nncf(kinds: list[str] | None = None) -> Quantiser:
    """NNCF's post-training quantisation of an ONNX model, symmetric."""

    def run(source: Path, data: Feed, out: Path) -> None:
        import nncf as library
        import onnx

        model, frames = onnx.load(source), list(sets(source, data))
        others = sorted({node.op_type for node in model.graph.node} - set(kinds or ()))
        quantised = library.quantize(
            model,
            library.Dataset(frames),
            preset=library.QuantizationPreset.PERFORMANCE,
            subset_size=len(frames),
            ignored_scope=None if kinds is None else library.IgnoredScope(types=others),
        )
        onnx.save(quantised, out)

    return run


def ours(source: Path, data: Feed, out: Path) -> None:
    """Our calibration and placement with the default ranges, everything in INT8 that the rules allow."""
    from fsmde_edge.compiler.calibrate import CalibrationBatch, calibrate
    from fsmde_edge.compiler.lowering.tensorrt import lower
    from fsmde_edge.compiler.plan import PlanOptions
    from fsmde_edge.graph.model import load_model, save_model

    model, options = load_model(source), PlanOptions()
    batches = [CalibrationBatch(**feed, valid=len(feed["focal"])) for feed in sets(source, data)]
    ranges = calibrate(model, batches, options.place(model).calibrate, threads=1)
    save_model(lower(model, options.plan(model, ranges)), out)


QUANTISERS: Mapping[str, Quantiser] = {
    "ours": ours,
    "ort-minmax": onnxruntime("MinMax"),
    "ort-entropy": onnxruntime("Entropy"),
    "ort-percentile": onnxruntime("Percentile"),
    "ort-minmax-conv": onnxruntime("MinMax", CONV),
    "ort-entropy-conv": onnxruntime("Entropy", CONV),
    "ort-percentile-conv": onnxruntime("Percentile", CONV),
    "modelopt-max": modelopt("max"),
    "modelopt-max-conv": modelopt("max", CONV),
    "modelopt-entropy-conv": modelopt("entropy", CONV),
    "nncf": nncf(),
    "nncf-conv": nncf(CONV),
}

if __name__ == "__main__":
    sys.exit(main())
