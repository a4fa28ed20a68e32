"""A rig from above: cameras, what each sees, what two share, what none sees. As SVG or PNG."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from fsmde_edge.datasets.rigs.surround import Arc, Surround
from fsmde_edge.errors import OutputError, UsageError
from fsmde_edge.files import atomic_write

Point = tuple[float, float]
Colour = tuple[int, int, int]

SIZE = 800
_MARGIN = 60
_INK, _BLIND, _SHARED = (40, 40, 40), (214, 60, 60), (60, 60, 60)
_ARC_STEP = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A filled polygon, in pixels."""

    points: tuple[Point, ...]
    colour: Colour
    opacity: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A short text, centred, in pixels."""

    at: Point
    text: str
    colour: Colour


def draw_rig(path: Path, view: Surround) -> None:
    """Write the drawing; vehicle +x is up.

    Errors:
        UsageError: neither .svg nor .png.
        OutputError: it cannot be written.
    """
    parts = [*_parts(view)]
    if path.suffix.lower() == ".svg":
        atomic_write(path, _svg(parts).encode())
    elif path.suffix.lower() == ".png":
        atomic_write(path, _png(parts))
    else:
        raise UsageError(f"{path.name} is neither .svg nor .png", hint="choose one of the two")


def _parts(view: Surround) -> Iterator[Shape | Text]:
    scale = (SIZE / 2 - _MARGIN) / view.distance_m
    outer, inner = view.distance_m, 0.96 * view.distance_m
    for arcs, colour in ((view.blind, _BLIND), (view.shared, _SHARED)):
        for arc in arcs:
            ring = (*_circle(arc, 1.05 * outer), *reversed(_circle(arc, 1.01 * outer)))
            yield Shape(points=_pixels(ring, scale), colour=colour, opacity=0.9)
    for number, camera in enumerate(view.rig.cameras):
        colour = _hue(number / len(view.rig))
        x, y = camera.camera_to_vehicle[:2, 3].tolist()
        for arc in view.arcs(number):
            wedge = ((x, y), *_circle(arc, inner))
            yield Shape(points=_pixels(wedge, scale), colour=colour, opacity=0.25)
        dot = tuple((x + dx, y + dy) for dx, dy in _circle((0.0, 360.0), 0.012 * outer))
        yield Shape(points=_pixels(dot, scale), colour=colour, opacity=1.0)
        direction = (0.6 * outer * math.cos(camera.azimuth), 0.6 * outer * math.sin(camera.azimuth))
        yield Text(at=_pixels((direction,), scale)[0], text=camera.name, colour=_INK)
    yield Text(at=(SIZE / 2, 24), text=f"forward; circle of {outer:g} m", colour=_INK)
    yield Text(at=(SIZE / 2, SIZE - 32), text="outer ring: red none, grey two or more", colour=_INK)


def _circle(arc: Arc, radius: float) -> tuple[Point, ...]:
    start, end = arc
    steps = max(1, math.ceil((end - start) / _ARC_STEP))
    angles = [math.radians(start + (end - start) * i / steps) for i in range(steps + 1)]
    return tuple((radius * math.cos(angle), radius * math.sin(angle)) for angle in angles)


def _pixels(points: tuple[Point, ...], scale: float) -> tuple[Point, ...]:
    return tuple((SIZE / 2 - y * scale, SIZE / 2 - x * scale) for x, y in points)


def _hue(share: float) -> Colour:
    red, green, blue = colorsys.hls_to_rgb(share, 0.42, 0.75)
    return round(255 * red), round(255 * green), round(255 * blue)


def _svg(parts: list[Shape | Text]) -> str:
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{SIZE}" height="{SIZE}" font-family="sans-serif" '
        'font-size="16" text-anchor="middle">',
        f'<rect width="{SIZE}" height="{SIZE}" fill="white"/>',
    ]
    for part in parts:
        fill = f"rgb{part.colour}"
        if isinstance(part, Text):
            lines.append(
                f'<text x="{part.at[0]:.1f}" y="{part.at[1]:.1f}" fill="{fill}">{escape(part.text)}</text>'
            )
        else:
            points = " ".join(f"{x:.1f},{y:.1f}" for x, y in part.points)
            lines.append(f'<polygon points="{points}" fill="{fill}" fill-opacity="{part.opacity:g}"/>')
    return "\n".join((*lines, "</svg>\n"))


def _png(parts: list[Shape | Text]) -> bytes:
    import cv2
    import numpy as np

    picture = np.full((SIZE, SIZE, 3), 255, np.uint8)
    for part in parts:
        if isinstance(part, Text):
            ascii_only = part.text.encode("ascii", "replace").decode()
            (width, _), _ = cv2.getTextSize(ascii_only, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)
            at = (round(part.at[0] - width / 2), round(part.at[1]))
            cv2.putText(
                picture, ascii_only, at, cv2.FONT_HERSHEY_SIMPLEX, 0.5, part.colour[::-1], 1, cv2.LINE_AA
            )
            continue
        over = picture.copy()
        cv2.fillPoly(over, [np.round(part.points).astype(np.int32)], part.colour[::-1], cv2.LINE_AA)
        picture[:] = cv2.addWeighted(over, part.opacity, picture, 1 - part.opacity, 0)
    done, data = cv2.imencode(".png", picture)
    if not done:
        raise OutputError("the drawing cannot be encoded")
    return bytes(data)
