"""A bundle handed over to Polygraphy and trtexec: models, golden inputs, and the commands ready-made.

The folder is complete: it can be copied to the device and the commands run in it. Reference is ONNX Runtime
on `model.int8.onnx` with basic optimisation, which fuses no Q/DQ. The commands are those of Polygraphy 0.53;
older ones name some options otherwise.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.bundle import PRECISIONS, Bundle
from fsmde_edge.files import atomic_folder, atomic_write
from fsmde_edge.targets import BuilderOptions, target_of

COMMANDS = "commands.txt"
LOADER = "inputs.py"

LEAST_SNR = 30
"""Decibels that a tensor must keep above its difference from the reference: 3 %. A ratio, for any tensor's
unit; integers that round the other way stay far above (a scale that is wrong by half falls to 6).
"""

_LOADER = '''"""The bundle's golden inputs, for Polygraphy's --data-loader-script."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def load_data():
    with np.load(Path(__file__).with_name("inputs.npz"), allow_pickle=False) as file:
        yield {name: file[name] for name in file.files}
'''


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One line for a shell, and what it is for.

    Attributes:
        what: in words.
        line: to run in the folder.
        gpu: whether it needs TensorRT and a GPU.
    """

    what: str
    line: str
    gpu: bool


def hand_over(bundle: Bundle, out: Path, *, force: bool, target: str | None = None) -> tuple[Command, ...]:
    """Write the folder; it appears whole or not at all.

    Args:
        bundle: of any precision.
        out: the folder to make.
        force: replace one that this made before.
        target: profile whose builder options count; None for the bundle's own.

    Errors:
        OutputError: the folder exists, or cannot be written.
    """
    commands = commands_for(bundle, target)
    golden = bundle.golden()
    feeds: dict[str, NDArray[Any]] = {"images": golden.images, "focal": golden.focal}
    with atomic_folder(out, force=force, replaceable=_is_ours) as folder:
        for name in filter(None, bundle.manifest.models.values()):
            shutil.copyfile(bundle.root / name, folder / name)
        np.savez(folder / "inputs.npz", allow_pickle=False, **feeds)
        for name, value in feeds.items():
            atomic_write(folder / f"{name}.bin", value.tobytes())  # as trtexec --loadInputs reads them
        for precision, depth in golden.depth.items():
            np.save(folder / f"depth.{precision}.npy", depth)
        atomic_write(folder / LOADER, _LOADER.encode())
        text = "\n\n".join(f"# {item.what}\n{item.line}" for item in commands)
        atomic_write(folder / COMMANDS, f"{text}\n".encode())
    return commands


def _is_ours(folder: Path) -> bool:
    return all((folder / name).is_file() for name in (LOADER, COMMANDS, "inputs.npz"))


def commands_for(bundle: Bundle, target: str | None = None) -> tuple[Command, ...]:
    """The commands, in the order of a search for what is wrong."""
    held = [name for name in PRECISIONS if bundle.manifest.models.get(name)]
    models = bundle.manifest.models
    built, exact = models[held[-1]], models["int8" if "int8" in held else "fp32"]
    options = target_of(bundle, target).builder
    bounds = f"--compare snr --snr-threshold {LEAST_SNR}"
    reference = f"polygraphy run {exact} --onnxrt --graph-optimization-level ORT_ENABLE_BASIC"
    return (
        Command(what="the layers", line=f"polygraphy inspect model {exact} --show layers", gpu=False),
        Command(
            what="the reference on the golden inputs",
            line=f"{reference} --data-loader-script {LOADER} --save-inputs inputs.json "
            "--save-outputs exact.json",
            gpu=False,
        ),
        Command(
            what="TensorRT against the reference",
            line=f"polygraphy run {built} --trt --strongly-typed --load-inputs inputs.json "
            f"--load-outputs exact.json {bounds} {_polygraphy(options)}",
            gpu=True,
        ),
        Command(
            what="the reference of every tensor",
            line=f"{reference} --load-inputs inputs.json --onnx-outputs '*' --save-outputs every.json",
            gpu=False,
        ),
        Command(
            what="the same as inputs of any part of the network",
            line="polygraphy data merge inputs.json every.json -o parts.json",
            gpu=False,
        ),
        Command(
            what="the smallest part that TensorRT gets wrong",
            line=f"polygraphy debug reduce {exact} -o reduced.onnx --mode=bisect --load-inputs parts.json "
            "--check polygraphy run polygraphy_debug.onnx --trt --strongly-typed --load-inputs parts.json "
            f"--load-outputs every.json {bounds}",
            gpu=True,
        ),
        Command(
            what="TensorRT alone, timed layer by layer (TensorRT 11 is always strongly typed)",
            line=f"trtexec --onnx={built} --stronglyTyped {_trtexec(options)} --profilingVerbosity=detailed "
            "--loadInputs=images:images.bin,focal:focal.bin --exportOutput=output.json "
            "--exportLayerInfo=layers.json --exportProfile=profile.json --dumpProfile --separateProfileRun",
            gpu=True,
        ),
    )


def _polygraphy(options: BuilderOptions) -> str:
    pools = f"workspace:{options.workspace_mb}M"
    if options.tactic_memory_mb is not None:
        pools += f" tactic_dram:{options.tactic_memory_mb}M"
    return f"--pool-limit {pools} --builder-optimization-level {options.optimisation_level}"


def _trtexec(options: BuilderOptions) -> str:
    """What trtexec has an option for: its --memPoolSize, in MiB, knows no memory of tactics."""
    level = options.optimisation_level
    return f"--memPoolSize=workspace:{options.workspace_mb} --builderOptimizationLevel={level}"
