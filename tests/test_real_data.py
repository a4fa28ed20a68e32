"""The main job on real DDAD and nuScenes frames, where they lie beside the checkout."""

from __future__ import annotations

import json

import pytest

from fsmde_edge.cli.main import main

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ddad_bundle(shared_data, tmp_path_factory):
    out = tmp_path_factory.mktemp("real") / "bundle"
    arguments = ["build", "--precision", "int8", "--calib", "ddad-sample"]
    assert main([*arguments, "--data-root", str(shared_data), "--out", str(out)]) == 0
    return out


def test_nine_real_views_calibrate_and_the_gate_passes(ddad_bundle):
    manifest = json.loads((ddad_bundle / "manifest.json").read_text())
    assert sum(manifest["calibration"]["views"].values()) == 9
    assert manifest["gate"]["verdict"] == "passed"
    assert manifest["gate"]["lidar_images"] == 12
    assert any("CC BY-NC-SA" in notice for notice in manifest["notices"])


def test_int8_takes_at_most_30_percent_of_the_fp32_file(ddad_bundle):
    sizes = {name: (ddad_bundle / f"model.{name}.onnx").stat().st_size for name in ("fp32", "int8")}
    assert sizes["int8"] <= 0.30 * sizes["fp32"]


def test_check_on_the_judging_samples_agrees_with_the_gate(ddad_bundle, shared_data, capsys):
    data = ["--data", str(shared_data / "ddad_sample"), "--scenes", "scene_02", "--samples", "1", "2"]
    masks = ["--masks", str(shared_data / "ddad_masks" / "0")]
    assert main(["check", str(ddad_bundle), *data, *masks, "--runs", "1", "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    gate = json.loads((ddad_bundle / "manifest.json").read_text())["gate"]
    assert measured["gate"]["deviation"] == pytest.approx(gate["deviation"], rel=1e-4)
    assert set(measured["accuracy"]) == {"surrounddepth", "vfdepth", "deploy"}


def test_the_shipped_student_beats_constants_on_real_pictures(ddad_bundle, shared_data, tmp_path):
    """Issue 3's bar: median-scaled, at most 0.85 × the Abs Rel of each image's median as a constant."""
    for name, masks in (("ddad_sample", "ddad_masks/0"), ("nuscenes_sample", None)):
        record = tmp_path / f"{name}.json"
        arguments = [
            "check",
            str(ddad_bundle),
            "--data",
            str(shared_data / name),
            "--allow-few",
            "--runs",
            "0",
        ]
        arguments += ["--scenes", "scene_02", "--masks", str(shared_data / masks)] if masks else []
        assert main([*arguments, "--table", str(record)]) == 0
        tables = {table["title"]: table for table in json.loads(record.read_text())["tables"]}
        rivals = {row[0]: row for row in tables["Median-scaled, mean over images, 0.1-80 m"]["rows"]}
        assert float(rivals["FP32"][2]) <= 0.85
        assert float(rivals["INT8"][2]) <= 0.85


def test_three_standing_cameras_are_refused_as_look_alike(shared_data, tmp_path, capsys):
    recipe = tmp_path / "standing.yaml"
    recipe.write_text(
        "version: 1\nsize: [384, 640]\n"
        "data:\n  - {path: ddad_sample, scenes: [scene_01]}\n"
        "gate:\n  - {path: ddad_sample, scenes: [scene_02], samples: [1]}\n"
    )
    out = tmp_path / "bundle"
    code = main(["build", "--calib", str(recipe), "--data-root", str(shared_data), "--out", str(out)])
    error = capsys.readouterr().err
    assert code == 3
    assert "do not look alike" in error
    assert "--allow-few" in error
    assert not out.exists()


def test_run_turns_real_frames_into_depth(ddad_bundle, shared_data, tmp_path):
    source = ["--source", str(shared_data / "ddad_sample"), "--scenes", "scene_02", "--frames", "1"]
    out = ["--out", str(tmp_path / "depth"), "--mosaic", str(tmp_path / "mosaic.png")]
    masks = ["--masks", str(shared_data / "ddad_masks" / "0")]
    assert main(["run", str(ddad_bundle), *source, *masks, *out]) == 0
    assert len(list((tmp_path / "depth" / "000000").glob("CAMERA_*.png"))) == 6
