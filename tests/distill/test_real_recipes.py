"""The recipes for DDAD and nuScenes, for a few steps on real frames with small networks."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fsmde_edge.datasets.selection import Selection
from fsmde_edge.distill.command import RECIPES, TrainOptions, prepare
from fsmde_edge.distill.parallel import Team
from fsmde_edge.distill.recipe import load_train_recipe
from fsmde_edge.distill.teachers.load import load_teacher
from fsmde_edge.distill.teachers.recipe import TeacherRecipe
from fsmde_edge.distill.trainer import Course, train
from fsmde_edge.errors import InputError
from fsmde_edge.student import config
from fsmde_edge.student.config import StudentConfig

FRAMES = {
    "ddad": Selection(path="ddad_sample", scenes=("scene_02",), masks="ddad_masks/0", max_depth=200),
    "nuscenes": Selection(path="nuscenes_sample", max_depth=80),
}


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setitem(
        config.STUDENTS, "mini", StudentConfig(name="mini", width=4, decoder=(8, 8, 8, 8), bins=8)
    )


def on_sample(name):
    """The shipped recipe, for two steps of a small student on the sample; a small size, one set a batch."""
    recipe = load_train_recipe(RECIPES / f"{name}.yaml")
    (recording,) = recipe.recordings
    recording = replace(recording, frames=FRAMES[name], size=(192, 320), sets_per_batch=1)
    teacher = TeacherRecipe(kind="own", source="shipped", feature_stride=recipe.teacher.feature_stride)
    return replace(recipe, student="mini", init=None, steps=2, recordings=(recording,), teacher=teacher)


@pytest.mark.parametrize("name", sorted(FRAMES))
def test_it_trains_on_real_frames(name, shared_data, tmp_path, small):
    recipe = on_sample(name)
    options = TrainOptions(recipe=name, out=tmp_path, data_root=shared_data, cache=tmp_path / "cache")
    cpu = torch.device("cpu")
    data, lessons = prepare(recipe, options, load_teacher(recipe.teacher, cpu), lambda _: None)
    assert len(data) == {"ddad": 3, "nuscenes": 1}[name]
    batch = data.stores[0].batch((0,))
    known = batch.truth > 0
    assert 0.005 < known.float().mean() < 0.3
    assert batch.truth.max() < recipe.recordings[0].frames.max_depth
    assert bool((~batch.world).any()) == (name == "ddad")
    lines = []
    run = train(Course(recipe, data, Team(0, 1, cpu), lessons), tmp_path / "run", report=lines.append)
    assert run.step == 2
    assert all(word in lines[0] for word in ("silog", "probability", "centre", "relation"))


def test_a_recording_that_is_not_there_is_told(tmp_path, small):
    options = TrainOptions(recipe="ddad", out=tmp_path, data_root=tmp_path, cache=tmp_path / "cache")
    with pytest.raises(InputError, match="the data set is missing"):
        prepare(on_sample("ddad"), options, None, lambda _: None)


def test_the_paper_recipes_differ_from_a_users_data_in_nothing_but_place():
    """What the samples stand in for: the whole method at the paper's sizes, taught by Depth Anything."""
    for name, size in (("ddad", (384, 640)), ("nuscenes", (352, 640))):
        recipe = load_train_recipe(RECIPES / f"{name}.yaml")
        assert recipe.recordings[0].size == size
        assert (recipe.method.name, recipe.teacher.kind) == ("both", "depth-anything")
