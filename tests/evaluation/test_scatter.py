"""Drawings: well-formed, to scale, safe."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from fsmde_edge.evaluation.scatter import HEIGHT, WIDTH, Dot, scatter

SVG = "{http://www.w3.org/2000/svg}"


def circles(markup: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(markup).iter("circle"))


def test_dots_lie_to_scale_inside_the_picture():
    markup = scatter(
        [Dot(x=x, y=y, label="") for x, y in ((0, 0), (1, 2), (2, 4))],
        [(0, 0), (2, 4)],
        x_name="x",
        y_name="y",
    )
    places = [(float(c.get("cx", "")), float(c.get("cy", ""))) for c in circles(markup)]
    (x0, y0), (x1, y1), (x2, y2) = places
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.2)
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in places)
    assert x2 > x0
    assert y2 < y0  # more is higher


def test_labels_cannot_become_markup():
    markup = scatter([Dot(x=1, y=1, label="<b>&")], [], x_name="<i>", y_name='"')
    assert "<b>" not in markup
    assert "<i>" not in markup
    assert circles(markup)[0].find("title").text == "<b>&"


def test_a_single_dot_at_zero_can_be_drawn():
    assert len(circles(scatter([Dot(x=0, y=0, label="", marked=True)], [(0, 0)], x_name="", y_name=""))) == 1
