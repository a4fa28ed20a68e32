from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import pytest

from fsmde_edge.compiler.quantise import Method
from fsmde_edge.compiler.recipe import CalibRecipe, load_recipe
from fsmde_edge.datasets.selection import Selection
from fsmde_edge.distill.recipe import load_train_recipe
from fsmde_edge.errors import InputError
from fsmde_edge.recipes import PACKAGE, find_shipped, from_mapping, read_yaml, shipped


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    size: tuple[int, int] = (1, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    name: str
    rate: float = 1.0
    count: int = 1
    on: bool = False
    kind: Literal["a", "b"] = "a"
    maybe: int | None = None
    inner: Inner = field(default_factory=Inner)
    many: tuple[Inner, ...] = ()
    words: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.count < 0:
            raise InputError("a count below 0", hint="count from 0")


def test_nested_values_are_read():
    values = {
        "name": "x",
        "rate": 2,
        "maybe": None,
        "inner": {"size": [3, 4]},
        "many": [{"size": [5, 6]}, {}],
        "words": {"k": 1},
    }
    made = from_mapping(Outer, values, where="f.yaml")
    assert made == Outer(
        name="x",
        rate=2.0,
        inner=Inner(size=(3, 4)),
        many=(Inner(size=(5, 6)), Inner()),
        words={"k": 1},
    )
    assert isinstance(made.rate, float)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nmae": 1}, "unknown key 'nmae'; known: name, rate"),
        ({"inner": {"sise": 1}}, "unknown key 'inner.sise'"),
        ({"inner": [1]}, "inner must hold"),
        ({"inner": {"size": [1]}}, "'inner.size' must have 2 values"),
        ({"inner": {"size": [1, "2"]}}, r"'inner.size\[1\]' must be of type int"),
        ({"many": [{"size": [1, True]}]}, r"'many\[0\].size\[1\]' must be of type int"),
        ({"many": {"size": [1, 2]}}, "'many' must be of type"),
        ({"rate": "fast"}, "'rate' must be of type float"),
        ({"rate": True}, "'rate' must be of type float"),
        ({"count": 1.5}, "'count' must be of type int"),
        ({"on": 1}, "'on' must be of type bool"),
        ({"kind": "c"}, "'kind' must be one of a, b"),
        ({"maybe": "x"}, "'maybe' must be of type int"),
        ({"name": None}, "'name' must be of type str"),
        ({"words": {"k": "v"}}, "'words.k' must be of type int"),
        ({"count": -1}, "a count below 0; count from 0"),
        ({"count": 2**63}, "'count' must be of type int, not 9223372036854775808; write a whole number"),
        ({"count": 10**5000}, "'count' must be of type int, not a very long int"),
        ({"rate": 10**400}, "'rate' must be of type float"),
        ({"rate": float("nan")}, "'rate' must be of type float, not nan; write a finite number"),
        ({"rate": float("-inf")}, "'rate' must be of type float, not -inf; write a finite number"),
        ({"kind": ["a"]}, "'kind' must be one of a, b"),
        ({"name": "half a pair \ud800"}, "'name' must be of type str"),
        ({"name": ["x" * 10**6] * 100}, r"'name' must be of type str, not .{20,300}; write text"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_key_and_file(change, message):
    with pytest.raises(InputError, match=message) as caught:
        from_mapping(Outer, {"name": "x", **change}, where="f.yaml")
    assert str(caught.value).startswith("f.yaml: ")


def test_a_missing_key_is_named():
    with pytest.raises(InputError, match="the key 'name' is missing"):
        from_mapping(Outer, {}, where="f.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[1, 2]", "at the top"),
        (b"", "at the top"),
        (b"a: [1", "not valid YAML"),
        (b"\xff\xfe\x00", "not valid YAML"),
        (b"[" * 5000, "not valid YAML"),
        (b"a: 1\nb: 2\na: 3", "the key 'a' stands twice"),
        (b"a: [{b: 1, b: 2}]", "the key 'b' stands twice"),
        (b"a: " + b"9" * 5000, "not valid YAML"),
        (b"a: 2020-13-45", "not valid YAML"),
        (b"a: !!python/object/apply:os.system ['touch x']", "not valid YAML"),
    ],
)
def test_a_broken_file_is_one_line(tmp_path, content, message):
    path = tmp_path / "f.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_yaml(path)
    assert len(str(caught.value).splitlines()) == 1


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_yaml(tmp_path / "absent.yaml")
    with pytest.raises(InputError, match=r"shipped names: .*synthetic"):
        find_shipped("absent", "calib")
    with pytest.raises(InputError, match="no such file"):
        find_shipped("../pyproject.toml", "calib")


def test_shipped_files_are_found_by_name_and_by_path():
    assert find_shipped("synthetic", "calib").samefile(find_shipped("calib/synthetic.yaml", "calib"))
    assert find_shipped(str(shipped("engines") / "cpu.yaml"), "engines") == find_shipped("cpu", "engines")


@pytest.mark.parametrize("path", sorted(shipped("calib").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_calibration_recipe_loads(path):
    recipe, named = load_recipe(path.stem)
    assert recipe.version == 1
    assert named.name == path.stem


@pytest.mark.parametrize("path", sorted((PACKAGE / "distill/recipes").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_training_recipe_loads(path):
    from fsmde_edge.student.config import STUDENTS

    assert load_train_recipe(path).student in STUDENTS


def test_merged_keys_may_be_overruled(tmp_path):
    path = tmp_path / "f.yaml"
    path.write_text("a: &a {b: 1, c: 2}\nd: {<<: *a, c: 3}\n")
    assert read_yaml(path)["d"] == {"b": 1, "c": 3}


@pytest.mark.parametrize(
    "change",
    [
        {"size": (3_200_000, 3_200_000)},
        {"size": (-32, 64)},
        {"data": ()},
        {"version": 2},
    ],
)
def test_a_calibration_recipe_that_cannot_be_is_refused(change):
    some = (Selection(split="dev"),)
    values = {"version": 1, "size": (64, 96), "data": some, "gate": some}
    CalibRecipe(**values)
    with pytest.raises(InputError):
        CalibRecipe(**{**values, **change})


def test_a_node_cannot_be_kept_in_float_and_forced_into_int8():
    with pytest.raises(InputError, match="both name"):
        Method(keep_float=("*", "a"), force_int8=("*",))
