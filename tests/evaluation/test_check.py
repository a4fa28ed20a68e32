"""Measuring a bundle: what it says of itself must hold on this machine."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import load, numpy_helper, save

from fsmde_edge.bundle import MANIFEST, Manifest, open_bundle, seal
from fsmde_edge.cli.main import main
from fsmde_edge.compiler.build import BuildOptions, build
from fsmde_edge.datasets.selection import Selection, open_selection, samples_of
from fsmde_edge.errors import InputError, UsageError
from fsmde_edge.evaluation.check import CheckOptions, check
from fsmde_edge.evaluation.check_report import tables, write_page


@pytest.fixture(scope="module")
def samples():
    """One frame set."""
    dataset = open_selection(Selection(split="test", count=1), size=(96, 160), root=Path())
    return list(samples_of([dataset]))


@pytest.fixture
def bundle(small_bundle, tmp_path) -> Path:
    """A copy that may be spoilt."""
    return Path(shutil.copytree(small_bundle, tmp_path / "bundle"))


@pytest.fixture(scope="session")
def half_bundle(tmp_path_factory, small_recipe, small_checkpoint) -> Path:
    """A bundle of FP32 and FP16."""
    out = tmp_path_factory.mktemp("half") / "bundle"
    options = BuildOptions(
        precision="fp16", out=out, checkpoint=small_checkpoint, recipe=str(small_recipe), threads=1
    )
    build(options, lambda _: None)
    return out


def spoil_golden(root: Path, **change) -> None:
    golden, manifest = open_bundle(root).golden(), open_bundle(root).manifest
    replace(golden, **change).save(root / "golden")
    seal_again(root, manifest)


def seal_again(root: Path, manifest: Manifest) -> None:
    (root / MANIFEST).unlink()
    seal(root, manifest)


def measure(root: Path, samples, **options):
    return check(open_bundle(root), samples, CheckOptions(runs=0, protocols=("deploy",), **options))


def test_a_bundle_on_the_machine_that_built_it_has_no_fault(small_bundle, samples):
    result = measure(small_bundle, samples)
    assert result.gate.verdict != "failed"
    assert result.preprocessing == 0
    assert result.half is None


@pytest.mark.parametrize("name", ["fp32", "int8"])
def test_a_model_that_leaves_golden_depth_fails(bundle, samples, name):
    depth = open_bundle(bundle).golden().depth
    spoil_golden(bundle, depth={**depth, name: depth[name] * np.float32(1.01)})
    gate = measure(bundle, samples).gate
    assert gate.verdict == "failed"
    assert gate.reasons == (f"{name} is 0.99% off the golden depth (at most 0.10%)",)


def test_golden_depth_in_its_last_bits_passes(bundle, samples):
    depth = open_bundle(bundle).golden().depth
    spoil_golden(bundle, depth={name: value * np.float32(1 + 1e-5) for name, value in depth.items()})
    assert measure(bundle, samples).gate.verdict != "failed"


def test_preprocessing_that_leaves_its_vectors_fails_in_the_page_too(bundle, samples, tmp_path):
    prepared = open_bundle(bundle).golden().prepared
    for change, verdict in ((1, "inconclusive"), (3, "failed")):
        spoil_golden(bundle, prepared=tuple(np.where(p < 128, p + change, p - change) for p in prepared))
        result = measure(bundle, samples)
        assert result.preprocessing == change
        assert (result.gate.verdict == "failed") == (verdict == "failed")
    write_page(tmp_path / "a.html", open_bundle(bundle), result, data="x")
    page = (tmp_path / "a.html").read_text()
    assert "Check on x: failed" in page
    assert "preprocessing is 3 grey levels off golden vectors (at most 1)" in page


def test_a_fault_is_exit_code_4_without_int8_too(half_bundle, tmp_path, capfd):
    root = Path(shutil.copytree(half_bundle, tmp_path / "bundle"))
    depth = open_bundle(root).golden().depth
    spoil_golden(root, depth={"fp32": depth["fp32"] * np.float32(2)})
    capfd.readouterr()
    page = str(tmp_path / "a.html")
    assert main(["check", str(root), "--sets", "1", "--runs", "0", "--threads", "1", "--report", page]) == 4
    err = capfd.readouterr().err
    assert len(err.splitlines()) == 1
    assert "fp32 is 50.00% off the golden depth" in err
    assert "INT8 against FP32" not in Path(page).read_text()


def test_depth_that_is_not_a_number_fails_without_a_warning(bundle, samples, recwarn):
    path, manifest = bundle / "model.fp32.onnx", open_bundle(bundle).manifest
    model = load(path)
    for weight in model.graph.initializer:
        value = numpy_helper.to_array(weight)
        if value.dtype == np.float32 and value.ndim == 4:
            weight.CopyFrom(numpy_helper.from_array(np.full_like(value, np.nan), weight.name))
    save(model, path)
    seal_again(bundle, manifest)
    result = measure(bundle, samples)
    assert result.gate.verdict == "failed"
    assert "fp32 gives depth that is not a number" in result.gate.reasons
    assert [str(w.message) for w in recwarn] == []


def test_fp16_stands_beside_fp32(half_bundle, samples):
    result = measure(half_bundle, samples)
    assert result.gate is None
    assert set(result.accuracy["deploy"]) == set(result.sessions) == {"fp32", "fp16"}
    assert 0 < result.half < 0.02
    table = tables(open_bundle(half_bundle), result)[0]
    assert table.title == "FP32 beside FP16, 1 frame sets"
    assert table.rows[1][-1] == f"{result.half:.3%}"


def test_lidar_that_is_all_out_of_range_is_told(small_bundle, samples):
    with pytest.raises(
        InputError, match=r"no picture has LiDAR between 0\.1 and 0\.2 m.*--max-depth"
    ) as caught:
        measure(small_bundle, samples, max_depth=0.2)
    assert caught.value.where


@pytest.mark.parametrize("metres", [0.0, 0.1, -1.0, np.nan, np.inf])
def test_an_impossible_distance_is_a_usage_error(metres):
    with pytest.raises(UsageError, match="--max-depth"):
        CheckOptions(max_depth=metres)
