"""The proof that the device install is wheels alone: its arithmetic, and that its record is up to date."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

pytest.importorskip("tomllib", reason="the tool reads TOML: Python 3.11 or later")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools.device_wheels import (
    CASES,
    JETPACK_6,
    JETPACK_7,
    RESULT,
    Wheel,
    requirements,
    walk,
)


def wheel(name: str, version: str, *requires: str) -> Wheel:
    return Wheel(name=name, version=version, tags="py3-none-any", requires=tuple(map(Requirement, requires)))


def test_what_only_the_boards_markers_ask_for_is_noticed():
    chosen = {"a": wheel("a", "1", "backport>=2; python_version < '3.11'", "winterm; os_name == 'nt'")}
    assert walk([Requirement("a")], chosen, JETPACK_6) == ({"a"}, [Requirement("backport>=2")])
    assert walk([Requirement("a")], chosen, JETPACK_7) == ({"a"}, [])


def test_requirements_of_an_extra_count_where_the_extra_is_asked_for():
    chosen = {"a": wheel("a", "1", "b; extra == 'more'")}
    assert walk([Requirement("a")], chosen, JETPACK_7)[1] == []
    assert walk([Requirement("a[more]")], chosen, JETPACK_7)[1] == [Requirement("b")]


def test_a_wheel_of_the_wrong_version_does_not_meet_a_requirement():
    chosen = {"a": wheel("a", "1", "b>=2"), "b": wheel("b", "1.9")}
    assert walk([Requirement("a")], chosen, JETPACK_7)[1] == [Requirement("b>=2")]


def test_no_wheel_for_a_newer_glibc_than_the_boards_is_accepted():
    platforms = [option for option in JETPACK_6.pip_options if option.startswith("manylinux")]
    assert "manylinux_2_35_aarch64" in platforms
    assert "manylinux_2_36_aarch64" not in platforms
    assert all(platform.endswith("_aarch64") for platform in platforms)


def test_the_record_is_of_these_requirements_and_every_case_resolves():
    """After a change of dependencies run tools/device_wheels.py again."""
    cases = json.loads(RESULT.read_text())["cases"]
    assert [(case["extra"] or "", case["board"]) for case in cases] == [(e, b.name) for e, b in CASES]
    for case in cases:
        assert case["requirements"] == [str(r) for r in requirements(case["extra"] or "")]
        assert case["wheels"]
        assert case["error"] is None
        assert not any(name.startswith("torch==") for name in case["wheels"])
