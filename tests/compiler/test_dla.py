"""A plan as a calibration cache for a DLA: every tensor, its scale, and the layers that stay float."""

from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto
from toy_depth import Builder, depth_network, focals, normalised, pictures

from fsmde_edge.bundle import Golden, open_bundle
from fsmde_edge.compiler.calibrate import CalibrationBatch, calibrate
from fsmde_edge.compiler.lowering.dla import (
    at_opset,
    cache_version,
    calibration_cache,
    export_for_dla,
    layer_precisions,
    read_decisions,
    tensor_scales,
)
from fsmde_edge.compiler.plan import make_plan, place
from fsmde_edge.errors import BundleError, InputError, UsageError
from fsmde_edge.graph.model import load_model, model_bytes, tidy


def read_cache(data: bytes) -> tuple[str, dict[str, float]]:
    """A calibration cache, read back as TensorRT does: header, then NAME: eight hexadecimal digits."""
    header, *lines = data.decode().splitlines()
    pairs = [line.rsplit(": ", 1) for line in lines]
    return header, {name: struct.unpack(">f", bytes.fromhex(digits))[0] for name, digits in pairs}


def planned(model, **options):
    views, height, width = 2, 32, 64
    batch = CalibrationBatch(images=pictures(views, height, width), focal=focals(views), valid=views)
    ranges = calibrate(model, [batch], place(model, **options).calibrate, threads=1)
    golden = Golden(images=pictures(views, height, width, seed=7), focal=focals(views), depth={})
    return make_plan(model, ranges, **options), ranges, golden


@pytest.fixture(scope="module")
def model():
    return depth_network(confidence=True)


@pytest.fixture(scope="module")
def scales(model):
    plan, ranges, golden = planned(model)
    return tensor_scales(model, plan, ranges, golden, threads=1)


def test_every_float_tensor_and_every_input_and_output_has_a_scale(model, scales):
    made = {name for node in model.graph.node for name in node.output}
    assert set(scales) == made | {"images", "focal"}
    assert {"depth", "confidence"} <= set(scales)
    assert all(np.isfinite(scale.value) and scale.value > 0 for scale in scales.values())


def test_scales_of_int8_tensors_are_the_plans(model, scales):
    plan, *_ = planned(model)
    shared = {"layer2.conv2.out", "layer2.short.out", "layer1.conv2.out", "pool.out", "stem.relu.out"}
    for item in plan.activations:
        if item.int8 and item.tensor not in shared:
            assert scales[item.tensor].source == "plan"
            assert scales[item.tensor].value >= item.scale


def test_both_inputs_of_a_sum_and_both_sides_of_a_pooling_share_the_largest(model, scales):
    plan, *_ = planned(model)
    own = {item.tensor: item.scale for item in plan.activations if item.int8}
    pair = ("layer2.conv2.out", "layer2.short.out")
    assert own[pair[0]] != own[pair[1]], "otherwise this shows nothing"
    assert {scales[name].value for name in pair} == {max(own[name] for name in pair)}
    assert scales["stem.relu.out"].value == scales["pool.out"].value == scales["layer1.conv2.out"].value


def test_what_a_relu_alone_reads_has_the_scale_of_what_it_makes(scales):
    for before, after in (("stem.out", "stem.relu.out"), ("layer1.add.out", "layer1.relu2.out")):
        assert scales[before].source == "activation"
        assert scales[before].value == scales[after].value


def test_tensors_that_calibration_did_not_look_at_are_measured_on_the_golden_frames(model, scales):
    session = onnxruntime.InferenceSession(model_bytes(model), providers=["CPUExecutionProvider"])
    depth = session.run(["depth"], {"images": pictures(2, 32, 64, seed=7), "focal": focals(2)})[0]
    assert scales["depth"].source == "golden"
    assert scales["depth"].value == pytest.approx(np.abs(depth).max() / 127, rel=1e-3)


def test_tensors_that_were_measured_and_kept_float_take_their_range(model):
    _, ranges, golden = planned(model)
    plan = make_plan(model, ranges, keep_float=["dec2"])
    dropped = {item.tensor for item in plan.activations if not item.int8} & set(ranges.tensors)
    assert dropped, "otherwise this shows nothing"
    scales = tensor_scales(model, plan, ranges, golden, threads=1)
    assert {scales[name].source for name in dropped} == {"ranges"}


def test_what_the_plan_chose_is_not_widened_by_what_was_only_measured(model):
    plan, ranges, golden = planned(model)
    pair = ("layer2.conv2.out", "layer2.short.out")
    changes = {pair[0]: {"scale": 2.0**-12}, pair[1]: {"int8": False, "scale": None}}
    changed = tuple(replace(item, **changes.get(item.tensor, {})) for item in plan.activations)
    unseen = replace(ranges, tensors={n: r for n, r in ranges.tensors.items() if n != pair[1]})
    scales = tensor_scales(model, replace(plan, activations=changed), unseen, golden, threads=1)
    assert [scales[name].source for name in pair] == ["plan", "golden"]
    assert {scales[name].value for name in pair} == {2.0**-12}


def test_average_pooling_shares_and_a_tensor_with_other_readers_keeps_its_own():
    b = Builder()
    x = b.conv(normalised(b), 3, 4, name="a")
    grown = b.conv(b.node("Exp", x, name="exp"), 4, 4, name="b", gain=0.01)
    both = b.node("Concat", b.relu(x, "a.relu"), grown, name="cat", axis=1)
    pool = b.node("AveragePool", both, name="pool", kernel_shape=[2, 2], strides=[2, 2])
    b.node(
        "Squeeze", b.upsample(b.conv(pool, 8, 1, name="out"), "up"), b.const([1], dtype=np.int64), name="s"
    )
    b.nodes[-1].output[0] = "depth"
    inputs = {"images": (TensorProto.UINT8, [2, 32, 64, 3]), "focal": (TensorProto.FLOAT, [2])}
    model = tidy(b.model(inputs, {"depth": (TensorProto.FLOAT, [2, 32, 64])}))
    plan, ranges, golden = planned(model)
    scales = tensor_scales(model, plan, ranges, golden, threads=1)
    assert scales["pool.out"].value == scales["cat.out"].value
    assert scales["a.out"].source == "golden"
    assert scales["a.out"].value != scales["a.relu.out"].value


def test_layers_that_the_plan_keeps_float_are_named_with_their_precision(model):
    plan, *_ = planned(model, keep_float=["layer1.conv1"])
    found = layer_precisions(model, plan)
    assert found["layer1.conv1"] == "fp16"
    assert {found[name] for name in ("softmax", "widths", "edges", "metres")} == {"fp32"}
    assert not {"stem", "stem.relu", "pool", "layer2.add", "layer2.relu2", "up1", "dec2", "logits"} & set(
        found
    )


@given(
    st.dictionaries(
        st.text("abc/._01", min_size=1), st.floats(2**-20, 65504, width=16), min_size=1, max_size=20
    )
)
def test_a_cache_read_back_is_what_was_written(scales):
    assert read_cache(calibration_cache(scales, "100300")) == ("TRT-100300-EntropyCalibration2", scales)


def test_the_header_is_tensorrts_version_macro():
    found = {v: cache_version(v) for v in ((8, 5, 2), (8, 6, 1), (10, 3), (10, 7, 0), (8, 5, 2, 2))}
    assert list(found.values()) == ["8502", "8601", "100300", "100700", "8502"]
    with pytest.raises(UsageError, match=r"give it as 8\.5\.2"):
        cache_version((8, 5))
    with pytest.raises(UsageError, match="TensorRT 11 takes no calibration cache"):
        cache_version((11, 4, 1))
    with pytest.raises(UsageError, match=r"TensorRT 10\.16 has no DLA"):
        cache_version((10, 16))


def test_an_older_opset_keeps_names_and_results(model):
    older = at_opset(model, 17)
    assert [(item.domain, item.version) for item in older.opset_import] == [("", 17)]
    assert [node.name for node in older.graph.node] == [node.name for node in model.graph.node]
    assert [list(node.output) for node in older.graph.node] == [list(n.output) for n in model.graph.node]
    feeds = {"images": pictures(2, 32, 64), "focal": focals(2)}
    results = [
        onnxruntime.InferenceSession(model_bytes(m), providers=["CPUExecutionProvider"]).run(None, feeds)
        for m in (model, older)
    ]
    for new, old in zip(*results, strict=True):
        np.testing.assert_array_equal(new, old)


def test_what_an_older_opset_lacks_is_refused():
    b = Builder()
    scales = b.const([1, 1, 0.5, 0.5])
    down = b.node("Resize", normalised(b), "", scales, name="down", mode="linear", antialias=1)
    inputs = {"images": (TensorProto.UINT8, [2, 32, 64, 3]), "focal": (TensorProto.FLOAT, [2])}
    model = tidy(b.model(inputs, {down: (TensorProto.FLOAT, [2, 3, 16, 32])}))
    with pytest.raises(InputError, match="opset 17"):
        at_opset(model, 17)


@pytest.mark.parametrize(("version", "opset"), [((8, 5, 2), 17), ((10, 3), 19)])
def test_a_bundle_exports_a_cache_beside_its_float_network(small_bundle, tmp_path, version, opset):
    bundle = open_bundle(small_bundle)
    export = export_for_dla(bundle, tmp_path / "dla.cache", version, threads=1)
    header, scales = read_cache(export.cache.read_bytes())
    assert header == f"TRT-{cache_version(version)}-EntropyCalibration2"
    network = onnxruntime.InferenceSession(export.network.read_bytes(), providers=["CPUExecutionProvider"])
    golden = bundle.golden()
    depth = network.run(["depth"], {"images": golden.images, "focal": golden.focal})[0]
    np.testing.assert_allclose(depth, golden.depth["fp32"], rtol=1e-4)
    model = load_model(bundle.model("fp32"))
    assert set(scales) >= {name for node in model.graph.node for name in node.output}
    assert f'--layerPrecisions="$(cat {export.precisions})"' in export.trtexec()
    floats = dict(item.split(":") for item in export.precisions.read_text().strip().split(","))
    assert set(floats.values()) <= {"fp16", "fp32"}
    assert set(floats) <= {node.name for node in model.graph.node}
    assert onnx.load(export.network).opset_import[0].version == opset


def test_a_bundle_without_int8_has_no_cache(small_bundle, tmp_path):
    bundle = open_bundle(small_bundle)
    models = {**dict.fromkeys(bundle.manifest.models), "fp32": "model.fp32.onnx"}
    plain = replace(bundle, manifest=replace(bundle.manifest, precision="fp32", models=models))
    with pytest.raises(BundleError, match="no INT8 plan"):
        export_for_dla(plain, tmp_path / "dla.cache", (10, 3), threads=1)


@pytest.mark.parametrize("name", ["two\nlines", "a b", "a:b", "a,b"])
def test_a_name_that_would_be_read_as_another_is_refused(small_bundle, tmp_path, monkeypatch, name):
    def renamed(bundle):
        model, plan, ranges = read_decisions(bundle)
        model.graph.node[0].name = name
        return model, plan, ranges

    monkeypatch.setattr("fsmde_edge.compiler.lowering.dla.read_decisions", renamed)
    with pytest.raises(InputError, match="cannot hold the name"):
        export_for_dla(open_bundle(small_bundle), tmp_path / "dla.cache", (10, 3), threads=1)
    assert not list(tmp_path.glob("dla*"))


def test_a_cache_may_not_have_the_name_of_what_lies_beside_it(small_bundle, tmp_path):
    with pytest.raises(UsageError, match=r"cannot end in \.onnx"):
        export_for_dla(open_bundle(small_bundle), tmp_path / "dla.onnx", (10, 3), threads=1)
