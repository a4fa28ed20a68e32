from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from fsmde_edge.bundle import open_bundle
from fsmde_edge.errors import BundleError, DeviceError, InputError, UsageError
from fsmde_edge.inference.backends import BACKENDS, open_session
from fsmde_edge.inference.onnxruntime import OnnxRuntimeSession


def toy(*, size=(2, 4, 6), name="images", output="depth", divide=False) -> bytes:
    """depth = mean of the three channels × focal, written with ONNX's own helpers."""
    views, height, width = size
    nodes = [
        helper.make_node("Cast", [name], ["x"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["x", "last"], ["grey"], keepdims=0),
        helper.make_node("Reshape", ["focal", "shape"], ["f"]),
        helper.make_node("Div" if divide else "Mul", ["grey", "f"], [output]),
    ]
    graph = helper.make_graph(
        nodes,
        "toy",
        [
            helper.make_tensor_value_info(name, TensorProto.UINT8, [views, height, width, 3]),
            helper.make_tensor_value_info("focal", TensorProto.FLOAT, [2]),
        ],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [views, height, width])],
        [
            helper.make_tensor("last", TensorProto.INT64, [1], [3]),
            helper.make_tensor("shape", TensorProto.INT64, [3], [2, 1, 1]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


IMAGES = np.random.default_rng(0).integers(0, 255, (2, 4, 6, 3), dtype=np.uint8)
FOCAL = np.array([1.0, 2.0], dtype=np.float32)


@pytest.fixture
def session():
    with OnnxRuntimeSession(toy(), precision="fp32", threads=1) as opened:
        yield opened


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_model_that_keeps_weights_in_other_files_is_refused(small_bundle, tmp_path, precision):
    """Whoever loads it would read whatever file it points to."""
    model = onnx.load(open_bundle(small_bundle).model(precision))
    path = tmp_path / "model.onnx"
    onnx.save_model(model, path, save_as_external_data=True, location="weights.bin", size_threshold=16)
    with pytest.raises(InputError, match="in another file"):
        OnnxRuntimeSession(path, precision=precision)


def test_a_session_computes_its_model(session):
    found = session.infer(IMAGES, FOCAL)
    np.testing.assert_allclose(found.depth, IMAGES.mean(axis=3) * FOCAL[:, None, None], rtol=1e-6)
    assert found.confidence is None
    assert (session.backend, session.precision, session.shape) == ("onnxruntime", "fp32", (2, 4, 6))
    assert "1 threads" in session.detail


@pytest.mark.parametrize(
    ("images", "focal"),
    [
        (IMAGES[:1], FOCAL),
        (IMAGES[:, :2], FOCAL),
        (IMAGES.transpose(0, 3, 1, 2), FOCAL),
        (IMAGES.astype(np.float32), FOCAL),
        (IMAGES, FOCAL[:1]),
        (IMAGES, FOCAL.astype(np.float64)),
        (IMAGES, np.float32(1.0)),
    ],
)
def test_what_does_not_fit_is_refused(session, images, focal):
    with pytest.raises(InputError, match="the network takes"):
        session.infer(images, np.asarray(focal))


def test_a_closed_session_says_so(session):
    session.close()
    session.close()
    with pytest.raises(DeviceError, match="onnxruntime session is closed") as caught:
        session.infer(IMAGES, FOCAL)
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("content", [b"not a model", toy()[:-40]])
@pytest.mark.parametrize("precision", ["fp32", "int8", "int8-fp16"])
def test_a_file_that_is_no_model_is_one_line(tmp_path, content, precision):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        OnnxRuntimeSession(path, precision=precision)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value).splitlines()) == 1


def test_a_missing_or_empty_model_is_one_line(tmp_path):
    (tmp_path / "empty.onnx").write_bytes(b"")
    with pytest.raises(InputError, match=r"empty\.onnx"):
        OnnxRuntimeSession(tmp_path / "empty.onnx", precision="fp32")
    with pytest.raises(InputError, match="absent"):
        OnnxRuntimeSession(tmp_path / "absent.onnx", precision="fp32")


@pytest.mark.parametrize("change", [{"name": "pictures"}, {"output": "disparity"}, {"size": ("V", 4, 6)}])
def test_a_model_of_another_contract_is_refused(change):
    with pytest.raises(InputError, match="not a model of our contract"):
        OnnxRuntimeSession(toy(**change), precision="fp32")


def test_sessions_of_a_bundle(small_bundle):
    bundle = open_bundle(small_bundle)
    golden = bundle.golden()
    for precision in ("fp32", "int8"):
        with open_session(bundle, precision=precision, threads=1, exact=True).session as session:
            depth = session.infer(golden.images, golden.focal).depth
        np.testing.assert_allclose(depth, golden.depth[precision], rtol=1e-4)
    choice = open_session(bundle, precision="auto", threads=1)
    assert choice.session.precision == "int8"
    assert "leanest" in choice.reason
    fused = choice.session.infer(golden.images, golden.focal)
    assert np.abs(fused.depth / golden.depth["int8"] - 1).mean() < 0.01
    assert fused.confidence is not None
    assert fused.confidence.shape == fused.depth.shape
    choice.session.close()


def test_a_named_backend_never_falls_back(small_bundle):
    bundle = open_bundle(small_bundle)
    with pytest.raises(UsageError, match="no backend is called opencl; choose from auto, onnxruntime"):
        open_session(bundle, precision="fp32", backend="opencl")
    with pytest.raises(BundleError, match="has no fp16 model"):
        open_session(bundle, precision="fp16", backend="onnxruntime")
    assert "onnxruntime" in BACKENDS
