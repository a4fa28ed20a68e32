"""A scatter plot as SVG: a few labelled points, a line through some of them, one marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 720, 380
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 20, 50
TICKS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """One point.

    Attributes:
        x, y: where.
        label: shown when the pointer rests on it.
        colour: of the dot, as SVG names it.
        marked: drawn large, with a ring.
    """

    x: float
    y: float
    label: str
    colour: str = "#5b6b82"
    marked: bool = False


def scatter(dots: Sequence[Dot], line: Sequence[tuple[float, float]], *, x_name: str, y_name: str) -> str:
    """Draw dots, and a stepless line through some places, with axes from zero.

    Args:
        dots: at least one.
        line: places in order.
        x_name, y_name: what the axes mean, with units.
    """
    most = (max(dot.x for dot in dots) * 1.05 or 1.0, max(dot.y for dot in dots) * 1.1 or 1.0)

    def at(x: float, y: float) -> tuple[float, float]:
        across, up = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
        return LEFT + across * x / most[0], HEIGHT - BOTTOM - up * y / most[1]

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" font-size="12" fill="#1c2430">']
    for i in range(TICKS + 1):
        x, y = most[0] * i / TICKS, most[1] * i / TICKS
        parts.append(_text(*at(x, 0), f"{x:.3g}", dy=18, anchor="middle"))
        parts.append(_text(*at(0, y), f"{y:.3g}", dx=-8, dy=4, anchor="end"))
        (x0, height), (x1, _) = at(0, y), at(most[0], y)
        parts.append(f'<path d="M{x0:.1f} {height:.1f}H{x1:.1f}" stroke="#d8dde5"/>')
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*place) for place in line))
    parts.append(f'<polyline points="{places}" fill="none" stroke="#1d6fd1" stroke-width="1.5"/>')
    for dot in sorted(dots, key=lambda dot: dot.marked):
        x, y = at(dot.x, dot.y)
        ring = ' stroke="#d1341d" stroke-width="3"' if dot.marked else ""
        circle = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{6 if dot.marked else 4}" fill="{dot.colour}"{ring}>'
        parts.append(f"{circle}<title>{escape(dot.label)}</title></circle>")
    parts.append(_text(WIDTH / 2, HEIGHT, x_name, dy=-8, anchor="middle"))
    turned = f'transform="translate(16 {HEIGHT / 2}) rotate(-90)" text-anchor="middle"'
    parts.append(f"<text {turned}>{escape(y_name)}</text>")
    return "".join((*parts, "</svg>"))


def _text(x: float, y: float, text: str, *, dx: float = 0, dy: float = 0, anchor: str) -> str:
    return f'<text x="{x + dx:.1f}" y="{y + dy:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
