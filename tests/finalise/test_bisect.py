"""Pieces of a network, the search for its wrong block, and the plan without it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from planted import wrong_scale
from toy_depth import depth_network, focals, pictures

from fsmde_edge.bundle import Golden
from fsmde_edge.compiler.aot import ARCHITECTURE, MODULE
from fsmde_edge.compiler.bounds import golden_bounds
from fsmde_edge.compiler.calibrate import CalibrationBatch, calibrate
from fsmde_edge.compiler.half import to_half
from fsmde_edge.compiler.integer import block_tensors, run, run_plainly
from fsmde_edge.compiler.lowering.tensorrt import lower
from fsmde_edge.compiler.plan import make_plan, place
from fsmde_edge.finalise.bisect import Reference, find_bad_block
from fsmde_edge.finalise.pieces import blocks_up_to, piece_up_to
from fsmde_edge.finalise.repair import Repair
from fsmde_edge.graph.model import copy_model, infer_shapes, model_bytes, set_constant, value_of
from fsmde_edge.inference.builder import Job, build_in_child, installed
from fsmde_edge.inference.unsigned import round_half
from fsmde_edge.targets import BuilderOptions

GOLDEN = Golden(images=pictures(), focal=focals(), depth={})
FEEDS = {"images": GOLDEN.images, "focal": GOLDEN.focal}


@pytest.fixture(scope="module")
def repair() -> Repair:
    model = depth_network()
    frames = [CalibrationBatch(images=pictures(seed=seed), focal=focals(), valid=2) for seed in (0, 1)]
    plan = make_plan(model, calibrate(model, frames, place(model).calibrate, threads=1))
    return Repair(model=model, quantised=lower(model, plan), plan=plan, keep_float=(), force_int8=())


@pytest.fixture(scope="module")
def quantised(repair):
    return repair.lowered((), half=False)


@pytest.fixture(scope="module")
def reference(quantised):
    return Reference.of(quantised, GOLDEN, golden_bounds(quantised, *FEEDS.values()))


def executed(reference, spoil=lambda _: None):
    """A backend that computes what a piece says, after something was done to it; counts its runs."""

    def go(piece):
        go.runs += 1
        model = copy_model(piece.model)
        spoil(model)
        return run_plainly(model, {**FEEDS, **piece.feeds(reference.integers)}, piece.outputs)

    go.runs = 0
    return go


def test_a_piece_computes_what_the_whole_does(quantised):
    names = block_tensors(quantised)
    for cut in range(1, len(names) + 1, 4):
        piece = piece_up_to(quantised, names[:cut])
        assert names[cut - 1] in piece.outputs.values()
        assert not piece.given
        found = run_plainly(piece.model, FEEDS, piece.outputs)
        right = run_plainly(quantised, FEEDS, piece.outputs)
        for name in piece.outputs:
            np.testing.assert_array_equal(found[name], right[name])


def test_a_piece_holds_nothing_behind_its_cut_and_gives_all_that_lives_there(quantised):
    names = block_tensors(quantised)
    sizes = [len(piece_up_to(quantised, names[: cut + 1]).model.graph.node) for cut in range(len(names))]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1] < len(quantised.graph.node)
    whole = piece_up_to(quantised, names)
    assert [info.name for info in whole.model.graph.input] == ["images"]
    skip = next(name for name in names if name.startswith("layer1.relu2"))  # read again by a late Concat
    middle = piece_up_to(quantised, names[: names.index(skip) + 4])
    assert skip in middle.outputs.values()


def test_blocks_taken_apart_give_the_right_integers_of_right_integers(quantised, reference):
    piece = blocks_up_to(quantised, reference.names)
    assert set(piece.outputs.values()) == set(reference.names)
    found = executed(reference)(piece)
    for name, block in piece.outputs.items():
        integers = np.round(found[name] / piece.scales[name])
        assert np.abs(integers - reference.integers[block]).max() <= 1
        assert (integers != reference.integers[block]).mean() < 0.01


def test_a_block_taken_apart_does_not_hear_of_those_before_it(quantised, reference):
    names = reference.names
    piece = blocks_up_to(quantised, names)
    bad = names[3].removesuffix("_quantized")
    right, found = executed(reference)(piece), executed(reference, wrong_scale(bad, 1.5))(piece)
    changed = [piece.outputs[name] for name in piece.outputs if not np.array_equal(right[name], found[name])]
    assert changed == [names[3]]


@pytest.mark.parametrize("number", [0, 1, 5, 9, -1])
def test_the_wrong_block_is_named_in_few_builds(quantised, reference, number):
    tensor = reference.names[number].removesuffix("_quantized")
    backend = executed(reference, wrong_scale(tensor, 1.05))
    bad = find_bad_block(quantised, reference, backend, None)
    assert bad is not None
    assert bad.tensor == tensor
    assert bad.differing > 0.05
    assert bad.steps >= 1
    assert bad.builds == backend.runs <= 2 + np.ceil(np.log2(len(reference.names)))


def test_a_right_engine_has_no_wrong_block(quantised, reference):
    backend = executed(reference)
    assert find_bad_block(quantised, reference, backend, None) is None
    assert backend.runs == 2


def test_values_that_are_no_numbers_are_found(quantised, reference):
    tensor = reference.names[4].removesuffix("_quantized")

    def run_badly(piece):
        found = executed(reference)(piece)
        name = f"{tensor}_dequantized"
        return {**found, name: found[name] * np.nan} if name in found else found

    bad = find_bad_block(quantised, reference, run_badly, None)
    assert bad is not None
    assert bad.tensor == tensor


def test_pieces_of_a_half_model_are_half_and_agree_with_the_integers(quantised, reference):
    half = to_half(quantised)
    assert block_tensors(half) == reference.names
    piece = piece_up_to(half, reference.names[:3])
    found = run_plainly(infer_shapes(round_half(piece.model)), FEEDS, piece.outputs)
    for name, block in piece.outputs.items():
        assert found[name].dtype == np.float16
        integers = np.round(found[name].astype(np.float32) / piece.scales[name])
        assert np.abs(integers - reference.integers[block]).max() <= 1


def test_a_block_is_taken_out_of_int8_first_where_it_is_made_then_where_it_is_read(repair):
    makers = repair.nodes_of("layer1.relu1.out", ())
    assert {"layer1.conv1", "layer1.relu1"} == set(makers)
    readers = repair.nodes_of("layer1.relu1.out", makers)
    assert set(readers) == {"layer1.conv2"}
    assert repair.nodes_of("layer1.relu1.out", (*makers, *readers)) == ()


def test_a_plan_without_a_block_is_the_old_plan_elsewhere(repair):
    floated = ("layer1.conv1", "layer1.conv2")
    plan = repair.without(floated)
    gone = {item.tensor for item in repair.plan.activations if item.int8} - {
        item.tensor for item in plan.activations if item.int8
    }
    assert "layer1.relu1.out" in gone
    for old, new in zip(repair.plan.activations, plan.activations, strict=True):
        assert new == old or (old.int8 and not new.int8)
    weights = {item.node: item for item in plan.weights if item.reason != "bias"}
    assert not weights["layer1.conv1"].int8
    assert weights["layer2.conv1"].int8
    assert plan.int8_mac_share < repair.plan.int8_mac_share
    assert repair.without(()) == repair.plan


def test_a_node_that_was_forced_to_int8_is_taken_out_all_the_same(repair):
    forced = replace(repair, force_int8=("layer1.*",))
    weights = {item.node: item for item in forced.without(("layer1.conv1",)).weights if item.reason != "bias"}
    assert not weights["layer1.conv1"].int8
    assert weights["layer1.conv2"].int8


def test_a_mended_model_computes_what_the_old_one_should_and_without_its_readers_less_is_rounded(
    repair, quantised
):
    before = run(quantised, FEEDS, ["depth"])["depth"]
    made, read = (
        repair.lowered(nodes, half=False) for nodes in (("layer1.conv1",), ("layer1.conv1", "layer1.conv2"))
    )
    np.testing.assert_allclose(run(made, FEEDS, ["depth"])["depth"], before, rtol=1e-3)
    assert "layer1.relu1.out_quantized" in block_tensors(made)
    assert "layer1.relu1.out_quantized" not in block_tensors(read)
    after = run(read, FEEDS, ["depth"])["depth"]
    assert not np.array_equal(after, before)
    assert np.abs(after / before - 1).mean() < 0.02
    assert model_bytes(repair.lowered((), half=False)) == model_bytes(quantised)


def test_what_stays_int8_keeps_what_was_done_to_its_weights(repair, quantised):
    """Learned rounding and corrected biases are in the Q/DQ model alone, not in the FP32 one."""
    learned = copy_model(quantised)
    weight, bias = "layer2.conv1.weight_quantized", "layer1.conv1.bias"
    set_constant(learned.graph, weight, -value_of(learned.graph, weight))
    set_constant(learned.graph, bias, value_of(learned.graph, bias) + np.float32(1))
    mended = replace(repair, quantised=learned).lowered(("layer1.conv1",), half=False).graph
    for name in (weight, bias):
        np.testing.assert_array_equal(value_of(mended, name), value_of(learned.graph, name))
    integers, scale = (
        value_of(quantised.graph, f"layer1.conv1.weight_{part}") for part in ("quantized", "scale")
    )
    expected = integers * scale.reshape(-1, 1, 1, 1)
    np.testing.assert_array_equal(value_of(mended, "layer1.conv1.weight"), expected)


def test_a_block_that_a_search_put_into_float_stays_there(repair):
    searched = replace(repair, plan=repair.without(("layer2.conv1",)))
    searched = replace(searched, quantised=lower(repair.model, searched.plan))
    weights = {
        item.node: item for item in searched.without(("layer2.conv2",)).weights if item.reason != "bias"
    }
    assert not weights["layer2.conv1"].int8
    assert not weights["layer2.conv2"].int8
    integers = {item.tensor for item in searched.without(("layer2.conv2",)).activations if item.int8}
    assert "layer2.relu1.out" not in integers
    assert block_tensors(searched.lowered(("layer2.conv2",), half=True))


@pytest.mark.skipif(not installed(MODULE), reason="the extra rtx is not installed")
@pytest.mark.parametrize("cut", [piece_up_to, blocks_up_to])
def test_nvidias_builder_takes_pieces_of_a_half_model(quantised, cut):
    half = to_half(quantised)
    piece = cut(half, block_tensors(half)[:6])
    job = Job(module=MODULE, options=BuilderOptions(), capability=ARCHITECTURE)
    built = build_in_child(model_bytes(piece.model), job)
    assert built.answer.error == ""
    assert built.engine
