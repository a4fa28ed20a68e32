"""Measure everything that docs/measurements.md shows, into docs/results/*.json; `make tables` renders it.

    python tools/measure.py [--data DIR] [--only NAME ...]

DIR holds ddad_sample, ddad_masks and nuscenes_sample; without it, what needs it is skipped and says so.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.datasets import open_dataset
from fsmde_edge.inference.machine import processor
from fsmde_edge.preprocess import own_pinholes, preprocess_set

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "results"
PROGRAM = str(Path(sys.executable).with_name("fsmde-edge"))


def main() -> int:
    """Run the chosen measurements; a failing command ends it."""
    parser = argparse.ArgumentParser(description="Measure what docs/measurements.md shows.")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--only", nargs="+", choices=tuple(MEASUREMENTS))
    options = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only or MEASUREMENTS:
            print(f"== {name}", flush=True)
            MEASUREMENTS[name](Path(folder), options.data)
    return 0


def student(_folder: Path, _data: Path) -> None:
    """How the shipped student was made."""
    from fsmde_edge.compiler.sources import SHIPPED_CHECKPOINT
    from fsmde_edge.student.checkpoint import load_checkpoint

    network, made = load_checkpoint(SHIPPED_CHECKPOINT)
    stages = list(_stages(made))
    rows = [
        *((f"stage {i}", f"`{stage['command']}`") for i, stage in enumerate(stages, 1)),
        ("parameters", f"{sum(p.numel() for p in network.parameters()):,}"),
        ("file", f"{SHIPPED_CHECKPOINT.stat().st_size / 1e6:.2f} MB"),
        ("seeds of training", ", ".join(str(s["recipe"]["seed"]) for s in stages)),
        ("seeds of data", ", ".join(str(s["recipe"]["data_seed"]) for s in stages)),
        ("steps", " + ".join(str(s.get("step", s["recipe"]["steps"])) for s in stages)),
        ("minutes of training (rendering not counted)", " + ".join(str(s["minutes"]) for s in stages)),
    ]
    table = {"title": "The shipped tiny student", "header": ["", ""], "rows": rows}
    _write("student", {"tables": [table]})


def _stages(made: Any) -> Iterator[dict[str, Any]]:
    """How a student was made, first stage first."""
    if made.get("started_from"):
        yield from _stages(made["started_from"])
    yield made


def synthetic(folder: Path, _data: Path) -> None:
    """The default bundle on 16 synthetic test sets."""
    bundle = folder / "synthetic"
    _program("build", "--precision", "int8", "--out", bundle)
    _program("check", bundle, "--sets", 16, "--table", RESULTS / "synthetic.json")


def ddad(folder: Path, data: Path) -> None:
    """The DDAD sample at 384×640: its gate, and its accuracy with ego masks."""
    bundle = _ddad_bundle(folder, data)
    if bundle is None:
        return
    where = ("--data", data / "ddad_sample", "--scenes", "scene_02", "--masks", data / "ddad_masks" / "0")
    _program("check", bundle, *where, "--samples", 1, 2, "--table", RESULTS / "ddad.json")


def nuscenes(folder: Path, data: Path) -> None:
    """The DDAD bundle on the nuScenes keyframe (six images: too few for the gate's interval)."""
    bundle = _ddad_bundle(folder, data)
    if bundle is not None:
        where = ("--data", data / "nuscenes_sample", "--allow-few")
        # Another rig than the bundle's: whatever the gate says of it is the result.
        _program("check", bundle, *where, "--table", RESULTS / "nuscenes.json", accept=(0, 4))


def calibration(folder: Path, data: Path) -> None:
    """Calibration beside ONNX Runtime's quantize_static on one graph and the same real frames."""
    bundle = _ddad_bundle(folder, data)
    if bundle is None:
        return
    frames = folder / "frames.npy"
    np.save(frames, _ddad_frames(data))
    command = (sys.executable, ROOT / "benchmarks" / "bench_calibration.py", bundle / "model.fp32.onnx",
               "--frames", frames, "--sets", 8, 64, "--peer-sets", 8)  # fmt: skip
    done = subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True)
    measured = json.loads(done.stdout)
    rows = [
        (f"{who}, {run['sets']} frame sets", f"{run['seconds']:.1f}", f"{run['peak_mb']:.0f}")
        for who in ("ours", "peer")
        for run in measured[who]
    ]
    table = {
        "title": "Calibration (Entropy) at 6×384×640, from FP32 file to Q/DQ file, one thread",
        "header": ["", "seconds", "peak MB"],
        "rows": rows,
    }
    used = "DDAD scene_02, its 3 sets in turn"
    _write("calibration", {"data": used, "machine": processor(), "tables": [table]})


def backends(_folder: Path, _data: Path) -> None:
    """FP32 and INT8 on every CPU backend, timed in turn on one thread."""
    command = (sys.executable, ROOT / "benchmarks" / "bench_backends.py")
    done = subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True)
    _write("backends", _backends_record(json.loads(done.stdout)))


def _backends_record(measured: dict[str, Any]) -> dict[str, Any]:
    height, width = measured["size"]
    tables = [
        {
            "title": f"{student}, 6×{height}×{width}, {measured['threads']} thread(s)",
            "header": ["", "p50 ms", "p90 ms", "× FP32", "from FP32", "from exact INT8", "what ran"],
            "rows": [_backend_row(row) for row in rows],
        }
        for student, rows in measured["students"].items()
    ]
    used = "one synthetic frame set; tiny as shipped, base with random weights"
    return {"data": used, "machine": f"{measured['machine']}, {measured['load']}", "tables": tables}


def _backend_row(row: dict[str, Any]) -> list[str]:
    exact = row["from_exact_int8"]
    deviations = (f"{row['from_fp32']:.2%}", "" if exact is None else f"{exact:.2%}")
    times = (f"{row['p50']:.0f}", f"{row['p90']:.0f}", f"{row['times_fp32']:.2f}")
    return [row["name"], *times, *deviations, row["used"]]


def raw_to_input(_folder: Path, _data: Path) -> None:
    """Raw pictures to the network's input, beside OpenCV's ways."""
    command = (sys.executable, ROOT / "benchmarks" / "bench_raw.py")
    done = subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True)
    measured = json.loads(done.stdout)
    last = "cvtColor + one small remap (aliases)"
    rows = [
        [
            name,
            *(f"{measured[n][name]:.1f}" for n in ("1", "2")),
            *(f"{measured[n][name] / measured[n][last]:.2f}" for n in ("1", "2")),
            f"{mean:.2f}",
            str(largest),
        ]
        for name, (mean, largest) in measured["from_definition"].items()
    ]
    table = {
        "title": "6×1936×1216 UYVY with a lens to 6×384×640",
        "header": [
            *("", "ms, 1 thread", "ms, 2 threads", "× remap, 1", "× remap, 2"),
            *("mean from definition", "largest"),
        ],
        "rows": rows,
    }
    machine = f"{measured['machine']}, load {measured['load']}"
    _write("raw_to_input", {"data": "noise as rough as a photograph", "machine": machine, "tables": [table]})


def _ddad_frames(data: Path) -> NDArray[np.uint8]:
    dataset = open_dataset(data / "ddad_sample", scenes=["scene_02"], lidar=False)
    sets = []
    for index in range(len(dataset)):
        sample = dataset[index]
        sets.append(preprocess_set(sample.frame_set, sample.rig, own_pinholes(sample.rig, 640, 384))[0])
    return np.stack(sets)


def _ddad_bundle(folder: Path, data: Path) -> Path | None:
    if not (data / "ddad_sample").is_dir():
        print(f"SKIPPED: {data / 'ddad_sample'} is absent")
        return None
    bundle = folder / "ddad"
    if not bundle.exists():
        recipe = ("--calib", "ddad-sample", "--data-root", data)
        _program("build", "--precision", "int8", *recipe, "--out", bundle)
    return bundle


def _program(*arguments: object, accept: tuple[int, ...] = (0,)) -> None:
    """Run a command of ours; a code that is not accepted ends the measurement."""
    code = subprocess.run([PROGRAM, *map(str, arguments)], check=False).returncode
    if code not in accept:
        sys.exit(f"fsmde-edge {arguments[0]} ended with code {code}")


def _write(name: str, record: object) -> None:
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")


MEASUREMENTS: dict[str, Callable[[Path, Path], None]] = {
    "student": student,
    "synthetic": synthetic,
    "ddad": ddad,
    "nuscenes": nuscenes,
    "calibration": calibration,
    "backends": backends,
    "raw_to_input": raw_to_input,
}

if __name__ == "__main__":
    sys.exit(main())
