"""Target profiles: what a board has, in which power mode, and where each number comes from.

Rates are not stored but derived, in one place, from clocks and units: multiply-accumulates a second =
streaming multiprocessors × multiply-accumulates per multiprocessor and clock × clock. NVIDIA publishes
*sparse* INT8 TOPS; dense is half of that, and a DLA's TOPS are not the GPU's. A profile keeps the published
figure beside the units, and a test holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal

from fsmde_edge.bundle import Bundle, sha256_of
from fsmde_edge.errors import InputError
from fsmde_edge.recipes import Named, find_shipped, from_mapping, read_yaml, shipped

Precision = Literal["int8", "fp16", "fp32"]

LEAST, MOST = 1e-3, 1e6
"""No number of a board, in the units below, lies outside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Software:
    """Versions that belong together, and that we build and test for.

    Attributes:
        jetpack, tensorrt, cuda: versions, as text.
    """

    jetpack: str
    tensorrt: str
    cuda: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """Dense multiply-accumulates of one streaming multiprocessor in one clock.

    Attributes:
        int8, fp16: of its tensor cores, without sparsity.
        fp32: of its CUDA cores; TensorFloat-32 is not counted.
    """

    int8: int
    fp16: int
    fp32: int

    def __post_init__(self) -> None:
        _refuse_impossible("throughput", int8=self.int8, fp16=self.fp16, fp32=self.fp32)


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerMode:
    """One mode of nvpmodel.

    Attributes:
        name: as nvpmodel prints it; (Super) where the board was flashed for it.
        gpu_mhz: the GPU's highest clock, None where no source is known.
        sms: streaming multiprocessors that are powered (two a TPC).
        bandwidth_gb_s: of the memory, 10^9 bytes a second, None where no source is known.
        dla_tops: published sparse INT8 TOPS of all DLA cores together; None where not published.
        published_gpu_tops: published sparse INT8 TOPS of the GPU alone, to hold the derived rate against.
    """

    name: str
    gpu_mhz: float | None = None
    sms: int | None = None
    bandwidth_gb_s: float | None = None
    dla_tops: float | None = None
    published_gpu_tops: float | None = None

    def __post_init__(self) -> None:
        _refuse_impossible(
            f"power mode {self.name}",
            gpu_mhz=self.gpu_mhz,
            sms=self.sms,
            bandwidth_gb_s=self.bandwidth_gb_s,
            dla_tops=self.dla_tops,
            published_gpu_tops=self.published_gpu_tops,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BuilderOptions:
    """What TensorRT's builder may use on this board.

    Attributes:
        workspace_mb: memory for one layer's scratch space, MiB.
        tactic_memory_mb: memory that a timed tactic may take, MiB; None leaves it to TensorRT.
        optimisation_level: 0 to 5; 3 is TensorRT's own.
    """

    workspace_mb: int = 1024
    tactic_memory_mb: int | None = None
    optimisation_level: int = 3

    def __post_init__(self) -> None:
        _refuse_impossible("builder", workspace_mb=self.workspace_mb, tactic_memory_mb=self.tactic_memory_mb)
        if not 0 <= self.optimisation_level <= 5:
            raise InputError("'builder' needs an optimisation level of 0 to 5", hint="3 is TensorRT's own")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a bundle is built for.

    Attributes:
        version: of this file format; 1.
        description: in words.
        backend: the session that runs it: onnxruntime, tensorrt.
        compute_capability: of its GPU, as "8.7"; None for a CPU.
        memory_gb: of the module, shared by CPU and GPU; None where it does not matter.
        tensor_cores_per_sm: of one streaming multiprocessor.
        dla_cores: deep-learning accelerators.
        throughput: of one streaming multiprocessor; None without a GPU.
        modes: power modes; the first one counts unless another is asked for.
        software: version triples that are first-class there.
        builder: options of TensorRT's builder.
        sources: key (as `modes.gpu_mhz`) to where its numbers come from.
    """

    version: int
    description: str
    backend: Literal["onnxruntime", "tensorrt"]
    compute_capability: str | None = None
    memory_gb: int | None = None
    tensor_cores_per_sm: int | None = None
    dla_cores: int = 0
    throughput: Throughput | None = None
    modes: tuple[PowerMode, ...] = ()
    software: tuple[Software, ...] = ()
    builder: BuilderOptions = field(default_factory=BuilderOptions)
    sources: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.version != 1:
            raise InputError(f"target profile version {self.version} is not known", hint="update fsmde-edge")
        _refuse_impossible(
            "the target", memory_gb=self.memory_gb, tensor_cores_per_sm=self.tensor_cores_per_sm
        )
        if self.dla_cores < 0:
            raise InputError(f"the target cannot have {self.dla_cores} DLA cores", hint="0 is none")
        names = [mode.name for mode in self.modes]
        if len(set(names)) != len(names):
            raise InputError("two power modes have one name", hint="give each its own")

    def mode(self, name: str | None = None) -> PowerMode:
        """A power mode by name, whatever its case; the first one for None.

        Raises:
            InputError: there is none of that name, or the target has none at all.
        """
        if not self.modes:
            raise InputError(
                f"the target has no power modes and no rates ({self.description.rstrip('.')})",
                hint="estimate for a Jetson, as --target orin-agx-64gb; measure a CPU with: fsmde-edge bench",
            )
        if name is None:
            return self.modes[0]
        found = [mode for mode in self.modes if mode.name.lower() == name.lower()]
        if not found:
            have = ", ".join(mode.name for mode in self.modes)
            raise InputError(f"the target has no power mode '{name}'", hint=f"choose one of: {have}")
        return found[0]

    def macs_per_second(self, precision: Precision, mode: PowerMode) -> float:
        """Dense peak rate of the GPU.

        Raises:
            InputError: a number that it takes is not known; the message names it.
        """
        if self.throughput is None:
            raise InputError("the target's profile does not give 'throughput'", hint="add it to the profile")
        rate = getattr(self.throughput, precision)
        return float(rate * known(mode, "sms") * known(mode, "gpu_mhz") * 1e6)


def known(mode: PowerMode, name: str) -> float:
    """A number of a power mode.

    Raises:
        InputError: the profile leaves it open.
    """
    value = getattr(mode, name)
    if value is None:
        raise InputError(
            f"the profile does not know '{name}' of power mode {mode.name}",
            hint="choose another --mode, or add the number with its source to a profile of your own",
        )
    return float(value)


def _refuse_impossible(of: str, **numbers: float | None) -> None:
    for name, value in numbers.items():
        if value is not None and not LEAST <= value <= MOST:
            raise InputError(
                f"'{name}' of {of} cannot be {value:g}",
                hint=f"give a number from {LEAST:g} to {MOST:.0f}, or leave out what is not known",
            )


def numbers_without_source(target: Target) -> list[str]:
    """Keys of a profile that hold a number but say nothing of where it comes from."""
    given: dict[str, object] = {
        "memory_gb": target.memory_gb,
        "tensor_cores_per_sm": target.tensor_cores_per_sm,
    }
    given |= {"dla_cores": target.dla_cores or None, "throughput": target.throughput}
    given |= {"software": target.software or None}
    for entry in fields(PowerMode):
        if entry.name != "name":
            values = [getattr(mode, entry.name) for mode in target.modes]
            given[f"modes.{entry.name}"] = next((value for value in values if value is not None), None)
    return [key for key, value in given.items() if value is not None and not target.sources.get(key)]


def load_target(name: str) -> tuple[Target, Named]:
    """Read a target profile, by path or shipped name.

    Raises:
        InputError: not found, or not a valid profile.
    """
    path = find_shipped(name, "engines")
    return from_mapping(Target, read_yaml(path), where=path), Named(name=path.stem, sha256=sha256_of(path))


def target_of(bundle: Bundle, given: str | None) -> Target:
    """The profile that a user names, or else the shipped one that a bundle was built for.

    Raises:
        InputError: not a valid profile, or the bundle was built for one that is not shipped.
    """
    if given is not None:
        return load_target(given)[0]
    name = bundle.manifest.target
    if name not in {path.stem for path in shipped("engines").glob("*.yaml")}:
        raise InputError(
            f"was built for the target '{name}', which is not a shipped one",
            where=bundle.root,
            hint="give its profile with --target",
        )
    return load_target(str(shipped("engines") / f"{name}.yaml"))[0]
