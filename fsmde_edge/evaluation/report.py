"""Self-contained HTML pages: tables, pictures and drawings inline, nothing fetched from anywhere."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2430; }
body { max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; }
th, td { padding: .25rem .8rem; text-align: right; border-bottom: 1px solid #d8dde5; }
th:first-child, td:first-child { text-align: left; }
th { background: #f1f4f8; } img { max-width: 100%; image-rendering: pixelated; }
figure { margin: .5rem 0 1.5rem; } figcaption { color: #57606e; }
</style></head><body>
<h1>{{ title }}</h1>
{% for line in intro %}<p>{{ line }}</p>
{% endfor %}{% for block in blocks %}<h2>{{ block.title }}</h2>
{% if block.rows is defined %}<table><tr>{% for cell in block.header %}<th>{{ cell }}</th>{% endfor %}</tr>
{% for row in block.rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table>
{% elif block.svg is defined %}<figure>{{ block.svg | safe }}
<figcaption>{{ block.caption }}</figcaption></figure>
{% else %}<figure><img alt="{{ block.title }}" src="data:image/png;base64,{{ block.png }}">
<figcaption>{{ block.caption }}</figcaption></figure>
{% endif %}{% endfor %}</body></html>
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of cells that are already words; the first column is the label."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def as_text(self) -> str:
        """The table in monospaced columns."""
        lines = [list(self.header), *(list(row) for row in self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.header))]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )

    def as_markdown(self) -> str:
        """The table in Markdown."""
        ruler = ["---", *("---:" for _ in self.header[1:])]
        lines = (self.header, ruler, *self.rows)
        return "\n".join(
            "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Picture:
    """A picture, uint8 [H, W, 3] RGB, with a caption."""

    title: str
    image: NDArray[np.uint8]
    caption: str = ""

    @property
    def png(self) -> str:
        """The picture as base64 of a PNG file."""
        return base64.b64encode(png_bytes(self.image)).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A drawing, SVG markup whose text is escaped already, with a caption."""

    title: str
    svg: str
    caption: str = ""


def render_page(title: str, *, intro: Sequence[str], blocks: Sequence[Table | Picture | Drawing]) -> bytes:
    """One HTML page.

    Args:
        title: its heading.
        intro: paragraphs at the top.
        blocks: tables, pictures and drawings, in order.
    """
    from jinja2 import Environment

    template = Environment(autoescape=True).from_string(_TEMPLATE)
    return template.render(title=title, intro=intro, blocks=blocks).encode()


def png_bytes(image: NDArray[np.uint8]) -> bytes:
    """A PNG file of uint8 [H, W, 3] RGB."""
    import cv2

    done, data = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))
    if not done:
        raise AssertionError("OpenCV could not encode a PNG")
    return bytes(data.tobytes())
