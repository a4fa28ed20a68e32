import numpy as np
import pytest

from fsmde_edge.datasets.synthetic import SyntheticStreets
from fsmde_edge.datasets.synthetic.solids import Material
from fsmde_edge.errors import InputError
from fsmde_edge.frames import Clock
from fsmde_edge.rig import Camera


@pytest.fixture(scope="module")
def streets() -> SyntheticStreets:
    return SyntheticStreets("test", scenes=4, samples_per_scene=2, width=160, height=96, seed=3)


@pytest.fixture(scope="module")
def samples(streets):
    return [streets[index] for index in range(0, len(streets), 2)]


def images_of(sample) -> np.ndarray:
    return np.stack([frame.image for frame in sample.frame_set.frames])


def test_samples_do_not_depend_on_the_order_of_access(streets):
    again = SyntheticStreets("test", scenes=4, samples_per_scene=2, width=160, height=96, seed=3)
    last, first = again[7], again[0]
    for index, other in ((0, first), (7, last)):
        sample = streets[index]
        assert (images_of(sample) == images_of(other)).all()
        for name, depth in sample.depth.items():
            assert (depth == other.depth[name]).all()


def test_a_scene_does_not_depend_on_how_many_there_are(streets):
    many = SyntheticStreets("test", scenes=40, samples_per_scene=2, width=160, height=96, seed=3)
    assert (images_of(many[2]) == images_of(streets[2])).all()


@pytest.mark.parametrize("other", [("dev", 3), ("train", 3), ("test", 4)])
def test_splits_and_seeds_differ(streets, other):
    split, seed = other
    different = SyntheticStreets(split, scenes=4, samples_per_scene=2, width=160, height=96, seed=seed)
    assert np.abs(images_of(different[0]).astype(int) - images_of(streets[0])).mean() > 8


def test_dev_and_test_have_their_own_camera_heights():
    heights = {
        split: [
            camera.height_m
            for number in range(6)
            for camera in SyntheticStreets(split, scenes=6)._world(number).rig.cameras
        ]
        for split in ("dev", "test")
    }
    assert max(heights["dev"]) < min(heights["test"])


def test_ring_order_size_and_clock(streets, samples):
    for sample in samples:
        assert sample.frame_set.cameras == tuple(f"CAMERA_{n}" for n in ("01", "05", "07", "09", "08", "06"))
        assert images_of(sample).shape == (6, 96, 160, 3)
        assert {frame.stamp.clock for frame in sample.frame_set.frames} == {Clock.RECORDED}
    first, second = streets[0].frame_set, streets[1].frame_set
    assert second.stamps_ns[0] - first.stamps_ns[0] == 100_000_000


def test_the_rig_of_a_scene_stays_and_the_vehicle_moves():
    streets = SyntheticStreets("test", scenes=8, samples_per_scene=3, width=64, height=40)
    moved = 0
    for number in range(8):
        before, after = streets.vehicle_pose(3 * number), streets.vehicle_pose(3 * number + 2)
        speed = streets._world(number).scene.speed
        assert np.linalg.norm(after[:3, 3] - before[:3, 3]) == pytest.approx(0.2 * speed, abs=1e-9)
        moved += speed > 1
    assert moved >= 4
    one, two = streets[0].rig, streets[1].rig
    for a, b in zip(one.cameras, two.cameras, strict=True):
        assert (a.camera_to_vehicle == b.camera_to_vehicle).all()


def test_pictures_have_contrast_and_sky_above(streets, samples):
    share = []
    for index, sample in zip(range(0, len(streets), 2), samples, strict=True):
        assert images_of(sample).std(axis=(1, 2, 3)).min() > 10
        dense = streets.dense_depth(index)
        share += [(depth[:10] == 0).mean() - (depth[60:70] == 0).mean() for depth in dense.values()]
    assert np.mean(share) > 0.25


def test_depth_of_the_road_is_the_plane_that_the_calibration_says(streets):
    from fsmde_edge.datasets.synthetic.raycast import RayGrid, cast

    checked = 0
    for index in range(0, len(streets), 2):
        world = streets._world(index // 2)
        table, pose = world.table(0.0)
        dense = streets.dense_depth(index)
        for camera in world.rig.cameras:
            grid = RayGrid.of_pinhole(camera.intrinsics, camera.width, camera.height)
            hits = cast(table, grid, pose @ camera.camera_to_vehicle)
            ground = np.array([s.paint.material == Material.GROUND for s in table.solids])[hits.solid]
            plane = plane_depth(camera)
            road = ground & (hits.solid >= 0) & (hits.face == 0) & (plane > 0) & (plane < 12)
            if camera.ego_mask is not None:
                road &= camera.ego_mask
                assert not dense[camera.name][~camera.ego_mask].any()
            error = np.abs(dense[camera.name][road] - plane[road]) / plane[road]
            level = error < 1e-4  # the rest is pavement, a kerb's height up
            assert (error < 0.25).mean() > 0.95
            checked += int(level.sum())
    assert checked > 5000


def plane_depth(camera: Camera) -> np.ndarray:
    """z of the plane under the vehicle at each pixel's centre; 0 above the horizon."""
    v, u = np.mgrid[: camera.height, : camera.width] + 0.5
    down = camera.rays(np.stack((u, v), axis=-1)) @ camera.camera_to_vehicle[2, :3]
    return np.where(down < -1e-6, -camera.height_m / np.minimum(down, -1e-6), 0)


def test_lidar_agrees_with_dense_depth_away_from_edges(streets, samples):
    errors = []
    for index, sample in zip(range(0, len(streets), 2), samples, strict=True):
        dense = streets.dense_depth(index)
        for camera in sample.rig.cameras:
            exact, sparse = dense[camera.name], sample.depth[camera.name]
            assert sparse.dtype == np.float32
            spread = np.stack([np.roll(exact, s, axis=a) for a in (0, 1) for s in (-1, 1)] + [exact])
            smooth = spread.max(axis=0) < 1.1 * np.maximum(spread.min(axis=0), 1e-3)
            both = (sparse > 0) & (exact > 0) & smooth
            errors.append(np.abs(sparse[both] - exact[both]) / exact[both])
    errors = np.concatenate(errors)
    assert len(errors) > 5000
    assert np.median(errors) < 0.01
    assert (errors < 0.1).mean() > 0.9


def test_lidar_sweep_is_dense_within_range_and_off_the_own_car(streets):
    points = streets.lidar_points(0)
    assert points.dtype == np.float32
    assert points.shape[1] == 4
    assert 20_000 < len(points) < 100_000
    reach = np.linalg.norm(points[:, :3], axis=1)
    assert reach.max() < 252
    assert ((points[:, 3] >= 0) & (points[:, 3] <= 1)).all()


@pytest.mark.parametrize(("share", "seen"), [(0.0, False), (1.0, True)])
def test_own_car_is_masked_in_the_chosen_share_of_scenes(share, seen):
    streets = SyntheticStreets("test", scenes=3, width=96, height=56, ego_share=share)
    for number in range(3):
        rig = streets._world(number).rig
        assert all((camera.ego_mask is not None) == seen for camera in rig.cameras)
        if seen:
            assert 0.02 < 1 - rig["CAMERA_07"].ego_mask.mean() < 0.6


@pytest.mark.parametrize(
    "wrong", [{"split": "val"}, {"scenes": 0}, {"samples_per_scene": 0}, {"width": 0}, {"height": 3}]
)
def test_impossible_data_sets_are_refused(wrong):
    with pytest.raises(InputError):
        SyntheticStreets(**{"split": "test", "scenes": 1, **wrong})


def test_there_is_nothing_beyond_the_last_sample(streets):
    with pytest.raises(IndexError):
        streets[len(streets)]
