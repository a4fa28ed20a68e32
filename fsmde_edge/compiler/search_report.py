"""The precision search for people and for programs: what each block costs, what was tried, what was taken."""

from __future__ import annotations

import json
from pathlib import Path

from fsmde_edge.compiler.predict.cost import LABEL
from fsmde_edge.compiler.search import Point, Search
from fsmde_edge.compiler.sensitivity import Effect
from fsmde_edge.compiler.trial import SHARE
from fsmde_edge.evaluation.report import Drawing, Table, render_page
from fsmde_edge.evaluation.scatter import Dot, scatter
from fsmde_edge.files import atomic_write

HOLDS, FAILS = "#2f8f4e", "#c98a1b"


def write_search_report(folder: Path, search: Search) -> None:
    """Write precision.html and precision.json into a bundle's reports."""
    page = render_page(
        "Precision search",
        intro=[
            f"Times are {LABEL}, for {search.target.rstrip('.')}.",
            "Errors are root mean squares of relative depth error on calibration frames. A plan holds where "
            f"the gate's numbers on them keep to {SHARE:.0%} of its budget; the gate judges on others.",
            chosen_line(search),
        ],
        blocks=[point_table(search), drawing(search), block_table(search)],
    )
    atomic_write(folder / "precision.html", page)
    text = json.dumps(search.as_dict(), indent=1, ensure_ascii=False)
    atomic_write(folder / "precision.json", text.encode() + b"\n")


def chosen_line(search: Search) -> str:
    """What was taken, in one line."""
    point = search.chosen
    kept = ", ".join(point.floats) or "nothing"
    held = "" if point.holds else f"; no plan holds ({'; '.join(point.reasons)})"
    return (
        f"in half precision: {kept}; {point.int8_mac_share:.1%} of MACs in INT8, estimated {point.ms:.2f} ms "
        f"(FP16 {search.fp16_ms:.2f} ms), error {point.error:.3%}{held}"
    )


def point_table(search: Search) -> Table:
    """Every plan that was measured."""
    rows = [
        (
            _name(point) + (" (chosen)" if point == search.chosen else ""),
            f"{point.ms:.3f}",
            f"{search.fp16_ms / point.ms:.2f}",
            f"{point.error:.3%}",
            f"{point.int8_mac_share:.1%}",
            "yes" if point.holds else "; ".join(point.reasons),
        )
        for point in search.points
    ]
    header = ("plan", "estimated ms", "x FP16", "error", "INT8 MACs", "holds")
    return Table(title="Plans", header=header, rows=rows)


def block_table(search: Search) -> Table:
    """What each block costs, dearest in error first."""
    blocks = sorted(search.sensitivity.blocks, key=lambda block: -block.alone_int8.error)
    rows = [
        (
            block.name,
            f"{block.macs:.1%}",
            *_effect(block.alone_int8),
            *_effect(block.alone_float),
            f"{1e3 * search.block_ms[block.name]:+.1f}" if block.name in search.block_ms else "fixed",
        )
        for block in blocks
    ]
    header = (
        "block", "MACs", "error alone in INT8", "SQNR dB", "error of the rest without it", "SQNR dB ",
        "estimated us in float",
    )  # fmt: skip
    return Table(title="Blocks", header=header, rows=rows)


def drawing(search: Search) -> Drawing:
    """Error against estimated time, the Pareto front, the choice."""
    dots = [
        Dot(
            x=point.ms,
            y=100 * point.error,
            label=f"{_name(point)}: {point.ms:.3f} ms, {point.error:.3%}",
            colour=HOLDS if point.holds else FAILS,
            marked=point == search.chosen,
        )
        for point in search.points
    ]
    dots.append(Dot(x=search.fp16_ms, y=0.0, label=f"FP16: {search.fp16_ms:.3f} ms (error not measured)"))
    return Drawing(
        title="Error against estimated time",
        svg=scatter(
            dots,
            [(point.ms, 100 * point.error) for point in search.front],
            x_name=f"estimated ms a frame set, {search.target.rstrip('.')}",
            y_name="error, %",
        ),
        caption="Green keeps to the budget, amber does not; ringed is the choice; the line: Pareto front.",
    )


def _name(point: Point) -> str:
    return "all INT8" if not point.floats else "float: " + ", ".join(point.floats)


def _effect(effect: Effect) -> tuple[str, str]:
    return f"{effect.error:.3%}", "-" if effect.sqnr is None else f"{effect.sqnr:.1f}"
