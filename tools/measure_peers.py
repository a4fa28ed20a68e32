"""INT8 by us and by what a user would take instead: one graph, the same frames, into docs/results/peers.json.

    python tools/measure_peers.py --data DIR [--peers PYTHON] [--calib ddad-sample]

DIR is what the recipe's paths start from. PYTHON is an interpreter that has the peers, which do not go
together with what the project pins: `python -m venv peers`, then pip install torch nvidia-modelopt onnxslim
lief onnxscript sympy onnx-graphsurgeon onnxconverter-common cppimport polygraphy onnxruntime nncf into it.

Every quantiser runs in a process of its own (tools/peers.py). All results are judged alike: the gate's
numbers on frames that calibration did not see, exact Q/DQ arithmetic, 95 % bootstrap intervals over images;
whether NVIDIA's parser takes the file, the plan's size, kernels by our fusion model, the share of INT8 MACs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fsmde_edge.compiler.aot import build_ahead
from fsmde_edge.compiler.predict.fusion import fuse
from fsmde_edge.compiler.prefix import Depths, Tensors, Walk, one_view
from fsmde_edge.compiler.trial import Trial
from fsmde_edge.evaluation.gate import GateBudget
from fsmde_edge.files import atomic_write
from fsmde_edge.graph.model import infer_shapes, load_model, save_model
from fsmde_edge.inference.machine import processor
from tools.measure_foreign import quantised_share

if TYPE_CHECKING:
    from onnx import ModelProto

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "docs" / "results" / "peers.json"
PEERS = {
    "ours": "ours, all INT8",
    "ours-search": "ours, with the search",
    "ort-minmax": "ONNX Runtime, MinMax",
    "ort-entropy": "ONNX Runtime, Entropy",
    "ort-percentile": "ONNX Runtime, Percentile",
    "ort-minmax-conv": "ONNX Runtime, MinMax, convolutions alone",
    "ort-entropy-conv": "ONNX Runtime, Entropy, convolutions alone",
    "ort-percentile-conv": "ONNX Runtime, Percentile, convolutions alone",
    "modelopt-max": "ModelOpt, max",
    "modelopt-max-conv": "ModelOpt, max, convolutions alone",
    "modelopt-entropy-conv": "ModelOpt, entropy, convolutions alone",
    "nncf": "NNCF, symmetric",
    "nncf-conv": "NNCF, symmetric, convolutions alone",
}
HEADER = (
    "", "mean dev.", "p99", "worst tile", "farther", "ΔAbs Rel", "INT8 MACs", "kernels", "of them INT8",
    "NVIDIA", "plan MB", "s", "peak MB",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frames:
    """What calibrates and what judges.

    Attributes:
        calibration: npz of images and focal.
        judges: the gate's frames, one view at a time, and what FP32 makes of them.
    """

    calibration: Path
    judges: Trial


def main() -> int:
    """Quantise with each, judge, record."""
    parser = argparse.ArgumentParser(description="INT8 by us and by others.")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--peers", type=Path, default=None, metavar="PYTHON")
    parser.add_argument("--calib", default="ddad-sample")
    parser.add_argument("--only", nargs="+", choices=tuple(PEERS), default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        frames, search = prepare(options.calib, options.data, folder)
        rows = []
        for peer in options.only or PEERS:
            out, cost = folder / f"{peer}.onnx", ("-", "-")
            if peer == "ours-search":
                save_model(search(), out)
            else:
                cost = quantise(peer, options.peers, folder, frames, out)
            rows.append(judged(PEERS[peer], out, frames.judges, cost))
            print(" | ".join(rows[-1]), flush=True)
    table = {"title": "INT8 by us and by others", "header": HEADER, "rows": rows}
    record = {"data": f"recipe {options.calib}", "machine": processor(), "tables": [table]}
    atomic_write(RECORD, json.dumps(record, indent=1, ensure_ascii=False).encode() + b"\n")
    return 0


def prepare(recipe_name: str, data: Path, folder: Path) -> tuple[Frames, Callable[[], ModelProto]]:
    """The shipped student's FP32 graph in the folder; the frames, and our own build with the search."""
    from fsmde_edge.compiler.frames import Survey, batches
    from fsmde_edge.compiler.quantise import Frames as OurFrames
    from fsmde_edge.compiler.quantise import quantise as our_way
    from fsmde_edge.compiler.recipe import load_recipe
    from fsmde_edge.compiler.sources import read_network
    from fsmde_edge.datasets.selection import open_selection, samples_of
    from fsmde_edge.preprocess import own_pinholes, preprocess_set
    from fsmde_edge.targets import load_target

    recipe, _ = load_recipe(recipe_name)
    sources, judges = (
        tuple(open_selection(s, size=recipe.size, root=data) for s in part)
        for part in (recipe.data, recipe.gate)
    )
    rig = sources[0][0].rig
    network = read_network(checkpoint=None, onnx=None, convention=None, views=len(rig), size=recipe.size)
    save_model(network.model, folder / "fp32.onnx")
    pinholes = own_pinholes(rig, recipe.size[1], recipe.size[0])
    packed = list(batches(samples_of(sources), pinholes, Survey(rig.names)))
    calibration = folder / "calibration.npz"
    images, focal = (np.concatenate([getattr(b, key) for b in packed]) for key in ("images", "focal"))
    np.savez(calibration, images=images, focal=focal)
    samples, feeds = list(samples_of(judges)), list[Tensors]()
    for sample in samples:
        views, lengths = preprocess_set(sample.frame_set, sample.rig, pinholes)
        feeds += [{"images": views[i : i + 1], "focal": lengths[i : i + 1]} for i in range(len(lengths))]
    whole = Trial(
        samples=tuple(samples),
        feeds=tuple(feeds),
        reference=Walk(one_view(network.model) or network.model, feeds, threads=1).finish(),
        budget=GateBudget(),
        metric=True,
        disparity=False,
        max_depth=200.0,
        threads=1,
    )

    def search() -> ModelProto:
        ours = OurFrames(
            data=sources, pinholes=pinholes, cameras=rig.names, budget=recipe.budget,
            max_depth=200.0, allow_few=True, recipe=recipe_name,
        )  # fmt: skip
        target, _ = load_target("orin-agx-64gb")
        method = replace(recipe.method, search=True)
        return our_way(network.model, network.kind, ours, method, target, threads=1, say=print).model

    return Frames(calibration=calibration, judges=whole), search


def quantise(peer: str, python: Path | None, folder: Path, frames: Frames, out: Path) -> tuple[str, str]:
    """Run one quantiser; seconds and peak MB, or what it said."""
    ours = peer.startswith(("ours", "ort"))
    if python is None and not ours:
        return "not installed", "-"
    interpreter = sys.executable if ours else str(python)
    command = [
        interpreter,
        str(ROOT / "tools" / "peers.py"),
        peer,
        *map(str, (folder / "fp32.onnx", frames.calibration, out)),
    ]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    if child.returncode:
        return "failed: " + child.stderr.strip().splitlines()[-1][:100], "-"
    cost = json.loads(child.stdout.strip().splitlines()[-1])
    return f"{cost['seconds']:.1f}", f"{cost['peak_mb']:.0f}"


def judged(label: str, file: Path, judges: Trial, cost: tuple[str, str]) -> list[str]:
    """The cells of one quantiser."""
    if not file.is_file():
        return [label, *("-",) * 10, *cost]
    model = infer_shapes(load_model(file))
    found = judges.run(model)
    result, interval = judges.judge(found), deviation_interval(judges, found)
    kernels, build = fuse(model), build_ahead(file)
    change = result.interval or (0.0, 0.0)
    return [
        label,
        f"{result.deviation:.3%} [{interval[0]:.3%}, {interval[1]:.3%}]",
        f"{result.p99:.2%}",
        f"{result.worst_tile:.1%}",
        f"{result.farther:.3%}",
        f"{result.abs_rel_change or 0:+.2%} [{change[0]:+.2%}, {change[1]:+.2%}]",
        f"{quantised_share(model):.1%}",
        str(len(kernels)),
        str(sum(kernel.precision == "int8" for kernel in kernels)),
        "accepted" if build.accepted else f"refused: {build.error[:80]}",
        f"{build.plan_bytes / 1e6:.2f}" if build.accepted else "-",
        *cost,
    ]


def deviation_interval(judges: Trial, found: Depths) -> tuple[float, float]:
    """95 % bootstrap interval over images of the mean deviation outside the ego masks."""
    means = []
    cameras = [camera for sample in judges.samples for camera in sample.rig.cameras]
    for camera, right, other in zip(cameras, judges.reference, found, strict=True):
        mask = camera.scaled(right.shape[2], right.shape[1]).ego_mask
        error: NDArray[Any] = np.abs(other[0] - right[0]) / right[0]
        means.append(float(error[mask].mean() if mask is not None else error.mean()))
    draws = np.random.default_rng(0).integers(0, len(means), size=(2000, len(means)))
    low, high = np.percentile(np.array(means)[draws].mean(axis=1), (2.5, 97.5))
    return float(low), float(high)


if __name__ == "__main__":
    sys.exit(main())
