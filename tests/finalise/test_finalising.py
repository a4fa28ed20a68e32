from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from onnx import load_model_from_string
from planted import Planted, only, wrong_depth, wrong_scale

from fsmde_edge.errors import DeviceError, GateFailed, MissingExtra, UsageError
from fsmde_edge.finalise import finalise as module
from fsmde_edge.finalise.finalise import FinaliseOptions, finalise
from fsmde_edge.finalise.report import as_json, notes, table
from fsmde_edge.graph.model import has_quantisation
from fsmde_edge.inference import backends
from fsmde_edge.inference.backends import open_session

OPTIONS = FinaliseOptions(backend="onnxruntime", runs=2, threads=1)
STEM = "student.encoder.relu.Relu.out"


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def with_backend(monkeypatch):
    """Makes a backend the only one there is."""

    def use(backend):
        for place in (module, backends):
            monkeypatch.setattr(place, "BACKENDS", only(backend))
        return backend

    return use


def test_right_engines_are_timed_and_the_fastest_is_what_auto_takes(bundle, store, lines):
    outcome = finalise(bundle, OPTIONS, lines.append, store)
    assert {candidate.label for candidate in outcome.candidates} == {"onnxruntime int8", "onnxruntime fp32"}
    assert all(not candidate.reasons for candidate in outcome.candidates)
    assert set(outcome.latency) == {candidate.label for candidate in outcome.candidates}
    assert outcome.winner is not None
    assert outcome.latency[outcome.winner.label].p50 == min(row.p50 for row in outcome.latency.values())
    choice = open_session(bundle, precision="auto", threads=1)
    assert choice.reason == outcome.reason
    assert choice.session.precision == outcome.winner.precision
    golden = bundle.golden()
    kind = "int8" if choice.session.precision == "int8" else "fp32"
    depth = choice.session.infer(golden.images, golden.focal).depth
    np.testing.assert_allclose(depth, golden.depth[kind], rtol=0.01)
    assert [line for line in lines if line.startswith("building")] == [
        "building onnxruntime int8",
        "building onnxruntime fp32",
    ]


def test_the_receipt_says_what_was_measured(bundle, store, lines):
    outcome = finalise(bundle, OPTIONS, lines.append, store)
    receipt = store.receipt(store.chosen(bundle.hash).key)
    assert receipt.numbers == outcome.winner.verdict.numbers
    assert receipt.latency_ms["p50"] == outcome.latency[outcome.winner.label].p50
    assert store.engine(receipt) == outcome.winner.engine


def test_a_block_whose_scale_is_wrong_is_named_and_the_engine_mended(bundle, store, lines, with_backend):
    backend = with_backend(Planted(wrong_scale(STEM, 1.5), candidates=("int8",)))
    outcome = finalise(bundle, OPTIONS, lines.append, store)
    (candidate,) = outcome.candidates
    assert {block.tensor for block in candidate.blocks} == {STEM}
    assert candidate.blocks[0].builds <= 2 + np.ceil(np.log2(48))
    assert candidate.reasons == ()
    assert "student.encoder.conv1" in candidate.floated
    assert backend.builds == 1 + sum(block.builds + 1 for block in candidate.blocks)
    assert outcome.winner is candidate
    receipt = store.receipt(store.chosen(bundle.hash).key)
    assert receipt.floated == candidate.floated
    mended = load_model_from_string(store.engine(receipt))
    assert has_quantisation(mended)
    assert f"{STEM}_quantized" not in {name for node in mended.graph.node for name in node.output}
    assert any(f"block {STEM} is wrong" in line for line in notes(bundle, outcome))


def test_a_fault_that_cannot_be_mended_ends_with_the_blocks_name(bundle, store, lines, with_backend):
    """Whatever is in float, some kernel is wrong: the first INT8 tensor that the engine has."""

    def spoil(model):
        first = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
        wrong_scale(first.output[0].removesuffix("_quantized"), 3.0)(model)

    with_backend(Planted(spoil, candidates=("int8",)))
    outcome = finalise(bundle, OPTIONS, lines.append, store)
    (candidate,) = outcome.candidates
    assert len(candidate.blocks) == 3
    assert outcome.winner is None
    with pytest.raises(GateFailed, match=rf"block {candidate.blocks[-1].tensor} is wrong") as caught:
        outcome.require_winner(bundle.root)
    assert caught.value.exit_code == 4
    assert store.chosen(bundle.hash) is None


def test_a_fault_behind_the_last_block_blames_no_block(bundle, store, lines, with_backend):
    with_backend(Planted(wrong_depth, candidates=("int8",)))
    outcome = finalise(bundle, OPTIONS, lines.append, store)
    (candidate,) = outcome.candidates
    assert candidate.blocks == []
    assert candidate.floated == ()
    assert any("every INT8 block is right" in line for line in lines)
    with pytest.raises(GateFailed, match="of exact INT8"):
        outcome.require_winner(bundle.root)


def test_when_int8_is_wrong_float_is_taken(bundle, store, lines, with_backend):
    with_backend(Planted(wrong_depth))
    outcome = finalise(bundle, OPTIONS, lines.append, store)
    assert outcome.winner.precision == "fp32"
    assert outcome.int8_gain == {}
    assert open_session(bundle, precision="auto", threads=1).session.precision == "fp32"


def test_a_half_model_is_searched_in_its_own_form(bundle, store, lines, with_backend):
    with_backend(Planted(wrong_scale_in_half(STEM), candidates=("int8-fp16",)))
    outcome = finalise(bundle, OPTIONS, lines.append, store)
    (candidate,) = outcome.candidates
    assert {block.tensor for block in candidate.blocks} == {STEM}
    assert candidate.reasons == ()


def wrong_scale_in_half(tensor):
    def spoil(model):
        for node in model.graph.node:
            if node.op_type == "QuantizeLinear" and node.output[0] == f"{tensor}_quantized":
                scale = next(item for item in model.graph.initializer if item.name == node.input[1])
                halved = type(scale).FromString(scale.SerializeToString())
                halved.name = "planted.scale"
                values = np.frombuffer(
                    halved.raw_data, dtype=np.float16 if halved.data_type == 10 else np.float32
                )
                halved.raw_data = (values * values.dtype.type(1.5)).tobytes()
                model.graph.initializer.append(halved)
                node.input[1] = "planted.scale"

    return spoil


def test_int8_of_a_bundle_whose_gate_failed_is_not_built_unasked(bundle, store, lines):
    failed = replace(
        bundle, manifest=replace(bundle.manifest, gate={**bundle.manifest.gate, "verdict": "failed"})
    )
    outcome = finalise(failed, OPTIONS, lines.append, store)
    assert [candidate.precision for candidate in outcome.candidates] == ["fp32"]
    assert "gate is failed" in outcome.skipped["onnxruntime int8"]
    allowed = finalise(failed, replace(OPTIONS, allow_failed=True), lines.append, store)
    assert len(allowed.candidates) == 2


def test_auto_tries_what_is_installed_and_says_what_is_not(bundle, store, lines, monkeypatch):
    class Absent(Planted):
        name = "absent"

        def identity(self):
            raise MissingExtra("absent", extra="absent", why="the backend 'absent'")

    present = Planted(lambda _: None, candidates=("fp32",))
    table_of = {"absent": lambda: Absent(lambda _: None), "onnxruntime": lambda: present}
    for place in (module, backends):
        monkeypatch.setattr(place, "BACKENDS", table_of)
    outcome = finalise(bundle, replace(OPTIONS, backend="auto"), lines.append, store)
    assert [candidate.label for candidate in outcome.candidates] == ["onnxruntime fp32"]
    assert "needs the package 'absent'" in outcome.skipped["absent"]
    with pytest.raises(MissingExtra, match=r"fsmde-edge\[absent\]"):
        finalise(bundle, replace(OPTIONS, backend="absent"), lines.append, store)


def test_an_unknown_backend_is_a_usage_error(bundle, store, lines):
    with pytest.raises(UsageError, match="no backend is called cuda"):
        finalise(bundle, replace(OPTIONS, backend="cuda"), lines.append, store)


def test_when_no_engine_could_be_built_the_builders_own_error_is_told(bundle, store, lines, with_backend):
    class OutOfMemory(Planted):
        def build(self, model, *, precision, options, say):
            raise DeviceError("the build ran out of memory")

    with_backend(OutOfMemory(lambda _: None))
    outcome = finalise(bundle, OPTIONS, lines.append, store)
    with pytest.raises(DeviceError, match="out of memory") as caught:
        outcome.require_winner(bundle.root)
    assert caught.value.exit_code == 5


def test_reports_hold_every_candidate(bundle, store, lines, with_backend):
    with_backend(Planted(wrong_depth))
    outcome = finalise(bundle, OPTIONS, lines.append, store)
    rows = {row[0]: row for row in table(outcome).rows}
    assert rows["onnxruntime int8"][1] == "wrong"
    assert rows["onnxruntime fp32"][1] == "right"
    found = json.loads(json.dumps(as_json(bundle, outcome)))
    assert found["chosen"] == {"backend": "onnxruntime", "precision": "fp32"}
    assert [candidate["right"] for candidate in found["candidates"]] == [False, True]
    assert found["candidates"][0]["latency_ms"] is None
    assert found["candidates"][1]["latency_ms"]["runs"] == 2


def test_depth_that_is_no_number_is_wrong_and_the_object_is_still_json(bundle, store, lines, with_backend):
    with_backend(Planted(lambda model: wrong_depth(model, np.nan), candidates=("int8",)))
    outcome = finalise(bundle, OPTIONS, lines.append, store)
    assert outcome.winner is None
    found = json.loads(
        json.dumps(as_json(bundle, outcome)), parse_constant=lambda name: pytest.fail(f"{name} is no JSON")
    )
    assert found["candidates"][0]["numbers"]["exact"] is None
    assert found["candidates"][0]["reasons"]
