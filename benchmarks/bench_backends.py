"""FP32 and INT8 on ONNX Runtime and OpenVINO, timed in turn, with the arithmetic that each really used.

    python benchmarks/bench_backends.py [--students tiny base] [--size 384 640] [--threads 1] [--runs 15]

The shipped tiny student, and others with random weights (speed does not depend on them), calibrated on one
synthetic frame set. Two peers run as they come: ONNX Runtime on the signed Q/DQ model, OpenVINO without a
precision hint. Deviations are means of |depth / reference - 1|: from FP32, and from exact Q/DQ. Prints one
JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.evaluation.latency import side_by_side
from fsmde_edge.inference.machine import instructions, processor

Feeds = dict[str, NDArray[Any]]


def main() -> int:
    """Make the models, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--students", nargs="+", default=["tiny", "base"])
    parser.add_argument("--size", nargs=2, type=int, default=[384, 640], metavar=("H", "W"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=15)
    options = parser.parse_args()
    feeds = frames(*options.size)
    measured = {}
    for student in options.students:
        fp32, int8 = models(student, feeds)
        measured[student] = measure(fp32, int8, feeds, threads=options.threads, runs=options.runs)
    print(json.dumps(summary(options, measured), indent=1))
    return 0


def frames(height: int, width: int) -> Feeds:
    """One synthetic frame set of six views as a network takes it."""
    from fsmde_edge.datasets.synthetic import SyntheticStreets
    from fsmde_edge.preprocess import own_pinholes, preprocess_set

    sample = SyntheticStreets("test", scenes=1, width=width, height=height)[0]
    pinholes = own_pinholes(sample.rig, width, height)
    images, focal = preprocess_set(sample.frame_set, sample.rig, pinholes)
    return {"images": images, "focal": focal}


def models(student: str, feeds: Feeds) -> tuple[bytes, bytes]:
    """FP32 and signed Q/DQ of a student."""
    import torch

    from fsmde_edge.compiler.calibrate import CalibrationBatch, calibrate
    from fsmde_edge.compiler.export import export_student
    from fsmde_edge.compiler.lowering.tensorrt import lower
    from fsmde_edge.compiler.plan import make_plan, place
    from fsmde_edge.compiler.simplify import simplify
    from fsmde_edge.compiler.sources import SHIPPED_CHECKPOINT
    from fsmde_edge.graph.model import model_bytes, tidy
    from fsmde_edge.student.checkpoint import load_checkpoint
    from fsmde_edge.student.config import STUDENTS
    from fsmde_edge.student.network import Student

    torch.manual_seed(0)
    shipped = student == "tiny" and SHIPPED_CHECKPOINT.exists()
    network = load_checkpoint(SHIPPED_CHECKPOINT)[0] if shipped else Student(STUDENTS[student])
    views, height, width, _ = feeds["images"].shape
    model = simplify(tidy(export_student(network.eval(), views=views, height=height, width=width)))
    batch = CalibrationBatch(images=feeds["images"], focal=feeds["focal"], valid=views)
    plan = make_plan(model, calibrate(model, [batch], place(model).calibrate, threads=1))
    return model_bytes(model), model_bytes(lower(model, plan))


def measure(fp32: bytes, int8: bytes, feeds: Feeds, *, threads: int, runs: int) -> list[dict[str, Any]]:
    """One row for each way to run a network; all are timed in turn."""
    ways = {**ours(fp32, int8, threads), **peers(fp32, int8, threads)}
    depth = {name: call(feeds) for name, (call, _) in ways.items()}
    exact = exact_depth(int8, feeds, threads)
    reference = depth["ONNX Runtime FP32"]
    calls = {name: (lambda c=call: c(feeds)) for name, (call, _) in ways.items()}
    latency = side_by_side(calls, runs=runs, warmup=2)
    base = latency["ONNX Runtime FP32"].p50
    return [
        {
            "name": name,
            **asdict(latency[name]),
            "times_fp32": base / latency[name].p50,
            "used": used,
            "from_fp32": deviation(depth[name], reference),
            "from_exact_int8": deviation(depth[name], exact) if "INT8" in name else None,
        }
        for name, (_, used) in ways.items()
    ]


Way = tuple[Callable[[Feeds], NDArray[np.float32]], str]


def ours(fp32: bytes, int8: bytes, threads: int) -> dict[str, Way]:
    """Both backends as `open_session` runs them."""
    from fsmde_edge.inference.backends import backend_of
    from fsmde_edge.inference.unsigned import count_qlinearconv
    from fsmde_edge.targets import BuilderOptions

    found: dict[str, Way] = {}
    for backend, title in (("onnxruntime", "ONNX Runtime"), ("openvino", "OpenVINO")):
        for precision, model in (("fp32", fp32), ("int8", int8)):
            made = backend_of(backend)
            engine = made.build(model, precision=precision, options=BuilderOptions(), say=lambda _: None)
            program = made.load(engine, precision=precision, threads=threads)
            used = program.detail
            if backend == "onnxruntime":
                used += _counted(*count_qlinearconv(engine))
            found[f"{title} {precision.upper()}"] = (lambda feeds, p=program: p.run(feeds)["depth"], used)
    return found


def peers(fp32: bytes, int8: bytes, threads: int) -> dict[str, Way]:
    """Both libraries called directly, with nothing but the number of threads."""
    import onnxruntime
    import openvino

    from fsmde_edge.inference.openvino import count_int8, layers_of
    from fsmde_edge.inference.unsigned import count_qlinearconv

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(int8, options, providers=["CPUExecutionProvider"])
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(fp32), "CPU", {"INFERENCE_NUM_THREADS": threads})
    hint = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    integer, total = count_int8(layers_of(compiled))
    return {
        "ONNX Runtime INT8, signed as it comes": (
            lambda feeds: session.run(["depth"], feeds)[0],
            f"ONNX Runtime {onnxruntime.__version__}{_counted(*count_qlinearconv(int8))}",
        ),
        "OpenVINO FP32, as it comes": (
            lambda feeds: compiled(feeds)["depth"],
            f"OpenVINO, {hint}, {integer} of {total} convolutions and products in INT8",
        ),
    }


def exact_depth(int8: bytes, feeds: Feeds, threads: int) -> NDArray[np.float32]:
    """Q/DQ in float32, node by node."""
    from fsmde_edge.inference.onnxruntime import OnnxRuntimeProgram

    with OnnxRuntimeProgram(int8, precision="int8", exact=True, threads=threads) as program:
        found: NDArray[np.float32] = program.run(feeds)["depth"]
    return found


def deviation(left: NDArray[np.float32], right: NDArray[np.float32]) -> float:
    """Mean relative difference."""
    return float(np.abs(left / right - 1).mean())


def summary(options: argparse.Namespace, measured: dict[str, Any]) -> dict[str, Any]:
    """All numbers, with what they were measured on."""
    return {
        "size": options.size,
        "threads": options.threads,
        "machine": f"{processor()} ({instructions()})",
        "load": f"load {os.getloadavg()[1]:.0f} on {os.cpu_count()} cores",
        "students": measured,
    }


def _counted(integer: int, floats: int) -> str:
    return f", {integer} of {integer + floats} convolutions in INT8"


if __name__ == "__main__":
    sys.exit(main())
