"""One candidate, a backend and a precision: built, run on golden frames, judged, and mended if need be."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.bundle import Bundle, Golden
from fsmde_edge.errors import FsmdeError
from fsmde_edge.finalise.bisect import BadBlock, Reference, find_bad_block
from fsmde_edge.finalise.judge import Judge, Verdict
from fsmde_edge.finalise.pieces import Piece
from fsmde_edge.finalise.repair import Repair
from fsmde_edge.graph.model import model_bytes
from fsmde_edge.inference.onnxruntime import OnnxRuntimeProgram
from fsmde_edge.inference.program import Backend, ModelSession, Program, Say
from fsmde_edge.targets import BuilderOptions

REPAIRS = 3
"""Blocks that are taken out of INT8 one after the other before an engine is given up."""


@dataclass(slots=True, kw_only=True, eq=False)
class Candidate:
    """What came of one candidate.

    Attributes:
        backend: its name.
        precision: of its model.
        session: ready to run; None where it is not right.
        engine: its bytes.
        verdict: on its depth; None where there was none to judge.
        error: why there was none; None where there was.
        build_s: seconds of the last build.
        blocks: those that were found to be wrong, in order.
        floated: nodes that were taken out of INT8 for them.
    """

    backend: Backend
    precision: str
    session: ModelSession | None = None
    engine: bytes = b""
    verdict: Verdict | None = None
    error: FsmdeError | None = None
    build_s: float = 0.0
    blocks: list[BadBlock] = field(default_factory=list)
    floated: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Backend and precision."""
        return f"{self.backend.name} {self.precision}"

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it is not right; none where it is."""
        found = () if self.verdict is None else self.verdict.reasons
        if self.error is not None:
            found = (str(self.error),)
        return found and (*(str(block) for block in self.blocks[-1:]), *found)

    def close(self) -> None:
        """Free its session."""
        if self.session is not None:
            self.session.close()


@dataclass(slots=True, kw_only=True, eq=False)
class Workshop:
    """What building candidates of one bundle shares.

    Attributes:
        bundle, golden, judge: of it.
        options: for builders.
        threads: of one inference.
        say: called with a line before each long step.
    """

    bundle: Bundle
    golden: Golden
    judge: Judge
    options: BuilderOptions
    threads: int | None
    say: Say

    def make(self, backend: Backend, precision: str) -> Candidate:
        """Build and judge a candidate; an INT8 one that is wrong is mended block by block, if it can be."""
        candidate = Candidate(backend=backend, precision=precision)
        try:
            model = self.bundle.model(precision).read_bytes()
            verdict = self._try(candidate, model)
            if precision.startswith("int8") and not verdict.right:
                self._mend(candidate, verdict)
        except FsmdeError as error:
            candidate.error = error
        if candidate.reasons:
            candidate.close()
            candidate.session = None
        return candidate

    def _try(self, candidate: Candidate, model: bytes, plain: bytes | None = None) -> Verdict:
        """Build an engine, run it and judge it.

        Args:
            candidate: whose engine, session and verdict it becomes.
            model: what it is built from.
            plain: for INT8 that is not the bundle's own, its form with float32 beside the INT8.
        """
        candidate.close()
        start = time.perf_counter()
        candidate.engine = candidate.backend.build(
            model, precision=candidate.precision, options=self.options, say=self.say
        )
        candidate.build_s = time.perf_counter() - start
        program = candidate.backend.load(
            candidate.engine, precision=candidate.precision, threads=self.threads
        )
        candidate.session = ModelSession(program, precision=candidate.precision)
        depth = candidate.session.infer(self.golden.images, self.golden.focal).depth
        if candidate.precision.startswith("int8"):
            verdict = self.judge.int8(depth, self._exact(candidate, model, plain))
        else:
            verdict = self.judge.floating(depth, precision=candidate.precision)
        candidate.verdict = verdict
        return verdict

    def _mend(self, candidate: Candidate, verdict: Verdict) -> None:
        """Name the first wrong block, take it out of INT8, build again; a bounded number of times."""
        repair, half = Repair.of(self.bundle), candidate.precision != "int8"
        for _ in range(REPAIRS):
            self.say(f"{candidate.label} is wrong ({verdict.reasons[0]}): looking for the block")
            bad = self._bad_block(candidate, repair)
            if bad is None:
                self.say(f"{candidate.label}: every INT8 block is right, so the fault lies behind them")
                return
            candidate.blocks.append(bad)
            nodes = repair.nodes_of(bad.tensor, candidate.floated)
            self.say(f"{candidate.label}: {bad}; found in {bad.builds} builds")
            if not nodes:
                return
            candidate.floated = (*candidate.floated, *nodes)
            self.say(f"{candidate.label}: building again with it in float")
            plain, model = (
                model_bytes(repair.lowered(candidate.floated, half=form)) for form in (False, half)
            )
            verdict = self._try(candidate, model, plain)
            if verdict.right:
                return

    def _bad_block(self, candidate: Candidate, repair: Repair) -> BadBlock | None:
        """Bisect the model that the candidate was built from last."""
        plain = repair.lowered(candidate.floated, half=False)
        built = plain if candidate.precision == "int8" else repair.lowered(candidate.floated, half=True)
        backend, precision = candidate.backend, candidate.precision
        content = model_bytes(built)
        own = backend.meaning(content, precision=precision) != content

        assert self.judge.bounds is not None
        reference = Reference.of(plain, self.golden, self.judge.bounds, threads=self.threads or 1)

        def run(piece: Piece) -> Mapping[str, NDArray[Any]]:
            engine = backend.build(
                model_bytes(piece.model), precision=precision, options=self.options, say=lambda _: None
            )
            program = backend.load(engine, precision=precision, threads=self.threads)
            return self._run(program, piece.feeds(reference.integers))

        def meaning(piece: Piece) -> Mapping[str, NDArray[Any]]:
            form = backend.meaning(model_bytes(piece.model), precision=precision)
            program = OnnxRuntimeProgram(form, precision=precision, threads=self.threads, exact=True)
            return self._run(program, piece.feeds(reference.integers))

        return find_bad_block(built, reference, run, meaning if own else None)

    def _exact(self, candidate: Candidate, model: bytes, plain: bytes | None) -> NDArray[np.float32]:
        """What a right INT8 engine gives: golden depth, where the backend takes the bundle at its word."""
        meaning = candidate.backend.meaning(model, precision=candidate.precision)
        if meaning == model and plain is None:
            return self.golden.depth["int8"]
        form = plain if meaning == model and plain is not None else meaning
        program = OnnxRuntimeProgram(form, precision="int8", threads=self.threads, exact=True)
        with ModelSession(program, precision="int8") as session:
            return session.infer(self.golden.images, self.golden.focal).depth

    def _run(self, program: Program, given: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        feeds: dict[str, NDArray[Any]] = {"images": self.golden.images, "focal": self.golden.focal, **given}
        with program:
            return program.run({name: feeds[name] for name in program.inputs})
