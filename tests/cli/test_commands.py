"""The commands on a small bundle: what they print, write and answer."""

from __future__ import annotations

import json
import re

import numpy as np

from fsmde_edge.bundle import MANIFEST, open_bundle
from fsmde_edge.cli.main import main
from fsmde_edge.evaluation.metrics import NAMES

ONCE = ("--source", "synthetic", "--frames", "2", "--threads", "1")


def test_check_json_is_one_object_and_nothing_else(small_bundle, capfd):
    assert main(["check", str(small_bundle), "--sets", "2", "--runs", "2", "--threads", "1", "--json"]) == 0
    printed = capfd.readouterr()
    assert printed.err == ""
    found = json.loads(printed.out)
    assert set(found) == {"gate", "accuracy", "cross_view", "latency_ms"}
    numbers = {"deviation", "p99", "worst_tile", "farther", "abs_rel_change"}
    assert set(found["gate"]) == {"passed", "verdict", *numbers}
    assert (found["gate"]["passed"], found["gate"]["verdict"]) == (True, "passed")
    assert set(found["accuracy"]) == {"surrounddepth", "vfdepth", "deploy"}
    cameras = {"mean", *open_bundle(small_bundle).manifest.cameras}
    for models in found["accuracy"].values():
        assert set(models) == {"fp32", "int8"}
        for rows in models.values():
            assert set(rows) == cameras
            assert all(set(row) == set(NAMES) for row in rows.values())
    for model in ("fp32", "int8"):
        assert set(found["cross_view"][model]) == {"overlap_accuracy", "depth_consistency"}
        assert set(found["latency_ms"][model]) == {"p50", "p90", "p99"}


def test_a_check_without_a_verdict_is_no_pass(small_bundle, tmp_path, capfd):
    report = tmp_path / "check.html"
    few = [
        "check",
        str(small_bundle),
        "--sets",
        "1",
        "--runs",
        "0",
        "--threads",
        "1",
        "--report",
        str(report),
    ]
    assert main(few) == 4
    assert capfd.readouterr().err.startswith(f"fsmde-edge: {small_bundle}: the gate is inconclusive")
    page = report.read_text()
    assert all(link.startswith("data:") for link in re.findall(r"""(?:src|href)="([^"]*)""", page))
    assert "http" not in page
    assert main([*few, "--allow-few"]) == 0


def test_one_protocol_with_its_largest_depth(small_bundle, capfd):
    arguments = [
        "--sets",
        "2",
        "--runs",
        "0",
        "--threads",
        "1",
        "--protocol",
        "deploy",
        "--max-depth",
        "30",
        "--json",
    ]
    main(["check", str(small_bundle), *arguments])
    found = json.loads(capfd.readouterr().out)
    assert set(found["accuracy"]) == {"deploy"}
    assert found["latency_ms"] == {}


def test_run_writes_what_it_was_asked_for(small_bundle, tmp_path, capfd):
    import cv2

    out = tmp_path / "png"
    assert (
        main(["run", str(small_bundle), *ONCE, "--out", str(out), "--mosaic", str(tmp_path / "m.png")]) == 0
    )
    printed = capfd.readouterr()
    assert "2 frame sets" in printed.out
    assert all(stage in printed.out for stage in ("capture", "preprocess", "infer", "sinks", "drops"))
    assert printed.err == ""
    assert main(["run", str(small_bundle), *ONCE, "--out", str(tmp_path / "npz"), "--format", "npz"]) == 0
    kept = np.load(tmp_path / "npz/000001.npz", allow_pickle=False)
    cameras = open_bundle(small_bundle).manifest.cameras
    assert tuple(kept["cameras"]) == cameras
    assert kept["depth"].shape == (6, 96, 160)
    assert kept["stamps_ns"].dtype == np.int64
    for depth, camera in zip(kept["depth"], cameras, strict=True):
        picture = cv2.imread(str(out / f"000001/{camera}.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_allclose(picture / 256, np.minimum(depth, 255.99609375), atol=0.5 / 256 + 1e-6)
    assert cv2.imread(str(tmp_path / "m.png")) is not None


def test_bench_tells_every_model_beside_fp32(small_bundle, tmp_path, capfd):
    file = tmp_path / "bench.json"
    arguments = ["--runs", "2", "--warmup", "1", "--threads", "1", "--json", str(file)]
    assert main(["bench", str(small_bundle), *arguments]) == 0
    found = json.loads(file.read_text())
    assert set(found["latency"]) == {"fp32", "int8", "int8-fp16"}
    assert found["bundle"] == open_bundle(small_bundle).hash
    assert "x FP32" in capfd.readouterr().out


def test_inspect_tells_the_manifest_and_the_plan(small_bundle, capfd):
    assert main(["inspect", str(small_bundle), "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == json.loads((small_bundle / MANIFEST).read_text())
    assert main(["inspect", str(small_bundle), "--plan"]) == 0
    printed = capfd.readouterr().out
    for part in ("every file verified", "model        int8", "verdict passed", "activations", "weights"):
        assert part in printed
