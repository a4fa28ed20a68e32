"""How far right executions of one Q/DQ model are apart: the bounds of a bundle's golden frames.

A rounding tie that falls the other way is one step more or less, and the layers behind make a pattern of it.
So no engine equals the integer reference (`integer`), and a fixed tolerance is either too wide to find a
fault or refuses right engines. Here the network says itself what is right: its reference is compared with
executions that an engine may choose as well,

- its computing nodes nudged by the rounding error of the type that the engine keeps between them, and
- its Q/DQ pairs computed in float32, as ONNX Runtime does,

and the largest deviation seen, times `SAFETY`, is the bound. Depth shows a fault only where it is louder than
the ties of the whole network; a block that is given the reference's integers shows it at once. That is why
there are bounds for depth and for each block.

The procedure, its nudging and its safety factor are ours; ONNX and TensorRT state no tolerance for a network.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.bundle import canonical_json, read_json, reading
from fsmde_edge.compiler.integer import BlockDifference, block_tensors, differences, integer_form, run_plainly
from fsmde_edge.compiler.prefix import Tensors
from fsmde_edge.errors import InputError
from fsmde_edge.files import atomic_write
from fsmde_edge.recipes import from_mapping

if TYPE_CHECKING:
    from onnx import ModelProto

HALF, SINGLE = 2.0**-11, 2.0**-23
"""Nudges: what rounding to float16 changes at most; another float32 (of a sum in another order, say)."""

SAFETY = 2.0
"""Bounds are this many times what was measured: a few runs do not show the rarest ties."""

TILE = 16
_LEAST, _MOST = 1e-9, 1e6
"""Nothing is divided by less; a network that gives no numbers has no bounds, and the gate has failed it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """Relative deviation of one depth from another, |d − d₀| / d₀.

    Attributes:
        mean: over all pixels.
        p99: 99th percentile over all pixels.
        worst_tile: mean over the worst 16×16 tile.
    """

    mean: float
    p99: float
    worst_tile: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a right engine stays within.

    Attributes:
        depth: of its depth from the integer reference's.
        blocks: of the integers that each block makes of the reference's integers.
        metric: whether depths are compared pixel by pixel, or over the mean absolute output.
    """

    depth: Deviation
    blocks: tuple[BlockDifference, ...]
    metric: bool = True

    def depth_faults(self, reference: NDArray[np.float32], found: NDArray[np.float32]) -> tuple[str, ...]:
        """A line for each number of a depth that is beyond its bound.

        Args:
            reference, found: float32 [V, H, W], the integer reference's and the engine's.
        """
        limits, numbers = asdict(self.depth), asdict(deviation(reference, found, metric=self.metric))
        return tuple(
            f"{name} {value:.3%} is beyond {limits[name]:.3%}"
            for name, value in numbers.items()
            if not value <= limits[name]
        )

    def block_faults(self, found: Iterable[BlockDifference]) -> tuple[BlockDifference, ...]:
        """The blocks that are beyond their bounds.

        Errors:
            InputError: there is none for a block: they were measured on another network.
        """
        limits, blocks = {block.tensor: block for block in self.blocks}, tuple(found)
        unknown = [block.tensor for block in blocks if block.tensor not in limits]
        if unknown:
            raise InputError(f"the golden bounds know no block {unknown[0]}", hint="build the bundle again")
        return tuple(
            block
            for block in blocks
            if block.differing > limits[block.tensor].differing or block.steps > limits[block.tensor].steps
        )

    def save(self, path: Path) -> None:
        """Write a JSON file, whole or not at all."""
        atomic_write(path, canonical_json(asdict(self)) + b"\n")

    @classmethod
    def load(cls, path: Path) -> Bounds:
        """Read what `save` wrote.

        Errors:
            BundleError: the file is missing, or holds something else.
        """
        values = read_json(path)
        with reading(path):
            return from_mapping(cls, values, where=path)


def golden_bounds(
    model: ModelProto,
    images: NDArray[np.uint8],
    focal: NDArray[np.float32],
    *,
    runs: int = 3,
    nudge: float = HALF,
    metric: bool = True,
    threads: int = 1,
) -> Bounds:
    """Measure how far right executions of a Q/DQ model are apart on golden frames.

    Args:
        model: what `lowering.tensorrt.lower` returns.
        images, focal: network inputs.
        runs: nudged executions.
        nudge: `HALF` for engines that keep float16 between kernels, `SINGLE` for float32.
        metric: see `Bounds`.
        threads: ONNX Runtime's.

    Errors:
        InputError: as `integer.integer_form`.
    """
    feeds: Tensors = {"images": images, "focal": focal}
    right = run_plainly(integer_form(model), feeds, ["depth", *block_tensors(model)], threads=threads)
    reference = right.pop("depth")
    apart = [
        deviation(reference, run_plainly(model, feeds, ["depth"], threads=threads)["depth"], metric=metric)
    ]
    blocks = []
    for seed in range(runs):
        form = integer_form(model, nudge=nudge, seed=seed)
        depth = run_plainly(form, feeds, ["depth"], threads=threads)["depth"]
        apart.append(deviation(reference, depth, metric=metric))
        blocks.append(differences(right, form, feeds, threads=threads))
    sizes = {name: value.size for name, value in right.items()}
    return Bounds(depth=_widest(apart), blocks=tuple(_widest_blocks(blocks, sizes)), metric=metric)


def deviation(
    reference: NDArray[np.float32], found: NDArray[np.float32], *, metric: bool = True
) -> Deviation:
    """Compare two depths, float32 [V, H, W]; what is not a number is as far off as can be."""
    right = reference.astype(np.float64)
    over = np.maximum(np.abs(right) if metric else np.abs(right).mean(), _LEAST)
    apart = np.nan_to_num(np.abs(found - right) / over, nan=np.inf, posinf=np.inf)
    tall, wide = (min(TILE, size) for size in apart.shape[1:])
    height, width = (size - size % tile for size, tile in zip(apart.shape[1:], (tall, wide), strict=True))
    tiles = apart[:, :height, :width].reshape(-1, height // tall, tall, width // wide, wide).mean(axis=(2, 4))
    return Deviation(
        mean=float(apart.mean()), p99=float(np.quantile(apart, 0.99)), worst_tile=float(tiles.max())
    )


def _widest(apart: Iterable[Deviation]) -> Deviation:
    numbers = np.array([(item.mean, item.p99, item.worst_tile) for item in apart]).max(axis=0) * SAFETY
    numbers = np.minimum(numbers, _MOST)
    return Deviation(mean=float(numbers[0]), p99=float(numbers[1]), worst_tile=float(numbers[2]))


def _widest_blocks(
    runs: Iterable[tuple[BlockDifference, ...]], sizes: dict[str, int]
) -> Iterator[BlockDifference]:
    """Bounds of each block; what none of n integers showed may still befall 3 / n of them (at 95 %)."""
    for block in zip(*runs, strict=True):
        name = block[0].tensor
        share = max(run.differing for run in block) + 3 / sizes[name]
        steps = max(1, *(run.steps for run in block))
        yield BlockDifference(
            tensor=name, differing=min(1.0, SAFETY * share), steps=math.ceil(SAFETY * steps)
        )
