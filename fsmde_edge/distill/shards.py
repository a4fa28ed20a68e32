"""Frame sets for training on disk: made once, in resumable shards, read as memory maps."""

from __future__ import annotations

import io
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from fsmde_edge.distill.augment import SKY
from fsmde_edge.distill.batch import SetBatch
from fsmde_edge.errors import DeviceError, InputError
from fsmde_edge.files import atomic_write, cache_home, check_writable
from fsmde_edge.progress import progress

SETS_PER_SHARD = 16
DEPTH_STEPS = 256
"""Depth is stored as uint16 in 1/256 m; 0 = no return, the two largest values are `EGO` and `SKY`."""

SKY_STORED = 65535
EGO_STORED = 65534
FARTHEST_STORED = 65533


class Row(NamedTuple):
    """One frame set at network size, views in ring order.

    Attributes:
        images: uint8 [V, H, W, 3], RGB.
        depth: uint16 [V, H, W], see `DEPTH_STEPS`.
        intrinsics: float32 [V, 3, 3], pixels.
        extrinsics: float32 [V, 4, 4], camera to vehicle.
    """

    images: NDArray[np.uint8]
    depth: NDArray[np.uint16]
    intrinsics: NDArray[np.float32]
    extrinsics: NDArray[np.float32]


class Source(Protocol):
    """Where rows come from; pickled into the processes that make them."""

    @property
    def key(self) -> str:
        """A folder's name, of everything that changes a row."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the pictures."""

    def __len__(self) -> int:
        """How many frame sets."""

    def name(self, index: int) -> str:
        """A frame set's name, for messages."""

    def rows(self, indices: range) -> Iterator[Row]:
        """Those frame sets."""


@dataclass(frozen=True, slots=True, eq=False)
class SetStore:
    """The frame sets of one source, on disk.

    Attributes:
        shards: their arrays, each [sets, ...]; all but the last hold `SETS_PER_SHARD`.
        source: what they were made from.
    """

    shards: tuple[Row, ...]
    source: Source

    def __len__(self) -> int:
        return sum(len(shard.images) for shard in self.shards)

    def row(self, index: int) -> Row:
        """One frame set, as views of the memory maps."""
        shard, row = divmod(int(index), SETS_PER_SHARD)
        return Row(*(array[row] for array in self.shards[shard]))

    def batch(self, indices: Sequence[int]) -> SetBatch:
        """These frame sets as tensors."""
        images, depth, intrinsics, extrinsics = (
            np.stack(parts) for parts in zip(*(self.row(i) for i in indices), strict=True)
        )
        metres = np.where(depth >= EGO_STORED, np.float32(0), depth / np.float32(DEPTH_STEPS))
        return SetBatch(
            pictures=torch.from_numpy(images).permute(0, 1, 4, 2, 3).float(),
            truth=torch.from_numpy(np.where(depth == SKY_STORED, np.float32(SKY), metres)),
            world=torch.from_numpy(depth != EGO_STORED),
            intrinsics=torch.from_numpy(intrinsics),
            extrinsics=torch.from_numpy(extrinsics),
        )


def stored_depth(
    metres: NDArray[np.float32], *, sky: NDArray[np.bool_] | None, world: NDArray[np.bool_] | None
) -> NDArray[np.uint16]:
    """A view's sparse depth as it is stored.

    Args:
        metres: float32 [H, W], 0 = none.
        sky: where the sky is known to be.
        world: False on the own car, which hides the world behind it.
    """
    steps = np.clip(np.round(metres * DEPTH_STEPS), 0, FARTHEST_STORED).astype(np.uint16)
    if sky is not None:
        steps = np.where(sky, np.uint16(SKY_STORED), steps)
    return steps if world is None else np.where(world, steps, np.uint16(EGO_STORED))


def open_store(source: Source, *, cache: Path, workers: int) -> SetStore:
    """Make what is missing, then open.

    Args:
        source: where frame sets come from.
        cache: folder for shards.
        workers: processes that make them.
    """
    folder = cache / source.key
    starts = range(0, len(source), SETS_PER_SHARD)
    shards = [folder / f"{start:06d}-{min(SETS_PER_SHARD, len(source) - start):02d}" for start in starts]
    missing = [shard for shard in shards if _whole(shard, source.size) is None]
    if missing:
        check_writable(_file(missing[0], Row._fields[0]))
        _make([(source, shard) for shard in missing], workers)
    found = [(shard, _whole(shard, source.size)) for shard in shards]
    for shard, row in found:
        if row is None:
            raise InputError("is no shard of frame sets", where=shard, hint="remove that folder, run again")
    whole = tuple(row for _, row in found if row is not None)
    for number, row in enumerate(whole):
        views, first = row.images.shape[1], whole[0].images.shape[1]
        if views != first:
            raise _other_rig(source, number * SETS_PER_SHARD, views, first)
    return SetStore(whole, source)


def _other_rig(source: Source, index: int, views: int, first: int) -> InputError:
    return InputError(
        f"has {views} cameras, frame sets before it have {first}",
        where=source.name(index),
        hint="train on scenes of rigs with as many: name them under scenes",
    )


def default_cache() -> Path:
    """`$XDG_CACHE_HOME/fsmde-edge/training`."""
    return cache_home() / "training"


def _file(shard: Path, field: str) -> Path:
    return shard.with_suffix(f".{field}.npy")


def _whole(shard: Path, size: tuple[int, int]) -> Row | None:
    """A shard's arrays as memory maps; None where one is missing or broken."""
    try:
        row = Row(*(np.load(_file(shard, name), mmap_mode="r", allow_pickle=False) for name in Row._fields))
        views = (int(shard.name.split("-")[1]), row.intrinsics.shape[1])
    except Exception:  # broken bytes lead the reader anywhere; it is made again
        return None
    kinds = [(array.shape, array.dtype) for array in row]
    wanted = [
        ((*views, *size, 3), np.dtype(np.uint8)),
        ((*views, *size), np.dtype(np.uint16)),
        ((*views, 3, 3), np.dtype(np.float32)),
        ((*views, 4, 4), np.dtype(np.float32)),
    ]
    return row if kinds == wanted else None


def _make(jobs: list[tuple[Source, Path]], workers: int) -> None:
    """Make shards in processes of their own; Ctrl-C is the parent's to tell, and loses no whole shard."""
    pool = ProcessPoolExecutor(workers, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN))
    try:
        for _ in progress(pool.map(_make_shard, jobs), total=len(jobs), what="preparing frame sets"):
            pass
    except BrokenProcessPool as error:
        raise DeviceError(
            "a process that prepared frame sets was killed, perhaps for want of memory",
            hint="run again with fewer --render-workers; what is ready is kept",
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _make_shard(job: tuple[Source, Path]) -> None:
    source, shard = job
    start, count = map(int, shard.name.split("-"))
    rows = list(source.rows(range(start, start + count)))
    for index, row in enumerate(rows):
        if len(row.images) != len(rows[0].images):
            raise _other_rig(source, start + index, len(row.images), len(rows[0].images))
    for name, parts in zip(Row._fields, zip(*rows, strict=True), strict=True):
        buffer = io.BytesIO()
        np.save(buffer, np.stack(parts), allow_pickle=False)
        atomic_write(_file(shard, name), buffer.getvalue())
