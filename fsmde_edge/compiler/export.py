"""From a student's checkpoint to an FP32 ONNX model of the contract."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fsmde_edge.errors import InputError

if TYPE_CHECKING:
    from fsmde_edge.student.network import Student

OPSET = 19


def export_student(student: Student, *, views: int, height: int, width: int) -> Any:
    """Export with static shapes; batch norms are folded into their convolutions.

    Args:
        student: in eval mode.
        views: V.
        height, width: network size, multiples of 32.

    Returns:
        `onnx.ModelProto`: images uint8 [V, H, W, 3] and focal float32 [V] to depth and confidence
        float32 [V, H, W].

    Raises:
        InputError: an impossible size.
    """
    import torch

    from fsmde_edge.student.network import DeployedStudent

    if height % 32 or width % 32 or min(height, width) < 32:
        raise InputError(f"a network size of {height}x{width} is not in multiples of 32")
    if not 1 <= views <= 8:
        raise InputError(f"a network of {views} views is not possible", hint="choose 1 to 8 views")
    example = (
        torch.zeros(views, height, width, 3, dtype=torch.uint8),
        torch.full((views,), student.config.focal),
    )
    with _quiet():
        program = torch.onnx.export(
            DeployedStudent(student).eval(),
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=["images", "focal"],
            output_names=["depth", "confidence"],
            verbose=False,
        )
    if program is None:
        raise AssertionError("the exporter returned nothing")
    return program.model_proto


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter talks about absent packages and of its own deprecations: none of it concerns a user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
