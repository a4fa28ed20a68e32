"""TensorRT builds in a child process: native code that runs out of memory takes only the child with it.

The child is the same for TensorRT (10.3 and later) and for TensorRT for RTX, which builds ahead of time on a
machine without a GPU; what they differ in is asked of their API. Progress is the phase and how long it lasts.
TensorRT's own progress monitor counts steps that say nothing of time, and calls Python from the builder's
threads while it times kernels: it is left out.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path

from fsmde_edge.errors import DeviceError, writing
from fsmde_edge.recipes import from_mapping
from fsmde_edge.targets import BuilderOptions

FIRST_WORD = 10.0
"""Seconds until a build that goes on is first spoken of; each time after twice as many."""

JOB, MODEL, CACHE = "job.json", "model.onnx", "cache"
ANSWER, ENGINE, PHASE = "answer.json", "engine", "phase"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a child shall build, besides the model.

    Attributes:
        module: TensorRT's Python module, or a relative of the same interface.
        options: what the builder may use.
        capability: of the GPU to build ahead of time for, as SM86; None for the one that is here.
    """

    module: str
    options: BuilderOptions
    capability: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a child says of its build.

    Attributes:
        version: of the module.
        error: what parser or builder said when they refused, in a line; empty if they accepted.
        seconds: of parsing and building.
        log: the builder's lines about layers.
        inputs, outputs: name to type and shape of the network, in the words of `program.Port`.
    """

    version: str
    error: str
    seconds: float
    log: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What came of a build.

    Attributes:
        answer: of the child.
        engine: empty if it was refused.
        cache: of timings, for the next build; empty where there is none.
    """

    answer: Answer
    engine: bytes
    cache: bytes


def installed(module: str) -> bool:
    """Whether a module can be imported."""
    return find_spec(module) is not None


def build_in_child(
    model: bytes,
    job: Job,
    *,
    cache: bytes = b"",
    say: Callable[[str], None] = lambda _: None,
    limit: float | None = None,
    where: object = None,
) -> Built:
    """Build an engine; Ctrl-C ends the child, and nothing is left of it.

    Args:
        model: ONNX.
        job: what to build of it.
        cache: of an earlier build's timings; one that does not fit is not used.
        say: called with a line now and then.
        limit: seconds that it may take.
        where: the file that the model comes from, for messages.

    Raises:
        DeviceError: the child died (out of memory), or took longer than `limit`.
        OutputError: there is no room for its files.
    """
    with writing(tempfile.gettempdir()), tempfile.TemporaryDirectory(prefix="fsmde-edge-") as name:
        folder = Path(name)
        (folder / MODEL).write_bytes(model)
        (folder / CACHE).write_bytes(cache)
        (folder / JOB).write_text(json.dumps(asdict(job)), encoding="utf-8")
        _run(folder, say, limit, where)
        answer = from_mapping(Answer, json.loads((folder / ANSWER).read_text(encoding="utf-8")), where=where)
        engine = b"" if answer.error else (folder / ENGINE).read_bytes()
        return Built(answer=answer, engine=engine, cache=(folder / CACHE).read_bytes())


def trtexec_line(model: str, options: BuilderOptions, *, engine: str = "model.engine") -> str:
    """What trtexec would be told to build the same engine.

    It has no option for the memory of tactics. TensorRT 11 knows no other than strong typing.

    Args:
        model: the ONNX file.
        options: of the builder.
        engine: the file that it shall write.
    """
    return (
        f"trtexec --onnx={model} --saveEngine={engine} --stronglyTyped "
        f"--memPoolSize=workspace:{options.workspace_mb} "
        f"--builderOptimizationLevel={options.optimisation_level} --profilingVerbosity=detailed"
    )


def _run(folder: Path, say: Callable[[str], None], limit: float | None, where: object) -> None:
    command = [sys.executable, "-m", "fsmde_edge.inference.builder_child", str(folder)]
    with (folder / "stderr").open("w+", encoding="utf-8", errors="replace") as errors:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors)
        try:
            _wait(child, folder, say, limit, where)
        finally:
            child.kill()
            child.wait()
        if child.returncode or not (folder / ANSWER).is_file():
            errors.seek(0)
            raise DeviceError(
                f"the child that builds the engine died ({_reason(child.returncode, errors.read())})",
                where=where,
                hint="free some memory and run again, or give the builder less with a --target of your own",
            )


def _wait(
    child: subprocess.Popen[bytes],
    folder: Path,
    say: Callable[[str], None],
    limit: float | None,
    where: object,
) -> None:
    """Until the child has ended, speaking of it after 10 s, 20 s, 40 s and so on."""
    start, word = time.monotonic(), FIRST_WORD
    while True:
        until = word if limit is None else min(word, limit)
        try:
            child.wait(max(0.0, start + until - time.monotonic()))
            return
        except subprocess.TimeoutExpired as error:
            if until == limit:
                raise DeviceError(f"building the engine took more than {limit:g} s", where=where) from error
        phase = folder / PHASE
        doing = phase.read_text(encoding="utf-8") if phase.is_file() else "starting"
        say(f"{doing}, {word:.0f} s so far")
        word *= 2


def _reason(code: int, errors: str) -> str:
    if code < 0:
        return f"signal {-code}" + (", out of memory" if code == -9 else "")
    lines = errors.strip().splitlines()
    return lines[-1][:200] if lines else f"exit code {code}"
