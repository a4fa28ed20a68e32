"""`estimate` and `inspect --layers` on a small bundle: what they print, and what they refuse."""

from __future__ import annotations

import json

import pytest

from fsmde_edge.cli.main import main


def test_estimate_prints_its_assumptions_all_precisions_and_the_kernels_of_one(small_bundle, capfd):
    assert main(["estimate", str(small_bundle), "--target", "orin-agx-64gb", "--precision", "int8"]) == 0
    printed = capfd.readouterr()
    assert printed.err == ""
    assert printed.out.startswith("an estimate, not a measurement")
    assert "mode MAXN" in printed.out
    for name in ("fp32", "fp16 (derived)", "int8", "int8-fp16"):
        assert any(line.startswith(f"{name} ") for line in printed.out.splitlines())
    assert "estimated kernels of int8 " in printed.out


def test_estimate_json_is_one_object_and_follows_mode_and_efficiency(small_bundle, capfd):
    totals = {}
    for extra in ((), ("--mode", "15w"), ("--compute", "0.1", "--memory", "0.1")):
        assert main(["estimate", str(small_bundle), "--target", "orin-agx-64gb", "--json", *extra]) == 0
        found = json.loads(capfd.readouterr().out)
        totals[extra[:1]] = found["totals"]["int8-fp16"]["ms"]
    assert totals[()] < totals["--mode",]
    assert totals[()] < totals["--compute",]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([], 3, "no power modes and no rates"),
        (["--target", "orin-agx-64gb", "--mode", "99W"], 3, "no power mode '99W'"),
        (["--target", "orin-agx-64gb", "--precision", "int4"], 2, "there is no int4 model"),
        (["--target", "orin-agx-64gb", "--compute", "1.5"], 2, "is not a share"),
        (["--target", "absent"], 3, "shipped names"),
        (["--target", "orin-agx-64gb", "--bench", "absent.json"], 3, "cannot be read"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_estimated_is_one_line(small_bundle, capfd, arguments, code, says):
    assert main(["estimate", str(small_bundle), *arguments]) == code
    printed = capfd.readouterr()
    assert printed.out == ""
    assert says in printed.err
    assert printed.err.count("\n") == 1


def test_inspect_layers_shows_kernels_by_our_model(small_bundle, capfd):
    assert main(["inspect", str(small_bundle), "--layers", "--precision", "int8"]) == 0
    out = capfd.readouterr().out
    assert "kernels of model.int8.onnx by our model of TensorRT, not what a device built" in out
    assert "TensorRT for RTX" in out


@pytest.mark.parametrize("arguments", [["--layers", "--json"], ["--precision", "int8"]], ids=" ".join)
def test_inspect_refuses_what_does_not_go_together(small_bundle, capfd, arguments):
    assert main(["inspect", str(small_bundle), *arguments]) == 2
    assert capfd.readouterr().err.count("\n") == 1
