from __future__ import annotations

import csv
import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fsmde_edge.distill import data
from fsmde_edge.distill.augment import SKY, Views, _reframe, augment
from fsmde_edge.distill.command import TrainOptions, train_student
from fsmde_edge.distill.data import DEPTH_STEPS, SKY_STORED, ViewStore, draw_batch, open_store
from fsmde_edge.distill.losses import SKY_BEYOND, silog, sky_hinge
from fsmde_edge.distill.recipe import AugmentRecipe, StreetsRecipe, TrainRecipe
from fsmde_edge.distill.trainer import learning_rate, train
from fsmde_edge.errors import DeviceError, InputError, OutputError
from fsmde_edge.student import config
from fsmde_edge.student.config import StudentConfig

HEIGHT, WIDTH = 32, 64

# Losses

depths = st.lists(st.tuples(st.floats(0.5, 200), st.floats(0.5, 200)), min_size=2, max_size=30)


def loss(pairs, forgive):
    depth, truth = torch.tensor(pairs, dtype=torch.float64).T[:, None, None]
    return float(silog(depth, truth, forgive=forgive))


@given(depths, st.floats(0.0, 0.99))
def test_silog_equals_its_definition(pairs, forgive):
    g = np.log([d / t for d, t in pairs])
    assert loss(pairs, forgive) == pytest.approx(
        np.sqrt((g**2).mean() - forgive * g.mean() ** 2 + 1e-8), rel=1e-6, abs=1e-6
    )


@given(depths, st.floats(0.2, 5))
def test_silog_forgives_scale_as_far_as_it_says(pairs, scale):
    scaled = [(d * scale, t) for d, t in pairs]
    assert loss(scaled, 1.0) == pytest.approx(loss(pairs, 1.0), abs=1e-4)
    perfect = [(t * scale, t) for _, t in pairs]
    assert loss(perfect, 0.85) == pytest.approx(np.sqrt(0.15) * abs(np.log(scale)), abs=2e-4)


def test_silog_looks_at_ground_truth_alone():
    depth = torch.rand(1, 4, 4) + 1
    truth = torch.zeros(1, 4, 4)
    truth[0, 1, 1] = 3.0
    changed = depth.clone()
    changed[0, 0, 0] = 100
    truth[0, 2, 2] = SKY
    assert silog(depth, truth, forgive=0.85) == silog(changed, truth, forgive=0.85)
    nothing = torch.zeros(1, 4, 4)
    depth.requires_grad_()
    silog(depth, nothing, forgive=0.85).backward()
    assert torch.equal(depth.grad, torch.zeros_like(depth))


def test_the_sky_is_pushed_away_and_no_farther():
    sky = torch.tensor([[[True, False]]])
    near, far = torch.tensor([[[10.0, 1.0]]]), torch.tensor([[[SKY_BEYOND * 2, 1.0]]])
    assert float(sky_hinge(near, sky)) == pytest.approx(np.log(SKY_BEYOND / 10))
    assert float(sky_hinge(far, sky)) == 0
    assert float(sky_hinge(near, torch.zeros_like(sky))) == 0


# Augmentation


def column_views(count=6):
    """Each pixel's picture and depth say which column it came from: value = column + 1, row in channel 1."""
    column = torch.arange(WIDTH).float().expand(count, HEIGHT, WIDTH)
    row = torch.arange(HEIGHT).float()[:, None].expand(count, HEIGHT, WIDTH)
    return Views(torch.stack((column, row, column), dim=1), column + 1, torch.full((count,), 50.0))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31))
def test_zoom_and_mirror_keep_depth_true_for_the_new_focal_length(seed):
    before = column_views()
    after = _reframe(before, AugmentRecipe(zoom=1.5), torch.Generator().manual_seed(seed))
    zoom = (after.focal / before.focal).numpy()
    assert ((zoom >= 1) & (zoom <= 1.5)).all()
    for i in range(len(zoom)):
        came_from = after.pictures[i, 0].numpy()
        inner = came_from[:, 8:-8]
        # A step of one pixel in the new picture is 1 / zoom pixels of the old one: Δu / f stays.
        steps = np.diff(inner, axis=1)
        np.testing.assert_allclose(np.abs(steps), 1 / zoom[i], atol=1e-3)
        assert len(np.unique(np.sign(steps))) == 1
        down = np.diff(after.pictures[i, 1].numpy()[8:-8], axis=0)
        np.testing.assert_allclose(down, 1 / zoom[i], atol=1e-3)
        # Depth moved with its picture and is none that was not there.
        assert (np.abs(after.truth[i].numpy() - 1 - came_from)[:, 8:-8] <= 0.5 + 1e-3).all()
        assert set(np.unique(after.truth[i])) <= set(range(1, WIDTH + 1))


def test_both_mirrorings_and_many_zooms_are_drawn():
    after = _reframe(column_views(64), AugmentRecipe(), torch.Generator().manual_seed(0))
    rising = after.pictures[:, 0, 16, 40] > after.pictures[:, 0, 16, 20]
    assert 10 < int(rising.sum()) < 54
    assert len(torch.unique(after.focal)) > 32


def test_a_recipe_may_leave_the_framing_alone():
    views = column_views()
    after = _reframe(views, AugmentRecipe(zoom=1, vertical_shift=0.5), torch.Generator().manual_seed(3))
    assert torch.equal(after.focal, views.focal)
    for got, was in zip(after.pictures, views.pictures, strict=True):
        assert torch.allclose(got, was, atol=1e-3) or torch.allclose(got, was.flip(-1), atol=1e-3)


def test_colours_change_and_geometry_does_not():
    views = column_views()
    first, again = (augment(views, AugmentRecipe(), torch.Generator().manual_seed(5)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert first.pictures.shape == views.pictures.shape
    assert float(first.pictures.min()) >= 0
    assert float(first.pictures.max()) <= 255
    plain = _reframe(views, AugmentRecipe(), torch.Generator().manual_seed(5))
    assert torch.equal(first.truth, plain.truth)
    assert torch.equal(first.focal, plain.focal)


# The data


def store(sets=3, share=1.0, seed=0, focal=60.0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 255, (sets, 2, HEIGHT, WIDTH, 3), dtype=np.uint8)
    metres = rng.uniform(2, 60, (sets, 2, HEIGHT, WIDTH)) * (rng.random((sets, 2, HEIGHT, WIDTH)) < 0.3)
    depth = (metres * DEPTH_STEPS).astype(np.uint16)
    depth[:, :, 0] = SKY_STORED
    return ViewStore((images,), (depth,), np.full((sets, 2), focal, dtype=np.float32), 1, share)


def test_a_batch_is_what_was_stored():
    kept = store()
    batch = kept.batch(np.array([2, 0]))
    assert batch.pictures.shape == (4, 3, HEIGHT, WIDTH)
    assert torch.equal(batch.pictures[0].permute(1, 2, 0).byte(), torch.from_numpy(kept.images[0][2, 0]))
    expected = kept.depth[0][0, 1, 1:] / DEPTH_STEPS
    np.testing.assert_allclose(batch.truth[3, 1:].numpy(), expected, rtol=1e-6)
    assert (batch.truth[:, 0] == SKY).all()
    assert batch.focal.tolist() == [60.0] * 4


def test_a_batch_depends_on_seed_and_step_alone():
    stores = (store(seed=1), store(seed=2, share=2.0))
    one, again = draw_batch(stores, seed=3, step=7), draw_batch(stores, seed=3, step=7)
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    others = [draw_batch(stores, seed=3, step=step).pictures for step in range(8, 30)]
    assert any(not torch.equal(one.pictures, other) for other in others)


def test_sources_are_drawn_by_their_share():
    stores = (store(focal=1.0), store(focal=2.0, share=3.0))
    drawn = [float(draw_batch(stores, seed=0, step=step).focal[0]) for step in range(400)]
    assert np.mean(np.array(drawn) == 2.0) == pytest.approx(0.75, abs=0.07)


# The loop


@pytest.fixture(autouse=True)
def small_student(monkeypatch):
    small = StudentConfig(name="mini", width=4, decoder=(8, 8, 8, 8), bins=8)
    monkeypatch.setitem(config.STUDENTS, "mini", small)
    with torch.random.fork_rng():
        yield


def recipe(**change):
    streets = (StreetsRecipe(scenes=1, size=(HEIGHT, WIDTH)),)
    values = {"version": 1, "student": "mini", "streets": streets, "steps": 6, "warmup": 2, "seed": 4}
    return TrainRecipe(**{**values, **change})


def quiet(_: str) -> None:
    pass


def test_a_run_that_was_stopped_goes_on_exactly(tmp_path):
    whole = train(recipe(), (store(),), tmp_path / "whole", report=quiet, save_every=3)

    def stop(line):
        if line.startswith("step 3/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe(), (store(),), tmp_path / "parts", report=stop, save_every=3)
    torch.manual_seed(99)  # whatever else happened in between
    parts = train(recipe(), (store(),), tmp_path / "parts", report=quiet, save_every=3)
    assert parts.step == whole.step == 6
    for name in ("student", "averaged"):
        expected = getattr(whole, name).state_dict()
        for key, value in getattr(parts, name).state_dict().items():
            assert torch.equal(value, expected[key]), key
    with (tmp_path / "parts/log.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["3", "6"]


def test_training_learns_what_it_is_shown(tmp_path):
    flat = store(sets=1)
    flat.depth[0][:] = 4 * DEPTH_STEPS
    lines = []
    train(recipe(steps=40, learning_rate=0.005), (flat,), tmp_path, report=lines.append, save_every=10)
    losses = [float(line.split("loss ")[1].split(",")[0]) for line in lines]
    assert losses[-1] < 0.7 * losses[0], losses


def test_a_finished_run_is_not_trained_again(tmp_path):
    first = train(recipe(), (store(),), tmp_path, report=quiet)
    again = train(recipe(), (store(),), tmp_path, report=lambda _: pytest.fail("nothing is left to do"))
    for key, value in first.averaged.state_dict().items():
        assert torch.equal(again.averaged.state_dict()[key], value)


def test_a_run_of_another_recipe_is_refused(tmp_path):
    train(recipe(steps=1), (store(),), tmp_path, report=quiet)
    with pytest.raises(InputError, match="another recipe"):
        train(recipe(steps=2), (store(),), tmp_path, report=quiet)


@pytest.mark.parametrize("kept", [0.3, 0.9, 0.999])
def test_a_truncated_state_is_refused(tmp_path, kept):
    train(recipe(steps=1), (store(),), tmp_path, report=quiet)
    whole = (tmp_path / "state.pt").read_bytes()
    (tmp_path / "state.pt").write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(InputError, match=r"state\.pt.*remove it to start afresh"):
        train(recipe(steps=1), (store(),), tmp_path, report=quiet)


@pytest.mark.parametrize("state", [{}, [1], {"recipe": recipe(steps=1).sha256}])
def test_another_programs_state_is_refused(tmp_path, state):
    torch.save(state, tmp_path / "state.pt")
    with pytest.raises(InputError, match="remove it to start afresh"):
        train(recipe(steps=1), (store(),), tmp_path, report=quiet)


def test_weights_of_another_network_to_start_from_are_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=r"a\.safetensors: does not hold the weights of a ResNet-18"):
        train(recipe(init=str(tmp_path / "a.safetensors")), (store(),), tmp_path / "out", report=quiet)


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
    monkeypatch.setattr(data, "_render", lambda *_: pytest.fail("rendered"))
    with pytest.raises(OutputError, match="cannot be written"):
        told(**{which: read_only_folder})


def die(_):
    os._exit(1)


def test_a_renderer_that_was_killed_is_one_line(told, monkeypatch):
    monkeypatch.setattr(data, "_render_shard", die)
    with pytest.raises(DeviceError, match="fewer --render-workers"):
        told()


def fill_the_disk(_):
    raise OutputError("cannot be written", where="shard", hint="free some space")


def test_a_renderers_own_error_comes_through_whole(told, monkeypatch):
    monkeypatch.setattr(data, "_render_shard", fill_the_disk)
    with pytest.raises(OutputError, match=r"^shard: cannot be written; free some space$"):
        told()


def test_a_student_comes_of_it(told, tmp_path):
    assert told() == tmp_path / "out" / "student.safetensors"


@pytest.fixture
def shards(tmp_path):
    """A source of one shard, rendered."""
    source = StreetsRecipe(scenes=1, size=(HEIGHT, WIDTH))
    open_store(source, data_seed=3, cache=tmp_path, workers=1)
    return source, tmp_path


@pytest.mark.parametrize("ending", ["images", "depth", "focal"])
@pytest.mark.parametrize("kept", [0, 0.5])
def test_a_truncated_shard_is_rendered_again(shards, ending, kept):
    source, cache = shards
    (file,) = cache.rglob(f"*.{ending}.npy")
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * kept)])
    assert len(open_store(source, data_seed=3, cache=cache, workers=1)) == 1
    assert file.read_bytes() == whole


def test_a_whole_shard_needs_no_renderer(shards, monkeypatch):
    source, cache = shards
    monkeypatch.setattr("fsmde_edge.distill.data._render", lambda *_: pytest.fail("nothing is missing"))
    assert len(open_store(source, data_seed=3, cache=cache, workers=1)) == 1


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04broken", b"\x80\x02broken"])
def test_a_broken_state_is_refused(tmp_path, content):
    (tmp_path / "state.pt").write_bytes(content)
    with pytest.raises(InputError, match="remove it to start afresh"):
        train(recipe(), (store(),), tmp_path, report=quiet)


def test_a_loss_that_is_not_a_number_names_its_step(tmp_path):
    with pytest.raises(InputError, match="the loss is nan at step 0"):
        train(recipe(), (store(focal=np.nan),), tmp_path, report=quiet)
    assert not (tmp_path / "state.pt").exists()


def test_an_output_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="a part of this path is a file"):
        train(recipe(), (store(),), tmp_path / "file", report=quiet)


def test_the_learning_rate_warms_up_and_falls():
    steps = recipe(steps=100, warmup=10, learning_rate=1.0)
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
        ({"silog_lambda": 2.0}, "silog_lambda"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"sky_weight": -0.1}, "sky_weight"),
        ({"seed": -1}, "seed cannot be -1"),
        ({"data_seed": 2**32}, "data_seed cannot be"),
    ],
)
def test_an_impossible_recipe_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        recipe(**change)


def test_an_unknown_student_is_refused(tmp_path):
    with pytest.raises(InputError, match="no student is called giant; choose from base, tiny"):
        train(recipe(student="giant"), (store(),), tmp_path, report=quiet)


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
