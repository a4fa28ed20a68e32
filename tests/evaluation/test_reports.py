from __future__ import annotations

import base64
import re

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmde_edge.evaluation.latency import Latency, side_by_side
from fsmde_edge.evaluation.report import Picture, Table, render_page

HOSTILE = "<script>alert(1)</script>&\"'"


@given(st.lists(st.floats(1e-6, 10), min_size=1, max_size=200))
def test_latency_is_percentiles_in_milliseconds(seconds):
    found = Latency.of(seconds)
    ordered = sorted(seconds)
    assert ordered[0] * 1e3 <= found.p50 * (1 + 1e-9)
    assert found.p50 <= found.p90 <= found.p99 <= ordered[-1] * 1e3 * (1 + 1e-9)
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    assert found.p50 == pytest.approx(middle * 1e3)
    assert found.runs == len(seconds)


def test_calls_are_timed_in_turn_after_the_warm_up():
    order = []
    found = side_by_side({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, runs=4, warmup=2)
    assert order == ["a", "b"] * 6
    assert {name: latency.runs for name, latency in found.items()} == {"a": 4, "b": 4}


def test_a_page_is_self_contained_and_escaped():
    image = np.random.default_rng(0).integers(0, 255, (4, 5, 3), dtype=np.uint8)
    page = render_page(
        HOSTILE,
        intro=[HOSTILE],
        blocks=[
            Table(title=HOSTILE, header=("", HOSTILE), rows=[(HOSTILE, "1")]),
            Picture(title=HOSTILE, image=image, caption=HOSTILE),
        ],
    ).decode()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert all(link.startswith("data:") for link in re.findall(r"""(?:src|href)="([^"]*)""", page))
    assert "http" not in page
    assert "@import" not in page
    assert "url(" not in page
    data = base64.b64decode(re.search(r"base64,([^\"]+)", page)[1])
    shown = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(shown, image)


def test_a_table_lines_up_in_text_and_in_markdown():
    table = Table(title="t", header=("", "long header"), rows=[("a", "1"), ("bcd", "22")])
    assert table.as_text() == "     long header\na              1\nbcd           22"
    assert table.as_markdown() == "|  | long header |\n| --- | ---: |\n| a | 1 |\n| bcd | 22 |"


@pytest.mark.parametrize(("after", "counted"), [(1, 0), (5, 0), (7, 1), (8, 2)])
def test_control_c_keeps_the_whole_turns_that_counted(after, counted):
    calls = 0

    def call():
        nonlocal calls
        calls += 1
        if calls > after:
            raise KeyboardInterrupt

    found = side_by_side({"a": call, "b": call}, runs=9, warmup=2, stoppable=True)
    assert [row.runs for row in found.values()] == ([counted] * 2 if counted else [])
    with pytest.raises(KeyboardInterrupt):
        side_by_side({"a": call, "b": call}, runs=9)
