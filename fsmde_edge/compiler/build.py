"""The chain: checkpoint → export → simplify → calibrate → plan → lower → gate → golden → bundle."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import fsmde_edge
from fsmde_edge.bundle import ASKED, BOUNDS, PRECISIONS, REPORTS, Golden, Manifest, new_bundle, seal
from fsmde_edge.compiler.bounds import golden_bounds
from fsmde_edge.compiler.half import to_half
from fsmde_edge.compiler.plan import Plan
from fsmde_edge.compiler.predict.rules import refuse_violations
from fsmde_edge.compiler.quantise import Frames, Method, Quantised, quantise
from fsmde_edge.compiler.recipe import CalibRecipe, load_recipe
from fsmde_edge.compiler.search import Search
from fsmde_edge.compiler.search_report import write_search_report
from fsmde_edge.compiler.sources import Network, read_network
from fsmde_edge.datasets.base import Dataset
from fsmde_edge.datasets.selection import open_selection, samples_of
from fsmde_edge.errors import InputError
from fsmde_edge.evaluation.gallery import Gallery
from fsmde_edge.evaluation.gate import Gate, GateResult
from fsmde_edge.evaluation.gate_report import write_gate_report
from fsmde_edge.frames import Sample
from fsmde_edge.golden import make_golden
from fsmde_edge.graph.model import model_bytes
from fsmde_edge.inference.onnxruntime import OnnxRuntimeSession
from fsmde_edge.preprocess import own_pinholes, preprocess_set
from fsmde_edge.progress import progress
from fsmde_edge.recipes import Named
from fsmde_edge.rig import Rig, VirtualPinhole
from fsmde_edge.targets import Target, load_target

if TYPE_CHECKING:
    from onnx import ModelProto

Pinholes = tuple[VirtualPinhole, ...]

PAID_FOR = ("broken residual",)
"""A sum next to a block in float is a kernel of its own; the cost model counts it: a price, no fault."""

TIMED_FOR = "orin-agx-64gb"
"""The precision search counts this target's time where the bundle is for a CPU, which has no cost model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """What the user asked for.

    Attributes:
        precision: fp32, fp16 or int8.
        out: the bundle's folder.
        checkpoint: a student's safetensors file; None for the shipped tiny student.
        onnx: somebody else's FP32 network instead.
        convention: the YAML that describes it.
        recipe, target: paths or shipped names.
        keep_float, force_int8: patterns of node names, beside the recipe's.
        search: whether blocks may go back into half precision; None as the recipe says.
        learn_rounding: as well as what the recipe says.
        data_root: folder that the recipe's paths are relative to.
        force: replace an existing bundle.
        allow_few: accept too few calibration pictures, and a gate without a verdict.
        threads: for everything that computes.
    """

    precision: str
    out: Path
    checkpoint: Path | None = None
    onnx: Path | None = None
    convention: Path | None = None
    recipe: str = "synthetic"
    target: str = "cpu"
    keep_float: tuple[str, ...] = ()
    force_int8: tuple[str, ...] = ()
    search: bool | None = None
    learn_rounding: bool = False
    data_root: Path = Path()
    force: bool = False
    allow_few: bool = False
    threads: int = os.cpu_count() or 1


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOutcome:
    """What came of it.

    Attributes:
        hash: the bundle's.
        gate: its result; None below INT8.
        plan: the precision plan; None below INT8.
        search: what the precision search tried; None where it did not run.
        sizes: precision to bytes of its model file.
    """

    hash: str
    gate: GateResult | None
    plan: Plan | None
    search: Search | None
    sizes: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Job:
    """Everything that was asked for, opened and found to be usable."""

    options: BuildOptions
    recipe: CalibRecipe
    recipe_name: Named
    method: Method
    target: Target
    target_name: Named
    data: tuple[Dataset, ...]
    gate: tuple[Dataset, ...]
    rig: Rig


def build(options: BuildOptions, say: Callable[[str], None]) -> BuildOutcome:
    """Build a bundle; it appears whole or not at all.

    Args:
        options: what the user asked for.
        say: called with a line before each step.

    Raises:
        FsmdeError: with what was wrong; a gate that failed is no error here, the bundle says so.
    """
    say("reading the recipe and its frames")
    job = _open(options)
    with new_bundle(options.out, force=options.force) as folder:
        say("reading the network")
        network = read_network(
            checkpoint=options.checkpoint,
            onnx=options.onnx,
            convention=options.convention,
            views=len(job.rig),
            size=job.recipe.size,
        )
        if network.size != job.recipe.size:
            say(f"the network takes {_by(network.size)}: the recipe's {_by(job.recipe.size)} does not count")
        pinholes = own_pinholes(job.rig, network.size[1], network.size[0])
        quantised = _quantise(network, job, pinholes, say) if options.precision == "int8" else None
        if quantised is not None:
            network = replace(network, model=quantised.fp32)
        models = _lower(network, quantised, options.precision)
        files = {name: folder / f"model.{name}.onnx" for name in models}
        for name, model in models.items():
            files[name].write_bytes(model_bytes(model))
        say("comparing with FP32 on frames that calibration did not see" if quantised else "golden frames")
        result, gallery = _judge(job, network, pinholes, files, folder)
        if quantised is not None:
            say("measuring how far right INT8 executions are apart")
            _write_decisions(quantised, folder, metric=network.kind == "metric", threads=options.threads)
        manifest = _manifest(job, network, pinholes, quantised, result, files)
        if result is not None:
            write_gate_report(folder / REPORTS, manifest, result, gallery)
        return BuildOutcome(
            hash=seal(folder, manifest),
            gate=result,
            plan=None if quantised is None else quantised.plan,
            search=None if quantised is None else quantised.search,
            sizes={name: path.stat().st_size for name, path in files.items()},
        )


def _open(options: BuildOptions) -> _Job:
    recipe, recipe_name = load_recipe(options.recipe)
    target, target_name = load_target(options.target)
    data, gate = (
        tuple(open_selection(s, size=recipe.size, root=options.data_root) for s in selections)
        for selections in (recipe.data, recipe.gate)
    )
    shared = {n for d in data for n in d.sample_names} & {n for d in gate for n in d.sample_names}
    if shared:
        raise InputError(
            f"the recipe calibrates and judges on the same frames ({sorted(shared)[0]})",
            where=options.recipe,
            hint="choose other samples for its 'gate'",
        )
    return _Job(
        options=options,
        recipe=recipe,
        recipe_name=recipe_name,
        method=_method(recipe.method, options),
        target=target,
        target_name=target_name,
        data=data,
        gate=gate,
        rig=data[0][0].rig,
    )


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _method(method: Method, options: BuildOptions) -> Method:
    """The recipe's way to INT8, and what the user asked for beside it."""
    return replace(
        method,
        keep_float=(*method.keep_float, *options.keep_float),
        force_int8=(*method.force_int8, *options.force_int8),
        search=method.search if options.search is None else options.search,
        learn_rounding=method.learn_rounding or options.learn_rounding,
    )


def _quantise(network: Network, job: _Job, pinholes: Pinholes, say: Callable[[str], None]) -> Quantised:
    frames = Frames(
        data=job.data,
        pinholes=pinholes,
        cameras=job.rig.names,
        budget=job.recipe.budget,
        max_depth=min(selection.max_depth for selection in job.recipe.data),
        allow_few=job.options.allow_few,
        recipe=job.options.recipe,
    )
    return quantise(
        network.model,
        network.kind,
        frames,
        job.method,
        job.target if job.target.modes else load_target(TIMED_FOR)[0],
        threads=job.options.threads,
        say=say,
    )


def _lower(network: Network, quantised: Quantised | None, precision: str) -> dict[str, ModelProto]:
    makers: dict[str, Callable[[], ModelProto]] = {
        "fp32": lambda: network.model,
        "fp16": lambda: to_half(network.model),
    }
    if quantised is not None:
        model = quantised.model
        refuse_violations(model, allow=PAID_FOR)
        makers |= {"int8": lambda: model, "int8-fp16": lambda: to_half(model)}
    return {name: makers[name]() for name in ASKED[precision]}


def _write_decisions(quantised: Quantised, folder: Path, *, metric: bool, threads: int) -> None:
    """Plan, ranges, what the search tried, and the bounds of the golden frames that lie there."""
    quantised.plan.save(folder / "plan.json")
    quantised.ranges.save(folder / "ranges.json")
    if quantised.search is not None:
        write_search_report(folder / REPORTS, quantised.search)
    golden = Golden.load(folder / "golden")
    bounds = golden_bounds(quantised.model, golden.images, golden.focal, metric=metric, threads=threads)
    bounds.save(folder / BOUNDS)


@np.errstate(all="ignore")  # what is not a number is judged, not warned of
def _judge(
    job: _Job, network: Network, pinholes: Pinholes, files: Mapping[str, Path], folder: Path
) -> tuple[GateResult | None, Gallery]:
    """Run the gate's frames through FP32 and exact INT8, and keep the first set as golden frames."""
    max_depth = min(selection.max_depth for selection in job.recipe.gate)
    gate = Gate(
        metric=network.kind == "metric",
        disparity=network.kind == "disparity",
        budget=job.recipe.budget,
        max_depth=max_depth,
    )
    gallery = Gallery()
    exact = {
        name: OnnxRuntimeSession(files[name], precision=name, threads=job.options.threads, exact=True)
        for name in ("fp32", "int8")
        if name in files
    }
    total = sum(len(dataset) for dataset in job.gate)
    for number, sample in enumerate(progress(samples_of(job.gate), what="judging", total=total)):
        images, focal = _input(sample, pinholes)
        depth = {name: session.infer(images, focal).depth for name, session in exact.items()}
        if number == 0:
            frame = sample.frame_set.frames[0]
            make_golden(images=images, focal=focal, depth=depth, frame=frame).save(folder / "golden")
        if "int8" not in depth:
            return None, gallery
        tiles = gate.add(sample, depth["fp32"], depth["int8"])
        gallery.add(tiles, images, depth["fp32"], depth["int8"])
    return gate.result(), gallery


def _input(sample: Sample, pinholes: Pinholes) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    if len(sample.rig) != len(pinholes):
        raise InputError(
            f"a frame set of {len(sample.rig)} views cannot judge a network of {len(pinholes)}",
            where=sample.frame_set.name,
            hint="choose frame sets of the full rig for the recipe's 'gate'",
        )
    return preprocess_set(
        sample.frame_set, sample.rig, own_pinholes(sample.rig, pinholes[0].width, pinholes[0].height)
    )


def _manifest(
    job: _Job,
    network: Network,
    pinholes: Pinholes,
    quantised: Quantised | None,
    result: GateResult | None,
    files: Mapping[str, Path],
) -> Manifest:
    calibration: dict[str, Any] = {}
    if quantised is not None:
        calibration = {
            "recipe": asdict(job.recipe_name),
            "calibrator": quantised.plan.calibrator,
            "method": asdict(job.method),
            "half_precision": [] if quantised.search is None else list(quantised.search.chosen.floats),
            "int8_mac_share": quantised.plan.int8_mac_share,
            "allow_few": job.options.allow_few,
            **quantised.survey.as_dict(),
        }
    return Manifest(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        version=fsmde_edge.__version__,
        precision=job.options.precision,
        models={name: files[name].name if name in files else None for name in PRECISIONS},
        views=pinholes,
        kind=network.kind,
        focal=network.focal,
        target=job.target_name.name,
        source=network.source,
        calibration=calibration,
        gate={} if result is None else {**result.as_dict(), "allow_few": job.options.allow_few},
        tools={**tool_versions(), "threads": job.options.threads},
        notices=(*network.notices, *job.recipe.notices),
    )


def tool_versions() -> dict[str, str]:
    """Versions of the packages that make a bundle; those not installed are absent."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("numpy", "onnx", "onnxruntime", "onnxsim", "opencv-python-headless", "torch"):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
