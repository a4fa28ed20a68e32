"""Finalise a bundle on this machine: build what each backend can, judge it, time it, keep the fastest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from fsmde_edge.bundle import BOUNDS, Bundle
from fsmde_edge.compiler.bounds import Bounds
from fsmde_edge.errors import DeviceError, GateFailed
from fsmde_edge.evaluation.latency import Latency, side_by_side
from fsmde_edge.finalise.candidate import Candidate, Workshop
from fsmde_edge.finalise.judge import Judge
from fsmde_edge.inference.backends import BACKENDS, backend_of
from fsmde_edge.inference.program import Backend, Say
from fsmde_edge.inference.store import Chosen, Key, Receipt, Store
from fsmde_edge.targets import BuilderOptions, target_of


@dataclass(frozen=True, slots=True, kw_only=True)
class FinaliseOptions:
    """What the user asked for.

    Attributes:
        backend: a name, or `auto` for all that are installed.
        target: profile whose builder options count; None for the bundle's own.
        runs: timed inferences of each right engine.
        threads: of one inference.
        allow_failed: build INT8 of a bundle whose gate did not pass.
    """

    backend: str = "auto"
    target: str | None = None
    runs: int = 20
    threads: int | None = None
    allow_failed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcome:
    """What came of finalising.

    Attributes:
        candidates: all that were tried; their sessions are closed.
        latency: label of each right candidate to its latency, measured side by side.
        skipped: what was not tried, to why.
        winner: the fastest right one; None where none is right.
        options: of the builders.
        details: label to what ran it.
        layers: label to what its backend says of its layers, where it says anything.
    """

    candidates: tuple[Candidate, ...]
    latency: Mapping[str, Latency]
    skipped: Mapping[str, str]
    winner: Candidate | None
    options: BuilderOptions
    details: Mapping[str, str]
    layers: Mapping[str, Any]

    @property
    def int8_gain(self) -> Mapping[str, float]:
        """Backend to how many times as fast its best INT8 candidate is as its best float one."""
        gains = {}
        for name in dict.fromkeys(candidate.backend.name for candidate in self.candidates):
            own = [c for c in self.candidates if c.backend.name == name and c.label in self.latency]
            int8, floats = (
                [self.latency[c.label].p50 for c in own if c.precision.startswith("int8") is wanted]
                for wanted in (True, False)
            )
            if int8 and floats:
                gains[name] = min(floats) / min(int8)
        return gains

    @property
    def reason(self) -> str:
        """Why the winner won, in words."""
        if self.winner is None:
            return "no candidate is right"
        others = [latency.p50 for label, latency in self.latency.items() if label != self.winner.label]
        if not others:
            return f"{self.winner.label} is the only one that finalise found to be right here"
        gain = min(others) / self.latency[self.winner.label].p50
        return (
            f"{self.winner.label} is the fastest that finalise found to be right here ({gain:.2f} x the next)"
        )

    def require_winner(self, where: object) -> Candidate:
        """The winner.

        Raises:
            DeviceError: nothing could be built at all.
            GateFailed: engines were built, and none is right.
        """
        if self.winner is not None:
            return self.winner
        judged = [candidate for candidate in self.candidates if candidate.verdict is not None]
        for candidate in self.candidates:
            if not judged and candidate.error is not None:
                raise candidate.error
        if not judged:
            why = "; ".join(f"{label}: {reason}" for label, reason in self.skipped.items())
            raise DeviceError(
                f"there is nothing to finalise ({why})", where=where, hint="run: fsmde-edge doctor"
            )
        why = "; ".join(f"{candidate.label}: {candidate.reasons[0]}" for candidate in judged)
        raise GateFailed(
            f"no engine is right on this machine: {why}",
            where=where,
            hint="see all numbers with --json, and report it with the output of: fsmde-edge doctor --json",
        )


def finalise(bundle: Bundle, options: FinaliseOptions, say: Say, store: Store) -> Outcome:
    """Build, judge and time all candidates; right ones go into the store, the fastest is what `auto` takes.

    Args:
        bundle: opened.
        options: what the user asked for.
        say: called with a line before each long step.
        store: where engines are kept.

    Raises:
        UsageError: no backend of that name.
        MissingExtra, DeviceError: a backend that was named is not there.
        OutputError: the store cannot be written.
    """
    backends, skipped = _backends(options)
    builder = target_of(bundle, options.target).builder
    plans = list(_candidates(bundle, backends, options, skipped))
    store.check_writable()
    workshop = _workshop(bundle, options, builder, say, any(p.startswith("int8") for _, p in plans))
    made: list[Candidate] = []
    try:
        for backend, precision in plans:
            say(f"building {backend.name} {precision}")
            made.append(workshop.make(backend, precision))
        latency = _time(made, workshop, options.runs)
        ready = {c.label: c.session for c in made if c.session is not None}
        winner = min(
            (c for c in made if c.label in latency), key=lambda c: latency[c.label].p50, default=None
        )
        outcome = Outcome(
            candidates=tuple(made),
            latency=latency,
            skipped=skipped,
            winner=winner,
            options=builder,
            details={label: session.detail for label, session in ready.items()},
            layers={label: session.program.inspect() for label, session in ready.items()},
        )
        _keep(bundle, outcome, store)
        return outcome
    finally:
        for candidate in made:
            candidate.close()


def _backends(options: FinaliseOptions) -> tuple[list[Backend], dict[str, str]]:
    """Those that this machine has, and why not the others; a backend that was named must be there."""
    if options.backend != "auto":
        backend = backend_of(options.backend)
        backend.identity()
        return [backend], {}
    found, skipped = list[Backend](), dict[str, str]()
    for name in BACKENDS:
        backend = backend_of(name)
        try:
            backend.identity()
        except DeviceError as error:
            skipped[name] = error.what
            continue
        found.append(backend)
    return found, skipped


def _candidates(
    bundle: Bundle, backends: Sequence[Backend], options: FinaliseOptions, skipped: dict[str, str]
) -> list[tuple[Backend, str]]:
    """Backend and precision of all that is worth building; why not the others goes into `skipped`."""
    found = []
    for backend in backends:
        for precision in backend.candidates:
            label = f"{backend.name} {precision}"
            if bundle.manifest.models.get(precision) is None:
                skipped[label] = "the bundle was built without this model"
            elif precision.startswith("int8") and not (bundle.int8_accepted or options.allow_failed):
                skipped[label] = (
                    f"the bundle's gate is {bundle.verdict} (--allow-failed builds it all the same)"
                )
            else:
                found.append((backend, precision))
    return found


def _workshop(
    bundle: Bundle, options: FinaliseOptions, builder: BuilderOptions, say: Say, int8: bool
) -> Workshop:
    golden = bundle.golden()
    bounds = Bounds.load(bundle.root / BOUNDS) if int8 else None
    return Workshop(
        bundle=bundle,
        golden=golden,
        judge=Judge.of(bundle, golden.depth, bounds),
        options=builder,
        threads=options.threads,
        say=say,
    )


def _time(made: Sequence[Candidate], workshop: Workshop, runs: int) -> dict[str, Latency]:
    """Latency of all right candidates, in turn."""
    golden = workshop.golden
    calls = {
        c.label: (lambda s=c.session: s.infer(golden.images, golden.focal))
        for c in made
        if c.session is not None
    }
    if calls:
        workshop.say(f"timing {', '.join(calls)}")
    return side_by_side(calls, runs=runs)


def _keep(bundle: Bundle, outcome: Outcome, store: Store) -> None:
    """Write engines and receipts: the winner's, and all others that are dear to build."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    for candidate in outcome.candidates:
        latency = outcome.latency.get(candidate.label)
        if latency is None or candidate.verdict is None:
            continue
        if candidate is outcome.winner or candidate.backend.stores:
            key = Key(
                bundle=bundle.hash,
                backend=candidate.backend.name,
                precision=candidate.precision,
                identity=dict(candidate.backend.identity()),
                options=outcome.options,
            )
            receipt = Receipt(
                key=key,
                engine=hashlib.sha256(candidate.engine).hexdigest(),
                size=len(candidate.engine),
                numbers=dict(candidate.verdict.numbers),
                latency_ms={name: value for name, value in latency.as_dict().items() if name != "runs"},
                build_s=candidate.build_s,
                floated=candidate.floated,
                created=now,
            )
            store.put(receipt, candidate.engine)
            if candidate is outcome.winner:
                store.choose(Chosen(key=key, reason=outcome.reason))
