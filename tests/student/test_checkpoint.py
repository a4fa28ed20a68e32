from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fsmde_edge.errors import InputError
from fsmde_edge.student.checkpoint import load_checkpoint, save_checkpoint
from fsmde_edge.student.config import StudentConfig
from fsmde_edge.student.network import Student

SMALL = StudentConfig(name="small", width=4, decoder=(8, 8, 8, 8), bins=8)


class Trap:
    """Unpickling this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture(scope="module")
def student():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Student(SMALL)


def metadata(config: str | None = None, made: str | None = None) -> dict[str, str]:
    found = {"fsmde_edge.student": SMALL.to_json() if config is None else config}
    return found if made is None else {**found, "fsmde_edge.made": made}


def state_of(student):
    return {name: value.contiguous() for name, value in student.state_dict().items()}


def test_what_was_saved_is_loaded_bit_by_bit(tmp_path, student):
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, student, made={"seed": 3, "command": "fsmde-edge train"})
    loaded, made = load_checkpoint(path)
    assert loaded.config == SMALL
    assert not loaded.training
    assert made == {"seed": 3, "command": "fsmde-edge train"}
    for name, value in student.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)


def test_equal_students_make_equal_files(tmp_path, student):
    for name in ("a", "b"):
        save_checkpoint(tmp_path / name, student, made={"b": 1, "a": 2})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def refused(path, message):
    with pytest.raises(InputError, match=message) as caught:
        load_checkpoint(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("head.logits.bias"), "lacks the tensor head.logits.bias"),
        (
            lambda s: s.update({"head.logits.bias": torch.zeros(9)}),
            r"shape \(9,\), this student needs \(8,\)",
        ),
        (lambda s: s.update({"stray": torch.zeros(1)}), "does not: stray"),
        (
            lambda s: s.update({"head.logits.bias": torch.zeros(8, dtype=torch.int64)}),
            "head.logits.bias holds int64, this student needs float32",
        ),
        (
            lambda s: s.update({"head.logits.bias": torch.zeros(8, dtype=torch.complex64)}),
            "holds complex64, this student needs float32",
        ),
        (
            lambda s: s.update({"head.logits.bias": torch.full((8,), 1e300, dtype=torch.float64)}),
            "values that are not finite",
        ),
        (
            lambda s: s.update({"head.logits.bias": torch.full((8,), torch.nan)}),
            "values that are not finite",
        ),
        (
            lambda s: s.update({"head.logits.bias": torch.full((8,), torch.inf)}),
            "values that are not finite",
        ),
    ],
)
def test_other_tensors_are_refused_and_named(tmp_path, student, change, message):
    state = state_of(student)
    change(state)
    save_file(state, tmp_path / "a.safetensors", metadata())
    refused(tmp_path / "a.safetensors", message)


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ({}, "does not say which student"),
        (metadata("{"), "cannot be read"),
        (metadata("[]"), "must hold"),
        (metadata(json.dumps({**json.loads(SMALL.to_json()), "attention": 1})), "unknown key 'attention'"),
        (metadata(json.dumps({"name": "x"})), "is missing"),
        (metadata(json.dumps({**json.loads(SMALL.to_json()), "width": 4.5})), "'width' must be of type int"),
        (metadata(json.dumps({**json.loads(SMALL.to_json()), "width": -4})), "cannot have these sizes"),
        (metadata(json.dumps({**json.loads(SMALL.to_json()), "width": 8})), "this student needs"),
        (metadata(json.dumps({**json.loads(SMALL.to_json()), "width": 10**9})), "cannot have these sizes"),
        (metadata("[" * 100_000), "cannot be read"),
        (metadata(made="[" * 100_000), "how it was made"),
        (metadata(made="{"), "how it was made"),
        (metadata(made="3"), "how it was made"),
    ],
)
def test_another_description_is_refused(tmp_path, student, described, message):
    save_file(state_of(student), tmp_path / "a.safetensors", described or {"format": "pt"})
    refused(tmp_path / "a.safetensors", message)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_refused_without_being_opened(tmp_path, protocol):
    path = tmp_path / "a.safetensors"
    path.write_bytes(pickle.dumps(Trap(tmp_path / "sprung"), protocol=protocol))
    refused(path, "pickle" if protocol >= 2 else "not a readable safetensors file")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pytorch_file_is_refused_without_being_opened(tmp_path, zipped):
    path = tmp_path / "a.pt"
    torch.save({"x": Trap(tmp_path / "sprung")}, path, _use_new_zipfile_serialization=zipped)
    refused(path, "can run code when it is opened; save the weights with safetensors")
    assert not (tmp_path / "sprung").exists()


def test_a_missing_empty_or_truncated_file_is_refused(tmp_path, student):
    path = tmp_path / "a.safetensors"
    refused(path, "no such checkpoint")
    refused(tmp_path, "no such checkpoint")
    path.write_bytes(b"")
    refused(path, "not a readable safetensors file")
    save_checkpoint(path, student, made={})
    path.write_bytes(path.read_bytes()[:-10])
    refused(path, "not a readable safetensors file")
