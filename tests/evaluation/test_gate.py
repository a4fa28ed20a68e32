from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import ring, room_depth, sample

from fsmde_edge.errors import InputError
from fsmde_edge.evaluation.gallery import Gallery
from fsmde_edge.evaluation.gate import TILE, Gate, GateBudget
from fsmde_edge.evaluation.gate_report import gate_split, gate_table

RIG = ring(6)
FP32 = np.stack([room_depth(camera, 15.0) for camera in RIG.cameras])  # [6, 48, 64]
LIDAR = sample(RIG, dict(zip(RIG.names, FP32 * np.float32(1.1), strict=True)))
BARE = sample(RIG, {})


def judge(int8, what=BARE, fp32=FP32, **options):
    gate = Gate(**options)
    gate.add(what, fp32, int8.astype(np.float32))
    return gate.result()


def failing(result):
    return {reason.split()[0] for reason in result.reasons}


def test_equal_depths_pass():
    assert judge(FP32).passed
    gate = Gate()
    for _ in range(2):
        gate.add(LIDAR, FP32, FP32)
    result = gate.result()
    assert result.verdict == "passed"
    assert result.passed
    assert (result.deviation, result.worst_tile, result.farther) == (0, 0, 0)
    assert result.abs_rel_change == 0
    assert result.interval == (0, 0)
    assert (result.images, result.lidar_images) == (12, 12)


def test_fp32_that_is_exactly_right_has_a_change_all_the_same():
    exact = sample(RIG, dict(zip(RIG.names, FP32, strict=True)))
    assert judge(FP32, exact).abs_rel_change == 0
    json.dumps(judge(FP32 * 1.001, exact).as_dict(), allow_nan=False)


@pytest.mark.parametrize("metric", [True, False])
def test_fp32_that_is_not_a_number_fails(metric):
    fp32 = FP32.copy()
    fp32[1, 20:24, 20:24] = np.nan
    result = judge(FP32, LIDAR, fp32=fp32, metric=metric)
    assert result.verdict == "failed"
    json.dumps(result.as_dict(), allow_nan=False)


def test_a_mean_beyond_the_budget_trips_deviation_alone():
    result = judge(FP32 * 0.97)
    assert result.deviation == pytest.approx(0.03, rel=1e-4)
    assert failing(result) == {"deviation"}
    assert result.verdict == "failed"


def test_a_heavy_tail_trips_p99_alone():
    int8 = FP32.copy()
    int8.reshape(6, -1)[:, ::60] *= 0.85  # 1.7 % of all pixels, nearer
    result = judge(int8)
    assert result.p99 == pytest.approx(0.15, abs=1e-3)
    assert failing(result) == {"p99"}


def test_one_bad_tile_trips_worst_tile_alone():
    int8 = FP32.copy()
    int8[3, 16:32, 32:48] *= 0.8
    gate = Gate(budget=GateBudget(p99=1.0))
    tiles = gate.add(BARE, FP32, int8)
    result = gate.result()
    assert failing(result) == {"worst_tile"}
    worst = result.tiles[0]
    assert (worst.camera, worst.row, worst.column) == ("c3", 16, 32)
    assert worst.deviation == pytest.approx(0.2, rel=1e-5)
    assert worst.set_name == "scene/0"
    assert (3, worst) in tiles


def test_pixels_put_farther_trip_farther_alone():
    int8 = FP32.copy()
    int8.reshape(6, -1)[:, ::150] *= 1.11
    result = judge(int8, budget=GateBudget(p99=1.0, worst_tile=1.0))
    assert result.farther == pytest.approx(1 / 150, rel=0.05)
    assert failing(result) == {"farther"}
    nearer = FP32.copy()
    nearer.reshape(6, -1)[:, ::150] *= 0.89
    assert judge(nearer, budget=GateBudget(p99=1.0, worst_tile=1.0)).passed


@pytest.mark.parametrize("scale", [0.998, 1.002])
def test_a_change_of_abs_rel_trips_it_alone(scale):
    result = judge(FP32 * scale, LIDAR, budget=GateBudget())  # FP32 is 9.1 % off: 0.2 % more is 2 % of it
    assert failing(result) == {"abs_rel_change"}
    assert math.copysign(1, result.abs_rel_change) == (1 if scale < 1 else -1)
    assert abs(result.abs_rel_change) == pytest.approx(0.02, rel=0.01)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("metric", [True, False])
def test_int8_that_is_not_a_number_fails(value, metric):
    int8 = FP32.copy()
    int8[1, 20:24, 20:24] = value
    result = judge(int8, metric=metric)
    assert result.verdict == "failed"
    assert {"deviation", "worst_tile"} <= failing(result)
    json.dumps(result.as_dict(), allow_nan=False)


def test_too_few_lidar_images_are_inconclusive():
    three = ring(3)
    fp32 = np.stack([room_depth(camera) for camera in three.cameras])
    few = sample(three, dict(zip(three.names, fp32 * np.float32(1.1), strict=True)))
    result = judge(fp32 * 1.0001, few, fp32=fp32)
    assert result.verdict == "inconclusive"
    assert not result.passed
    assert result.interval is None
    assert "3 images with LiDAR" in result.reasons[0]


def test_an_interval_that_leaves_the_budget_is_inconclusive():
    gate = Gate()
    for scale in (0.9965, 1.0035):  # Abs Rel of single images changes by about 3.5 %, up and down
        gate.add(LIDAR, FP32, (FP32 * scale).astype(np.float32))
    result = gate.result()
    assert result.abs_rel_change == pytest.approx(0, abs=1e-3)
    assert result.interval[0] < -0.01
    assert result.interval[1] > 0.01
    assert result.verdict == "inconclusive"
    assert "more images are needed" in result.reasons[0]


@pytest.mark.parametrize("value", [0.0, 20.0])
def test_fp32_that_says_one_thing_everywhere_is_inconclusive(value):
    flat = np.full_like(FP32, value)
    result = judge(flat, fp32=flat)
    assert result.verdict == "inconclusive"
    assert "everywhere" in result.reasons[0]


def test_no_frame_is_inconclusive():
    result = Gate().result()
    assert result.verdict == "inconclusive"
    assert result.reasons == ("no frame to compare",)


def test_the_own_car_does_not_count():
    mask = np.ones((48, 64), dtype=bool)
    mask[32:] = False
    masked = RIG.with_ego_masks(dict.fromkeys(RIG.names, mask))
    int8 = FP32.copy()
    int8[:, 32:] *= 3
    assert judge(int8, sample(masked, {})).passed
    assert not judge(int8).passed
    blind = RIG.with_ego_masks(dict.fromkeys(RIG.names, np.zeros((48, 64), dtype=bool)))
    assert judge(int8, sample(blind, {})).verdict == "inconclusive"


def test_far_tiles_do_not_count_but_their_pixels_do():
    far = FP32 * 3  # 45 m
    int8 = far.copy()
    int8[0, :16, :16] *= 0.7
    result = judge(int8, fp32=far, budget=GateBudget(p99=1))
    assert result.worst_tile == 0
    assert result.passed
    assert result.deviation > 0


def test_tiles_mostly_on_the_own_car_do_not_count():
    mask = np.ones((48, 64), dtype=bool)
    mask[:9, :16] = False
    int8 = FP32.copy()
    int8[0, :16, :16] *= 0.7
    masked = RIG.with_ego_masks({"c0": mask})
    assert judge(int8, sample(masked, {}), budget=GateBudget(p99=1)).worst_tile == 0
    mask[8, :16] = True
    masked = RIG.with_ego_masks({"c0": mask})
    assert judge(int8, sample(masked, {}), budget=GateBudget(p99=1)).worst_tile == pytest.approx(
        0.3, rel=1e-5
    )


def test_without_metres_deviations_are_over_the_mean_output():
    raw = np.linspace(-1, 3, 6 * 48 * 64).reshape(6, 48, 64).astype(np.float32)
    result = judge(raw + np.float32(0.01), LIDAR, fp32=raw, metric=False)
    means = np.abs(raw).mean(axis=(1, 2))
    assert result.deviation == pytest.approx(float((0.01 / means).mean()), rel=1e-3)
    assert result.abs_rel_change is None
    assert result.distances == {}
    assert result.metric is False
    assert judge(raw, fp32=raw, metric=False).passed


def test_a_disparity_that_falls_is_farther():
    disparity = 1 / FP32
    wide = GateBudget(deviation=1, p99=1, worst_tile=1)
    falling, rising = (
        judge(disparity * scale, fp32=disparity, metric=False, disparity=True, budget=wide)
        for scale in (0.8, 1.2)
    )
    assert failing(falling) == {"farther"}
    assert rising.passed


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_the_numbers_equal_their_definitions(seed):
    rng = np.random.default_rng(seed)
    int8 = (FP32 * np.exp(rng.normal(0, 0.03, FP32.shape))).astype(np.float32)
    result = judge(int8)
    relative = (int8.astype(np.float64) - FP32) / FP32
    deviation = np.abs(relative)
    assert result.deviation == pytest.approx(deviation.mean(), rel=1e-9)
    assert result.p99 == pytest.approx(np.percentile(deviation, 99), abs=2e-4)
    assert result.farther == pytest.approx((relative > 0.10).mean())
    tiles = [
        deviation[i, y : y + TILE, x : x + TILE].mean()
        for i in range(6)
        for y in range(0, 48, TILE)
        for x in range(0, 64, TILE)
    ]
    assert result.worst_tile == pytest.approx(max(tiles))
    assert result.cameras["c2"] == pytest.approx(deviation[2].mean())


def test_the_report_says_every_number_and_keeps_the_worst_tiles():
    int8 = FP32.copy()
    int8[3, 16:32, 32:48] *= 0.8
    gate, gallery = Gate(), Gallery(size=2)
    images = np.full((6, 48, 64, 3), 90, dtype=np.uint8)
    for _ in range(3):
        gallery.add(gate.add(LIDAR, FP32, int8), images, FP32, int8)
    assert len(gate_table(gate.result()).rows) == 5
    assert {row[0] for row in gate_split(gate.result()).rows} == {*RIG.names, "0-10 m", "10-30 m"}
    pictures = gallery.pictures()
    assert len(pictures) == 2
    assert all("c3" in picture.title for picture in pictures)
    assert pictures[0].image.dtype == np.uint8


@pytest.mark.parametrize("value", [-0.1, 100, np.nan, np.inf])
@pytest.mark.parametrize("name", ["deviation", "p99", "worst_tile", "farther", "abs_rel_change"])
def test_a_budget_is_no_percentage(name, value):
    with pytest.raises(InputError, match=name):
        GateBudget(**{name: value})


def test_lidar_of_which_nothing_counts_is_inconclusive():
    result = judge(FP32, LIDAR, max_depth=5.0)
    assert result.verdict == "inconclusive"
    assert result.reasons == ("the frames have LiDAR, but none of it within 5 m",)
    assert judge(FP32 * 0.9, LIDAR, max_depth=5.0).verdict == "failed"


def test_a_map_smaller_than_a_tile_has_none():
    small = FP32[:, :8, :8]
    assert judge(small, fp32=small).worst_tile == 0


def test_faults_fail_whatever_was_measured():
    passed, failed, empty = judge(FP32), judge(FP32 * 0.9), Gate().result()
    assert passed.failed_by(()) is passed
    assert passed.failed_by(("broken",)).reasons == ("broken",)
    assert failed.failed_by(("broken",)).reasons == ("broken", *failed.reasons)
    assert empty.failed_by(("broken",)).reasons == ("broken",)
    assert {r.failed_by(("broken",)).verdict for r in (passed, failed, empty)} == {"failed"}


def test_what_is_not_a_number_is_judged_without_warnings(recwarn):
    int8, fp32 = FP32.copy(), FP32.copy()
    int8[0, 0, 0], fp32[0, 0, 0] = np.inf, np.inf
    assert judge(int8, LIDAR, fp32=fp32).verdict == "failed"
    assert [str(w.message) for w in recwarn] == []
