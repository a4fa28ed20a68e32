"""Variants of a network that share what they have in common."""

from __future__ import annotations

import numpy as np
import pytest
from toy_depth import depth_network, focals, pictures
from toy_search import OPTIONS, chain, feeds, frames, int8, toy, toy_ranges

from fsmde_edge.compiler import prefix
from fsmde_edge.compiler.calibrate import CalibrationBatch
from fsmde_edge.compiler.lowering.tensorrt import lower
from fsmde_edge.compiler.prefix import Walk, common_nodes, feeds_of, one_view, plain_session, run_variants
from fsmde_edge.errors import InputError
from fsmde_edge.graph.model import copy_model, initializers, set_constant, value_of


def whole(model, inputs):
    """Every input through one session, nothing cut."""
    session = plain_session(model, threads=1)
    names = [item.name for item in session.get_inputs()]
    return [session.run(["depth"], {name: feed[name] for name in names})[0] for feed in inputs]


def scaled(model, constant: str, factor: float):
    variant = copy_model(model)
    set_constant(variant.graph, constant, (value_of(variant.graph, constant) * factor).astype(np.float32))
    return variant


@pytest.fixture
def nodes_run(monkeypatch):
    """How many nodes each session holds, in the order of their opening."""
    opened, real = [], prefix.plain_session

    def counting(model, **options):
        opened.append(len(model.graph.node))
        return real(model, **options)

    monkeypatch.setattr(prefix, "plain_session", counting)
    return opened


@pytest.fixture(scope="module")
def single():
    """The toy's INT8 form for one view."""
    return one_view(lower(toy(), OPTIONS.plan(toy(), toy_ranges())))


@pytest.fixture(scope="module")
def variants(single):
    """Blocks in float, another range, another weight, and one that is no variant at all."""
    plans = {
        "late float": OPTIONS.keeping_float(["logit"]),
        "early float": OPTIONS.keeping_float(["stem"]),
        "range": OPTIONS.calibrated({"layer2.relu1.out": "percentile-99.9"}),
    }
    made = {name: one_view(lower(toy(), plan.plan(toy(), toy_ranges()))) for name, plan in plans.items()}
    made["weight"] = scaled(single, "logit.weight_scale", 1.05)
    made["same"] = copy_model(single)
    return made


def test_variants_have_the_very_bits_of_a_run_of_their_own(single, variants):
    inputs = feeds(toy())
    found = dict(run_variants(single, variants.items(), inputs, threads=1))
    assert set(found) == set(variants)
    for name, depths in found.items():
        for mine, right in zip(depths, whole(variants[name], inputs), strict=True):
            np.testing.assert_array_equal(mine, right, err_msg=name)
    assert not np.array_equal(found["range"][0], found["same"][0])


def test_what_variants_share_runs_once(single, variants, nodes_run):
    list(run_variants(single, variants.items(), feeds(toy()), threads=1))
    rests = [len(variant.graph.node) - common_nodes(single, variant) for variant in variants.values()]
    assert all(0 < rest < len(single.graph.node) for rest in rests[:-1])
    assert sum(nodes_run) == len(single.graph.node) + sum(rests)


def test_variants_come_as_they_differ_and_an_equal_one_costs_nothing(single, variants, nodes_run):
    order = [name for name, _ in run_variants(single, variants.items(), feeds(toy()), threads=1)]
    assert order == ["early float", "range", "late float", "weight", "same"]
    nodes_run.clear()
    same = dict(run_variants(single, [("one", single), ("two", copy_model(single))], feeds(toy()), threads=1))
    assert nodes_run == [len(single.graph.node)]
    np.testing.assert_array_equal(same["one"], same["two"])


def test_two_models_differ_from_the_first_node_that_reads_another_constant(single):
    nodes = list(single.graph.node)
    reader = next(i for i, node in enumerate(nodes) if "layer2.conv1.weight_scale" in node.input)
    assert common_nodes(single, scaled(single, "layer2.conv1.weight_scale", 2.0)) == reader
    assert common_nodes(single, copy_model(single)) == len(nodes)


def test_a_variant_keeps_only_constants_that_its_base_lacks(single):
    rest = prefix._Rest.of("x", scaled(single, "layer2.conv1.weight_scale", 2.0), single)
    assert [item.name for item in rest.piece.graph.initializer] == ["layer2.conv1.weight_scale"]
    assert "logit.weight_quantized" in initializers(rest.completed(single).graph)


def test_a_variant_that_differs_behind_depth_alone_gives_the_depth_of_its_base():
    model = depth_network(confidence=True)
    top = next(node for node in model.graph.node if node.name == "top4")
    variant = scaled(model, top.input[2], 1.0)
    next(node for node in variant.graph.node if node.name == "top4").attribute[0].s = b"pytorch_half_pixel"
    assert common_nodes(model, variant) < len(model.graph.node)
    inputs = [{"images": pictures(), "focal": focals()}]
    ((_, (depth,)),) = run_variants(model, [("top4", variant)], inputs, threads=1)
    np.testing.assert_array_equal(depth, whole(model, inputs)[0])


def test_a_network_whose_views_depend_on_each_other_runs_as_a_whole():
    model = chain(views=3, mixing=True)
    assert one_view(model) is None
    base, inputs = int8(model), feeds(model, most=3)
    assert [len(feed["images"]) for feed in inputs] == [3]
    variant = scaled(base, "out.weight_scale", 1.1)
    ((_, depths),) = run_variants(base, [("v", variant)], inputs, threads=1)
    np.testing.assert_array_equal(depths, whole(variant, inputs))


def test_a_walk_gives_the_same_bits_wherever_it_stops(single):
    inputs = feeds(toy())
    walk = Walk(single, inputs, threads=1)
    for stop in range(1, len(single.graph.node), 5):
        walk.advance(stop)
    np.testing.assert_array_equal(walk.finish(), whole(single, inputs))


def test_a_walk_holds_only_what_is_still_needed_and_does_not_go_back(single):
    walk = Walk(single, feeds(toy()), keep=["stem.out"], threads=1)
    node = walk.advance_to("logit")
    assert set(walk.live[0]) == {"stem.out", "focal", node.input[0], node.input[1]} | {
        name for name in walk.live[0] if name.startswith(("centres", "layer3"))
    }
    with pytest.raises(ValueError, match="not in list"):
        walk.advance_to("stem")


def test_inputs_are_chosen_evenly_and_filling_is_left_out():
    batches = [
        CalibrationBatch(images=pictures(3, seed=seed), focal=np.float32([seed, seed, seed]), valid=2)
        for seed in range(5)
    ]
    assert [int(feed["focal"][0]) for feed in feeds_of(batches, single=True, most=4)] == [0, 1, 3, 4]
    assert len(feeds_of(batches, single=True, most=99)) == 10
    whole_sets = feeds_of(batches, single=False, most=9)
    assert [int(feed["focal"][0]) for feed in whole_sets] == [0, 2, 4]
    assert [len(feed["images"]) for feed in whole_sets] == [3, 3, 3]
    assert len(feeds_of(batches, single=False, most=1)) == 1
    np.testing.assert_array_equal(whole_sets[0]["images"], batches[0].images)


def test_no_frames_are_refused():
    for single in (True, False):
        with pytest.raises(InputError, match="no frames"):
            feeds_of([], single=single, most=4)


def test_frames_of_one_view_are_those_of_the_whole_network():
    model = toy()
    (batch,) = frames(model, 3)
    (right,) = whole(model, [{"images": batch.images, "focal": batch.focal}])
    singles = whole(one_view(model), feeds_of([batch], single=True, most=2))
    np.testing.assert_allclose(np.concatenate(singles), right, rtol=1e-6)
