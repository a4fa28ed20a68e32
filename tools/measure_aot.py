"""What NVIDIA's parser and builder make of our graphs and of ONNX Runtime's, into docs/results/aot.json.

    python tools/measure_aot.py [--students tiny base] [--size 384 640] [--views 6]

Every model is built ahead of time with TensorRT for RTX for SM 8.6 (extra `rtx`); kernels and bytes are
those of our fusion model of full TensorRT. Weights are random and the pictures noise: neither plan size nor
fusion depends on them. ONNX Runtime quantises the same FP32 graph with `quantize_static`: Q/DQ, signed,
symmetric, per channel, MinMax, one frame set; as it comes, with float biases, and of convolutions alone.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fsmde_edge.compiler.aot import ARCHITECTURE, AotBuild, build_ahead
from fsmde_edge.compiler.predict.fusion import fuse
from fsmde_edge.files import atomic_write
from fsmde_edge.graph.model import infer_shapes, load_model, save_model
from fsmde_edge.inference.machine import processor
from tools.peers import onnxruntime

if TYPE_CHECKING:
    from onnx import ModelProto

RECORD = Path(__file__).parent.parent / "docs" / "results" / "aot.json"
HEADER = (
    "",
    "ONNX MB",
    "plan MB",
    "plan / FP32's",
    "kernels",
    "of them INT8",
    "MB moved",
    "RTX layers",
    "NVIDIA says",
)

PEERS: dict[str, tuple[bool, list[str] | None]] = {
    "ort": (True, None),
    "ort-float-bias": (False, None),
    "ort-convolutions": (False, ["Conv"]),
}
"""Name to whether biases are quantised, and which kinds of nodes are (None: all that it can)."""


def main() -> int:
    """Build, compare, record."""
    parser = argparse.ArgumentParser(description="Measure ahead-of-time builds.")
    parser.add_argument("--students", nargs="+", default=["tiny", "base"])
    parser.add_argument("--size", nargs=2, type=int, default=[384, 640], metavar=("H", "W"))
    parser.add_argument("--views", type=int, default=6)
    options = parser.parse_args()
    tables, version = [], ""
    for student in options.students:
        with tempfile.TemporaryDirectory() as folder:
            title = f"{student}, {options.views}×{options.size[0]}×{options.size[1]}, {ARCHITECTURE}"
            rows, version = measure(student, options.views, *options.size, folder=Path(folder))
            tables.append({"title": title, "header": HEADER, "rows": rows})
    data = f"random weights, noise; TensorRT for RTX {version}"
    record = {"data": data, "machine": processor(), "tables": tables}
    atomic_write(RECORD, json.dumps(record, indent=1, ensure_ascii=False).encode() + b"\n")
    return 0


def measure(
    student: str, views: int, height: int, width: int, *, folder: Path
) -> tuple[list[list[str]], str]:
    """One row for each model."""
    images = np.random.default_rng(0).integers(0, 256, (views, height, width, 3), dtype=np.uint8)
    make_ours(student, images, folder)
    for name, (biases, kinds) in PEERS.items():
        quantise = onnxruntime("MinMax", kinds, biases=biases)
        quantise(folder / "fp32.onnx", {"images": images, "focal": focal_of(views)}, folder / f"{name}.onnx")
    names = {
        "fp32": "FP32",
        "fp16": "FP16",
        "int8": "INT8, rest FP32",
        "int8-fp16": "INT8, rest FP16",
        "ort": "ONNX Runtime, as it comes",
        "ort-float-bias": "ONNX Runtime, float biases",
        "ort-convolutions": "ONNX Runtime, convolutions alone, float biases",
    }
    builds = {name: build_ahead(folder / f"{name}.onnx") for name in names}
    rows = [
        row(label, folder / f"{name}.onnx", builds[name], builds["fp32"]) for name, label in names.items()
    ]
    for line in rows:
        print(" | ".join(line), flush=True)
    return rows, builds["fp32"].version


def make_ours(student: str, images: NDArray[np.uint8], folder: Path) -> None:
    """fp32, fp16, int8 and int8-fp16 of a student with random weights."""
    import torch

    from fsmde_edge.compiler.calibrate import CalibrationBatch, calibrate
    from fsmde_edge.compiler.export import export_student
    from fsmde_edge.compiler.half import to_half
    from fsmde_edge.compiler.lowering import tensorrt
    from fsmde_edge.compiler.plan import make_plan, place
    from fsmde_edge.compiler.simplify import simplify
    from fsmde_edge.graph.model import tidy
    from fsmde_edge.student.config import STUDENTS
    from fsmde_edge.student.network import Student

    torch.manual_seed(0)
    network = Student(STUDENTS[student]).eval()
    views, height, width = images.shape[:3]
    model = simplify(tidy(export_student(network, views=views, height=height, width=width)))
    batch = CalibrationBatch(images=images, focal=focal_of(views), valid=views)
    ranges = calibrate(model, [batch], place(model).calibrate, threads=1)
    lowered = tensorrt.lower(model, make_plan(model, ranges))
    made: dict[str, Callable[[], ModelProto]] = {
        "fp32": lambda: model,
        "fp16": lambda: to_half(model),
        "int8": lambda: lowered,
        "int8-fp16": lambda: to_half(lowered),
    }
    for name, make in made.items():
        save_model(make(), folder / f"{name}.onnx")


def row(label: str, file: Path, build: AotBuild, base: AotBuild) -> list[str]:
    """The cells of one model."""
    size = f"{file.stat().st_size / 1e6:.2f}"
    kernels = fuse(infer_shapes(load_model(file)))
    moved = sum(k.read_bytes + k.write_bytes + k.weight_bytes for k in kernels)
    ours = [str(len(kernels)), str(sum(k.precision == "int8" for k in kernels)), f"{moved / 1e6:.0f}"]
    if not build.accepted:
        return [label, size, "–", "–", *ours, "–", f"refused: {build.error[:120]}"]
    plan = f"{build.plan_bytes / 1e6:.2f}"
    ratio = f"{build.plan_bytes / base.plan_bytes:.3f}"
    return [label, size, plan, ratio, *ours, str(len(build.layers)), "accepted"]


def focal_of(views: int) -> NDArray[np.float32]:
    """A focal length for each view, pixels."""
    return np.full(views, 320, dtype=np.float32)


if __name__ == "__main__":
    sys.exit(main())
