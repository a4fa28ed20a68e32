"""Checkpoints: safetensors files whose metadata says which student they hold. Nothing is unpickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from fsmde_edge.errors import InputError
from fsmde_edge.files import atomic_write
from fsmde_edge.student.config import StudentConfig
from fsmde_edge.student.network import Student

SHIPPED = Path(__file__).parent / "weights"
"""Folder of the checkpoints that travel with the package."""

_CONFIG_KEY = "fsmde_edge.student"
_MADE_KEY = "fsmde_edge.made"


def save_checkpoint(path: Path, student: Student, *, made: Mapping[str, object]) -> None:
    """Write a student, whole or not at all.

    Args:
        path: ends in .safetensors.
        student: its state and config are kept, in float32.
        made: how it was made (command, seed, steps, minutes, …): kept as JSON.
    """
    from safetensors.torch import save

    state = {name: value.detach().cpu().contiguous() for name, value in student.state_dict().items()}
    metadata = {_CONFIG_KEY: student.config.to_json(), _MADE_KEY: json.dumps(dict(made), sort_keys=True)}
    atomic_write(path, _in_order(save(state, metadata)))


def load_checkpoint(path: Path) -> tuple[Student, dict[str, object]]:
    """Read a student (in eval mode) and how it was made.

    Raises:
        InputError: missing, not safetensors, not one of our students, or tensors of wrong names or shapes.
    """
    state, metadata = read_safetensors(path)
    if _CONFIG_KEY not in metadata:
        raise InputError(
            "holds tensors but does not say which student they are",
            where=path,
            hint="give a checkpoint made by 'fsmde-edge train', or export your own network and use --onnx",
        )
    student = Student(StudentConfig.from_json(metadata[_CONFIG_KEY], where=path))
    load_exactly(student, state, where=path)
    return student.eval(), _made(metadata.get(_MADE_KEY, "{}"), path)


def load_exactly(module: torch.nn.Module, state: Mapping[str, Tensor], *, where: object) -> None:
    """Load a state dict whose names and shapes must all match; the first difference is named."""
    expected = module.state_dict()
    for name in expected:
        if name not in state:
            raise InputError(
                f"lacks the tensor {name}", where=where, hint="give a checkpoint of this student"
            )
        if state[name].shape != expected[name].shape:
            raise InputError(
                f"tensor {name} has shape {tuple(state[name].shape)}, this student needs "
                f"{tuple(expected[name].shape)}",
                where=where,
                hint="give a checkpoint of this student",
            )
        if _kind(state[name]) != _kind(expected[name]):
            raise InputError(
                f"tensor {name} holds {_named(state[name])}, this student needs {_named(expected[name])}",
                where=where,
                hint="give a checkpoint of this student",
            )
        if not bool(torch.isfinite(state[name].to(expected[name].dtype)).all()):
            raise InputError(
                f"tensor {name} holds values that are not finite", where=where, hint="give another checkpoint"
            )
    surplus = sorted(set(state) - set(expected))
    if surplus:
        raise InputError(
            f"has a tensor that this student does not: {surplus[0]}",
            where=where,
            hint="give a checkpoint of this student",
        )
    module.load_state_dict(dict(state))


def _kind(tensor: Tensor) -> tuple[bool, bool]:
    return tensor.is_floating_point(), tensor.is_complex()


def _named(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _in_order(data: bytes) -> bytes:
    """The same safetensors file with its metadata sorted: the library writes them in no certain order."""
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[start:]


def _made(text: str, path: Path) -> dict[str, object]:
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(
            f"does not say how it was made ({error})",
            where=path,
            hint="give a checkpoint made by 'fsmde-edge train'",
        ) from error


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file.

    Raises:
        InputError: missing, or not safetensors.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError("no such checkpoint", where=path, hint="give the path of a .safetensors file")
    with path.open("rb") as file:
        start = file.read(2)
    if start in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        raise InputError(
            "is a pickled PyTorch file, which can run code when it is opened",
            where=path,
            hint="save the weights with safetensors.torch.save_file and give that file",
        )
    try:
        with safe_open(path, framework="pt") as file_handle:
            state = {name: file_handle.get_tensor(name) for name in file_handle.keys()}  # noqa: SIM118
            return state, dict(file_handle.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"is not a readable safetensors file ({error})", where=path, hint="copy or download it again"
        ) from error
