"""TensorRT for RTX builds what we lower, ahead of time and without a GPU (where the extra rtx is there)."""

from __future__ import annotations

import sys

import pytest

from fsmde_edge.compiler import aot
from fsmde_edge.compiler.aot import AotBuild, Layer, build_ahead, layer_diff
from fsmde_edge.compiler.layers import layer_lines
from fsmde_edge.errors import DeviceError, MissingExtra

needs_rtx = pytest.mark.skipif(not aot.available(), reason="the extra rtx is not installed")
MB = 1_000_000


@pytest.fixture(scope="module")
def tiny_models(tmp_path_factory):
    """The shipped tiny student at 96×160: fp32, fp16, int8, int8-fp16; ranges of two synthetic frame sets."""
    from toy_depth import focals, pictures

    from fsmde_edge.compiler.calibrate import CalibrationBatch, calibrate
    from fsmde_edge.compiler.half import to_half
    from fsmde_edge.compiler.lowering import tensorrt
    from fsmde_edge.compiler.plan import make_plan, place
    from fsmde_edge.compiler.sources import read_network
    from fsmde_edge.graph.model import save_model

    network = read_network(checkpoint=None, onnx=None, convention=None, views=6, size=(96, 160)).model
    frames = [CalibrationBatch(images=pictures(6, 96, 160, s), focal=focals(6), valid=6) for s in (0, 1)]
    plan = make_plan(network, calibrate(network, frames, place(network).calibrate, threads=1))
    lowered = tensorrt.lower(network, plan)
    folder = tmp_path_factory.mktemp("tiny")
    models = {"fp32": network, "fp16": to_half(network), "int8": lowered, "int8-fp16": to_half(lowered)}
    for name, model in models.items():
        save_model(model, folder / f"model.{name}.onnx")
    return folder


@needs_rtx
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int8-fp16"])
def test_every_precision_is_accepted_and_its_plan_is_no_larger_than_the_file_and_8_mb(tiny_models, precision):
    file = tiny_models / f"model.{precision}.onnx"
    build = build_ahead(file)
    assert build.accepted, build.error
    assert 0 < build.plan_bytes <= file.stat().st_size + 8 * MB
    assert build.layers
    types = {kind for layer in build.layers for kind in layer.reads}
    assert {"fp32": "Float", "fp16": "Half", "int8": "Int8", "int8-fp16": "Int8"}[precision] in types
    # what ModelSession and the CUDA kernel rely on: names, types, shapes, and nothing else
    assert build.inputs == {"images": "uint8 [6, 96, 160, 3]", "focal": "float32 [6]"}
    assert build.outputs == {"depth": "float32 [6, 96, 160]", "confidence": "float32 [6, 96, 160]"}


@needs_rtx
def test_two_builds_of_one_model_have_equal_layers_and_two_models_do_not(tiny_models):
    first, second = (build_ahead(tiny_models / "model.fp16.onnx") for _ in range(2))
    assert layer_diff(first, second) == []
    other = layer_diff(first, build_ahead(tiny_models / "model.int8-fp16.onnx"))
    assert any(line.startswith("+") and "Int8" in line for line in other)


@needs_rtx
def test_a_refusal_says_what_the_parser_said(tmp_path):
    file = tmp_path / "broken.onnx"
    file.write_bytes(b"no model")
    build = build_ahead(file)
    assert not build.accepted
    assert build.error
    assert "\n" not in build.error
    assert build.plan_bytes == 0


@needs_rtx
def test_layers_are_labelled_as_not_orins(tiny_models):
    lines = list(layer_lines(tiny_models / "model.int8-fp16.onnx"))
    assert any("by our model of TensorRT" in line for line in lines)
    assert any("rules of Q/DQ for TensorRT: 0 broken" in line for line in lines)
    assert any("not Orin's fusion" in line for line in lines)


def test_without_the_extra_the_error_names_it(tiny_models, monkeypatch):
    monkeypatch.setattr(aot, "MODULE", "a_module_that_nobody_has")
    with pytest.raises(MissingExtra, match=r"fsmde-edge\[rtx\]"):
        build_ahead(tiny_models / "model.fp32.onnx")


@needs_rtx
def test_a_child_that_dies_is_one_clear_error(tiny_models, monkeypatch, tmp_path):
    stub = tmp_path / "python"
    stub.write_text("#!/bin/sh\nkill -9 $$\n")
    stub.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stub))
    with pytest.raises(DeviceError, match="signal 9, out of memory"):
        build_ahead(tiny_models / "model.fp32.onnx")


def test_a_diff_ignores_what_only_counts_up():
    def build(*names: str) -> AotBuild:
        layers = tuple(
            Layer(name=name, kind="kgen", reads=("Half",), writes=("Half",), nodes=()) for name in names
        )
        return AotBuild(version="1", error="", plan_bytes=1, seconds=0.0, layers=layers)

    assert layer_diff(build("__myl_Add_myl0_1"), build("__myl_Add_myl0_7")) == []
    assert layer_diff(build("__myl_Add_myl0_1"), build("__myl_Mul_myl0_1")) == [
        "-kgen Half -> Half: __myl_Add_myl#_#",
        "+kgen Half -> Half: __myl_Mul_myl#_#",
    ]
