"""What the soak calls growth, on made samples."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def soak():
    path = Path(__file__).resolve().parents[2] / "tools/soak.py"
    spec = importlib.util.spec_from_file_location("soak", path)
    module = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = before
    return module


def made(*, fds=0.0, threads=0.0, kib=0.0, first_kib=50_000, survivors=(), count=50):
    """Samples that begin with a warm-up and then grow by so much each."""
    samples = [
        {
            "number": 10 * n,
            "fds": 20 + int(fds * n),
            "threads": 1 + int(threads * n),
            "tasks": 1 + int(threads * n),
            "resident_kib": first_kib + (round(kib * n) if n > 4 else -20_000),
            "age_ms": 30.0,
        }
        for n in range(count)
    ]
    return {
        "phase": "sets",
        "count": 500,
        "seconds": 9.0,
        "samples": samples,
        "survivors": list(survivors),
        "drops": {},
    }


def test_what_is_steady_does_not_grow_whatever_it_did_at_first(soak):
    assert soak.growth(made()) == []
    assert soak.judged(made()) == ["500 in 9 s, nothing grew"]


@pytest.mark.parametrize(
    ("grown", "word"),
    [
        ({"fds": 0.1}, "fds grew"),
        ({"threads": 0.1}, "threads grew"),
        ({"kib": 20.0}, "memory grew"),
        ({"survivors": ["live.py:1: 3 more"]}, "blocks outlive"),
    ],
    ids=str,
)
def test_each_kind_of_growth_is_named(soak, grown, word):
    assert any(word in line for line in soak.growth(made(**grown)))


def test_memory_may_breathe_by_a_hundredth(soak):
    assert soak.growth(made(kib=8.0)) == []


def test_a_half_that_is_kept_is_not_run_again(soak, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(soak, "KEPT", tmp_path)
    monkeypatch.setattr(soak.image, "missing", lambda: [])
    monkeypatch.setattr(soak.guest, "run", lambda *_, **__: pytest.fail("the guest was started"))
    for phase in ("cycles", "sets"):
        (tmp_path / f"{phase}-500.json").write_text(json.dumps(made() | {"phase": phase}))
    monkeypatch.setattr(
        sys, "argv", ["soak", "--cycles", "500", "--sets", "500", "--record", str(tmp_path / "r.json")]
    )
    assert soak.main() == 0
    table = json.loads((tmp_path / "r.json").read_text())["tables"][0]
    assert [row[0] for row in table["rows"]] == ["start and stop", "one stream"]
    assert all(len(row) == len(table["header"]) for row in table["rows"])
    assert "nothing grew" in capsys.readouterr().out


def test_growth_is_an_exit_code(soak, tmp_path, monkeypatch):
    monkeypatch.setattr(soak, "KEPT", tmp_path)
    monkeypatch.setattr(soak.image, "missing", lambda: [])
    for phase in ("cycles", "sets"):
        (tmp_path / f"{phase}-500.json").write_text(json.dumps(made(fds=1.0) | {"phase": phase}))
    monkeypatch.setattr(
        sys, "argv", ["soak", "--cycles", "500", "--sets", "500", "--record", str(tmp_path / "r.json")]
    )
    assert soak.main() == 1


def test_without_its_programs_it_is_skipped_and_says_so(soak, monkeypatch, capsys):
    monkeypatch.setattr(soak.image, "missing", lambda: ["qemu-system-x86_64"])
    monkeypatch.setattr(sys, "argv", ["soak"])
    assert soak.main() == 0
    assert "SKIPPED: soak needs qemu-system-x86_64" in capsys.readouterr().out
