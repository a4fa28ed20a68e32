"""Which frames a recipe may mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from fsmde_edge.datasets.reading import contained
from fsmde_edge.datasets.selection import MOST_SETS, Selection
from fsmde_edge.errors import InputError


@pytest.mark.parametrize("depth", [0.0, 0.1, -1.0, float("nan"), float("inf")])
def test_lidar_must_count_up_to_a_real_distance(depth):
    with pytest.raises(InputError, match="max_depth"):
        Selection(split="dev", max_depth=depth)


@pytest.mark.parametrize(
    "change",
    [
        {"count": 0},
        {"length": 0},
        {"count": MOST_SETS + 1},
        {"count": MOST_SETS, "length": 2},
        {"seed": -1},
        {"masks": "masks"},
        {"scenes": ("a",)},
        {"samples": (0,)},
        {"split": "val"},
        {"split": None},
    ],
)
def test_synthetic_frames_that_cannot_be_are_refused(change):
    with pytest.raises(InputError) as caught:
        Selection(**{"split": "dev", **change})
    assert caught.value.hint


def test_a_data_set_may_be_chosen_from():
    assert Selection(path="ddad", scenes=("a",), samples=(0,), masks="masks").count == 8


@pytest.mark.parametrize("name", ["rgb/\ud800.png", "a\0b"])
def test_a_name_that_no_file_has_is_refused(tmp_path, name):
    with pytest.raises(InputError, match="names no file"):
        contained(tmp_path, name, named_in=Path("scene.json"))
