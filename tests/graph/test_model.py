"""Loading, checking and naming ONNX graphs."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto
from toy_depth import Builder, depth_network

from fsmde_edge.errors import InputError
from fsmde_edge.graph.model import (
    Interface,
    copy_model,
    interface,
    load_model,
    model_bytes,
    save_model,
    tidy,
)
from fsmde_edge.graph.naming import name_tensors


@pytest.fixture(scope="module")
def model():
    return depth_network(confidence=True)


def test_a_saved_model_comes_back_with_the_same_bytes(model, tmp_path):
    save_model(model, tmp_path / "model.onnx")
    loaded = load_model(tmp_path / "model.onnx")
    assert model_bytes(loaded) == model_bytes(model) == (tmp_path / "model.onnx").read_bytes()
    assert loaded.ir_version == 10


def test_tidy_forgets_the_machine_that_exported_it(model):
    dirty = copy_model(model)
    dirty.doc_string = dirty.graph.doc_string = "made in /home/somebody"
    dirty.producer_name, dirty.producer_version = "pytorch", "9.9"
    for item in (dirty, dirty.graph, dirty.graph.node[0], dirty.graph.initializer[0]):
        item.metadata_props.add(key="stack_trace", value="/home/somebody/model.py")
    dirty.graph.node[0].doc_string = "/home/somebody"
    assert model_bytes(tidy(dirty)) == model_bytes(model)


def test_tidy_sorts_nodes_and_drops_what_leads_nowhere(model):
    shuffled = copy_model(model)
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(shuffled.graph.node)]
    del shuffled.graph.node[:]
    shuffled.graph.node.extend([*nodes, onnx.helper.make_node("Relu", ["stem.out"], ["nowhere"])])
    done = tidy(shuffled)
    seen = (
        {info.name for info in done.graph.input} | {weight.name for weight in done.graph.initializer} | {""}
    )
    for node in done.graph.node:
        assert seen.issuperset(node.input)
        seen.update(node.output)
    assert len(done.graph.node) == len(model.graph.node)
    assert len({node.name for node in done.graph.node}) == len(done.graph.node)


def test_nodes_are_named_after_their_weights_or_the_exporters_scope(model):
    raw = copy_model(model)
    for number, node in enumerate(raw.graph.node):
        node.name = f"node_{number}"
    raw.graph.node[-1].metadata_props.add(
        key="pkg.torch.onnx.name_scopes", value="['', 'student', 'student.head', 'mul_3']"
    )
    last = raw.graph.node[-1].op_type
    names = [node.name for node in tidy(raw).graph.node]
    assert {"stem", "layer1.conv1", "head", f"student.head.{last}"} <= set(names)


def test_tensor_names_do_not_depend_on_the_exporters_counters(model):
    other = copy_model(model)
    kept = {"images", "focal", "depth", "confidence", ""}
    for node in other.graph.node:
        for names in (node.input, node.output):
            names[:] = [
                name if name in kept or name.endswith(".weight") else f"val_{hash(name)}" for name in names
            ]
    for weight in other.graph.initializer:
        weight.name = weight.name if weight.name.endswith(".weight") else f"val_{hash(weight.name)}"
    done = []
    for candidate in (copy_model(model), other):
        name_tensors(candidate.graph)
        done.append(model_bytes(tidy(candidate)))
    assert done[0] == done[1]
    again = tidy(onnx.load_model_from_string(done[0]))
    name_tensors(again.graph)
    assert model_bytes(tidy(again)) == done[0]


def test_the_interface_is_read_and_violations_are_told(model):
    assert interface(model) == Interface(views=2, height=32, width=64, confidence=True)
    wrong = copy_model(model)
    wrong.graph.input[1].type.tensor_type.elem_type = TensorProto.DOUBLE
    with pytest.raises(InputError, match=r"has focal double \[2\], expected float \[2\]; describe .* YAML"):
        interface(wrong)
    open_size = copy_model(model)
    open_size.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "height"
    with pytest.raises(InputError, match="static shape"):
        interface(open_size)


def test_older_opsets_are_converted_and_impossible_ones_refused(tmp_path):
    b = Builder()
    b.nodes.append(onnx.helper.make_node("Relu", ["x"], ["y"]))
    shape = (TensorProto.FLOAT, [1, 2])
    old = b.model({"x": shape}, {"y": shape}, opset=13, ir=7)
    done = tidy(old)
    assert (done.ir_version, done.opset_import[0].version) == (10, 19)


@pytest.mark.parametrize("content", [b"", b"not a network", b"\x08"])
def test_a_file_that_is_no_network_is_refused_in_one_line(content: bytes, tmp_path):
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(InputError, match="is not an ONNX file") as caught:
        load_model(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_in_another_file_are_refused(model, tmp_path):
    path = tmp_path / "split.onnx"
    onnx.save_model(
        copy_model(model), path, save_as_external_data=True, location="weights.bin", size_threshold=16
    )
    with pytest.raises(InputError, match="weights in another file"):
        load_model(path)


def test_a_graph_that_contradicts_itself_is_refused(model):
    broken = copy_model(model)
    for node in broken.graph.node:
        node.input[:] = ["nobody" if name == "stem.out" else name for name in node.input]
    with pytest.raises(InputError, match="nobody makes"):
        tidy(broken)
