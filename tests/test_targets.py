"""Target profiles: shipped ones are whole, every number has a source, derived rates match published ones."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fsmde_edge.errors import InputError
from fsmde_edge.recipes import shipped
from fsmde_edge.targets import PowerMode, load_target, numbers_without_source

PROFILES = sorted(path.stem for path in shipped("engines").glob("*.yaml"))
BOARDS = [name for name in PROFILES if name.startswith("orin")]


def test_the_boards_of_the_orin_series_are_shipped():
    assert set(BOARDS) == {
        "orin-agx-64gb",
        "orin-agx-32gb",
        "orin-nx-16gb",
        "orin-nx-8gb",
        "orin-nano-8gb",
    }


@pytest.mark.parametrize("name", PROFILES)
def test_every_shipped_target_loads_and_says_where_its_numbers_come_from(name):
    target, named = load_target(name)
    assert target.description
    assert named.name == name
    assert numbers_without_source(target) == []
    assert (target.backend == "tensorrt") == bool(target.modes) == bool(target.software)


def test_a_number_without_a_source_is_found():
    target, _ = load_target("orin-nano-8gb")
    bare = replace(target, sources={k: v for k, v in target.sources.items() if k != "modes.gpu_mhz"})
    assert numbers_without_source(bare) == ["modes.gpu_mhz"]


@pytest.mark.parametrize("name", BOARDS)
def test_derived_rates_are_half_of_the_published_sparse_ones(name):
    target, _ = load_target(name)
    for mode in target.modes:
        dense = 2e-12 * target.macs_per_second("int8", mode)
        if mode.published_gpu_tops is not None:
            assert 2 * dense == pytest.approx(mode.published_gpu_tops, rel=0.03)
        assert target.macs_per_second("fp16", mode) * 2 == pytest.approx(target.macs_per_second("int8", mode))


@pytest.mark.parametrize("name", ["orin-nx-16gb", "orin-nx-8gb", "orin-nano-8gb"])
def test_super_modes_are_faster(name):
    target, _ = load_target(name)
    fastest = target.macs_per_second("int8", target.mode("maxn_super"))
    assert fastest > target.macs_per_second("int8", target.mode())


def test_an_unknown_mode_lists_those_there_are():
    target, _ = load_target("orin-agx-64gb")
    with pytest.raises(InputError, match="MAXN, 50W, 30W, 15W"):
        target.mode("99W")


def test_a_cpu_has_no_modes_and_says_what_to_do():
    target, _ = load_target("cpu")
    with pytest.raises(InputError, match="no power modes") as caught:
        target.mode()
    assert "fsmde-edge bench" in caught.value.hint


def test_a_number_that_is_not_known_is_refused_by_name():
    target, _ = load_target("orin-agx-64gb")
    with pytest.raises(InputError, match="'gpu_mhz' of power mode dim"):
        target.macs_per_second("int8", PowerMode(name="dim", sms=4))


def test_two_modes_of_one_name_and_an_unknown_version_are_refused():
    target, _ = load_target("orin-agx-64gb")
    with pytest.raises(InputError, match="one name"):
        replace(target, modes=(target.modes[0], target.modes[0]))
    with pytest.raises(InputError, match="version 9"):
        replace(target, version=9)
