"""What each step of the INT8 compiler is worth, into docs/results/compiler.json.

    python tools/measure_compiler.py --data DIR [--students tiny base] [--calib ddad-sample]

Calibration frames and judging frames are the recipe's. For every calibrator: all INT8, with and without
equalisation; for two of them also with bias correction and learnt rounding; then the search. The gate's
numbers, exact Q/DQ arithmetic. `tiny` is the shipped student. `base` is not trained: random weights whose
batch norms were given the statistics of the calibration frames, so that its tensors have realistic ranges.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fsmde_edge.compiler.calibrate import Ranges, calibrate
from fsmde_edge.compiler.equalise import channel_limits, equalise, find_links, link_tensors
from fsmde_edge.compiler.frames import Survey, batches
from fsmde_edge.compiler.histogram import CALIBRATORS
from fsmde_edge.compiler.lowering.tensorrt import lower
from fsmde_edge.compiler.plan import PlanOptions
from fsmde_edge.compiler.recipe import CalibRecipe, load_recipe
from fsmde_edge.compiler.reconstruct import Reconstruction, reconstruct
from fsmde_edge.compiler.search import search_precision
from fsmde_edge.compiler.trial import Trial, make_trial
from fsmde_edge.datasets.base import Dataset
from fsmde_edge.datasets.selection import open_selection, samples_of
from fsmde_edge.evaluation.gate import GateResult
from fsmde_edge.files import atomic_write
from fsmde_edge.inference.machine import processor
from fsmde_edge.preprocess import own_pinholes
from fsmde_edge.rig import VirtualPinhole
from fsmde_edge.targets import load_target

if TYPE_CHECKING:
    from onnx import ModelProto

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "docs" / "results" / "compiler.json"
HEADER = ("", "mean dev.", "p99", "worst tile", "farther", "ΔAbs Rel", "INT8 MACs", "s")
RECONSTRUCTED = ("max", "mse")
"""Calibrators that are also tried with bias correction and learnt rounding."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bench:
    """What all rows share.

    Attributes:
        recipe: whose frames count.
        data: what calibrates.
        pinholes, cameras: the views.
        judges: frames that judge, as a trial over the whole budget.
        trial: calibration frames that the search and the reconstruction look at.
    """

    recipe: CalibRecipe
    data: tuple[Dataset, ...]
    pinholes: tuple[VirtualPinhole, ...]
    cameras: tuple[str, ...]
    judges: Trial
    trial: Trial


def main() -> int:
    """Measure, record."""
    parser = argparse.ArgumentParser(description="What each step of the INT8 compiler is worth.")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--students", nargs="+", default=["tiny", "base"])
    parser.add_argument("--calib", default="ddad-sample")
    options = parser.parse_args()
    for student in options.students:
        model, bench = prepare(student, options.calib, options.data)
        rows = []
        for row in measure(model, bench, reconstructed=student == "tiny"):
            print(" | ".join(row), flush=True)
            rows.append(row)
        title = f"{student}, 6×{bench.recipe.size[0]}×{bench.recipe.size[1]}"
        keep({"title": title, "header": HEADER, "rows": rows}, f"recipe {options.calib}")
    return 0


def keep(table: dict[str, object], data: str) -> None:
    """Put one student's table in the place of its last; the others' stay."""
    tables = json.loads(RECORD.read_bytes())["tables"] if RECORD.is_file() else []
    others = [each for each in tables if each["title"] != table["title"]]
    tables = sorted([*others, table], key=lambda each: str(each["title"]), reverse=True)
    record = {"data": data, "machine": processor(), "tables": tables}
    atomic_write(RECORD, json.dumps(record, indent=1, ensure_ascii=False).encode() + b"\n")


def prepare(student: str, recipe_name: str, root: Path) -> tuple[ModelProto, Bench]:
    """A student's tidy FP32 graph, and the frames."""
    recipe, _ = load_recipe(recipe_name)
    data, judges = (
        tuple(open_selection(s, size=recipe.size, root=root) for s in part)
        for part in (recipe.data, recipe.gate)
    )
    rig = data[0][0].rig
    pinholes = own_pinholes(rig, recipe.size[1], recipe.size[0])
    model = network(student, len(rig), recipe.size, data, pinholes)
    whole, trial = (make_trial(model, part, pinholes, recipe.budget, threads=1) for part in (judges, data))
    return model, Bench(
        recipe=recipe,
        data=data,
        pinholes=pinholes,
        cameras=rig.names,
        judges=replace(whole, budget=recipe.budget),
        trial=trial,
    )


def network(
    student: str,
    views: int,
    size: tuple[int, int],
    data: tuple[Dataset, ...],
    pinholes: tuple[VirtualPinhole, ...],
) -> ModelProto:
    """The shipped tiny student, or another one with random weights and realistic statistics."""
    from fsmde_edge.compiler.export import export_student
    from fsmde_edge.compiler.simplify import simplify
    from fsmde_edge.compiler.sources import read_network
    from fsmde_edge.graph.model import tidy

    if student == "tiny":
        return read_network(checkpoint=None, onnx=None, convention=None, views=views, size=size).model
    import torch

    from fsmde_edge.student.config import STUDENTS
    from fsmde_edge.student.network import Student

    torch.manual_seed(0)
    made = Student(STUDENTS[student]).train()
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # a plain mean over what is seen
    with torch.no_grad():
        for batch in batches(samples_of(data), pinholes, Survey(tuple(p.name for p in pinholes))):
            images = torch.from_numpy(batch.images[: batch.valid]).permute(0, 3, 1, 2).float()
            made(images, torch.from_numpy(batch.focal[: batch.valid]))
    return simplify(tidy(export_student(made.eval(), views=views, height=size[0], width=size[1])))


def measure(model: ModelProto, bench: Bench, *, reconstructed: bool) -> Iterator[list[str]]:
    """Row after row."""
    reference = bench.judges.reference
    for label, network in (("", model), ("equalised, ", equalised(model, bench.trial))):
        ranges = ranges_of(network, bench)
        for calibrator in CALIBRATORS:
            options = PlanOptions(calibrator=calibrator)
            plan = options.plan(network, ranges)
            lowered, start = lower(network, plan), time.perf_counter()
            yield row(f"{label}{calibrator}", lowered, bench, plan.int8_mac_share, start)
            if not reconstructed or calibrator not in RECONSTRUCTED:
                continue
            for what in (
                Reconstruction(),
                Reconstruction(rounding=True, bias=False),
                Reconstruction(rounding=True),
            ):
                start = time.perf_counter()
                changed = reconstruct(network, lowered, plan, bench.trial.feeds, what, threads=1)
                steps = [name for name in ("rounding", "bias") if getattr(what, name)]
                name = f"{label}{calibrator}, {' and '.join(steps)}"
                yield row(name, changed, bench, plan.int8_mac_share, start)
    assert bench.judges.reference is reference
    ranges = ranges_of(model, bench)
    effects = {
        name: bench.trial.effect(
            bench.trial.run(lower(model, PlanOptions(calibrator=name).plan(model, ranges)))
        ).error
        for name in CALIBRATORS
    }
    best, start = min(effects, key=lambda name: effects[name]), time.perf_counter()
    search = search_precision(
        model, ranges, PlanOptions(calibrator=best), bench.trial, load_target("orin-agx-64gb")[0]
    )
    kept = ", ".join(search.chosen.floats) or "nothing"
    lowered = lower(model, search.options.plan(model, ranges))
    yield row(f"build's choice: {best}, in float {kept}", lowered, bench, search.chosen.int8_mac_share, start)


def equalised(model: ModelProto, trial: Trial) -> ModelProto:
    """Factors moved between layers, by the trial's frames."""
    return equalise(model, channel_limits(model, link_tensors(find_links(model)), trial.feeds, threads=1))


def ranges_of(model: ModelProto, bench: Bench) -> Ranges:
    """Calibration on all frames of the recipe."""
    survey = Survey(bench.cameras)
    frames = batches(samples_of(bench.data), bench.pinholes, survey)
    return calibrate(model, frames, PlanOptions().place(model).calibrate, threads=1)


def row(label: str, model: ModelProto, bench: Bench, share: float, start: float) -> list[str]:
    """The gate's numbers of one INT8 network."""
    seconds = time.perf_counter() - start
    result: GateResult = bench.judges.judge(bench.judges.run(model))
    interval = "" if result.interval is None else f" [{result.interval[0]:+.2%}, {result.interval[1]:+.2%}]"
    return [
        label,
        f"{result.deviation:.3%}",
        f"{result.p99:.2%}",
        f"{result.worst_tile:.1%}",
        f"{result.farther:.3%}",
        "no LiDAR" if result.abs_rel_change is None else f"{result.abs_rel_change:+.2%}{interval}",
        f"{share:.1%}",
        f"{seconds:.1f}",
    ]


if __name__ == "__main__":
    sys.exit(main())
