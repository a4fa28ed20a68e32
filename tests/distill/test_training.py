"""The training loop: exact resume, honest failures, recipes."""

from __future__ import annotations

import csv
import os

import numpy as np
import pytest
import torch
from made_sets import made_course, made_recipe, made_store

from fsmde_edge.distill import shards
from fsmde_edge.distill.command import TrainOptions, train_student
from fsmde_edge.distill.recipe import StreetsRecipe
from fsmde_edge.distill.shards import DEPTH_STEPS
from fsmde_edge.distill.trainer import learning_rate, train
from fsmde_edge.errors import DeviceError, InputError, OutputError
from fsmde_edge.student import config
from fsmde_edge.student.config import StudentConfig


@pytest.fixture(autouse=True)
def small_student(monkeypatch):
    small = StudentConfig(name="mini", width=4, decoder=(8, 8, 8, 8), bins=8)
    monkeypatch.setitem(config.STUDENTS, "mini", small)
    with torch.random.fork_rng():
        yield


def quiet(_: str) -> None:
    pass


def test_a_run_that_was_stopped_goes_on_exactly(tmp_path):
    whole = train(made_course(made_recipe()), tmp_path / "whole", report=quiet, save_every=3)

    def stop(line):
        if line.startswith("step 3/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(made_course(made_recipe()), tmp_path / "parts", report=stop, save_every=3)
    torch.manual_seed(99)  # whatever else happened in between
    parts = train(made_course(made_recipe()), tmp_path / "parts", report=quiet, save_every=3)
    assert parts.step == whole.step == 6
    for name in ("learner", "averaged"):
        expected = getattr(whole, name).state_dict()
        for key, value in getattr(parts, name).state_dict().items():
            assert torch.equal(value, expected[key]), key
    with (tmp_path / "parts/log.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["3", "6"]


def test_training_learns_what_it_is_shown(tmp_path):
    flat = made_store(sets=1)
    flat.shards[0].depth[:] = 4 * DEPTH_STEPS
    lines = []
    train(
        made_course(made_recipe(steps=40, learning_rate=0.005), flat),
        tmp_path,
        report=lines.append,
        save_every=10,
    )
    losses = [float(line.split("loss ")[1].split()[0]) for line in lines]
    assert losses[-1] < 0.7 * losses[0], losses


def test_a_finished_run_is_not_trained_again(tmp_path):
    first = train(made_course(made_recipe()), tmp_path, report=quiet)
    again = train(made_course(made_recipe()), tmp_path, report=lambda _: pytest.fail("nothing is left to do"))
    for key, value in first.averaged.state_dict().items():
        assert torch.equal(again.averaged.state_dict()[key], value)


def test_a_run_of_another_recipe_is_refused(tmp_path):
    train(made_course(made_recipe(steps=1)), tmp_path, report=quiet)
    with pytest.raises(InputError, match="another recipe"):
        train(made_course(made_recipe(steps=2)), tmp_path, report=quiet)


@pytest.mark.parametrize("kept", [0.3, 0.9, 0.999])
def test_a_truncated_state_is_refused(tmp_path, kept):
    train(made_course(made_recipe(steps=1)), tmp_path, report=quiet)
    whole = (tmp_path / "state.pt").read_bytes()
    (tmp_path / "state.pt").write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(InputError, match=r"state\.pt.*remove it to start afresh"):
        train(made_course(made_recipe(steps=1)), tmp_path, report=quiet)


@pytest.mark.parametrize("state", [{}, [1], {"recipe": made_recipe(steps=1).sha256}])
def test_another_programs_state_is_refused(tmp_path, state):
    torch.save(state, tmp_path / "state.pt")
    with pytest.raises(InputError, match="remove it to start afresh"):
        train(made_course(made_recipe(steps=1)), tmp_path, report=quiet)


def test_weights_of_another_network_to_start_from_are_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=r"a\.safetensors: does not hold the weights of a ResNet-18"):
        train(made_course(made_recipe(init=str(tmp_path / "a.safetensors"))), tmp_path / "out", report=quiet)


@pytest.fixture
def told(tmp_path):
    """What a user asks for: a recipe with one more line, and where to write."""

    def run(line="", **change):
        path = tmp_path / "train.yaml"
        streets = "streets: [{scenes: 1, size: [32, 64]}]"
        path.write_text(f"version: 1\nstudent: mini\nsteps: 1\n{streets}\n{line}\n")
        values = {"out": tmp_path / "out", "cache": tmp_path / "cache", "render_workers": 1, "threads": 1}
        return train_student(TrainOptions(recipe=str(path), **{**values, **change}), quiet)

    return run


@pytest.mark.parametrize("key", ["init", "start"])
def test_missing_weights_are_told_before_anything_is_rendered(told, tmp_path, key):
    with pytest.raises(InputError, match=r"absent\.safetensors: no such checkpoint"):
        told(f"{key}: absent.safetensors")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("which", ["out", "cache"])
def test_a_folder_that_refuses_is_told_before_anything_is_rendered(
    told, read_only_folder, monkeypatch, which
):
    monkeypatch.setattr(shards, "_make", lambda *_: pytest.fail("rendered"))
    with pytest.raises(OutputError, match="cannot be written"):
        told(**{which: read_only_folder})


def die(_):
    os._exit(1)


def test_a_renderer_that_was_killed_is_one_line(told, monkeypatch):
    monkeypatch.setattr(shards, "_make_shard", die)
    with pytest.raises(DeviceError, match="fewer --render-workers"):
        told()


def fill_the_disk(_):
    raise OutputError("cannot be written", where="shard", hint="free some space")


def test_a_renderers_own_error_comes_through_whole(told, monkeypatch):
    monkeypatch.setattr(shards, "_make_shard", fill_the_disk)
    with pytest.raises(OutputError, match=r"^shard: cannot be written; free some space$"):
        told()


def test_a_student_comes_of_it(told, tmp_path):
    assert told() == tmp_path / "out" / "student.safetensors"


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04broken", b"\x80\x02broken"])
def test_a_broken_state_is_refused(tmp_path, content):
    (tmp_path / "state.pt").write_bytes(content)
    with pytest.raises(InputError, match="remove it to start afresh"):
        train(made_course(made_recipe()), tmp_path, report=quiet)


def test_a_loss_that_is_not_a_number_names_its_step(tmp_path):
    with pytest.raises(InputError, match=r"^made/\d: the loss is nan at step 0"):
        train(made_course(made_recipe(), made_store(focal=np.nan)), tmp_path, report=quiet)
    assert not (tmp_path / "state.pt").exists()


def test_an_output_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="a part of this path is a file"):
        train(made_course(made_recipe()), tmp_path / "file", report=quiet)


def test_the_learning_rate_warms_up_and_falls():
    steps = made_recipe(steps=100, warmup=10, learning_rate=1.0)
    rates = [learning_rate(steps, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(0.01, abs=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version 2 is not known"),
        ({"steps": 0}, "needs data"),
        ({"streets": ()}, "needs data"),
        ({"learning_rate": 0.0}, "learning_rate cannot be 0"),
        ({"learning_rate": np.nan}, "learning_rate cannot be nan"),
        ({"clip": np.inf}, "clip cannot be inf"),
        ({"warmup": -1}, "warmup cannot be -1"),
        ({"ema": 1.5}, "ema cannot be 1.5; choose a finite number from 0 to 1"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"seed": -1}, "seed cannot be -1"),
        ({"data_seed": 2**32}, "data_seed cannot be"),
    ],
)
def test_an_impossible_recipe_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        made_recipe(**change)


def test_an_unknown_student_is_refused(tmp_path):
    with pytest.raises(InputError, match="no student is called giant; choose from base, tiny, micro"):
        train(made_course(made_recipe(student="giant")), tmp_path, report=quiet)


@pytest.mark.parametrize(
    "change",
    [
        {"size": (30, 64)},
        {"scenes": 0},
        {"share": 0.0},
        {"sets_per_batch": 0},
        {"rig_spread": -1.0},
        {"share": np.nan},
        {"scenes": 10**7},
        {"size": (32, 8192)},
    ],
)
def test_an_impossible_source_is_refused(change):
    with pytest.raises(InputError):
        StreetsRecipe(**{"scenes": 1, "size": (32, 64), **change})
