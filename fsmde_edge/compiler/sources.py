"""Where the FP32 network comes from: our student's checkpoint, or somebody else's ONNX file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsmde_edge.bundle import DepthKind, sha256_of
from fsmde_edge.errors import MissingExtra
from fsmde_edge.student.config import SHIPPED_CHECKPOINT

if TYPE_CHECKING:
    from onnx import ModelProto


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Network:
    """An FP32 network of the model contract.

    Attributes:
        model: tidy and simplified.
        kind: what its depth is.
        focal: f0; None where depth does not scale with the focal length.
        size: height and width.
        source: for the manifest.
        notices: licences that travel with it.
    """

    model: ModelProto
    kind: DepthKind
    focal: float | None
    size: tuple[int, int]
    source: Mapping[str, Any]
    notices: tuple[str, ...] = ()


def read_network(
    *,
    checkpoint: Path | None,
    onnx: Path | None,
    convention: Path | None,
    views: int,
    size: tuple[int, int],
) -> Network:
    """Read a network and bring it to the model contract.

    Args:
        checkpoint: a student; None for the shipped one.
        onnx: a foreign network; excludes `checkpoint`.
        convention: the YAML that describes `onnx`.
        views: V.
        size: height and width of a student; a foreign network has its own.

    Raises:
        InputError: the file cannot be used.
        MissingExtra: a checkpoint without torch.
    """
    if onnx is not None:
        return _foreign(onnx, convention, views)
    return _student(checkpoint or SHIPPED_CHECKPOINT, views, size)


def _foreign(path: Path, convention: Path | None, views: int) -> Network:
    from fsmde_edge.compiler.foreign import load_foreign
    from fsmde_edge.compiler.simplify import simplify

    network = load_foreign(path, convention, views=views)
    return Network(
        model=simplify(network.model, where=path),
        kind=network.kind,
        focal=network.focal,
        size=(network.interface.height, network.interface.width),
        source={
            "onnx": path.name,
            "sha256": sha256_of(path),
            "convention": None if convention is None else sha256_of(convention),
        },
    )


def _student(path: Path, views: int, size: tuple[int, int]) -> Network:
    try:
        from fsmde_edge.compiler.export import export_student
        from fsmde_edge.student.checkpoint import load_checkpoint
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "torch", extra="compile", why="exporting a checkpoint") from error
    from fsmde_edge.compiler.simplify import simplify
    from fsmde_edge.graph.model import tidy

    student, made = load_checkpoint(path)
    model = simplify(tidy(export_student(student, views=views, height=size[0], width=size[1])))
    return Network(
        model=model,
        kind="metric",
        focal=student.config.focal,
        size=size,
        source={
            "checkpoint": path.name,
            "sha256": sha256_of(path),
            "student": student.config.name,
            "parameters": sum(p.numel() for p in student.parameters()),
            "made": made,
        },
    )
