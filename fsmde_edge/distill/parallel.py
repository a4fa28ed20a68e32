"""Several processes that train one student: PyTorch's DDP under `torchrun`, losses over the global batch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from fsmde_edge.errors import UsageError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Team:
    """The processes of one run.

    Attributes:
        rank: this process's number, from 0.
        size: how many there are.
        device: where this one computes.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def part(self, items: Sequence[T]) -> list[T]:
        """This process's part of a global batch or of an evaluation: every `size`-th, from its rank on."""
        return list(items[self.rank :: self.size])

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """The leading process goes through alone, the others when it is done and find what it made."""
        if self.size > 1 and not self.leads:
            distributed.barrier()
        yield
        if self.size > 1 and self.leads:
            distributed.barrier()

    def total(self, value: Tensor) -> Tensor:
        """The sum over all processes, differentiable; what losses average with."""
        return value if self.size == 1 else _Total.apply(value, self.size)  # type: ignore[no-untyped-call]

    def gather(self, value: T) -> list[T]:
        """Every process's value, in order of rank, in all of them."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values


class _Total(torch.autograd.Function):
    """Sum over processes. All of them compute the same loss from it, and DDP takes the mean of gradients:
    times the number of processes, that mean is the gradient of the global loss.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor, size: int) -> Tensor:
        ctx.size = size
        total = value.detach().clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.size, None


@contextmanager
def team(device: str) -> Iterator[Team]:
    """Join the processes that `torchrun` started; alone without it.

    Args:
        device: `cpu`, `cuda` or `auto` (CUDA where there is one).

    Raises:
        UsageError: CUDA was asked for and is not there.
    """
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    where = _device(device, int(os.environ.get("LOCAL_RANK", "0")))
    if size == 1:
        yield Team(0, 1, where)
        return
    try:
        distributed.init_process_group("nccl" if where.type == "cuda" else "gloo")
    except (
        ValueError
    ) as error:  # of the variables by which torchrun's processes find each other, one is missing
        raise UsageError(
            f"WORLD_SIZE is {size}, but the other processes cannot be found ({error})",
            hint="start them with: torchrun -m fsmde_edge ...",
        ) from error
    try:
        yield Team(rank, size, where)
        distributed.barrier()  # who leaves while another still sends is aborted by gloo
    finally:
        distributed.destroy_process_group()


def _device(name: str, local_rank: int) -> torch.device:
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise UsageError("this PyTorch sees no CUDA device", hint="take --device cpu")
    if name == "cpu" or not available:
        return torch.device("cpu")
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)
