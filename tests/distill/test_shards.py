"""Frame sets on disk and the batches drawn from them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from made_sets import HEIGHT, VIEWS, WIDTH, made_store

from fsmde_edge.distill.augment import SKY
from fsmde_edge.distill.data import Draw, Streets, TrainingSet
from fsmde_edge.distill.labels import keep_labels
from fsmde_edge.distill.recipe import LabelsRecipe, StreetsRecipe
from fsmde_edge.distill.shards import (
    DEPTH_STEPS,
    EGO_STORED,
    FARTHEST_STORED,
    SKY_STORED,
    open_store,
    stored_depth,
)
from fsmde_edge.errors import InputError

SOURCE = StreetsRecipe(scenes=1, size=(HEIGHT, WIDTH))


def test_a_batch_is_what_was_stored():
    kept = made_store()
    batch = kept.batch((2, 0))
    assert batch.pictures.shape == (2, VIEWS, 3, HEIGHT, WIDTH)
    first = kept.row(2)
    assert torch.equal(batch.pictures[0, 1].permute(1, 2, 0).byte(), torch.from_numpy(first.images[1]))
    np.testing.assert_allclose(batch.truth[0, 1, 1:-1].numpy(), first.depth[1, 1:-1] / DEPTH_STEPS, rtol=1e-6)
    assert (batch.truth[:, :, 0] == SKY).all()
    assert (batch.truth[:, :, -1] == 0).all()
    assert not batch.world[:, :, -1].any()
    assert batch.world[:, :, :-1].all()
    assert (batch.focal == 60).all()
    assert torch.equal(batch.extrinsics[1], torch.from_numpy(kept.row(0).extrinsics))


def test_depth_is_stored_with_sky_and_own_car_apart():
    metres = np.array([[0, 1.5, 255.99, 400]], dtype=np.float32)
    sky = np.array([[True, False, False, False]])
    assert stored_depth(metres, sky=sky, world=None).tolist() == [
        [SKY_STORED, 384, FARTHEST_STORED, FARTHEST_STORED]
    ]
    world = np.array([[False, True, True, True]])
    assert stored_depth(metres, sky=sky, world=world)[0, 0] == EGO_STORED
    assert stored_depth(metres, sky=None, world=None)[0, 0] == 0


def training_set(*shares, **change):
    stores = tuple(made_store(seed=i, focal=float(i + 1), **change) for i in range(len(shares)))
    return TrainingSet(stores, tuple(replace(SOURCE, share=share) for share in shares))


def test_a_batch_depends_on_seed_and_step_alone():
    data = training_set(1.0, 2.0)
    one, again = data.draw(seed=3, step=7), data.draw(seed=3, step=7)
    assert (one.store, one.indices) == (again.store, again.indices)
    others = [data.draw(seed=3, step=step) for step in range(8, 30)]
    assert any((one.store, one.indices) != (other.store, other.indices) for other in others)


def test_sources_are_drawn_by_their_share():
    data = training_set(1.0, 3.0)
    drawn = [data.draw(seed=0, step=step).store is data.stores[1] for step in range(400)]
    assert np.mean(drawn) == pytest.approx(0.75, abs=0.07)


# Labels


def labelled(store, **shares):
    draw = Draw(store, tuple(range(len(store))))
    return keep_labels(store.batch(draw.indices), LabelsRecipe(**shares), draw).truth


def test_all_labels_are_kept_where_nothing_is_said():
    store = made_store()
    assert torch.equal(labelled(store), store.batch((0, 1, 2)).truth)


def test_a_share_of_the_points_is_kept_and_a_larger_one_adds_to_it():
    store = made_store(sets=2)
    whole, half, tenth = (labelled(store, points=share) for share in (1.0, 0.5, 0.1))
    for kept, share in ((half, 0.5), (tenth, 0.1)):
        assert (kept != 0).sum() == pytest.approx(share * float((whole != 0).sum()), rel=0.1)
        assert torch.equal(kept[kept != 0], whole[kept != 0])
    assert ((tenth == 0) | (half != 0)).all()
    assert torch.equal(tenth, labelled(store, points=0.1))


def test_a_share_of_the_scenes_is_labelled_whole_or_not_at_all():
    store = made_store(sets=16)
    whole, some = store.batch(range(16)).truth, labelled(store, scenes=0.5)
    kept = [torch.equal(a, b) for a, b in zip(whole, some, strict=True)]
    empty = [not one.any() for one in some]
    assert [a != b for a, b in zip(kept, empty, strict=True)] == [True] * 16
    assert 3 < sum(kept) < 13
    fewer = labelled(store, scenes=0.2)
    assert ((fewer == 0) | (some != 0)).all()


# Rendering


@pytest.fixture
def rendered(tmp_path):
    """A source of one shard, rendered."""
    source = Streets(recipe=SOURCE, data_seed=3)
    open_store(source, cache=tmp_path, workers=1)
    return source, tmp_path


@pytest.mark.parametrize("field", ["images", "depth", "intrinsics", "extrinsics"])
@pytest.mark.parametrize("kept", [0, 0.5])
def test_a_truncated_shard_is_made_again(rendered, field, kept):
    source, cache = rendered
    (file,) = cache.rglob(f"*.{field}.npy")
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * kept)])
    assert len(open_store(source, cache=cache, workers=1)) == 1
    assert file.read_bytes() == whole


def test_a_whole_shard_is_not_made_again(rendered, monkeypatch):
    source, cache = rendered
    monkeypatch.setattr("fsmde_edge.distill.shards._make", lambda *_: pytest.fail("nothing is missing"))
    assert len(open_store(source, cache=cache, workers=1)) == 1


def test_rendered_streets_are_those_of_the_data_set(rendered):
    from fsmde_edge.datasets.synthetic import SyntheticStreets

    source, cache = rendered
    row = open_store(source, cache=cache, workers=1).row(0)
    streets = SyntheticStreets("train", scenes=1, width=WIDTH, height=HEIGHT, seed=3)
    sample, dense = streets[0], streets.dense_depth(0)
    for i, camera in enumerate(sample.rig.cameras):
        assert (row.images[i] == sample.frame_set.frames[i].image).all()
        np.testing.assert_allclose(row.intrinsics[i], camera.intrinsics, rtol=1e-6)
        np.testing.assert_allclose(row.extrinsics[i], camera.camera_to_vehicle, atol=1e-6)
        world = np.ones((HEIGHT, WIDTH), bool) if camera.ego_mask is None else camera.ego_mask
        assert ((row.depth[i] == EGO_STORED) == ~world).all()
        assert (row.depth[i][world & (dense[camera.name] == 0)] == SKY_STORED).all()


class Mixed:
    """A source whose last frame sets have another number of cameras."""

    key, size = "mixed", (HEIGHT, WIDTH)

    def __init__(self, sets, from_set):
        self.sets, self.from_set = sets, from_set

    def __len__(self):
        return self.sets

    def name(self, index):
        return f"scene/{index}"

    def rows(self, indices):
        for index in indices:
            yield made_store(sets=1, views=2 if index >= self.from_set else VIEWS).row(0)


@pytest.mark.parametrize(("sets", "from_set"), [(3, 2), (18, 16)])
def test_rigs_of_different_cameras_are_told_within_a_shard_and_across(tmp_path, sets, from_set):
    message = f"^scene/{from_set}: has 2 cameras, frame sets before it have {VIEWS}; train on scenes"
    with pytest.raises(InputError, match=message):
        open_store(Mixed(sets, from_set), cache=tmp_path, workers=1)
