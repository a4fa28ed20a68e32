"""`finalise`, and `run`, `check` and `bench` on what it left, through the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from fsmde_edge.cli.main import main
from fsmde_edge.errors import DeviceError
from fsmde_edge.finalise import finalise
from fsmde_edge.inference import backends
from fsmde_edge.inference.onnxruntime import OnnxRuntimeBackend
from fsmde_edge.inference.store import Store

QUICK = ("--runs", "1", "--threads", "1")


class Stored(OnnxRuntimeBackend):
    """ONNX Runtime as a backend whose engines are stored, with an identity that a test chooses."""

    name = "stored"
    stores = True
    hardware = ("board",)

    def __init__(self):
        self.board, self.version, self.candidates = "orin", "10.3", ("fp32",)
        self.stop, self.builds = False, 0

    def identity(self):
        return {"board": self.board, "version": self.version}

    def build(self, model, *, precision, options, say):
        if self.stop:
            raise KeyboardInterrupt
        self.builds += 1
        return super().build(model, precision=precision, options=options, say=say)


@pytest.fixture
def state(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def stored(state, monkeypatch) -> Stored:
    backend = Stored()
    table = {"onnxruntime": OnnxRuntimeBackend, "stored": lambda: backend}
    for place in (backends, finalise):
        monkeypatch.setattr(place, "BACKENDS", table)
    return backend


@pytest.fixture
def command(small_bundle, capsys):
    """Runs a command on the small bundle; gives exit code, stdout and stderr."""

    def call(name: str, *arguments: str):
        code = main([name, str(small_bundle), *arguments])
        out, err = capsys.readouterr()
        assert len(err.splitlines()) <= 1, err
        return code, out, err

    return call


def run(command, *arguments: str):
    return command("run", "--source", "synthetic", "--frames", "1", "--threads", "1", *arguments)


def only(root: Path, pattern: str) -> Path:
    (found,) = root.rglob(pattern)
    return found


def test_finalise_prints_a_table_and_run_takes_what_it_chose(stored, command):
    stored.candidates = ("int8", "fp32")
    code, out, _ = command("finalise", "--backend", "stored", *QUICK)
    assert code == 0
    assert "stored int8" in out
    assert "taken: stored" in out
    code, out, _ = run(command)
    assert code == 0
    assert "that finalise found to be right here" in out
    assert stored.builds == 2


def test_json_is_one_object_and_nothing_else(stored, command):
    stored.candidates = ("int8", "fp32")
    code, out, err = command("finalise", "--backend", "stored", "--json", *QUICK)
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["chosen"]["backend"] == "stored"
    assert {candidate["precision"] for candidate in found["candidates"]} == {"int8", "fp32"}
    assert found["identity"] == {"stored": {"board": "orin", "version": "10.3"}}


def test_without_a_receipt_auto_is_onnx_runtime_and_says_so(state, command):
    code, out, _ = run(command)
    assert code == 0
    assert "the bundle was not finalised on this machine" in out
    assert "ONNX Runtime" in out


def test_a_named_backend_is_finalised_on_first_use_alone(stored, command):
    code, out, _ = run(command, "--backend", "stored")
    assert code == 0
    assert "no stored engine on this machine yet: building it" in out
    code, out, _ = run(command, "--backend", "stored")
    assert code == 0
    assert "building" not in out
    assert stored.builds == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "--sets", "2", "--runs", "1", "--allow-few"),
        ("bench", "--only", "models", "--runs", "1", "--warmup", "1"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_check_and_bench_run_the_stored_engines(stored, command, arguments):
    stored.candidates = ("int8", "fp32")
    assert command("finalise", "--backend", "stored", *QUICK)[0] == 0
    name, *rest = arguments
    code, out, err = command(name, *rest, "--backend", "stored", "--threads", "1")
    assert code == 0, err
    assert "int8 ran on" in out
    assert stored.builds == 2


def test_an_upgrade_builds_again_and_says_what_changed(stored, command):
    run(command, "--backend", "stored")
    stored.version = "10.16"
    code, out, _ = run(command, "--backend", "stored")
    assert code == 0
    assert "built before an upgrade (version 10.3 -> 10.16): building it again" in out
    assert stored.builds == 2


def test_after_an_upgrade_auto_does_not_take_the_old_engine(stored, command):
    command("finalise", "--backend", "stored", *QUICK)
    stored.version = "10.16"
    code, out, _ = run(command)
    assert code == 0
    assert "was finalised for something else (version 10.3 -> 10.16)" in out


def test_an_engine_of_another_board_is_refused_and_finalise_builds_its_own(stored, command):
    run(command, "--backend", "stored")
    stored.board = "nano"
    code, _, err = run(command, "--backend", "stored")
    assert code == 5
    assert "built elsewhere (board orin -> nano) and is not used" in err
    assert stored.builds == 1
    assert command("finalise", "--backend", "stored", *QUICK)[0] == 0
    assert run(command, "--backend", "stored")[0] == 0


def test_a_damaged_receipt_is_one_line_and_finalise_mends_it(stored, command, state):
    run(command, "--backend", "stored")
    receipt = only(state, "receipt.json")
    receipt.write_text(receipt.read_text().replace("0", "1"))
    code, _, err = run(command, "--backend", "stored")
    assert code == 3
    assert f"{receipt}: is damaged" in err
    assert "fsmde-edge finalise" in err
    assert command("finalise", "--backend", "stored", *QUICK)[0] == 0
    assert run(command, "--backend", "stored")[0] == 0


def test_a_flipped_byte_of_an_engine_is_never_loaded(stored, command, state, monkeypatch):
    run(command, "--backend", "stored")
    path = only(state, "*.engine")
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    monkeypatch.setattr(stored, "load", lambda *a, **k: pytest.fail("was loaded"))
    code, _, err = run(command, "--backend", "stored")
    assert code == 5
    assert "is not the engine that its receipt describes" in err


def test_rollback_brings_the_engine_before_back(stored, command, state):
    command("finalise", "--backend", "stored", *QUICK)
    code, _, err = command("finalise", "--backend", "stored", "--rollback")
    assert code == 3
    assert "no earlier" in err
    first = only(state, "receipt.json").read_text()
    command("finalise", "--backend", "stored", *QUICK)
    code, out, _ = command("finalise", "--backend", "stored", "--rollback")
    assert code == 0
    assert "back to the engine of" in out
    assert only(state, "receipt.json").read_text() == first
    assert command("finalise", "--rollback")[0] == 2


def test_ctrl_c_is_130_and_leaves_no_engine(stored, command, state):
    stored.stop = True
    code, _, err = command("finalise", "--backend", "stored", *QUICK)
    assert code == 130
    assert err == "fsmde-edge: interrupted\n"
    assert not list(state.rglob("*.engine"))
    assert not list(state.rglob("*.json"))


def test_a_wrong_engine_is_exit_code_4_and_the_object_says_why(stored, command, monkeypatch):
    build = stored.build

    def too_far(model, *, precision, options, say):
        proto = onnx.load_model_from_string(build(model, precision=precision, options=options, say=say))
        last = next(node for node in proto.graph.node if node.output[0] == "depth")
        last.output[0] = "right"
        gain = onnx.numpy_helper.from_array(np.float32(1.1), "gain")
        proto.graph.initializer.append(gain)
        proto.graph.node.append(onnx.helper.make_node("Mul", ["right", "gain"], ["depth"]))
        return proto.SerializeToString()

    monkeypatch.setattr(stored, "build", too_far)
    code, out, err = command("finalise", "--backend", "stored", "--json", *QUICK)
    assert code == 4
    assert "no engine is right on this machine" in err
    found = json.loads(out)
    assert found["chosen"] is None
    assert found["candidates"][0]["reasons"]


def test_a_missing_bundle_is_exit_code_3(state, capsys, tmp_path):
    assert main(["finalise", str(tmp_path / "absent")]) == 3
    assert "no such bundle" in capsys.readouterr().err


def test_a_backend_that_is_not_installed_names_its_extra(state, command, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    for name, arguments in (("finalise", QUICK), ("bench", ("--only", "models", "--runs", "1"))):
        code, _, err = command(name, "--backend", "tensorrt", *arguments)
        assert code == 5
        assert "pip install 'fsmde-edge[tensorrt]'" in err


def test_an_unknown_backend_is_a_usage_error(state, command):
    for name in ("finalise", "check", "bench"):
        code, _, err = command(name, "--backend", "opencl")
        assert code == 2
        assert "no backend is called opencl" in err


def test_a_store_that_cannot_be_written_is_found_before_anything_is_built(
    stored, command, read_only_folder, monkeypatch
):
    monkeypatch.setenv("XDG_STATE_HOME", str(read_only_folder))
    code, _, err = command("finalise", "--backend", "stored", *QUICK)
    assert code == 3
    assert "cannot be written" in err
    assert stored.builds == 0


def test_a_store_that_others_may_write_is_refused(stored, command):
    command("finalise", "--backend", "stored", *QUICK)
    Store().root.chmod(0o777)
    for name, arguments in (("finalise", QUICK), ("bench", ("--only", "models", "--runs", "1"))):
        code, _, err = command(name, "--backend", "stored", *arguments)
        assert code == 5
        assert "others may use it" in err


def test_a_builder_out_of_memory_is_exit_code_5(stored, command, monkeypatch):
    def die(model, *, precision, options, say):
        raise DeviceError("the child that builds the engine died (signal 9, out of memory)")

    monkeypatch.setattr(stored, "build", die)
    code, _, err = command("finalise", "--backend", "stored", *QUICK)
    assert code == 5
    assert "out of memory" in err
