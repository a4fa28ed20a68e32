"""What finalising found, as a table for people and as one JSON object for fleets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from fsmde_edge.bundle import Bundle
from fsmde_edge.evaluation.report import Table
from fsmde_edge.finalise.candidate import Candidate
from fsmde_edge.finalise.finalise import Outcome
from fsmde_edge.inference.builder import trtexec_line
from fsmde_edge.inference.tensorrt import NAME as TENSORRT


def table(outcome: Outcome) -> Table:
    """One row a candidate."""
    rows = [_row(candidate, outcome) for candidate in outcome.candidates]
    header = ("", "verdict", "of exact", "of FP32", "p50 ms", "p99 ms", "build s", "MB")
    return Table(title="", header=header, rows=rows)


def notes(bundle: Bundle, outcome: Outcome) -> list[str]:
    """What the table does not say: why some failed, what was mended or skipped, and what INT8 brings."""
    lines = [f"{label} ran on {detail}" for label, detail in outcome.details.items()]
    for candidate in outcome.candidates:
        lines += [f"{candidate.label}: {reason}" for reason in candidate.reasons]
        if candidate.floated and not candidate.reasons:
            blocks = {block.tensor: block for block in candidate.blocks}
            lines += [f"{candidate.label}: {block}" for block in blocks.values()]
            lines.append(
                f"{candidate.label}: right with these nodes in float: {', '.join(candidate.floated)}"
            )
    lines += [f"{label}: skipped, {why}" for label, why in outcome.skipped.items()]
    for backend, gain in outcome.int8_gain.items():
        if gain >= 1:
            lines.append(f"INT8 on {backend} is {gain:.2f} times as fast as float")
        else:
            lines.append(f"INT8 on {backend} loses: float is {1 / gain:.2f} times as fast, so float is taken")
    for candidate in outcome.candidates:
        if candidate.backend.name == TENSORRT:
            line = trtexec_line(str(bundle.model(candidate.precision)), outcome.options)
            lines.append(f"{candidate.label} by hand: {line}")
    lines += [f"taken: {outcome.reason}"] if outcome.winner is not None else []
    return lines


def as_json(bundle: Bundle, outcome: Outcome) -> dict[str, Any]:
    """The object of `finalise --json`."""
    winner = outcome.winner
    chosen = None if winner is None else {"backend": winner.backend.name, "precision": winner.precision}
    return {
        "bundle": bundle.hash,
        "identity": {c.backend.name: dict(c.backend.identity()) for c in outcome.candidates},
        "options": asdict(outcome.options),
        "candidates": [_as_json(candidate, outcome) for candidate in outcome.candidates],
        "skipped": dict(outcome.skipped),
        "int8_gain": dict(outcome.int8_gain),
        "chosen": chosen,
        "reason": outcome.reason,
    }


def _finite(numbers: Mapping[str, float]) -> dict[str, float | None]:
    """Numbers as JSON can hold them: what is infinitely far off is null."""
    return {name: value if math.isfinite(value) else None for name, value in numbers.items()}


def _row(candidate: Candidate, outcome: Outcome) -> tuple[str, ...]:
    numbers = {} if candidate.verdict is None else candidate.verdict.numbers
    latency = outcome.latency.get(candidate.label)
    mended = " (mended)" if candidate.floated else ""
    return (
        candidate.label,
        f"wrong{mended}" if candidate.reasons else f"right{mended}",
        f"{numbers['exact']:.3%}" if "exact" in numbers else "",
        f"{numbers['deviation']:.3%}" if "deviation" in numbers else "",
        "" if latency is None else f"{latency.p50:.2f}",
        "" if latency is None else f"{latency.p99:.2f}",
        f"{candidate.build_s:.1f}",
        f"{len(candidate.engine) / 1e6:.2f}",
    )


def _as_json(candidate: Candidate, outcome: Outcome) -> dict[str, Any]:
    latency = outcome.latency.get(candidate.label)
    return {
        "backend": candidate.backend.name,
        "precision": candidate.precision,
        "right": not candidate.reasons,
        "reasons": list(candidate.reasons),
        "numbers": {} if candidate.verdict is None else _finite(candidate.verdict.numbers),
        "latency_ms": None if latency is None else latency.as_dict(),
        "build_s": candidate.build_s,
        "bytes": len(candidate.engine),
        "wrong_blocks": [asdict(block) for block in candidate.blocks],
        "floated": list(candidate.floated),
        "layers": outcome.layers.get(candidate.label),
    }
