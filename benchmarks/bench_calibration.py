"""Time and peak memory of calibration, ours beside ONNX Runtime's `quantize_static`, on one graph and frames.

    python benchmarks/bench_calibration.py model.fp32.onnx --frames frames.npy --sets 8 64 --peer-sets 8

Each measurement is a child process of its own: from the FP32 file to the Q/DQ file, peak memory as the kernel
counts it (VmHWM, everything included: imports, the network, the runtime). The peer gets our placement: the
same nodes, per channel, symmetric, float biases, Entropy. Frames: an .npy of uint8 [N, V, H, W, 3], or a
folder of pictures (V at a time in order of their names, resized); where more sets are asked for than there
are, they are taken again from the start. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SUFFIXES = {".png", ".jpg", ".jpeg"}


def main() -> int:
    """Parse, measure in child processes, print."""
    args = parse(sys.argv[1:])
    if args.child:
        print(json.dumps(CHILDREN[args.child](args)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        args.frames = as_npy(args, Path(folder))
        ours = [measure(args, "ours", sets) for sets in args.sets]
        peer = [measure(args, "peer", sets) for sets in args.peer_sets]
    print(json.dumps(summary(args, ours, peer), indent=1))
    return 0


def parse(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="FP32 ONNX file that keeps the model contract")
    parser.add_argument("--frames", type=Path, required=True, help=".npy, or a folder of pictures")
    parser.add_argument("--sets", type=int, nargs="+", default=[8], help="frame sets for ours, one run each")
    parser.add_argument("--peer-sets", type=int, nargs="*", default=[], help="frame sets for the peer")
    parser.add_argument("--calibrator", default="entropy", help="ours; the peer's is Entropy")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--child", choices=sorted(CHILDREN), help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def measure(args: argparse.Namespace, who: str, sets: int) -> dict[str, Any]:
    """One child process; its JSON."""
    command = [sys.executable, __file__, str(args.model), "--frames", str(args.frames), "--child", who]
    command += ["--count", str(sets), "--threads", str(args.threads), "--calibrator", args.calibrator]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{who} with {sets} sets failed:\n{done.stderr[-2000:]}")
    return {"sets": sets, **json.loads(done.stdout.splitlines()[-1])}


def summary(args: argparse.Namespace, ours: list[Any], peer: list[Any]) -> dict[str, Any]:
    """All numbers and the ratios that are claimed."""
    import onnxruntime

    result: dict[str, Any] = {
        "model": args.model.name,
        "bytes": args.model.stat().st_size,
        "threads": args.threads,
        "onnxruntime": onnxruntime.__version__,
        "ours": ours,
        "peer": peer,
    }
    memory = [run["peak_mb"] for run in ours]
    if len(ours) > 1:
        result["memory_growth"] = {"sets": args.sets, "ratio": round(memory[-1] / memory[0], 3)}
    pairs = [(a, b) for a in ours for b in peer if a["sets"] == b["sets"]]
    result["ratios"] = [
        {
            "sets": a["sets"],
            "times_faster": round(b["seconds"] / a["seconds"], 2),
            "share_of_memory": round(a["peak_mb"] / b["peak_mb"], 3),
        }
        for a, b in pairs
    ]
    return result


def run_ours(args: argparse.Namespace) -> dict[str, Any]:
    """Our chain: place, calibrate, plan, lower, save."""
    from fsmde_edge.compiler.calibrate import CalibrationBatch, calibrate
    from fsmde_edge.compiler.lowering.tensorrt import lower
    from fsmde_edge.compiler.plan import make_plan, place
    from fsmde_edge.graph.model import load_model, save_model

    start = time.perf_counter()
    model = load_model(args.model)
    frames = (
        CalibrationBatch(images=images, focal=focal_of(len(images)), valid=len(images))
        for images in read(args)
    )
    ranges = calibrate(model, frames, place(model).calibrate, threads=args.threads)
    calibrated = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "int8.onnx"
        save_model(lower(model, make_plan(model, ranges, calibrator=args.calibrator)), out)
        return finish(start, out, calibration_seconds=round(calibrated - start, 2))


def run_peer(args: argparse.Namespace) -> dict[str, Any]:
    """`quantize_static` on the nodes of our placement."""
    import onnxruntime
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import CalibrationDataReader

    nodes, kinds = placed_nodes(args.model)

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.frames = read(args)

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            images = next(self.frames, None)
            return None if images is None else {"images": images, "focal": focal_of(len(images))}

    limit_threads(onnxruntime, args.threads)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "int8.onnx"
        quantize_static(
            str(args.model),
            str(out),
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=sorted(kinds),
            nodes_to_quantize=nodes,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.Entropy,
            extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False},
        )
        return finish(start, out)


CHILDREN = {"ours": run_ours, "peer": run_peer}


def placed_nodes(path: Path) -> tuple[list[str], set[str]]:
    """Names and types of the nodes that read INT8 in our placement."""
    from fsmde_edge.compiler.plan import place
    from fsmde_edge.graph.model import load_model

    model = load_model(path)
    placement = place(model)
    moved = {"MaxPool", "Concat", "Resize", "Add", "Transpose", "Reshape", "Slice"}
    nodes = [
        node
        for node in model.graph.node
        if node.name in placement.nodes or (node.op_type in moved and node.input[0] in placement.reasons)
    ]
    return [node.name for node in nodes], {node.op_type for node in nodes}


def limit_threads(onnxruntime: Any, threads: int) -> None:
    """Give the peer's sessions as many threads as ours: it opens them itself, with default options."""
    plain = onnxruntime.SessionOptions

    def limited() -> Any:
        options = plain()
        options.intra_op_num_threads = threads
        return options

    onnxruntime.SessionOptions = limited


def read(args: argparse.Namespace) -> Iterator[NDArray[np.uint8]]:
    """`count` frame sets from the .npy, one in memory at a time."""
    with args.frames.open("rb") as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise SystemExit(f"{args.frames}: not an .npy of version 1.0")
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        if dtype != np.uint8 or len(shape) != 5:
            raise SystemExit(f"{args.frames}: expected uint8 [N, V, H, W, 3], found {dtype} {shape}")
        begin, size = file.tell(), int(np.prod(shape[1:]))
        for number in range(args.count):
            file.seek(begin + number % shape[0] * size)
            yield np.frombuffer(file.read(size), dtype=np.uint8).reshape(shape[1:])


def as_npy(args: argparse.Namespace, folder: Path) -> Path:
    """The frames as an .npy; a folder of pictures is resized to the network's size."""
    if args.frames.is_file():
        return Path(args.frames)
    import cv2

    from fsmde_edge.graph.model import interface, load_model
    from fsmde_edge.preprocess import resize

    face = interface(load_model(args.model))
    paths = sorted(path for path in args.frames.rglob("*") if path.suffix.lower() in SUFFIXES)
    count = len(paths) // face.views
    if not count:
        raise SystemExit(f"{args.frames}: fewer than {face.views} pictures")
    images = [
        resize(cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB), face.width, face.height)
        for path in paths[: count * face.views]
    ]
    out = folder / "frames.npy"
    np.save(out, np.stack(images).reshape(count, face.views, face.height, face.width, 3))
    return out


def focal_of(views: int) -> NDArray[np.float32]:
    """Any focal length: it scales depth behind everything that is calibrated."""
    return np.full(views, 300, dtype=np.float32)


def finish(start: float, out: Path, **more: float) -> dict[str, Any]:
    """Seconds since `start`, the process's peak memory, the file's size."""
    seconds = time.perf_counter() - start
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    return {"seconds": round(seconds, 2), **more, "peak_mb": round(peak / 1024), "bytes": out.stat().st_size}


if __name__ == "__main__":
    sys.exit(main())
