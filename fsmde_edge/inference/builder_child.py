"""The child's half of a build: parse, build, write the engine. Run by `builder`, with its folder."""

from __future__ import annotations

import importlib
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fsmde_edge.inference.builder import ANSWER, CACHE, ENGINE, JOB, MODEL, PHASE, Answer, Job
from fsmde_edge.inference.tensorrt_log import collecting_logger, first_error, first_line
from fsmde_edge.recipes import from_mapping

MIB = 2**20


def main(folder: Path) -> None:
    """Build what the folder's job says."""
    job = from_mapping(Job, json.loads((folder / JOB).read_text(encoding="utf-8")), where=folder)
    trt = importlib.import_module(job.module)
    answer = _build(trt, job, folder)
    (folder / ANSWER).write_text(json.dumps(asdict(answer)), encoding="utf-8")


def _build(trt: Any, job: Job, folder: Path) -> Answer:
    messages: list[tuple[Any, str]] = []
    log, start = collecting_logger(trt, messages), time.perf_counter()
    builder = trt.Builder(log)
    # Strong typing is a flag of TensorRT 10; 11 knows no other typing and no flag for it.
    strong = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if strong is None else 1 << int(strong))
    parser = trt.OnnxParser(network, log)
    (folder / PHASE).write_text("parsing", encoding="utf-8")
    engine, error = None, ""
    if parser.parse((folder / MODEL).read_bytes()):
        config = _config(trt, builder, job)
        cache = _timing_cache(config, (folder / CACHE).read_bytes())
        (folder / PHASE).write_text("building", encoding="utf-8")
        engine = builder.build_serialized_network(network, config)
        (folder / CACHE).write_bytes(b"" if cache is None else bytes(cache.serialize()))
    else:
        error = first_line(parser.get_error(i).desc() for i in range(parser.num_errors))
    if engine is None and not error:
        error = first_error(trt, messages)
    seconds = time.perf_counter() - start
    if engine is not None:
        (folder / ENGINE).write_bytes(bytes(engine))
    return Answer(
        version=str(trt.__version__),
        error=error,
        seconds=seconds,
        log="\n".join(text for _, text in messages if text.startswith("Name: ") or "\nName: " in text),
        inputs=dict(_port(trt, network.get_input(i)) for i in range(network.num_inputs)),
        outputs=dict(_port(trt, network.get_output(i)) for i in range(network.num_outputs)),
    )


def _port(trt: Any, tensor: Any) -> tuple[str, str]:
    """A tensor's name, and its type and shape as `program.Port` words them."""
    import numpy as np

    edges = ("?" if edge < 0 else str(edge) for edge in tensor.shape)
    return tensor.name, f"{np.dtype(trt.nptype(tensor.dtype)).name} [{', '.join(edges)}]"


def _config(trt: Any, builder: Any, job: Job) -> Any:
    config, options = builder.create_builder_config(), job.options
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.builder_optimization_level = options.optimisation_level
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mb * MIB)
    if options.tactic_memory_mb is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.TACTIC_DRAM, options.tactic_memory_mb * MIB)
    if job.capability is not None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, job.capability), 0)
    return config


def _timing_cache(config: Any, content: bytes) -> Any:
    """The cache of timings that the build reads and fills; None where the builder has none.

    One of another device or version does not fit, and an empty one takes its place.
    """
    if not hasattr(config, "create_timing_cache"):
        return None
    for start in (content, b""):
        cache = config.create_timing_cache(start)
        if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
            return cache
    return None


if __name__ == "__main__":
    main(Path(sys.argv[1]))
