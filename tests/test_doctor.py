from __future__ import annotations

import json
import sys

import pytest

from fsmde_edge import doctor
from fsmde_edge.cli.main import main
from fsmde_edge.doctor import KNOWN_BAD, Finding, Machine, examine


def machine(python=(3, 12), l4t=None, **versions) -> Machine:
    return Machine(
        python=python,
        l4t=l4t,
        versions={name.replace("_", "-"): version for name, version in versions.items()},
    )


GOOD = (
    machine(onnxruntime="1.27.0", numpy="2.4.0", opencv_python_headless="4.12.0"),
    machine(
        (3, 10), (36, 4), onnxruntime="1.23.2", tensorrt="10.3.0.30", cuda_bindings="12.6.2", numpy="1.26.4"
    ),
    machine((3, 12), (38, 2), tensorrt="10.16.0.1", cuda_bindings="13.0.1", onnxruntime="1.24.0"),
    machine((3, 12), (39, 0), tensorrt="11.4.1.5", cuda_bindings="13.2.0"),
    machine((3, 12), None, tensorrt="11.2.1", numpy="2.0"),
)
BAD = {
    "this TensorRT 11 does not support Jetson": machine(l4t=(38, 2), tensorrt="11.2.1.3"),
    "TensorRT 11 does not run on JetPack 6": machine((3, 10), (36, 4), tensorrt="11.4.1.5"),
    "cuda-bindings 13 needs a CUDA 13 driver": machine((3, 10), (36, 4), cuda_bindings="13.0.0"),
    "TensorRT before 8.6 uses np.bool": machine((3, 10), (35, 4), tensorrt="8.5.2.2", numpy="1.24.0"),
    "overwrite each other's cv2": machine(opencv_python="4.10", opencv_python_headless="4.10"),
    "no build for Python 3.10": machine((3, 10), onnxruntime="1.24.1"),
}


def said(what: Machine) -> list[str]:
    return [bad.what for bad in KNOWN_BAD if bad.applies(what)]


@pytest.mark.parametrize("good", GOOD, ids=str)
def test_a_good_machine_has_nothing_known_bad(good):
    assert said(good) == []


@pytest.mark.parametrize("part", BAD)
def test_each_known_bad_combination_is_found(part):
    assert any(part in what for what in said(BAD[part]))


def test_every_entry_is_tested_and_has_advice_and_a_source():
    assert len(BAD) == len(KNOWN_BAD)
    for bad in KNOWN_BAD:
        assert sum(part in bad.what for part in BAD) == 1
        assert bad.advice
        assert bad.source


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n", (36, 4)),
        ("# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref", (35, 4)),
        ("# R38 (release), REVISION: 2.0, GCID: 1", (38, 2)),
        ("something else", None),
        ("", None),
    ],
)
def test_the_release_file_is_read(tmp_path, monkeypatch, text, release):
    file = tmp_path / "nv_tegra_release"
    file.write_text(text)
    monkeypatch.setattr(doctor, "RELEASE_FILE", file)
    assert doctor._l4t() == release


def jetson(monkeypatch, tmp_path, release):
    file = tmp_path / "nv_tegra_release"
    file.write_text(f"# R{release} (release), REVISION: 4.3, GCID: 1")
    monkeypatch.setattr(doctor, "RELEASE_FILE", file)
    return {finding.what: finding for finding in examine()}


def test_on_a_jetson_absent_drivers_are_problems_with_advice(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor.ctypes, "CDLL", _no_library)
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", None)
    found = jetson(monkeypatch, tmp_path, 36)
    assert found["Jetson"] == Finding(what="Jetson", level="ok", detail="L4T 36.4, JetPack 6")
    assert found["CUDA"].level == "problem"
    assert found["TensorRT"].level == "problem"
    assert "--system-site-packages" in found["TensorRT"].advice


def _no_library(_name):
    raise OSError


def test_jetpack_5_is_too_old(monkeypatch, tmp_path):
    found = jetson(monkeypatch, tmp_path, 35)
    assert (found["Jetson"].level, found["Jetson"].detail) == ("problem", "L4T 35.4, JetPack 5")


def test_the_command_prints_every_finding(capsys):
    levels = {finding.level for finding in examine()}
    code = main(["doctor", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert {row["level"] for row in found} == levels
    assert {"Python", "Jetson", "ONNX Runtime", "CUDA", "TensorRT", "cameras", "disk"} <= {
        r["what"] for r in found
    }
    assert main(["doctor"]) == code == (5 if "problem" in levels else 0)
    assert "ONNX Runtime" in capsys.readouterr().out


def test_a_missing_base_package_is_a_problem(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    found = next(finding for finding in examine() if finding.what == "packages")
    assert (found.level, found.detail) == ("problem", "not installed: tqdm")
    assert "pip install fsmde-edge" in found.advice
