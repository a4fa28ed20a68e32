"""The gate's result as a page for people and as JSON for programs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from fsmde_edge.bundle import Manifest
from fsmde_edge.evaluation.gallery import Gallery
from fsmde_edge.evaluation.gate import GateResult
from fsmde_edge.evaluation.report import Table, render_page
from fsmde_edge.files import atomic_write

_MEANING = {
    "deviation": "mean |INT8 − FP32| / FP32",
    "p99": "its 99th percentile",
    "worst_tile": "worst 16×16 tile nearer than 30 m",
    "farther": "pixels more than 10 % farther than FP32",
    "abs_rel_change": "change of Abs Rel against LiDAR",
}


def write_gate_report(folder: Path, manifest: Manifest, result: GateResult, gallery: Gallery) -> None:
    """Write gate.html and gate.json into a bundle's reports."""
    page = render_page(
        f"Gate: {result.verdict}",
        intro=[
            f"INT8 against FP32, exact Q/DQ arithmetic on both sides, {result.images} views, "
            f"{result.lidar_images} of them with LiDAR; recipe {manifest.calibration['recipe']['name']}.",
            f"{manifest.calibration['int8_mac_share']:.1%} of multiply-accumulates have INT8 operands.",
            *result.reasons,
        ],
        blocks=[gate_table(result), gate_split(result), *gallery.pictures()],
    )
    atomic_write(folder / "gate.html", page)
    atomic_write(folder / "gate.json", json.dumps(result.as_dict(), indent=1).encode() + b"\n")


def gate_table(result: GateResult) -> Table:
    """Every number beside its budget."""
    budget = asdict(result.budget)
    rows = []
    for name, meaning in _MEANING.items():
        value = getattr(result, name)
        shown = "no LiDAR" if value is None else f"{value:.3%}"
        if name == "abs_rel_change" and result.interval is not None:
            shown = f"{value:+.3%} [{result.interval[0]:+.3%}, {result.interval[1]:+.3%}]"
        rows.append((meaning, shown, f"{budget[name]:.2%}"))
    return Table(title="INT8 against FP32", header=("", "measured", "budget"), rows=rows)


def gate_split(result: GateResult) -> Table:
    """Mean deviation by camera and by distance."""
    rows = [(name, f"{value:.3%}") for name, value in result.cameras.items()]
    rows += [(f"{name} m", f"{value:.3%}") for name, value in result.distances.items()]
    return Table(title="Deviation by camera and by FP32 distance", header=("", "mean deviation"), rows=rows)
