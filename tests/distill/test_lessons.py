"""What a teacher says of a training set comes from disk, the right view to the right place."""

from __future__ import annotations

import pytest
import torch
from made_sets import HEIGHT, VIEWS, WIDTH, made_store

from fsmde_edge.cli.main import main
from fsmde_edge.distill.data import Draw, TrainingSet
from fsmde_edge.distill.lessons import prepare_lessons
from fsmde_edge.distill.recipe import StreetsRecipe
from fsmde_edge.distill.teachers.base import TeacherOutput
from fsmde_edge.student import config
from fsmde_edge.student.config import StudentConfig

SOURCE = StreetsRecipe(scenes=1, size=(HEIGHT, WIDTH))


class Mean:
    """A teacher that says how bright a picture is, and counts what it is asked."""

    name, fingerprint, parameters = "mean", "f" * 64, 0

    def __init__(self):
        self.asked = 0

    def __call__(self, pictures):
        self.asked += len(pictures)
        bright = pictures.mean(dim=(1, 2, 3))[:, None, None]
        return TeacherOutput(
            bright.expand(-1, HEIGHT, WIDTH), bright[..., None].expand(-1, 5, HEIGHT // 8, WIDTH // 8)
        )


def test_each_view_gets_what_the_teacher_says_of_it(tmp_path):
    data = TrainingSet((made_store(seed=1), made_store(seed=2, sets=2)), (SOURCE, SOURCE))
    lessons = prepare_lessons(data, Mean(), tmp_path)
    assert lessons.channels == 5
    for store, indices in ((data.stores[0], (2, 0)), (data.stores[1], (1,))):
        said = lessons.of(Draw(store, indices))
        bright = store.batch(indices).pictures.mean(dim=(2, 3, 4))
        assert said.features.shape == (len(indices), VIEWS, 5, HEIGHT // 8, WIDTH // 8)
        torch.testing.assert_close(said.disparity[..., 0, 0], bright, rtol=2e-3, atol=0)


def test_nothing_is_asked_twice(tmp_path):
    data = TrainingSet((made_store(),), (SOURCE,))
    for expected in (3 * VIEWS, 0):
        teacher = Mean()
        prepare_lessons(data, teacher, tmp_path)
        assert teacher.asked == expected


RECIPE = """\
version: 1
student: mini
steps: 2
warmup: 1
method: {name: both}
teacher: {kind: own, source: shipped, feature_stride: 8}
streets: [{scenes: 1, size: [32, 64], sets_per_batch: 1}]
"""


@pytest.fixture
def ask(tmp_path, monkeypatch, capsys):
    """The command line over a recipe."""
    monkeypatch.setitem(
        config.STUDENTS, "mini", StudentConfig(name="mini", width=4, decoder=(8, 8, 8, 8), bins=8)
    )

    def run(command, text=RECIPE):
        (tmp_path / "recipe.yaml").write_text(text)
        folders = ["--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
        code = main([command, str(tmp_path / "recipe.yaml"), *folders, "--threads", "1"])
        return code, capsys.readouterr()

    return run


def test_distill_leaves_a_student_that_tells_who_taught_it(ask, tmp_path):
    from fsmde_edge.student.checkpoint import load_checkpoint

    code, said = ask("distill")
    assert code == 0, said.err
    assert "teacher own-tiny has seen them" in said.out
    assert said.out.splitlines()[-1] == f"student: {tmp_path / 'out/student.safetensors'}"
    _, made = load_checkpoint(tmp_path / "out/student.safetensors")
    assert made["teacher"]["name"] == "own-tiny"
    assert len(made["teacher"]["fingerprint"]) == 64
    assert made["command"].startswith("fsmde-edge distill ")


def test_a_recipe_with_a_teacher_is_not_for_train(ask):
    code, said = ask("train")
    assert code == 2
    assert "run: fsmde-edge distill" in said.err


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("source: shipped", "source: absent.safetensors", "absent.safetensors: no such checkpoint"),
        ("teacher:", "# teacher:", "method both needs a teacher"),
        ("{name: both}", "{name: supervised}", "supervised training asks no teacher"),
        ("steps: 2", "steps: 2\naugment: {each_view: true}", "no relations to distil"),
        ("steps: 2", "steps: 2\nlabels: {points: 0}", "points cannot be 0"),
        ("steps: 2", "steps: 2\nquantise: {bundle: b}", "trained from a student that is done"),
        ("{name: both}", "{name: ckd, vrkd: {weight: 1}}", "method ckd has no term vrkd"),
    ],
)
def test_a_recipe_that_cannot_be_is_one_line(ask, old, new, message):
    code, said = ask("distill", RECIPE.replace(old, new))
    assert code == 3
    assert message in said.err
    assert said.err.count("\n") == 1
