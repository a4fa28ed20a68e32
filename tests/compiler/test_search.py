"""What goes back into half precision, and by which frames that is decided."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from toy_depth import depth_network
from toy_search import chain, int8

from fsmde_edge.compiler.calibrate import Ranges, calibrate
from fsmde_edge.compiler.frames import Survey, batches
from fsmde_edge.compiler.half import to_half
from fsmde_edge.compiler.lowering.tensorrt import lower
from fsmde_edge.compiler.plan import PlanOptions
from fsmde_edge.compiler.predict.cost import estimate
from fsmde_edge.compiler.predict.fusion import fuse
from fsmde_edge.compiler.search import Search, search_precision
from fsmde_edge.compiler.search_report import write_search_report
from fsmde_edge.compiler.trial import MOST_SETS, SHARE, Trial, make_trial
from fsmde_edge.datasets.synthetic import SyntheticStreets
from fsmde_edge.evaluation.gate import GateBudget
from fsmde_edge.preprocess import own_pinholes
from fsmde_edge.targets import load_target

VIEWS, HEIGHT, WIDTH = 6, 32, 64
OPTIONS = PlanOptions(calibrator="max")
LOOSE = GateBudget(deviation=1.0, p99=1.0, worst_tile=1.0, farther=1.0, abs_rel_change=1.0)
TIGHT = replace(LOOSE, deviation=0.0)
ORIN = load_target("orin-agx-64gb")[0]


@cache
def network():
    return depth_network(views=VIEWS, height=HEIGHT, width=WIDTH)


@cache
def streets():
    return SyntheticStreets("train", scenes=6, width=WIDTH, height=HEIGHT, seed=3)


@cache
def pinholes():
    return own_pinholes(streets()[0].rig, WIDTH, HEIGHT)


@cache
def ranges() -> Ranges:
    frames = batches([streets()[0], streets()[1]], pinholes(), Survey(streets()[0].rig.names))
    return calibrate(network(), frames, OPTIONS.place(network()).calibrate, threads=1)


@cache
def trial(budget: GateBudget = LOOSE) -> Trial:
    return make_trial(network(), [streets()], pinholes(), budget, threads=1)


@cache
def searched(deviation_share: float) -> Search:
    """The search under a budget of mean deviation that is a share of all-INT8's."""
    whole = trial().judge(trial().run(lower(network(), OPTIONS.plan(network(), ranges()))))
    limit = whole.deviation * deviation_share / SHARE
    return search_precision(
        network(), ranges(), OPTIONS, trial(replace(LOOSE, deviation=limit)), ORIN, progress=lambda _: None
    )


def test_the_trial_looks_at_a_few_sets_of_the_whole_rig_and_keeps_a_share_of_the_budget():
    assert len(trial().samples) == MOST_SETS < len(streets())
    assert trial(GateBudget()).budget.worst_tile == pytest.approx(SHARE * GateBudget().worst_tile)


def test_fp32_against_itself_has_no_error_and_keeps_any_budget():
    fp32 = trial().run(network())
    assert trial().effect(fp32).error == 0
    assert trial(TIGHT).judge(fp32).verdict != "failed"


def test_the_trial_judges_as_the_gate_does():
    depths = [depth * np.float32(1.03) for depth in trial().reference]
    result = trial(GateBudget()).judge(depths)
    assert result.verdict == "failed"
    assert result.deviation == pytest.approx(0.03, rel=1e-4)
    assert trial().effect(depths).error == pytest.approx(0.03, rel=1e-4)


def test_with_budget_enough_everything_stays_int8():
    search = searched(1.1)
    assert search.chosen.floats == ()
    assert search.options.keep_float == ()
    assert search.points == (search.chosen,)


def test_a_tighter_budget_puts_the_fewest_blocks_that_keep_it_into_half_precision():
    search = searched(0.75)
    assert search.chosen.holds
    assert not search.points[0].holds
    assert search.chosen.floats
    assert search.chosen.int8_mac_share < search.points[0].int8_mac_share
    holding = [point for point in search.points if point.holds]
    assert search.chosen.ms == min(point.ms for point in holding)
    for name in search.chosen.floats:  # not one of them could be left out
        less = {other for other in search.chosen.floats if other != name}
        assert not any(point.holds for point in search.points if set(point.floats) == less)


def test_the_chosen_options_make_the_plan_that_was_measured():
    search = searched(0.75)
    lowered = lower(network(), search.options.plan(network(), ranges()))
    depths = trial().run(lowered)
    assert trial().effect(depths).error == search.chosen.error
    assert estimate(fuse(to_half(lowered)), ORIN).ms == search.chosen.ms


def test_without_a_plan_that_holds_the_least_wrong_one_is_taken_and_says_so():
    search = search_precision(network(), ranges(), OPTIONS, trial(TIGHT), ORIN)
    assert not search.chosen.holds
    assert search.chosen.reasons
    assert search.chosen.error == min(point.error for point in search.points)
    assert search.chosen.int8_mac_share > 0


def test_forced_blocks_stay_int8():
    forced = replace(OPTIONS, force_int8=("*",))
    search = search_precision(network(), ranges(), forced, trial(TIGHT), ORIN)
    assert search.points == (search.chosen,)
    assert search.block_ms == {}


def test_the_front_holds_no_plan_that_another_one_beats():
    search = searched(0.75)
    front = search.front
    assert all(a.ms <= b.ms and a.error > b.error for a, b in pairwise(front))
    for point in search.points:
        assert any(other.ms <= point.ms and other.error <= point.error for other in front)


def test_the_report_shows_every_plan_and_marks_the_choice(tmp_path):
    search = searched(0.75)
    write_search_report(tmp_path, search)
    page = (tmp_path / "precision.html").read_text()
    assert page.count("<circle") == len(search.points) + 1  # and FP16
    assert page.count('stroke-width="3"') == 1
    assert "(chosen)" in page
    assert not re.search(r"(?:href|src)=\"http", page)
    values = json.loads((tmp_path / "precision.json").read_text())
    assert values["chosen"]["floats"] == list(search.chosen.floats)
    assert len(values["sensitivity"]["blocks"]) == len(search.sensitivity.blocks)


@pytest.mark.parametrize(("mixing", "each"), [(False, VIEWS), (True, 1)])
def test_views_that_depend_on_each_other_are_tried_as_whole_sets(mixing, each):
    model = chain(views=VIEWS, mixing=mixing)
    tried = make_trial(model, [streets()], pinholes(), LOOSE, threads=1)
    assert len(tried.feeds) == each * len(tried.samples)
    assert tried.judge(tried.run(int8(model))).images == VIEWS * len(tried.samples)
