"""Training with the INT8 arithmetic of a bundle's plan: the same tensors, ranges and rounding.

Activations take the plan's scales; weights take theirs from what they are at the moment, by the compiler's
own rule, with the batch norm folded in. Rounding passes gradients through where nothing saturates (the
straight-through estimator; Bengio et al., "Estimating or Propagating Gradients Through Stochastic Neurons for
Conditional Computation", 2013).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fsmde_edge.bundle import open_bundle, sha256_of
from fsmde_edge.compiler.plan import Plan
from fsmde_edge.compiler.quantiser import LARGEST_SCALE, LEVELS, SMALLEST_SCALE
from fsmde_edge.errors import InputError
from fsmde_edge.student.encoder import PIXEL_SCALE, BasicBlock
from fsmde_edge.student.network import Student

PREFIX = "student."
INPUT = "student.Sub.out"
"""The picture as pixel - 128; what the first convolution sees here is that over `PIXEL_SCALE`."""


def read_plan(folder: Path, start: Path) -> Plan:
    """The plan of a bundle that was built from a checkpoint.

    Raises:
        InputError: another checkpoint's, or a bundle without INT8.
    """
    bundle = open_bundle(folder)
    if bundle.manifest.source.get("sha256") != sha256_of(start):
        raise InputError(
            f"is not built from {start}, whose training would go on",
            where=folder,
            hint=f"run: fsmde-edge build --precision int8 --checkpoint {start} --force-int8 '*'",
        )
    path = folder / "plan.json"
    if not path.is_file():
        raise InputError("has no INT8 plan", where=folder, hint="build it with --precision int8")
    return Plan.from_json(path.read_text(encoding="utf-8"), where=path)


@dataclass(slots=True, eq=False)
class FakeQuantisation:
    """A student that can compute in INT8 arithmetic.

    Attributes:
        active: whether it does.
    """

    active: bool = False

    @classmethod
    def of(cls, student: Student, plan: Plan) -> FakeQuantisation:
        """Fit a student with a plan's quantisers, inactive.

        Raises:
            InputError: the plan is of a network with other tensors.
        """
        quantisation = cls()
        convolutions = {w.node: w for w in plan.weights if w.int8}
        for node in convolutions:
            module = _module(student, node)
            if not isinstance(module, nn.Conv2d):
                raise InputError(f"the plan quantises {node}, which this student does not have")
            unit = 1 / PIXEL_SCALE if module is student.encoder.conv1 else 1.0
            rounding = _RoundedWeight(quantisation, _norm_behind(student, node), unit)
            parametrize.register_parametrization(module, "weight", rounding, unsafe=True)
        scales = {a.tensor: float(a.scale) for a in plan.activations if a.int8 and a.scale is not None}
        for tensor, scale in scales.items():
            _hook(student, tensor, scale, quantisation)
        return quantisation

    @contextmanager
    def on(self) -> Iterator[None]:
        """Compute in INT8 arithmetic inside."""
        self.active = True
        try:
            yield
        finally:
            self.active = False


def plain(student: Student) -> Mapping[str, Tensor]:
    """The state of a fitted student as of one that never was: under the names of a checkpoint."""
    return {
        name.replace(".parametrizations.weight.original", ".weight"): value
        for name, value in student.state_dict().items()
    }


class _RoundedWeight(nn.Module):
    """A convolution's weight such that, with norm and input scaling folded in, it is what INT8 stores."""

    def __init__(self, quantisation: FakeQuantisation, norm: nn.BatchNorm2d | None, unit: float) -> None:
        super().__init__()
        self.quantisation = quantisation
        self.unit = unit
        self._norm = (norm,)  # in a tuple: the norm stays its own module's child

    def forward(self, weight: Tensor) -> Tensor:
        if not self.quantisation.active:
            return weight
        (norm,) = self._norm
        factor = torch.full((len(weight), 1, 1, 1), self.unit).to(weight)
        if norm is not None:
            assert norm.running_var is not None
            factor = factor * (norm.weight * torch.rsqrt(norm.running_var + norm.eps)).reshape(factor.shape)
        folded = weight * factor
        limits = folded.detach().abs().amax(dim=(1, 2, 3))
        rounded = _rounded(folded, _scales_of(limits).reshape(factor.shape))
        vanished = factor.abs() < SMALLEST_SCALE  # a channel that its norm switches off
        return torch.where(vanished, weight, rounded / torch.where(vanished, 1.0, factor))


def _scales_of(limits: Tensor) -> Tensor:
    """As `compiler.quantiser.scale_of`, for a tensor of limits."""
    wanted = (limits.double() / LEVELS).clamp(SMALLEST_SCALE, LARGEST_SCALE)
    near = wanted.half()
    above = (near.view(torch.int16) + 1).view(torch.float16)  # the next larger one: they are positive
    return torch.where(near.double() >= wanted, near, above).to(limits.dtype)


def _rounded(x: Tensor, scale: Tensor | float) -> Tensor:
    """Through INT8 and back; gradients pass where nothing saturates."""
    steps = (x / scale).clamp(-LEVELS - 1, LEVELS)
    return (steps + (torch.round(steps) - steps).detach()) * scale


def _hook(student: Student, tensor: str, scale: float, quantisation: FakeQuantisation) -> None:
    """Round what one tensor of the plan holds, where the student makes it."""
    module, at_input = _place(student, tensor)
    if tensor == INPUT:
        scale /= PIXEL_SCALE

    def before(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (_rounded(inputs[0], scale), *inputs[1:]) if quantisation.active else inputs

    def behind(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        return _rounded(output, scale) if quantisation.active else output

    if at_input:
        module.register_forward_pre_hook(before)
    else:
        module.register_forward_hook(behind)


def _place(student: Student, tensor: str) -> tuple[nn.Module, bool]:
    """The module whose output, or input, a tensor of the exported graph is."""
    if tensor == INPUT:
        return student.encoder.conv1, True
    path = tensor.removeprefix(PREFIX).removesuffix(".out")
    owner, _, last = path.rpartition(".")
    if last == "Add" and _module(student, f"{PREFIX}{owner}.fuse.0") is not None:
        return _known(student, f"{owner}.fuse.0", tensor), True
    if last in ("Relu", "Relu_2") and owner.endswith(".relu"):
        block = owner.removesuffix(".relu")
        if isinstance(_module(student, PREFIX + block), BasicBlock):
            # One module serves twice: its second result is the block's, its first goes to conv2 alone.
            at_input = last == "Relu"
            return _known(student, f"{block}.conv2" if at_input else block, tensor), at_input
    if last in ("Relu", "MaxPool", "Resize"):
        return _known(student, owner, tensor), False
    norm = _norm_behind(student, PREFIX + path)
    return (norm, False) if norm is not None else (_known(student, path, tensor), False)


def _known(student: Student, path: str, tensor: str) -> nn.Module:
    module = _module(student, PREFIX + path)
    if module is None:
        raise InputError(f"the plan quantises {tensor}, which this student does not have")
    return module


def _module(student: Student, node: str) -> nn.Module | None:
    return dict(student.named_modules()).get(node.removeprefix(PREFIX))


def _norm_behind(student: Student, node: str) -> nn.BatchNorm2d | None:
    """The batch norm that the export folds into a convolution."""
    owner, _, last = node.removeprefix(PREFIX).rpartition(".")
    follower = {"conv1": "bn1", "conv2": "bn2", "0": "1"}.get(last)
    module = _module(student, f"{owner}.{follower}" if owner else str(follower))
    return module if isinstance(module, nn.BatchNorm2d) else None
