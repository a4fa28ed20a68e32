from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from fsmde_edge.cli.main import main
from fsmde_edge.datasets.rigfile import load_rig, save_rig
from fsmde_edge.datasets.synthetic import SyntheticStreets
from fsmde_edge.rig import Rig


@pytest.fixture
def rig_file(tmp_path) -> Path:
    """The synthetic streets' six cameras."""
    path = tmp_path / "rig.yaml"
    save_rig(path, SyntheticStreets("test", scenes=1, width=160, height=96)[0].rig)
    return path


def test_import_writes_a_rig_that_fits_and_is_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["synth", "streets", "--scenes", "1", "--size", "96", "160"]) == 0
    assert main(["rig", "import", "dgp", "streets"]) == 0
    assert "rig.yaml: 6 cameras in ring order" in capsys.readouterr().out
    assert len(load_rig(tmp_path / "rig.yaml")) == 6
    assert main(["rig", "show", "rig.yaml", "--out", "rig.svg"]) == 0
    assert "blind: " in capsys.readouterr().out
    assert (tmp_path / "rig.svg").read_text().startswith("<svg")


def test_fit_reports_each_camera(rig_file, small_bundle, capsys):
    assert main(["rig", "fit", str(rig_file), str(small_bundle)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 6 + 1
    assert all("lost" in line and "allowed 0.50 to 2.00" in line for line in lines[1:-1])


def test_fit_shows_everything_and_then_refuses(rig_file, small_bundle, capsys):
    rig = load_rig(rig_file)
    first, *others = rig.cameras
    k = first.intrinsics.copy()
    k[0, 0] *= 5
    save_rig(rig_file, Rig.of([replace(first, intrinsics=k), *others]))
    assert main(["rig", "fit", str(rig_file), str(small_bundle)]) == 3
    told = capsys.readouterr()
    assert told.out.count("NOT ALLOWED") == 1
    assert f"camera {first.name} has a focal length" in told.err
    assert len(told.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["rig"], 2, "ACTION"),
        (["rig", "import", "opencv", "x"], 2, "invalid choice"),
        (["rig", "import", "ros", "x.yaml"], 2, "give --poses"),
        (["rig", "show", "absent.yaml"], 3, "absent.yaml"),
        (["rig", "fit", "absent.yaml", "absent"], 3, "absent"),
    ],
)
def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys, arguments, code, says):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == code
    error = capsys.readouterr().err
    assert says in error
    assert len(error.splitlines()) == 1


def test_run_says_what_prepared_the_pictures_and_takes_what_it_is_told(small_bundle, tmp_path, capsys):
    command = ["run", str(small_bundle), "--source", "synthetic", "--frames", "1", "--threads", "1"]
    assert main([*command, "--preprocess", "definition", "--fit"]) == 0
    assert "prepared by the definition in NumPy (as asked)" in capsys.readouterr().out
    assert main(command) == 0
    out = capsys.readouterr().out
    there = any(shutil.which(name) for name in ("cc", "gcc", "clang"))
    assert ("prepared by the C kernel (" if there else "prepared by the definition") in out
