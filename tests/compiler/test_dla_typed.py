"""A plan as a typed network for a DLA: Q/DQ on every tensor that the DLA makes in INT8."""

from __future__ import annotations

import pytest
from test_dla import planned
from toy_depth import depth_network

from fsmde_edge.bundle import open_bundle
from fsmde_edge.compiler.aot import available, build_ahead
from fsmde_edge.compiler.lowering.dla import tensor_scales
from fsmde_edge.compiler.lowering.dla_typed import export_typed, lower_for_dla
from fsmde_edge.compiler.lowering.tensorrt import lower
from fsmde_edge.compiler.predict.dla import dla_placement
from fsmde_edge.errors import OutputError, UsageError
from fsmde_edge.graph.model import constant, load_model


def typed(model, **options):
    plan, ranges, golden = planned(model, **options)
    return lower_for_dla(model, lower(model, plan), plan, ranges, golden, threads=1), plan, ranges, golden


def pairs(model):
    """Tensor to the scale of its pair."""
    nodes = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    return {node.input[0]: float(constant(model.graph, node.input[1])) for node in nodes}


@pytest.fixture(scope="module")
def model():
    return depth_network(confidence=True)


def test_every_tensor_that_the_dla_makes_has_a_pair_between_a_convolution_and_its_relu_too(model):
    lowered, plan, *_ = typed(model)
    for_gpu = {item.tensor for item in plan.activations if item.int8}
    assert "stem.out" in set(pairs(lowered)) - for_gpu
    inside = {item.node for item in dla_placement(model, "typed") if item.on_dla}
    convolutions = [n for n in model.graph.node if n.op_type == "Conv" and n.name in inside]
    assert {node.output[0] for node in convolutions} & set(pairs(lowered))
    assert for_gpu <= set(pairs(lowered))


def test_the_scales_are_those_of_the_calibration_cache(model):
    lowered, plan, ranges, golden = typed(model)
    scales = tensor_scales(model, plan, ranges, golden, threads=1)
    found = pairs(lowered)
    assert found == {name: pytest.approx(scales[name].value, rel=1e-6) for name in found}
    assert found["layer2.conv2.out"] == found["layer2.short.out"], "both inputs of a sum"


def test_layers_that_the_plan_keeps_float_get_no_pair(model):
    everywhere, *_ = typed(model)
    kept, *_ = typed(model, keep_float=["dec2"])
    assert "dec2.out" in pairs(everywhere)
    assert "dec2.out" not in pairs(kept)


def test_its_depth_is_about_as_close_to_fp32_as_with_the_gpus_placement(small_bundle, tmp_path):
    export = export_typed(open_bundle(small_bundle), tmp_path / "dla.onnx", (11, 4, 1), threads=1)
    assert 0 < export.gpu_deviation < export.deviation < 4 * export.gpu_deviation


def test_a_bundle_exports_a_typed_network_that_nvidias_parser_and_builder_take(small_bundle, tmp_path):
    export = export_typed(open_bundle(small_bundle), tmp_path / "dla.onnx", (11, 4, 1), threads=1)
    written = load_model(export.network)
    assert export.pairs == len(pairs(written)) > export.gpu_pairs
    assert [port.name for port in written.graph.input] == ["images", "focal"]
    if available():
        build = build_ahead(export.network)
        assert build.accepted, build.error


@pytest.mark.parametrize("version", [(10, 3), (11, 0), (11, 4, 0)])
def test_a_tensorrt_whose_dla_takes_no_typed_network_is_refused(small_bundle, tmp_path, version):
    with pytest.raises(UsageError):
        export_typed(open_bundle(small_bundle), tmp_path / "dla.onnx", version, threads=1)
    assert not (tmp_path / "dla.onnx").exists()


def test_a_file_that_is_there_is_replaced_only_if_asked(small_bundle, tmp_path):
    (tmp_path / "dla.onnx").write_bytes(b"mine")
    with pytest.raises(OutputError, match="already exists"):
        export_typed(open_bundle(small_bundle), tmp_path / "dla.onnx", (11, 4, 1), threads=1)
    assert (tmp_path / "dla.onnx").read_bytes() == b"mine"
    export_typed(open_bundle(small_bundle), tmp_path / "dla.onnx", (11, 4, 1), threads=1, force=True)
