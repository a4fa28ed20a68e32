"""OpenVINO beside ONNX Runtime's exact arithmetic: the same depth, really in INT8, really in FP32."""

from __future__ import annotations

import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from test_lowering import compile_int8
from toy_depth import depth_network, focals, pictures

from fsmde_edge.bundle import open_bundle
from fsmde_edge.cli.main import main
from fsmde_edge.errors import DeviceError, InputError, MissingExtra, UsageError
from fsmde_edge.graph.model import copy_model, drop_unused, model_bytes
from fsmde_edge.inference.backends import backend_of, open_session
from fsmde_edge.inference.onnxruntime import OnnxRuntimeProgram
from fsmde_edge.inference.openvino import PRODUCTS, OpenVinoBackend, OpenVinoProgram, count_int8
from fsmde_edge.inference.unsigned import lower_bytes
from fsmde_edge.targets import BuilderOptions

pytest.importorskip("openvino", reason="the extra openvino is not installed")


@pytest.fixture(scope="module")
def bundle(small_bundle):
    return open_bundle(small_bundle)


def opened(bundle, precision: str) -> OpenVinoProgram:
    return OpenVinoProgram(bundle.model(precision).read_bytes(), precision=precision, threads=1)


def depth_of(program, golden):
    return program.run({"images": golden.images, "focal": golden.focal})["depth"]


def test_fp32_is_float32_to_its_rounding(bundle):
    """Sums of up to a thousand terms in another order: 1e-5; bfloat16 (2^-9) would be 1e-3."""
    golden = bundle.golden()
    with opened(bundle, "fp32") as program:
        np.testing.assert_allclose(depth_of(program, golden), golden.depth["fp32"], rtol=1e-5)
        work = {precision for kind, precision in program.layers if kind in PRODUCTS}
    assert work == {"f32"}
    assert "float32, 0 of " in program.detail


@pytest.mark.parametrize("precision", ["int8", "int8-fp16"])
def test_int8_computes_every_convolution_in_integers(bundle, precision):
    model = onnx.load(bundle.model(precision))
    convolutions = sum(node.op_type == "Conv" for node in model.graph.node)
    with opened(bundle, precision) as program:
        integer, total = count_int8(program.layers)
    assert integer == total >= convolutions
    assert f"{integer} of {total} convolutions and products in INT8" in program.detail


@pytest.fixture(scope="module")
def toy():
    """A network whose depth varies by a third, and its plan: FP32, signed Q/DQ."""
    model = depth_network(channels=16, height=64, width=96)
    return model, compile_int8(model)[1]


def prefix(model, tensor: str) -> bytes:
    """The part of a Q/DQ model that makes one tensor's integers."""
    part = copy_model(model)
    del part.graph.output[:]
    part.graph.output.append(helper.make_tensor_value_info(f"{tensor}_quantized", TensorProto.INT8, None))
    drop_unused(part.graph)
    del part.graph.input[1]  # focal, which no feature reads
    return model_bytes(part)


def differing(model, tensor: str):
    """How far OpenVINO's integers are from those of exact arithmetic."""
    part, feeds = prefix(model, tensor), {"images": pictures(2, 64, 96, seed=9)}
    with (
        OnnxRuntimeProgram(part, precision="int8", exact=True, threads=1) as exact,
        OpenVinoProgram(part, precision="int8", threads=1) as program,
    ):
        [left], [right] = exact.run(feeds).values(), program.run(feeds).values()
    return np.abs(left.astype(int) - right.astype(int))


@pytest.mark.parametrize("tensor", ["scale.out", "stem.relu.out", "layer1.relu1.out", "layer1.conv2.out"])
def test_convolutions_give_the_plans_integers(toy, tensor):
    """All but ties: a sum of integers is exact, and is scaled and rounded once."""
    assert (differing(toy[1], tensor) > 0).mean() < 0.001


def test_a_sum_of_two_maps_is_at_most_one_step_off(toy):
    """OpenVINO adds before it rounds; the plan rounds the convolution's result first: half a step."""
    steps = differing(toy[1], "layer1.relu2.out")
    assert steps.max() <= 1
    assert (steps > 0).mean() < 0.1


def test_a_scale_that_is_five_per_cent_wrong_shows(toy):
    wrong = copy_model(toy[1])
    scale = next(w for w in wrong.graph.initializer if w.name == "layer1.conv1.weight_scale")
    scale.raw_data = (1.05 * np.frombuffer(scale.raw_data, np.float32)).astype(np.float32).tobytes()
    feeds = {"images": pictures(2, 64, 96, seed=9)}
    results = []
    for model in (toy[1], wrong):
        with OpenVinoProgram(prefix(model, "layer1.relu1.out"), precision="int8", threads=1) as program:
            results += program.run(feeds).values()
    assert (results[0] != results[1]).mean() > 0.1


def test_depth_is_as_near_to_fp32_as_the_plans(toy):
    """Half steps at every sum add up through a network, but not beyond what quantisation itself costs."""
    model, quantised = toy
    feeds = {"images": pictures(2, 64, 96, seed=9), "focal": focals()}

    def depth(program):
        with program:
            return program.run(feeds)["depth"]

    fp32 = depth(OnnxRuntimeProgram(model_bytes(model), precision="fp32", threads=1))
    exact = depth(OnnxRuntimeProgram(model_bytes(quantised), precision="int8", exact=True, threads=1))
    found = depth(OpenVinoProgram(model_bytes(quantised), precision="int8", threads=1))
    cost = np.abs(exact / fp32 - 1).mean()
    assert np.abs(found / exact - 1).mean() < cost
    assert np.abs(found / fp32 - 1).mean() < 1.25 * cost


def test_the_signed_model_leaves_no_convolution_float_where_the_unsigned_form_does(bundle):
    signed = bundle.model("int8").read_bytes()
    counts = []
    for model in (signed, lower_bytes(signed)):
        with OpenVinoProgram(model, precision="int8", threads=1) as program:
            counts.append(count_int8(program.layers))
    (all_signed, total), (all_unsigned, _) = counts
    assert all_unsigned < all_signed == total


def test_a_program_gives_what_is_the_callers_own(bundle):
    golden = bundle.golden()
    with opened(bundle, "int8") as program:
        first = depth_of(program, golden)
        kept = first.copy()
        program.run({"images": 255 - golden.images, "focal": golden.focal})
        np.testing.assert_array_equal(first, kept)
    program.close()
    with pytest.raises(DeviceError, match="openvino program is closed"):
        depth_of(program, golden)


def test_an_input_that_nothing_reads_may_be_given_all_the_same():
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 2])
    focal = helper.make_tensor_value_info("focal", TensorProto.FLOAT, [1])
    depth = helper.make_tensor_value_info("depth", TensorProto.FLOAT, [1, 2])
    graph = helper.make_graph(
        [helper.make_node("Relu", ["images"], ["depth"])], "g", [images, focal], [depth]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)
    with OpenVinoProgram(model.SerializeToString(), precision="fp32", threads=1) as program:
        assert set(program.inputs) == {"images", "focal"}
        feeds = {"images": np.array([[-1, 2]], np.float32), "focal": np.ones(1, np.float32)}
        np.testing.assert_array_equal(program.run(feeds)["depth"], [[0, 2]])


def test_sessions_of_a_bundle(bundle):
    golden = bundle.golden()
    choice = open_session(bundle, precision="auto", backend="openvino", threads=1)
    with choice.session as session:
        assert (session.backend, session.precision) == ("openvino", "int8")
        assert "1 threads" in session.detail
        found = session.infer(golden.images, golden.focal)
    assert found.confidence is not None
    assert found.confidence.shape == found.depth.shape
    with pytest.raises(UsageError, match="openvino has no exact arithmetic"):
        open_session(bundle, precision="int8", backend="openvino", exact=True)


def test_what_an_engine_is_valid_for_names_processor_and_version(bundle):
    import openvino

    backend = backend_of("openvino")
    assert backend.identity()["openvino"] == openvino.get_version()
    assert set(backend.hardware) < set(backend.identity())
    engine = backend.build(
        bundle.model("int8").read_bytes(), precision="int8", options=BuilderOptions(), say=print
    )
    with backend.load(engine, precision="int8", threads=1) as program:
        assert program.inputs["images"].dtype == "uint8"
        assert program.outputs.keys() == {"depth", "confidence"}


@pytest.mark.parametrize("content", [b"not a model", b""])
def test_what_is_no_model_is_one_line(content):
    with pytest.raises(InputError, match="OpenVINO refuses the model") as caught:
        OpenVinoProgram(content, precision="fp32", where="model.onnx")
    assert str(caught.value).startswith("model.onnx: ")
    assert "Exception from" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def small_qdq(activations: float) -> bytes:
    """x → Q/DQ → Conv with dequantised weights, or, without a scale, one with float weights."""
    weight = helper.make_tensor("w", TensorProto.INT8, [1, 1, 1, 1], [3])
    constants = [weight, helper.make_tensor("z", TensorProto.INT8, [], [0])]
    constants += [helper.make_tensor(name, TensorProto.FLOAT, [], [0.5]) for name in ("ws", "s")]
    nodes = [helper.make_node("DequantizeLinear", ["w", "ws", "z"], ["wd"])]
    if activations:
        nodes.append(helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]))
        nodes.append(helper.make_node("DequantizeLinear", ["q", "s", "z"], ["xd"]))
    nodes.append(helper.make_node("Conv", ["xd" if activations else "x", "wd"], ["y"]))
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, 4, 4]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "piece", infos[:1], infos[1:], constants)
    opset = [helper.make_opsetid("", 19)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()


def test_a_piece_of_an_int8_network_that_is_float_by_plan_loads():
    with OpenVinoProgram(small_qdq(0), precision="int8", threads=1) as program:
        assert count_int8(program.layers) == (0, 1)


def test_a_quantised_model_of_which_nothing_runs_in_int8_is_refused(monkeypatch):
    layers = {("Convolution", "f32"): 1}
    monkeypatch.setattr("fsmde_edge.inference.openvino.layers_of", lambda compiled: layers)
    with pytest.raises(DeviceError, match="would not run int8 on this processor"):
        OpenVinoProgram(small_qdq(1), precision="int8", threads=1)


def test_without_the_package_the_extra_is_named(monkeypatch, bundle):
    monkeypatch.setitem(sys.modules, "openvino", None)
    calls = (
        OpenVinoBackend().identity,
        lambda: open_session(bundle, precision="int8", backend="openvino"),
    )
    for call in calls:
        with pytest.raises(MissingExtra, match=r"pip install 'fsmde-edge\[openvino\]'"):
            call()


def test_help_of_the_backend_needs_no_openvino(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert main(["inspect", "--help"]) == 0
    assert backend_of("openvino").candidates == ("int8", "fp32")
