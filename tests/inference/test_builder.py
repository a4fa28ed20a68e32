"""The child that builds engines, run for real: TensorRT for RTX builds ahead of time without a GPU."""

from __future__ import annotations

import json

import pytest
from onnx import TensorProto, helper

from fsmde_edge.compiler.aot import ARCHITECTURE, MODULE
from fsmde_edge.inference.builder import Job, build_in_child, installed, trtexec_line
from fsmde_edge.targets import BuilderOptions, load_target

needs_rtx = pytest.mark.skipif(not installed(MODULE), reason="the extra rtx is not installed")


def model(op: str = "Relu") -> bytes:
    kind = (TensorProto.FLOAT, [1, 4])
    graph = helper.make_graph(
        [helper.make_node(op, ["x"], ["y"])],
        "one",
        [helper.make_tensor_value_info("x", *kind)],
        [helper.make_tensor_value_info("y", *kind)],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10
    ).SerializeToString()


@needs_rtx
@pytest.mark.parametrize("target", ["orin-agx-64gb", "orin-nano-8gb"])
def test_the_options_of_a_target_are_taken_by_nvidias_builder(target):
    options = load_target(target)[0].builder
    built = build_in_child(model(), Job(module=MODULE, options=options, capability=ARCHITECTURE))
    assert built.answer.error == ""
    assert len(built.engine) > 0
    assert built.answer.seconds > 0


@needs_rtx
def test_what_nvidias_parser_refuses_comes_back_as_a_line_without_an_engine():
    job = Job(module=MODULE, options=BuilderOptions(), capability=ARCHITECTURE)
    built = build_in_child(model("Bernoulli"), job)
    assert built.engine == b""
    assert built.answer.error
    assert "\n" not in built.answer.error


def test_a_job_survives_its_journey_to_the_child():
    from dataclasses import asdict

    from fsmde_edge.recipes import from_mapping

    job = Job(module="tensorrt", options=BuilderOptions(tactic_memory_mb=7))
    assert from_mapping(Job, json.loads(json.dumps(asdict(job))), where=None) == job


def test_the_line_for_trtexec_says_what_the_builder_is_told():
    line = trtexec_line("m.onnx", BuilderOptions(workspace_mb=2048, optimisation_level=4))
    for word in ("--onnx=m.onnx", "--memPoolSize=workspace:2048", "--builderOptimizationLevel=4"):
        assert word in line.split()
    assert "--stronglyTyped" in line
