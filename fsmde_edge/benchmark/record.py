"""The JSON of a bench: everything that is needed to believe it, and to compare it with another."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fsmde_edge.benchmark.drift import Drift
from fsmde_edge.benchmark.machine import MachineState
from fsmde_edge.benchmark.pipeline import RateResult
from fsmde_edge.benchmark.throughput import Throughput
from fsmde_edge.errors import InputError
from fsmde_edge.evaluation.latency import Latency
from fsmde_edge.files import atomic_write
from fsmde_edge.recipes import from_json

VERSION = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Fed:
    """What the pipeline was fed.

    Attributes:
        what: where the pictures are from.
        layouts: pixel format and size of every view.
        bytes_per_set: of all pictures.
        digest: SHA-256 of layouts and pictures.
    """

    what: str
    layouts: tuple[str, ...]
    bytes_per_set: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineRecord:
    """The whole pipeline at fixed rates.

    Attributes:
        fed: the pictures.
        precision, session, preparation: what ran.
        seconds, repeats, warmup: of each run, runs at each rate, and sets before counting in every run.
        rates: one for each rate.
        throughput: by search; None if it was not reached.
        drift: of the soak; None without one, or one that was too short.
        peak_mib: the process's largest resident memory, loading included.
        before, after: the machine.
    """

    fed: Fed
    precision: str
    session: str
    preparation: str
    seconds: float
    repeats: int
    warmup: int
    rates: tuple[RateResult, ...] = ()
    throughput: Throughput | None = None
    drift: Drift | None = None
    peak_mib: float
    before: MachineState
    after: MachineState


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What a bench measured.

    Attributes:
        version: of this format.
        bundle: its hash.
        views: of one frame set.
        threads: of one inference and of preprocessing.
        machine, versions: what it ran on and with.
        latency, sessions: each model on golden frames: milliseconds, and what ran it.
        pipeline: None where it was left out or not reached.
        complete: False after a Ctrl-C.
    """

    version: int = VERSION
    bundle: str
    views: int
    threads: int
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    latency: Mapping[str, Latency] = field(default_factory=dict)
    sessions: Mapping[str, str] = field(default_factory=dict)
    pipeline: PipelineRecord | None = None
    complete: bool = True

    def save(self, path: Path) -> None:
        """Write JSON."""
        values: dict[str, Any] = asdict(self)
        atomic_write(path, json.dumps(values, indent=1).encode() + b"\n")

    @classmethod
    def load(cls, path: Path) -> Measurement:
        """Read what `save` wrote.

        Raises:
            InputError: no such file, or not a bench of this version.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is no text"
            raise InputError(f"cannot be read ({why})", where=path, hint="check the path") from error
        failing = "is not what this version's bench writes"
        try:
            return from_json(cls, text, version=VERSION, failing=failing, where=path)
        except InputError as error:
            hint = "make it with: fsmde-edge bench --json FILE"
            raise InputError(error.what, where=path, hint=hint) from error
