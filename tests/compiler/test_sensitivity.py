"""What each block costs in INT8."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from toy_search import OPTIONS, chain, feeds, frames, ranges_of, toy, toy_ranges

from fsmde_edge.compiler.lowering.tensorrt import lower
from fsmde_edge.compiler.plan import PlanOptions, int8_mac_share, place
from fsmde_edge.compiler.prefix import plain_session
from fsmde_edge.compiler.sensitivity import find_blocks, measure_effect, measure_sensitivity


@pytest.fixture(scope="module")
def inputs():
    return feeds(toy())


@pytest.fixture(scope="module")
def table(inputs):
    return measure_sensitivity(toy(), toy_ranges(), OPTIONS, inputs, threads=1)


def whole_set(model, keep):
    """Depth of both test views at once, some nodes in float; None keeps all of them."""
    (batch,) = frames(toy(), 7)
    run = model if keep is None else lower(model, OPTIONS.keeping_float(keep).plan(model, toy_ranges()))
    return plain_session(run, threads=1).run(["depth"], {"images": batch.images, "focal": batch.focal})[0]


def test_every_int8_node_is_in_one_block(table):
    nodes = [name for block in table.blocks for name in block.nodes]
    chosen = place(toy()).nodes
    assert sorted(name for name in nodes if name in chosen) == sorted(chosen)
    assert [block.name for block in table.blocks] == [
        "stem", "layer1.conv1", "layer1.conv2", "layer2.conv1", "layer2.conv2", "dec", "logit",
    ]  # fmt: skip


def test_what_reads_one_tensor_is_one_block_with_the_sum_that_reads_it_too():
    blocks = find_blocks(toy(), OPTIONS)
    assert blocks["layer1.conv1"] == ("layer1.conv1", "skip", "layer1.add")
    assert blocks["layer2.conv1"] == ("layer2.conv1", "layer2.short")
    assert blocks["dec"] == ("dec",)


def test_blocks_share_out_the_work(table):
    assert sum(block.macs for block in table.blocks) == pytest.approx(1.0)
    assert table.blocks[0].macs == int8_mac_share(toy(), ["stem"])


def test_each_number_is_that_of_the_whole_network_run_on_its_own():
    (batch,) = frames(toy(), 7)
    inputs = [{"images": batch.images[i : i + 1], "focal": batch.focal[i : i + 1]} for i in range(2)]
    table = measure_sensitivity(toy(), toy_ranges(), OPTIONS, inputs, threads=1)
    everything = {name for block in table.blocks for name in block.nodes}
    right = [whole_set(toy(), None)]

    def effect(keep):
        return measure_effect(right, [whole_set(toy(), keep)], metric=True)

    assert table.int8.error == pytest.approx(effect([]).error, rel=1e-6)
    for block in table.blocks:
        without, alone = effect(block.nodes), effect(everything - set(block.nodes))
        assert block.alone_float.error == pytest.approx(without.error, rel=1e-6), block.name
        assert block.alone_int8.error == pytest.approx(alone.error, rel=1e-6), block.name
        assert block.alone_int8.sqnr == pytest.approx(alone.sqnr, rel=1e-6), block.name
    assert len({block.alone_int8.error for block in table.blocks}) == len(table.blocks)


def test_errors_of_blocks_add_up_about_as_noise_does(table):
    assert table.together() == math.sqrt(sum(block.alone_int8.error**2 for block in table.blocks))
    assert 0.7 < table.together() / table.int8.error < 1.4
    assert table.together() < 0.8 * sum(block.alone_int8.error for block in table.blocks)


def test_progress_counts_two_variants_a_block(inputs):
    seen = []
    table = measure_sensitivity(toy(), toy_ranges(), OPTIONS, inputs[:1], threads=1, progress=seen.append)
    assert seen == list(range(1, 2 * len(table.blocks) + 1))


def test_a_network_of_one_block_is_fp32_without_it():
    model = chain(layers=1)
    seen = []
    table = measure_sensitivity(
        model, ranges_of(model), OPTIONS, feeds(model), metric=False, threads=1, progress=seen.append
    )
    (block,) = table.blocks
    assert (block.alone_float.error, block.alone_float.sqnr) == (0.0, None)
    assert block.alone_int8 == table.int8
    assert block.alone_int8.error > 0
    assert seen == [1]


def test_a_network_whose_views_depend_on_each_other_is_measured_as_a_whole():
    model = chain(views=3, mixing=True)
    table = measure_sensitivity(
        model, ranges_of(model), OPTIONS, feeds(model, most=3), metric=False, threads=1
    )
    assert [block.name for block in table.blocks] == ["conv0", "conv1", "out"]
    assert all(block.alone_int8.error > 0 for block in table.blocks)


def test_nodes_forced_into_int8_are_tried_in_float_all_the_same(inputs):
    forced = PlanOptions(calibrator="max", force_int8=("dec", "stem"))
    free = measure_sensitivity(toy(), toy_ranges(), OPTIONS, inputs[:1], threads=1)
    assert measure_sensitivity(toy(), toy_ranges(), forced, inputs[:1], threads=1) == free


def test_what_the_user_keeps_in_float_is_no_block(inputs):
    kept = replace(OPTIONS, keep_float=("layer1.*",))
    table = measure_sensitivity(toy(), toy_ranges(), kept, inputs[:1], threads=1)
    assert not any(block.name.startswith("layer1") for block in table.blocks)


def test_errors_are_relative_to_each_pixel_or_to_the_mean():
    right = [np.float32([[[1, 2], [4, 5]]])]
    found = [np.float32([[[1.5, 2], [4, 5]]])]
    assert measure_effect(right, found, metric=True).error == pytest.approx(math.sqrt(0.25 / 4))
    assert measure_effect(right, found, metric=False).error == pytest.approx(math.sqrt((0.5 / 3) ** 2 / 4))
    assert measure_effect(right, found, metric=True).sqnr == pytest.approx(10 * math.log10(46 / 0.25))


def test_one_pixel_counts_once_at_most_also_where_it_is_no_number():
    right = [np.float32([[[1, 2], [4, 5]]])]
    for value in (1e30, np.nan, np.inf):
        effect = measure_effect(right, [np.float32([[[value, 2], [4, 5]]])], metric=True)
        assert effect.error == pytest.approx(0.5)
        assert effect.sqnr is None or effect.sqnr < -500
    assert measure_effect(right, right, metric=True).sqnr is None


def test_the_table_goes_into_json(table):
    plain = json.loads(json.dumps(table.as_dict(), allow_nan=False))
    assert plain["blocks"][0]["name"] == "stem"
    assert plain["int8"]["error"] == table.int8.error
