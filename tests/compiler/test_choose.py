"""Which calibrator's range each tensor takes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from toy_depth import Builder, normalised
from toy_search import OPTIONS, feeds, finished, frames, ranges_of, toy, toy_ranges

from fsmde_edge.compiler import choose
from fsmde_edge.compiler.calibrate import calibrate
from fsmde_edge.compiler.choose import choose_ranges
from fsmde_edge.compiler.histogram import CALIBRATORS
from fsmde_edge.compiler.lowering.tensorrt import lower
from fsmde_edge.compiler.prefix import Walk, one_view
from fsmde_edge.compiler.sensitivity import Effect, measure_effect
from fsmde_edge.errors import InputError


def error_of(model, ranges, options, inputs, *, metric=True) -> float:
    right = Walk(one_view(model), inputs, threads=1).finish()
    found = Walk(one_view(lower(model, options.plan(model, ranges))), inputs, threads=1).finish()
    return measure_effect(right, found, metric=metric).error


@pytest.fixture(scope="module")
def inputs():
    return feeds(toy())


@pytest.fixture(scope="module")
def choice(inputs):
    return choose_ranges(toy(), toy_ranges(), OPTIONS, inputs, threads=1)


def test_the_choice_measures_what_it_says_and_no_single_calibrator_is_better(choice, inputs):
    assert set(choice.whole) == set(CALIBRATORS)
    for name, effect in choice.whole.items():
        options = replace(OPTIONS, calibrator=name)
        assert effect.error == error_of(toy(), toy_ranges(), options, inputs)
    assert choice.chosen.error <= min(effect.error for effect in choice.whole.values())
    assert choice.chosen.error == error_of(toy(), toy_ranges(), choice.options, inputs)


def test_the_choice_improves_the_toy_by_other_ranges_for_some_groups(choice):
    best = min(choice.whole.values(), key=lambda effect: effect.error)
    assert choice.options.calibrators
    assert choice.chosen.error < choose.WORTH * best.error


def test_each_scale_of_a_group_is_tried_once(inputs):
    seen = []
    choose_ranges(toy(), toy_ranges(), OPTIONS, inputs[:1], threads=1, progress=seen.append)
    scales = [
        {
            (item.group, item.scale)
            for item in replace(OPTIONS, calibrator=name).plan(toy(), toy_ranges()).activations
        }
        for name in CALIBRATORS
    ]
    groups = {group for group, _ in scales[0] if group}
    different = {pair for found in scales for pair in found if pair[0]}
    assert seen == list(range(1, len(different) - len(groups) + 1))


def test_without_a_difference_the_first_calibrator_stays(inputs):
    ranges = toy_ranges()
    alike = {
        name: replace(item, thresholds=dict.fromkeys(CALIBRATORS, item.max))
        for name, item in ranges.tensors.items()
    }
    seen = []
    choice = choose_ranges(
        toy(), replace(ranges, tensors=alike), OPTIONS, inputs[:1], threads=1, progress=seen.append
    )
    assert (choice.options.calibrator, choice.options.calibrators) == (CALIBRATORS[0], {})
    assert seen == []


def outlier_network():
    """A tensor with one huge value in a channel that the last weight hardly looks at."""
    b = Builder(4)
    x = b.relu(b.conv(normalised(b), 3, 4, name="first"), "first.relu")
    peak = np.zeros((1, 4, 32, 64))
    peak[0, 0, 5, 9] = 400.0
    x = b.relu(b.node("Add", x, b.const(peak, "peak"), name="spike"), "spike.relu")
    weight = np.float32([1e-6, 0.7, -0.4, 0.5]).reshape(1, 4, 1, 1)
    return finished(b, b.node("Conv", x, b.const(weight, "out.weight"), name="out"))


def test_a_tensor_with_an_outlier_gets_a_range_that_cuts_it_off():
    model = outlier_network()
    ranges = calibrate(model, frames(model, 0, 1), OPTIONS.place(model).calibrate, threads=1)
    inputs = feeds(model)
    choice = choose_ranges(model, ranges, OPTIONS, inputs, metric=False, threads=1)
    taken = choice.options.calibrators.get("spike.relu.out", choice.options.calibrator)
    assert ranges.range_of("spike.relu.out", "max") > 399
    assert ranges.range_of("spike.relu.out", taken) < 200
    assert choice.chosen.error < 0.5 * choice.whole["max"].error
    assert choice.options.calibrator == min(choice.whole, key=lambda name: choice.whole[name].error) != "max"


@pytest.mark.parametrize("together", [0.0, 1.0])
def test_changes_that_help_alone_are_taken_together_only_where_that_is_better(monkeypatch, inputs, together):
    tries = choose._other_ranges(toy(), toy_ranges(), OPTIONS)
    alone = [0.9 - 0.001 * number for number in range(len(tries))]
    errors = iter([1.0] * len(CALIBRATORS) + alone + [together])
    monkeypatch.setattr(choose, "measure_effect", lambda *_, **__: Effect(error=next(errors), sqnr=None))
    choice = choose_ranges(toy(), toy_ranges(), OPTIONS, inputs[:1], threads=1)
    groups = {group for group, _ in tries}
    assert len(groups) > 1
    assert len(choice.options.calibrators) == (len(groups) if together == 0 else 1)
    assert choice.chosen.error == min(together, alone[-1])


def test_another_calibration_of_the_same_network_is_refused():
    other = ranges_of(outlier_network())
    with pytest.raises(InputError, match="was not calibrated"):
        choose_ranges(toy(), other, OPTIONS, feeds(toy()), threads=1)
