"""One plan, lowered for TensorRT and for ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper
from toy_depth import Builder, depth_network, focals, normalised, pictures

from fsmde_edge.compiler.calibrate import CalibrationBatch, calibrate
from fsmde_edge.compiler.lowering import tensorrt as for_tensorrt
from fsmde_edge.compiler.plan import make_plan, place
from fsmde_edge.compiler.quantiser import dequantise, quantise
from fsmde_edge.errors import InputError
from fsmde_edge.graph.model import interface, model_bytes, tensor_types, tidy
from fsmde_edge.inference import unsigned as for_onnxruntime


def compile_int8(model, **options):
    views, height, width = tensor_types(model)["depth"].shape
    frames = [
        CalibrationBatch(images=pictures(views, height, width, s), focal=focals(views), valid=views)
        for s in (0, 1)
    ]
    plan = make_plan(model, calibrate(model, frames, place(model).calibrate, threads=1), **options)
    return plan, for_tensorrt.lower(model, plan)


def run(model, images, *, exact: bool = False):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if exact:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(model_bytes(model), options, providers=["CPUExecutionProvider"])
    return session.run(["depth"], {"images": images, "focal": focals(len(images))})[0]


@pytest.fixture(scope="module")
def model():
    return depth_network(confidence=True)


@pytest.fixture(scope="module")
def compiled(model):
    return compile_int8(model)


def test_the_lowered_model_keeps_the_interface_the_versions_and_its_bytes(model, compiled):
    plan, lowered = compiled
    assert interface(lowered) == interface(model)
    assert (lowered.ir_version, [(o.domain, o.version) for o in lowered.opset_import]) == (10, [("", 19)])
    assert model_bytes(for_tensorrt.lower(model, plan)) == model_bytes(lowered) == model_bytes(tidy(lowered))


def test_a_second_lowering_and_a_foreign_plan_are_refused(model, compiled):
    plan, lowered = compiled
    with pytest.raises(InputError, match="quantised already"):
        for_tensorrt.lower(lowered, plan)
    with pytest.raises(InputError, match="quantised already"):
        place(lowered)
    with pytest.raises(InputError, match="which the network lacks"):
        for_tensorrt.lower(depth_network(), plan)


def test_weights_are_int8_per_output_channel_with_zero_point_zero(compiled):
    plan, lowered = compiled
    constants = {weight.name: numpy_helper.to_array(weight) for weight in lowered.graph.initializer}
    for weight in (weight for weight in plan.weights if weight.int8):
        integers = constants[f"{weight.tensor}_quantized"]
        assert integers.dtype == np.int8
        assert constants[f"{weight.tensor}_scale"].shape == (integers.shape[0],)
        assert not constants[f"{weight.tensor}_zero"].any()
        assert weight.tensor not in constants


def test_each_tensor_has_one_pair_and_biases_have_none(compiled):
    plan, lowered = compiled
    quantised = [node.input[0] for node in lowered.graph.node if node.op_type == "QuantizeLinear"]
    assert sorted(quantised) == sorted(item.tensor for item in plan.activations if item.int8)
    dequantised = {node.output[0] for node in lowered.graph.node if node.op_type == "DequantizeLinear"}
    for node in lowered.graph.node:
        if node.op_type == "Conv":
            assert {node.input[0], node.input[1]} <= dequantised
            assert node.input[2] not in dequantised


def convolve(x, weight, bias, stride: int):
    k = weight.shape[2]
    x = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (k // 2,) * 2, (k // 2,) * 2))
    windows = np.lib.stride_tricks.sliding_window_view(x, (k, k), axis=(2, 3))[:, :, ::stride, ::stride]
    out = np.einsum("nchwij,ocij->nohw", windows, weight.astype(np.float64)) + bias[None, :, None, None]
    return out.astype(np.float32)


def test_the_graph_computes_what_the_plan_says_in_numpy():
    b = Builder(3)
    stem = b.relu(b.conv(normalised(b), 3, 4, 3, 2, name="stem"), "stem.relu")
    side = b.conv(stem, 4, 4, name="side")
    x = b.relu(b.node("Add", side, stem, name="add"), "add.relu")
    x = b.node("Concat", b.upsample(x, "up"), b.upsample(stem, "up_stem"), name="cat", axis=1)
    b.node("Squeeze", b.conv(x, 8, 1, name="out"), b.const([1], dtype=np.int64), name="squeeze")
    b.nodes[-1].output[0] = "depth"
    inputs = {"images": (TensorProto.UINT8, [2, 16, 16, 3]), "focal": (TensorProto.FLOAT, [2])}
    model = tidy(b.model(inputs, {"depth": (TensorProto.FLOAT, [2, 16, 16])}))
    plan, lowered = compile_int8(model)
    constants = {weight.name: numpy_helper.to_array(weight) for weight in model.graph.initializer}
    scales = {item.tensor: item.scale for item in plan.activations}
    weights = {item.tensor: item.scales for item in plan.weights}

    def fake(name, value):
        return dequantise(quantise(value, scales[name]), scales[name])

    def conv(name, value, stride=1):
        weight, steps = constants[f"{name}.weight"], weights[f"{name}.weight"]
        return convolve(value, dequantise(quantise(weight, steps), steps), constants[f"{name}.bias"], stride)

    images = pictures(2, 16, 16, seed=5)
    x = fake("scale.out", (images.transpose(0, 3, 1, 2).astype(np.float32) - 128) / 64)
    s = fake("stem.relu.out", np.maximum(conv("stem", x, 2), 0))
    x = fake("add.relu.out", np.maximum(fake("side.out", conv("side", s)) + s, 0))
    x = np.concatenate([np.repeat(np.repeat(part, 2, axis=2), 2, axis=3) for part in (x, s)], axis=1)
    expected = conv("out", fake("cat.out", x))[:, 0]
    found = run(lowered, images, exact=True)
    step = max(scales.values() if None not in scales.values() else [v for v in scales.values() if v])
    assert np.mean(np.abs(found - expected) > 1e-4 * np.abs(expected).max()) < 0.01, "but for rounding ties"
    assert np.abs(found - expected).max() < 20 * step


def test_int8_is_close_to_fp32(model, compiled):
    images = pictures(seed=9)
    reference = run(model, images)
    for candidate in (run(compiled[1], images, exact=True), run(for_onnxruntime.lower(compiled[1]), images)):
        assert np.mean(np.abs(candidate - reference) / reference) < 0.08


def test_exact_mode_computes_the_graph_as_written(compiled):
    images = pictures(seed=9)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model_bytes(compiled[1]), options)
    plain = session.run(["depth"], {"images": images, "focal": focals()})[0]
    exact = run(compiled[1], images, exact=True)
    assert np.mean(np.abs(exact - plain) / plain) < 0.005


def test_unsigned_activations_let_onnxruntime_fuse_every_inner_convolution(compiled):
    lowered = for_onnxruntime.lower(compiled[1])
    convolutions = sum(node.op_type == "Conv" for node in compiled[1].graph.node)
    signed, _ = for_onnxruntime.count_qlinearconv(model_bytes(compiled[1]))
    integer, floats = for_onnxruntime.count_qlinearconv(model_bytes(lowered))
    assert (integer, floats) == (convolutions - 1, 1), "all but the logits, whose result is float"
    assert integer > signed


def test_unsigned_tensors_have_the_same_range_behind_a_relu_and_shifted_integers_elsewhere(compiled):
    plan, signed = compiled
    lowered = for_onnxruntime.lower(signed)
    constants = {weight.name: numpy_helper.to_array(weight) for weight in lowered.graph.initializer}
    scales = {item.tensor: item.scale for item in plan.activations if item.int8}
    pairs = {node.input[0]: node for node in lowered.graph.node if node.op_type == "QuantizeLinear"}
    assert set(pairs) == set(scales)
    for name, node in pairs.items():
        scale, zero = constants[node.input[1]], constants[node.input[2]]
        assert zero.dtype == np.uint8
        if name in {"stem.relu.out", "pool.out", "dec2.cat.out", "dec1.out.out"}:
            assert (zero, pytest.approx(float(scale), rel=1e-6)) == (0, scales[name] * 127 / 255)
        if name in {"scale.out", "layer1.conv2.out", "skip8.out"}:
            assert (zero, float(scale)) == (128, scales[name])


def test_unsigned_lowering_runs_once_and_keeps_weights(compiled):
    lowered = for_onnxruntime.lower(compiled[1])
    with pytest.raises(InputError, match="no signed INT8"):
        for_onnxruntime.lower(lowered)
    assert for_onnxruntime.lower_bytes(model_bytes(compiled[1])) == model_bytes(lowered)
    weights = {
        w.name: w.SerializeToString()
        for w in compiled[1].graph.initializer
        if w.data_type == TensorProto.INT8
    }
    kept = {w.name: w.SerializeToString() for w in lowered.graph.initializer}
    assert all(kept[name] == value for name, value in weights.items() if name != "int8_zero")


def test_a_group_with_one_signed_member_keeps_its_scale():
    b = Builder()
    x = b.conv(normalised(b), 3, 4, name="a")
    x = b.node(
        "Concat",
        x,
        b.relu(b.conv(normalised(Builder()) and "scale.out", 3, 4, name="b"), "b.relu"),
        name="cat",
        axis=1,
    )
    b.node("Squeeze", b.conv(x, 8, 1, name="out"), b.const([1], dtype=np.int64), name="squeeze")
    b.nodes[-1].output[0] = "depth"
    inputs = {"images": (TensorProto.UINT8, [2, 32, 64, 3]), "focal": (TensorProto.FLOAT, [2])}
    _, signed = compile_int8(tidy(b.model(inputs, {"depth": (TensorProto.FLOAT, [2, 32, 64])})))
    lowered = for_onnxruntime.lower(signed)
    pairs = {node.input[0]: node.input[2] for node in lowered.graph.node if node.op_type == "QuantizeLinear"}
    assert pairs["b.relu.out"] == pairs["a.out"] == pairs["cat.out"] == "uint8_middle"


def test_int8_file_of_a_network_of_convolutions_is_at_most_three_tenths():
    model = depth_network(channels=40)
    _, lowered = compile_int8(model)
    assert len(model_bytes(lowered)) <= 0.30 * len(model_bytes(model))
