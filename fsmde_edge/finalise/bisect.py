"""Which block of an INT8 engine is wrong: pieces of its network, built and run like the whole.

A block is what makes one int8 tensor. A piece goes from the pictures up to a cut and gives the int8 tensors
that live there, so that a fault before it shows in one of them; the first cut that shows one is found by
halving, in log2(blocks) builds. A piece runs on its own integers, and where a tie falls the other way early,
more do later: what is allowed at each block is measured on executions that are right (`integer_form`, nudged
as float16 would). Those ties can hide a fault some blocks on, so one last build takes the blocks up to the
cut apart, gives each the right integers, and names the first that makes wrong ones of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.compiler.bounds import HALF, SAFETY, Bounds
from fsmde_edge.compiler.integer import BlockDifference, block_tensors, integer_form, run_plainly
from fsmde_edge.finalise.pieces import Piece, blocks_up_to, piece_up_to

if TYPE_CHECKING:
    from onnx import ModelProto

    from fsmde_edge.bundle import Golden

SEEDS = (1, 2)
LEAST = 0.005
"""Relative difference of a tensor that is no fault, however exact its block is."""

SUFFIX = "_quantized"


@dataclass(frozen=True, slots=True, kw_only=True)
class BadBlock:
    """The first block of an engine that is wrong.

    Attributes:
        tensor: the FP32 network's name for what it makes.
        differing: share of its integers that are another one.
        steps: by how many steps at most.
        builds: pieces that were built to find it.
    """

    tensor: str
    differing: float
    steps: int
    builds: int

    def __str__(self) -> str:
        return (
            f"block {self.tensor} is wrong ({self.differing:.1%} of its integers differ, by up to "
            f"{self.steps} steps)"
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reference:
    """What the blocks of a right engine make of the golden frames.

    Attributes:
        names: of the int8 tensors, in the graph's order.
        integers: name to what the integer reference gives.
        limits: name to the relative difference that is allowed where a piece runs on its own integers.
        bounds: of a block that is given the right integers.
    """

    names: tuple[str, ...]
    integers: Mapping[str, NDArray[np.int8]]
    limits: Mapping[str, float]
    bounds: Bounds

    @classmethod
    def of(cls, model: ModelProto, golden: Golden, bounds: Bounds, *, threads: int = 1) -> Reference:
        """Run a float32 Q/DQ model, as it is and nudged."""
        names = block_tensors(model)
        feeds: dict[str, NDArray[Any]] = {"images": golden.images, "focal": golden.focal}
        right = run_plainly(integer_form(model), feeds, names, threads=threads)
        apart = dict.fromkeys(names, 0.0)
        for seed in SEEDS:
            found = run_plainly(integer_form(model, nudge=HALF, seed=seed), feeds, names, threads=threads)
            for name in names:
                apart[name] = max(apart[name], relative(found[name], right[name]))
        limits = {name: LEAST + SAFETY * value for name, value in apart.items()}
        return cls(names=names, integers=right, limits=limits, bounds=bounds)


Runner = Callable[[Piece], Mapping[str, NDArray[Any]]]
"""Runs a piece on the golden frames, and on the right integers where it takes them."""


def find_bad_block(
    model: ModelProto, reference: Reference, run: Runner, meaning: Runner | None
) -> BadBlock | None:
    """The first wrong block of an engine; None where every block is right.

    Args:
        model: the Q/DQ model that the engine was built from, float32 or half.
        reference: of that model's blocks.
        run: builds a piece on the backend in question, and runs it.
        meaning: runs it in exact arithmetic in the form that the backend computes it in; None where that is
            the piece itself, so that the integer reference is what it must give.
    """
    search = _Search(model=model, reference=reference, run=run, meaning=meaning)
    names = reference.names
    low, high, found = 0, len(names) - 1, search.wrong_up_to(names)
    while found and low < high:
        cut = (low + high) // 2
        if wrong := search.wrong_up_to(names[: cut + 1]):
            high, found = cut, wrong
        else:
            low = cut + 1
    alone = search.wrong_alone(names[: high + 1])
    named = alone[:1] or found[-1:]
    return replace(named[0], builds=search.builds) if named else None


def relative(found: NDArray[Any], right: NDArray[Any]) -> float:
    """Root mean square of a difference over that of what is right; infinite where a value is no number."""
    apart, size = (
        float(np.sqrt(np.mean(values.astype(np.float64) ** 2)))
        for values in (found.astype(np.float64) - right, right)
    )
    value = apart / size if size else (0.0 if apart == 0 else np.inf)
    return value if np.isfinite(value) else np.inf


@dataclass(slots=True, kw_only=True, eq=False)
class _Search:
    """Builds pieces and says which of their blocks are wrong; counts the builds."""

    model: ModelProto
    reference: Reference
    run: Runner
    meaning: Runner | None
    builds: int = 0

    def wrong_up_to(self, names: tuple[str, ...]) -> list[BadBlock]:
        """Blocks that live at the cut behind the last of `names`, and are beyond their limits."""
        piece = piece_up_to(self.model, names)
        found, right = self._both(piece)
        limits = self.reference.limits
        return [
            _compare(block, found[name], right[name], piece.scales[name])
            for name, block in piece.outputs.items()
            if not relative(found[name], right[name]) <= limits[block]
        ]

    def wrong_alone(self, names: tuple[str, ...]) -> list[BadBlock]:
        """Blocks among `names` that make wrong integers of right ones."""
        piece = blocks_up_to(self.model, names)
        found, right = self._both(piece)
        blocks = [
            _compare(block, found[name], right[name], piece.scales[name])
            for name, block in piece.outputs.items()
        ]
        faults = self.reference.bounds.block_faults(
            BlockDifference(tensor=block.tensor + SUFFIX, differing=block.differing, steps=block.steps)
            for block in blocks
        )
        wrong = {fault.tensor for fault in faults}
        return [block for block in blocks if block.tensor + SUFFIX in wrong]

    def _both(self, piece: Piece) -> tuple[Mapping[str, NDArray[Any]], Mapping[str, NDArray[Any]]]:
        """What the backend makes of a piece, and what is right."""
        self.builds += 1
        found = self.run(piece)
        if self.meaning is not None:
            return found, self.meaning(piece)
        integers = self.reference.integers
        return found, {
            name: integers[block] * np.float32(piece.scales[name]) for name, block in piece.outputs.items()
        }


def _compare(block: str, found: NDArray[Any], right: NDArray[Any], scale: float) -> BadBlock:
    steps = np.abs(found.astype(np.float64) - right) / scale
    steps = np.nan_to_num(steps, nan=2.0**8, posinf=2.0**8)
    return BadBlock(
        tensor=block.removesuffix(SUFFIX),
        differing=float((steps > 0.25).mean()),  # another grid may be twice as fine
        steps=int(np.ceil(steps.max() - 0.25)),
        builds=0,
    )
