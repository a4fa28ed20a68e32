"""Somebody else's depth network, wrapped into the model contract."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, numpy_helper
from toy_depth import Builder, depth_network, focals, pictures

from fsmde_edge.compiler.foreign import ForeignConfig, load_foreign, wrap
from fsmde_edge.compiler.plan import place
from fsmde_edge.compiler.simplify import run_model
from fsmde_edge.errors import InputError
from fsmde_edge.graph.model import Interface, save_model, tidy

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def network(
    *,
    batch=1,
    height=32,
    width=64,
    layout="NCHW",
    baked=False,
    mixing=False,
    stride=1,
    dtype=TensorProto.FLOAT,
):
    """One convolution; `baked` reshapes to a batch of one, as careless exporters do."""
    b = Builder(7)
    x = "picture"
    if dtype == TensorProto.UINT8:
        x = b.node("Cast", x, to=TensorProto.FLOAT)
    if layout == "NHWC":
        x = b.node("Transpose", x, perm=[0, 3, 1, 2])
    x = b.relu(b.conv(x, 3, 4, stride=stride, name="conv"), "relu")
    if baked:
        x = b.node("Reshape", x, b.const([1, 4, -1], dtype=np.int64), name="flat")
        x = b.node("Reshape", x, b.const([1, 4, 32 // stride, 64 // stride], dtype=np.int64), name="map")
    if mixing:
        x = b.node("Sub", x, b.node("ReduceMean", x, b.const([0], dtype=np.int64), keepdims=1), name="mix")
    b.node("Abs", b.conv(x, 4, 1, name="out"), name="abs")
    b.nodes[-1].output[0] = "map"
    shape = [batch, 3, height, width] if layout == "NCHW" else [batch, height, width, 3]
    out = [
        batch,
        1,
        32 // stride if isinstance(height, int) else "h",
        64 // stride if isinstance(width, int) else "w",
    ]
    return tidy(b.model({"picture": (dtype, shape)}, {"map": (TensorProto.FLOAT, out)}))


def config(**parts) -> ForeignConfig:
    return ForeignConfig.from_dict({"version": 1, **parts})


def expected(model, images, *, colours="RGB", layout="NCHW"):
    x = images if colours == "RGB" else images[..., ::-1]
    x = ((x / 255 - np.array(MEAN)) / np.array(STD)).astype(np.float32)
    x = x.transpose(0, 3, 1, 2) if layout == "NCHW" else x
    return np.concatenate([run_model(model, {"picture": x[i : i + 1]})["map"][:, 0] for i in range(len(x))])


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("colours", ["RGB", "BGR"])
@pytest.mark.parametrize("baked", [False, True])
def test_a_network_for_one_picture_becomes_one_for_all_views(layout: str, colours: str, baked: bool):
    model = network(layout=layout, baked=baked)
    told = config(input={"layout": layout, "colours": colours, "mean": list(MEAN), "std": list(STD)})
    wrapped = wrap(model, told, views=3)
    assert wrapped.metric
    assert wrapped.interface == Interface(views=3, height=32, width=64, confidence=False)
    images = pictures(3)
    found = run_model(wrapped.model, {"images": images, "focal": focals(3)})["depth"]
    np.testing.assert_allclose(
        found, expected(model, images, colours=colours, layout=layout), rtol=1e-3, atol=1e-4
    )
    assert place(wrapped.model).nodes


def test_open_sizes_need_the_yaml_to_name_them():
    model = network(batch="n", height="h", width="w")
    with pytest.raises(InputError, match=r"leaves its height open; write input\.height"):
        wrap(model, config(), views=2)
    wrapped = wrap(model, config(input={"height": 32, "width": 64}), views=2)
    assert wrapped.interface.height == 32
    with pytest.raises(InputError, match="has height 32, the YAML says 48"):
        wrap(network(), config(input={"height": 48}), views=2)


def test_small_maps_are_enlarged_and_canonical_depth_scales_with_focal():
    model = network(stride=2)
    told = config(output={"kind": "metric", "scale": 2.0, "focal": 300.0})
    wrapped = wrap(model, told, views=2)
    feeds = {"images": pictures(2), "focal": focals(2)}
    found = run_model(wrapped.model, feeds)["depth"]
    doubled = run_model(wrapped.model, {**feeds, "focal": focals(2) * 2})["depth"]
    assert found.shape == (2, 32, 64)
    np.testing.assert_allclose(doubled, 2 * found, rtol=1e-5)


def test_uint8_networks_get_the_pixels():
    model = network(dtype=TensorProto.UINT8, layout="NHWC")
    wrapped = wrap(model, config(input={"dtype": "uint8", "layout": "NHWC"}), views=1)
    images = pictures(1)
    found = run_model(wrapped.model, {"images": images, "focal": focals(1)})["depth"]
    np.testing.assert_allclose(found, run_model(model, {"picture": images})["map"][:, 0], rtol=1e-5)


@pytest.mark.parametrize("kind", ["relative", "disparity"])
def test_networks_without_metres_are_marked(kind: str):
    assert not wrap(network(), config(output={"kind": kind, "scale": -1}), views=2).metric


def test_views_that_would_disturb_each_other_are_refused():
    with pytest.raises(InputError, match="one picture at a time and cannot be rewritten for 3"):
        wrap(network(mixing=True), config(), views=3)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("text", "key: value"),
        ({"version": 2}, "version 2"),
        ({"version": 1, "inputs": {}}, "unknown key 'inputs'"),
        ({"version": 1, "input": {"colour": "RGB"}}, "unknown key 'input.colour'"),
        ({"version": 1, "input": {"layout": "HWC"}}, "one of NCHW, NHWC"),
        ({"version": 1, "input": {"std": [1, 0, 1]}}, "std must be above zero"),
        ({"version": 1, "input": {"mean": [1, 2]}}, "must have 3 values"),
        ({"version": 1, "input": {"height": 32.5}}, "whole number"),
        ({"version": 1, "output": {"kind": "depth"}}, "metric, relative, disparity"),
        ({"version": 1, "output": {"scale": 0}}, "not be zero"),
        ({"version": 1, "output": {"scale": float("nan")}}, "finite"),
        ({"version": 1, "output": {"focal": -1}}, "above zero"),
        ({"version": True}, "'version' must be of type int"),
        ({"version": 1.0}, "'version' must be of type int"),
        ({}, "'version' is missing"),
    ],
)
def test_mistakes_in_the_yaml_are_named(raw, message: str):
    with pytest.raises(InputError, match=message):
        ForeignConfig.from_dict(raw)


def test_files_are_read_and_missing_descriptions_told(tmp_path):
    save_model(network(), tmp_path / "theirs.onnx")
    with pytest.raises(InputError, match=r"theirs\.onnx: has no input `images`.*YAML"):
        load_foreign(tmp_path / "theirs.onnx", None, views=2)
    (tmp_path / "theirs.yaml").write_text("version: 1\noutput: {kind: relative}\n")
    assert not load_foreign(tmp_path / "theirs.onnx", tmp_path / "theirs.yaml", views=2).metric
    save_model(depth_network(), tmp_path / "ours.onnx")
    assert load_foreign(tmp_path / "ours.onnx", None, views=2).metric
    with pytest.raises(InputError, match="takes 2 views, the recipe has 6"):
        load_foreign(tmp_path / "ours.onnx", None, views=6)


def test_sizes_that_hang_on_constants_alone_are_worked_out(tmp_path):
    """PyTorch's older exporter computes what a reflection pad adds, and leaves the output's size open."""
    b = Builder(7)
    pads = b.node(
        "Reshape", b.const([1, 1, 1, 1, 0, 0, 0, 0], dtype=np.int64), b.const([-1, 2], dtype=np.int64)
    )
    ends = (b.const(v, dtype=np.int64) for v in ([-1], [-9223372036854775807], [0], [-1]))
    pads = b.node("Transpose", b.node("Slice", pads, *ends), perm=[1, 0])
    pads = b.node("Cast", b.node("Reshape", pads, b.const([-1], dtype=np.int64)), to=TensorProto.INT64)
    x = b.node("Pad", b.relu(b.conv("picture", 3, 4, name="conv"), "relu"), pads, mode="reflect")
    b.node("Abs", b.conv(x, 4, 1, name="out"), name="abs")
    b.nodes[-1].output[0] = "map"
    shapes = {"picture": (TensorProto.FLOAT, [1, 3, 32, 64])}, {"map": (TensorProto.FLOAT, [1, 1, "h", "w"])}
    save_model(b.model(*shapes), tmp_path / "theirs.onnx")
    (tmp_path / "theirs.yaml").write_text("version: 1\noutput: {kind: relative}\n")
    found = load_foreign(tmp_path / "theirs.onnx", tmp_path / "theirs.yaml", views=2)
    assert (found.interface.height, found.interface.width) == (32, 64)
    images = pictures(2, 32, 64)
    depth = run_model(found.model, {"images": images, "focal": focals(2)})["depth"]
    assert depth.shape == (2, 32, 64)


def test_an_input_of_another_layout_or_an_output_that_is_no_map_is_refused():
    with pytest.raises(InputError, match="channels in NHWC"):
        wrap(network(), config(input={"layout": "NHWC"}), views=2)
    with pytest.raises(InputError, match="has no output other; choose one of: map"):
        wrap(network(), config(output={"name": "other"}), views=2)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_constant_that_is_not_finite_is_named(tmp_path, value):
    model = network()
    weight = next(w for w in model.graph.initializer if w.dims)
    array = numpy_helper.to_array(weight).copy()
    array.flat[0] = value
    weight.CopyFrom(numpy_helper.from_array(array, weight.name))
    save_model(model, tmp_path / "theirs.onnx")
    with pytest.raises(
        InputError, match=rf"theirs\.onnx: its constant {weight.name} holds values that are not"
    ):
        load_foreign(tmp_path / "theirs.onnx", None, views=2)


def test_pictures_too_small_for_the_gate_are_refused(tmp_path):
    b = Builder(7)
    b.node("Abs", b.conv("picture", 3, 1, name="out"), name="abs")
    b.nodes[-1].output[0] = "map"
    float32 = TensorProto.FLOAT
    tiny = b.model({"picture": (float32, [1, 3, 8, 8])}, {"map": (float32, [1, 1, 8, 8])})
    save_model(tidy(tiny), tmp_path / "tiny.onnx")
    (tmp_path / "tiny.yaml").write_text("version: 1\n")
    with pytest.raises(InputError, match=r"tiny\.onnx: takes pictures of 8x8, too small"):
        load_foreign(tmp_path / "tiny.onnx", tmp_path / "tiny.yaml", views=2)


@pytest.mark.parametrize("version", [11, 99])
def test_a_newer_format_is_lowered(tmp_path, version):
    model = depth_network()
    model.ir_version = version
    (tmp_path / "newer.onnx").write_bytes(model.SerializeToString())
    assert load_foreign(tmp_path / "newer.onnx", None, views=2).model.ir_version == 10
