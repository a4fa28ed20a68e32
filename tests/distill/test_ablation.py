"""Three passes over one recipe: equal trials, seeds, and a test split that is read once."""

from __future__ import annotations

import json

import pytest

from fsmde_edge.cli.main import main
from fsmde_edge.distill.ablation import load_ablation
from fsmde_edge.errors import InputError
from fsmde_edge.recipes import PACKAGE
from fsmde_edge.student import config
from fsmde_edge.student.config import StudentConfig

RECIPE = """\
version: 1
train:
  version: 1
  student: mini
  steps: 2
  warmup: 1
  streets: [{scenes: 1, size: [32, 64], sets_per_batch: 1}]
teacher: {kind: own, source: shipped, feature_stride: 8}
labels: {points10: {points: 0.1}}
contenders:
  supervised:
    seeds: 1
    labels: [points10]
    trials: [{name: supervised}, {name: supervised, supervised: {silog_lambda: 0.5}}]
  vrkd:
    seeds: 2
    trials: [{name: vrkd, vrkd: {weight: 0.5}}, {name: vrkd}]
dev: {split: dev, count: 1}
test: {split: test, count: 2}
"""


@pytest.fixture
def asked(tmp_path, monkeypatch, capsys):
    """The command line over the recipe, in a folder of its own."""
    monkeypatch.setitem(
        config.STUDENTS, "mini", StudentConfig(name="mini", width=4, decoder=(8, 8, 8, 8), bins=8)
    )
    (tmp_path / "recipe.yaml").write_text(RECIPE)

    def ask(*options):
        folders = {"--out": "out", "--work": "work", "--cache": "cache"}
        arguments = [part for key, name in folders.items() for part in (key, str(tmp_path / name))]
        code = main(["ablate", str(tmp_path / "recipe.yaml"), *arguments, "--threads", "1", *options])
        return code, capsys.readouterr()

    return ask


def results(folder):
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def test_the_passes_follow_each_other_and_none_is_done_twice(asked, tmp_path):
    code, said = asked()
    assert code == 3
    assert "run 'fsmde-edge ablate --tune' first" in said.err
    assert asked("--tune")[0] == 0
    tuned = results(tmp_path / "out/tune")
    assert sorted(tuned) == ["supervised-0", "supervised-1", "vrkd-0", "vrkd-1"]
    code, said = asked("--final")
    assert code == 3
    assert "was not trained" in said.err
    assert asked()[0] == 0
    names = ["supervised-full-0", "supervised-points10-0", "vrkd-full-0", "vrkd-full-1"]
    dev = results(tmp_path / "out/dev")
    assert sorted(dev) == names
    best = min(("vrkd-0", "vrkd-1"), key=lambda name: tuned[name]["abs_rel"])
    assert dev["vrkd-full-0"]["settings"] == tuned[best]["settings"]
    assert asked("--final")[0] == 0
    final = results(tmp_path / "out")
    assert sorted(final) == names
    one = final["supervised-points10-0"]
    assert (one["method"], one["labels"], one["seed"], one["split"], one["steps"]) == (
        "supervised", "points10", 0, "test", 2,
    )  # fmt: skip
    for key in ("recipe_sha256", "commit", "seconds", "abs_rel", "rmse", "d1", "overlap_accuracy",
                "depth_consistency", "per_camera"):  # fmt: skip
        assert key in one, key
    assert len(one["sets"]) == 2
    assert one["teacher"] is None
    assert len(final["vrkd-full-0"]["teacher"]) == 64
    before = (tmp_path / "out/vrkd-full-1.json").stat().st_mtime_ns
    code, said = asked("--final")
    assert (code, said.out) == (0, "")
    assert (tmp_path / "out/vrkd-full-1.json").stat().st_mtime_ns == before


def test_a_method_that_is_not_there_is_told(asked):
    code, said = asked("--tune", "--only", "magic")
    assert code == 3
    assert "no method here is called magic; known: supervised, vrkd" in said.err


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "trials: [{name: vrkd, vrkd: {weight: 0.5}}, {name: vrkd}]",
            "trials: [{name: vrkd}]",
            "different numbers",
        ),
        ("{name: vrkd}]", "{name: ckd}]", "a trial under vrkd is of another method"),
        ("labels: [points10]", "labels: [points1]", "no amount of labels is called points1"),
        ("seeds: 2", "seeds: 0", "needs a trial and a seed"),
        ("version: 1\ntrain", "version: 2\ntrain", "version 2 is not known"),
    ],
)
def test_an_unfair_or_impossible_recipe_is_refused(tmp_path, old, new, message):
    assert old in RECIPE
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace(old, new))
    with pytest.raises(InputError, match=message):
        load_ablation(tmp_path / "recipe.yaml")


@pytest.mark.parametrize("path", sorted((PACKAGE / "distill/ablations").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_ablation_loads(path):
    recipe = load_ablation(path)
    assert {recipe.dev.split, recipe.test.split} == {"dev", "test"}
