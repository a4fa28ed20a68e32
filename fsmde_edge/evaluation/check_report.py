"""The tables of `check`, for a terminal, for a page and for docs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fsmde_edge.bundle import Bundle
from fsmde_edge.evaluation.check import CheckResult
from fsmde_edge.evaluation.gate_report import gate_split, gate_table
from fsmde_edge.evaluation.metrics import NAMES, DepthMetrics
from fsmde_edge.evaluation.protocols import Accuracy
from fsmde_edge.evaluation.report import Table, render_page
from fsmde_edge.files import atomic_write
from fsmde_edge.inference.machine import processor

_HEADER = ("", "Abs Rel", "Sq Rel", "RMSE", "RMSE log", "δ<1.25", "δ<1.25²", "δ<1.25³")
_RIVALS = {
    "fp32": "FP32",
    "fp16": "FP16",
    "int8": "INT8",
    "median": "each image's median, constant",
    "constant": "each image's Abs-Rel-optimal constant",
    "ground": "flat ground plane from the calibration, metric or scaled",
}


def tables(bundle: Bundle, result: CheckResult) -> list[Table]:
    """Everything that was measured, as tables."""
    found = [summary_table(bundle, result)]
    if result.gate is not None and result.gate.images:
        found += [gate_table(result.gate), gate_split(result.gate)]
    for protocol, models in result.accuracy.items():
        found += accuracy_tables(protocol, models)
    if result.rivals:
        found.append(rivals_table(result))
    return found


def summary_table(bundle: Bundle, result: CheckResult) -> Table:
    """All models side by side: size, latency, accuracy (protocol `deploy`), deviation from FP32."""
    rows = []
    deviations = {"fp16": result.half, "int8": None if result.gate is None else result.gate.deviation}
    for model in result.sessions:
        latency, accuracy = result.latency.get(model), result.accuracy.get("deploy", {}).get(model)
        mean = None if accuracy is None else accuracy.cameras["mean"]
        cross = result.cross.get(model)
        rows.append(
            (
                model.upper(),
                f"{bundle.model(model).stat().st_size / 1e6:.2f}",
                *_three(None if latency is None else (latency.p50, latency.p90, latency.p99), ".1f"),
                *_three(None if mean is None else (mean.abs_rel, mean.rmse, mean.d1), ".4f"),
                "-" if cross is None or cross.depth_consistency is None else f"{cross.depth_consistency:.4f}",
                "-" if deviations.get(model) is None else f"{deviations[model]:.3%}",
            )
        )
    header = ("", "MB", "p50 ms", "p90 ms", "p99 ms", "Abs Rel", "RMSE", "δ<1.25", "cross-view", "deviation")
    models = " beside ".join(model.upper() for model in result.sessions)
    return Table(title=f"{models}, {result.sets} frame sets", header=header, rows=rows)


def accuracy_tables(protocol: str, models: Mapping[str, Accuracy]) -> list[Table]:
    """Metrics of every model, by camera and by distance."""
    by_camera, by_distance = (
        [
            (f"{model.upper()} {part}{unit}", *_cells(metrics))
            for model, accuracy in models.items()
            for part, metrics in getattr(accuracy, split).items()
        ]
        for split, unit in (("cameras", ""), ("distances", " m"))
    )
    return [
        Table(title=f"Accuracy, protocol {protocol}", header=_HEADER, rows=by_camera),
        Table(title=f"By distance, protocol {protocol}", header=_HEADER, rows=by_distance),
    ]


def rivals_table(result: CheckResult) -> Table:
    """Median-scaled Abs Rel beside what needs no network."""
    least = result.rivals.get("median", float("nan"))
    rows = [
        (_RIVALS[name], f"{value:.4f}", f"{value / least:.3f}")
        for name, value in sorted(result.rivals.items(), key=lambda item: item[1])
    ]
    header = ("", "Abs Rel", "over the median's")
    return Table(title="Median-scaled, mean over images, 0.1-80 m", header=header, rows=rows)


def as_record(bundle: Bundle, result: CheckResult, *, data: str) -> dict[str, Any]:
    """Every table as plain rows, with what they were measured on: docs are rendered from this."""
    return {
        "bundle": bundle.hash,
        "data": data,
        "machine": processor(),
        "sessions": dict(result.sessions),
        "verdict": None if result.gate is None else result.gate.verdict,
        "tables": [asdict(table) for table in tables(bundle, result)],
    }


def write_page(path: Path, bundle: Bundle, result: CheckResult, *, data: str) -> None:
    """Write one self-contained HTML page."""
    verdict = "no INT8" if result.gate is None else result.gate.verdict
    page = render_page(
        f"Check on {data}: {verdict}",
        intro=[
            f"Bundle {bundle.hash[:16]}, {result.sets} frame sets. "
            "Accuracy and deviation are of exact Q/DQ arithmetic.",
            *(f"{model.upper()} latency: {session}." for model, session in result.sessions.items()),
            *(result.gate.reasons if result.gate is not None else ()),
        ],
        blocks=[*tables(bundle, result), *result.gallery.pictures()],
    )
    atomic_write(path, page)


def _cells(metrics: DepthMetrics) -> tuple[str, ...]:
    return tuple(f"{getattr(metrics, name):.4f}" for name in NAMES)


def _three(values: tuple[float, float, float] | None, form: str) -> tuple[str, ...]:
    return ("-",) * 3 if values is None else tuple(format(value, form) for value in values)
