"""Teacher recipes: what can be asked for, and what is refused."""

from __future__ import annotations

import pytest

from fsmde_edge.distill.teachers.recipe import TeacherRecipe
from fsmde_edge.errors import InputError
from fsmde_edge.recipes import from_mapping


def test_a_recipe_reads_from_yaml_values():
    values = {"kind": "depth-anything", "source": "folder", "size": [308, 518], "feature_stride": 8}
    recipe = from_mapping(TeacherRecipe, values, where="a.yaml")
    assert recipe == TeacherRecipe(kind="depth-anything", source="folder", size=(308, 518), feature_stride=8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "giant"}, "'kind' must be one of depth-anything, own"),
        ({"source": ""}, "needs a source"),
        ({"size": [300, 518]}, "300x518 is not in multiples of 14"),
        ({"size": [0, 518]}, "multiples of 14"),
        ({"size": [14, 14 * 1000]}, "multiples of 14, up to 4096"),
        ({"kind": "own", "size": [308, 518]}, "multiples of 32"),
        ({"feature_stride": 3}, "feature_stride cannot be 3; choose from 4, 8, 16"),
        ({"weights": "x"}, "unknown key 'weights'"),
    ],
)
def test_an_impossible_recipe_names_the_file(change, message):
    with pytest.raises(InputError, match=message) as caught:
        from_mapping(TeacherRecipe, {"kind": "depth-anything", "source": "x", **change}, where="a.yaml")
    assert str(caught.value).startswith("a.yaml: ")
