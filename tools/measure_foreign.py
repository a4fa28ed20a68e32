"""INT8 of networks that are not ours, against ONNX Runtime's own, into docs/results/foreign.json.

    python tools/measure_foreign.py [--only NAME ...] [--seconds 180] [--work runs/foreign]

Every network of `tools/zoo.py` is trained for some minutes on one core on synthetic streets, exported as
ONNX and given to `fsmde-edge build` with a convention YAML, as a user would. ONNX Runtime quantises the same
simplified graph on the same frames (`quantize_static`, Q/DQ, signed, symmetric, per channel) with each of
its calibrators. Everything is judged by Abs Rel against exact depth on frames that nobody saw, in exact Q/DQ
arithmetic. Data and weights stay in the work folder, so a second run measures only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fsmde_edge.files import atomic_write
from fsmde_edge.inference.machine import processor
from tools.peers import onnxruntime

if TYPE_CHECKING:
    from onnx import ModelProto

    from tools.zoo import Style

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "docs" / "results" / "foreign.json"
HEIGHT, WIDTH, VIEWS = 96, 160, 6
CALIBRATION_SETS = 8
RECIPE = f"""\
version: 1
size: [{HEIGHT}, {WIDTH}]
data: [{{split: train, count: {CALIBRATION_SETS}, seed: 11}}]
gate: [{{split: dev, count: 4, seed: 11}}]
"""
"""The frames that ONNX Runtime is given: the same data set renders them."""

PROGRAM = str(Path(sys.executable).with_name("fsmde-edge"))
GATE_FAILED = 4
ORT_CALIBRATORS = ("MinMax", "Entropy", "Percentile")
HEADER = (
    "network", "FP32", "ours", "ORT MinMax", "ORT Entropy", "ORT Percentile", "ours − best ORT",
    "INT8 MACs, ours", "INT8 MACs, best ORT",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Streets:
    """Pictures uint8 [N, H, W, 3], focal lengths [N], exact depth float32 [N, H, W] in metres, 0 = none."""

    images: NDArray[np.uint8]
    focal: NDArray[np.float32]
    depth: NDArray[np.float32]

    def sets(self, count: int) -> Iterator[dict[str, NDArray[Any]]]:
        """The first frame sets as network inputs."""
        for start in range(0, count * VIEWS, VIEWS):
            rows = slice(start, start + VIEWS)
            yield {"images": self.images[rows], "focal": self.focal[rows]}

    def __len__(self) -> int:
        return len(self.images) // VIEWS


def main() -> int:
    """Train what is missing, measure, record."""
    parser = argparse.ArgumentParser(description="INT8 of networks that are not ours.")
    parser.add_argument("--only", nargs="+", default=None, metavar="NAME")
    parser.add_argument("--seconds", type=float, default=180.0, help="of training each network")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "foreign")
    parser.add_argument("--train-only", action="store_true")
    options = parser.parse_args()
    from tools.zoo import ZOO

    options.work.mkdir(parents=True, exist_ok=True)
    names = options.only or list(ZOO)
    train = streets(options.work, "train", 140)
    for name in names:
        if not (options.work / f"{name}.onnx").is_file():
            make_onnx(ZOO[name], train, options.work / f"{name}.onnx", options.seconds)
    if options.train_only:
        return 0
    test = streets(options.work, "test", 24)
    rows = []
    for name in names:
        rows.append(measure(name, ZOO[name], train, test, options.work))
        print(" | ".join(rows[-1]), flush=True)
    if options.only is None:
        record(rows)
    return 0


def record(rows: list[list[str]]) -> None:
    """Write docs/results/foreign.json."""
    title = f"Abs Rel of INT8 against FP32's, {VIEWS}×{HEIGHT}×{WIDTH}, 24 unseen frame sets"
    data = "networks of tools/zoo.py, trained for minutes on synthetic streets"
    table = {"title": title, "header": HEADER, "rows": rows}
    content = {"data": data, "machine": processor(), "tables": [table]}
    atomic_write(RECORD, json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n")


def streets(work: Path, split: Any, scenes: int) -> Streets:
    """Render once, keep in the work folder."""
    path = work / f"{split}.npz"
    if not path.is_file():
        from fsmde_edge.datasets.synthetic import SyntheticStreets

        data = SyntheticStreets(split, scenes=scenes, width=WIDTH, height=HEIGHT, seed=11)
        images, focal, depth = [], [], []
        for index in range(scenes):
            sample, exact = data[index], data.dense_depth(index)
            images += [frame.image for frame in sample.frame_set.frames]
            focal += [camera.intrinsics[0, 0] for camera in sample.rig.cameras]
            depth += [exact[camera.name] for camera in sample.rig.cameras]
        arrays = {"images": np.stack(images), "focal": np.array(focal), "depth": np.stack(depth)}
        np.savez_compressed(path, **arrays)
    with np.load(path) as file:
        return Streets(
            images=file["images"],
            focal=file["focal"].astype(np.float32),
            depth=file["depth"].astype(np.float32),
        )


def make_onnx(style: Style, data: Streets, path: Path, seconds: float) -> None:
    """Train a network and export it for one picture, as people do."""
    import torch

    from tools.zoo import from_disparity

    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = style.make()

    class Metres(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return from_disparity(network(x)) if style.disparity else network(x)

    train(Metres(), network, normalised(data.images, style), canonical(data), seconds, path.stem)
    network.eval()
    partial = path.with_suffix(".partial")
    torch.onnx.export(
        network,
        (torch.zeros(1, 3, HEIGHT, WIDTH),),
        str(partial),
        dynamo=False,
        opset_version=style.opset,
        input_names=["picture"],
        output_names=["map"],
    )
    partial.replace(path)


def train(step: Any, network: Any, pictures: Any, truth: Any, seconds: float, name: str) -> None:
    """AdamW on |log depth| errors with mirrored pictures, until the time is over."""
    import torch

    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-3)
    generator = torch.Generator().manual_seed(0)
    network.train()
    start, done, steps = time.process_time(), 0.0, 0
    while done < 1:
        done = min((time.process_time() - start) / seconds, 1)
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * min(1.0, 20 * done + 0.05) * (1 - done) + 1e-6
        rows = torch.randint(len(pictures), (8,), generator=generator)
        x, y = pictures[rows], truth[rows]
        if steps % 2:
            x, y = x.flip(3), y.flip(2)
        found = step(x)[:, 0]
        valid = (y > 0.1) & (y < 100)
        loss = (found.clamp(min=1e-3).log() - y.clamp(min=1e-3).log()).abs()[valid].mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        steps += 1
        if steps % 200 == 0:
            print(f"{name}: {steps} steps, {done:.0%}, loss {loss.item():.3f}", flush=True)


def normalised(images: NDArray[np.uint8], style: Style) -> Any:
    """Pictures as the network wants them, float32 [N, 3, H, W]."""
    import torch

    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in style.statistics)
    return (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - mean) / std


def canonical(data: Streets) -> Any:
    """Exact depth for a camera of focal length `FOCAL`."""
    import torch

    from tools.zoo import FOCAL

    return torch.from_numpy(data.depth * (FOCAL / data.focal)[:, None, None].astype(np.float32))


def measure(name: str, style: Style, train: Streets, test: Streets, work: Path) -> list[str]:
    """The cells of one network."""
    (work / f"{name}.yaml").write_text(convention_of(style))
    model, ours = make_ours(name, work)
    errors = {"FP32": abs_rel(model, style, test), "ours": abs_rel(ours, style, test)}
    share = quantised_share(ours)
    shares = {}
    for calibrator in ORT_CALIBRATORS:
        out = work / f"{name}.ort-{calibrator}.onnx"
        if not out.is_file():
            rows = slice(0, CALIBRATION_SETS * VIEWS)
            frames = {"images": train.images[rows], "focal": train.focal[rows]}
            onnxruntime(calibrator, biases=True)(work / f"{name}.bundle" / "model.fp32.onnx", frames, out)
        peer = load(out)
        errors[calibrator], shares[calibrator] = abs_rel(peer, style, test), quantised_share(peer)
    best = min(ORT_CALIBRATORS, key=lambda calibrator: errors[calibrator])
    base = errors["FP32"]
    change = {key: (value - base) / base for key, value in errors.items()}
    return [
        f"{name} ({style.parts})",
        f"{base:.4f}",
        *(f"{change[key]:+.2%}" for key in ("ours", *ORT_CALIBRATORS)),
        f"{change['ours'] - change[best]:+.2%}",
        f"{share:.1%}",
        f"{shares[best]:.1%}",
    ]


def convention_of(style: Style) -> str:
    """The YAML of a network, as its README would tell."""
    from tools.zoo import FOCAL

    mean, std = (list(values) for values in style.statistics)
    head = f"version: 1\ninput: {{layout: NCHW, colours: RGB, mean: {mean}, std: {std}}}\n"
    return head + (
        "output: {kind: disparity}\n" if style.disparity else f"output: {{kind: metric, focal: {FOCAL}}}\n"
    )


def make_ours(name: str, work: Path) -> tuple[ModelProto, ModelProto]:
    """What `build` makes of it with its defaults, FP32 and INT8, whatever the gate says of it."""
    bundle, recipe = work / f"{name}.bundle", work / "recipe.yaml"
    if not bundle.is_dir():
        recipe.write_text(RECIPE)
        command = [PROGRAM, "build", "--precision", "int8", "--onnx", work / f"{name}.onnx"]
        options = ["--convention", work / f"{name}.yaml", "--calib", recipe, "--out", bundle]
        done = subprocess.run([str(part) for part in (*command, *options)], check=False).returncode
        if done not in (0, GATE_FAILED):
            sys.exit(f"{name}: build ended with {done}")
    return load(bundle / "model.fp32.onnx"), load(bundle / "model.int8.onnx")


def quantised_share(model: ModelProto) -> float:
    """The share of multiply-accumulates with both operands dequantised, whoever quantised the weights."""
    from fsmde_edge.graph.model import infer_shapes, initializers, producers, tensor_types
    from fsmde_edge.graph.structure import macs

    model = infer_shapes(model)
    made_by, types, constants = producers(model.graph), tensor_types(model), set(initializers(model.graph))

    def source(name: str) -> str:
        """What a tensor is without the Quantize and Dequantize nodes behind it."""
        while name in made_by and made_by[name].op_type in {"QuantizeLinear", "DequantizeLinear"}:
            name = made_by[name].input[0]
        return name

    work = {True: 0, False: 0}
    for node in model.graph.node:
        if node.op_type in {"Conv", "ConvTranspose", "Gemm", "MatMul"} and source(node.input[1]) in constants:
            both = all(n in made_by and made_by[n].op_type == "DequantizeLinear" for n in node.input[:2])
            work[both] += macs(node, types)
    return work[True] / max(1, sum(work.values()))


def load(path: Path) -> ModelProto:
    """A model as it lies on disk."""
    import onnx

    return onnx.load(path)


def abs_rel(model: ModelProto, style: Style, data: Streets) -> float:
    """Mean |d − t| / t over the pixels of all unseen frames, in exact arithmetic."""
    import onnxruntime

    from tools.zoo import from_disparity

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    takes = {item.name for item in session.get_inputs()}
    errors = []
    for index, feed in enumerate(data.sets(len(data))):
        depth = session.run(["depth"], {k: v for k, v in feed.items() if k in takes})[0]
        truth = data.depth[index * VIEWS : (index + 1) * VIEWS]
        if style.disparity:
            depth = from_disparity(depth) * scale_of(feed["focal"])
        valid = (truth > 0.1) & (truth < 80)
        errors.append((np.abs(depth - truth) / np.maximum(truth, 0.1))[valid])
    return float(np.concatenate(errors).mean())


def scale_of(focal: NDArray[np.float32]) -> NDArray[np.float32]:
    """What makes depth for `FOCAL` depth for each camera, [V, 1, 1]."""
    from tools.zoo import FOCAL

    return np.asarray((focal / FOCAL)[:, None, None], dtype=np.float32)


if __name__ == "__main__":
    sys.exit(main())
