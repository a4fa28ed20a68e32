"""The chain as a whole: what a bundle holds, that it is made the same twice, what the gate does to it."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from fsmde_edge.bundle import MANIFEST, open_bundle
from fsmde_edge.cli.main import main
from fsmde_edge.compiler.build import BuildOptions, build
from fsmde_edge.errors import InputError
from fsmde_edge.golden import check_preprocessing
from fsmde_edge.inference.backends import open_session


def options(small_recipe, small_checkpoint, out, **changes):
    given = BuildOptions(
        precision="int8", out=out, checkpoint=small_checkpoint, recipe=str(small_recipe), threads=1
    )
    return dataclasses.replace(given, **changes)


def command(small_recipe, small_checkpoint) -> list[str]:
    files = ["--checkpoint", str(small_checkpoint), "--calib", str(small_recipe)]
    return ["build", *files, "--threads", "1"]


def test_the_same_inputs_give_the_same_bytes(small_bundle, small_recipe, small_checkpoint, tmp_path):
    again = tmp_path / "again"
    build(options(small_recipe, small_checkpoint, again), lambda _: None)
    first, second = open_bundle(small_bundle), open_bundle(again)
    assert first.files == second.files
    manifests = [json.loads((root / MANIFEST).read_text()) for root in (small_bundle, again)]
    for manifest in manifests:
        del manifest["created"], manifest["self_sha256"]
    assert manifests[0] == manifests[1]


def test_a_bundle_holds_what_the_design_names(small_bundle):
    bundle = open_bundle(small_bundle)
    assert bundle.manifest.models == {
        "fp32": "model.fp32.onnx",
        "fp16": None,
        "int8": "model.int8.onnx",
        "int8-fp16": "model.int8-fp16.onnx",
    }
    assert {"plan.json", "ranges.json"} <= set(bundle.files)
    assert all(not name.startswith("reports/") for name in bundle.files)
    assert (small_bundle / "reports" / "gate.html").is_file()


def test_golden_depth_is_what_exact_sessions_give(small_bundle):
    bundle = open_bundle(small_bundle)
    golden = bundle.golden()
    for precision in ("fp32", "int8"):
        with open_session(bundle, precision=precision, threads=1, exact=True).session as session:
            depth = session.infer(golden.images, golden.focal).depth
        np.testing.assert_allclose(depth, golden.depth[precision], rtol=1e-5)


def test_golden_preprocessing_is_this_machines(small_bundle):
    assert check_preprocessing(open_bundle(small_bundle).golden()) == 0


@pytest.mark.parametrize(("precision", "models"), [("fp32", {"fp32"}), ("fp16", {"fp32", "fp16"})])
def test_a_bundle_without_int8_needs_no_gate(small_recipe, small_checkpoint, tmp_path, precision, models):
    out = tmp_path / "bundle"
    outcome = build(options(small_recipe, small_checkpoint, out, precision=precision), lambda _: None)
    bundle = open_bundle(out)
    assert outcome.gate is None
    assert {name for name, file in bundle.manifest.models.items() if file} == models
    assert bundle.gate_passed
    assert main(["run", str(out), "--source", "synthetic", "--frames", "1"]) == 0
    assert main(["check", str(out), "--sets", "1", "--runs", "1"]) == 0


def test_a_failed_gate_marks_the_bundle_and_run_refuses_it(small_recipe, small_checkpoint, tmp_path, capsys):
    recipe = tmp_path / "strict.yaml"
    recipe.write_text(small_recipe.read_text() + "budget: {deviation: 1.0e-6}\n")
    out = tmp_path / "bundle"
    arguments = ["build", "--checkpoint", str(small_checkpoint), "--calib", str(recipe), "--out", str(out)]
    assert main(arguments) == 4
    assert "deviation" in capsys.readouterr().err
    assert open_bundle(out).manifest.gate["verdict"] == "failed"
    assert (out / "reports" / "gate.html").is_file()
    run = ["run", str(out), "--source", "synthetic", "--frames", "1"]
    assert main(run) == 4
    assert main([*run, "--allow-failed"]) == 0
    assert main([*run, "--precision", "fp32"]) == 0


def test_frames_that_calibrate_may_not_judge(small_recipe, small_checkpoint, tmp_path):
    recipe = tmp_path / "same.yaml"
    recipe.write_text(small_recipe.read_text().replace("split: dev", "split: train"))
    with pytest.raises(InputError, match="same frames"):
        build(options(recipe, small_checkpoint, tmp_path / "bundle"), lambda _: None)


def test_an_interrupted_build_leaves_nothing_and_exits_130(
    small_recipe, small_checkpoint, tmp_path, monkeypatch
):
    def interrupt(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("fsmde_edge.compiler.quantise.calibrate", interrupt)
    out = tmp_path / "folder" / "bundle"
    arguments = ["build", "--checkpoint", str(small_checkpoint), "--calib", str(small_recipe)]
    assert main([*arguments, "--out", str(out)]) == 130
    assert list(out.parent.iterdir()) == []


def test_what_the_user_keeps_in_float_stays_float_and_the_report_says_what_the_search_tried(
    small_recipe, small_checkpoint, tmp_path, capsys
):
    out = tmp_path / "bundle"
    arguments = command(small_recipe, small_checkpoint)
    assert main([*arguments, "--keep-float", "student.encoder.layer1.*", "--out", str(out)]) == 0
    assert "in half precision:" in capsys.readouterr().out
    plan = json.loads((out / "plan.json").read_text())
    kept = {w["node"]: w["int8"] for w in plan["weights"] if w["node"].startswith("student.encoder.layer1.")}
    assert kept
    assert not any(kept.values())
    assert (out / "reports" / "precision.html").is_file()
    manifest = json.loads((out / MANIFEST).read_text())
    assert manifest["calibration"]["method"]["keep_float"] == ["student.encoder.layer1.*"]


def test_without_the_search_there_is_no_report_of_one(small_recipe, small_checkpoint, tmp_path, capsys):
    out = tmp_path / "bundle"
    arguments = command(small_recipe, small_checkpoint)
    assert main([*arguments, "--no-search", "--out", str(out)]) == 0
    assert "in half precision:" not in capsys.readouterr().out
    assert not (out / "reports" / "precision.html").exists()
    assert json.loads((out / "plan.json").read_text())["int8_mac_share"] > 0.95


def test_a_pattern_that_is_kept_and_forced_at_once_is_refused(
    small_recipe, small_checkpoint, tmp_path, capsys
):
    arguments = ["build", "--checkpoint", str(small_checkpoint), "--calib", str(small_recipe)]
    both = ["--keep-float", "*conv1", "--force-int8", "*conv1"]
    assert main([*arguments, *both, "--out", str(tmp_path / "bundle")]) == 2
    assert "both name '*conv1'" in capsys.readouterr().err
