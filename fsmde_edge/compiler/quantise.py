"""The middle of the chain: an FP32 network and its calibration frames to a Q/DQ network and its plan.

equalise (if asked) → calibrate → choose ranges → search what stays float → lower → reconstruct (if asked)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from fsmde_edge.compiler.calibrate import Ranges, calibrate
from fsmde_edge.compiler.choose import choose_ranges
from fsmde_edge.compiler.equalise import channel_limits, equalise, find_links, link_tensors
from fsmde_edge.compiler.frames import Survey, batches
from fsmde_edge.compiler.histogram import CALIBRATORS
from fsmde_edge.compiler.lowering import tensorrt
from fsmde_edge.compiler.plan import Plan, PlanOptions, refuse_idle
from fsmde_edge.compiler.reconstruct import Reconstruction, reconstruct
from fsmde_edge.compiler.search import Search, search_precision
from fsmde_edge.compiler.sensitivity import Effect
from fsmde_edge.compiler.trial import Trial, make_trial
from fsmde_edge.datasets.base import Dataset
from fsmde_edge.datasets.selection import samples_of
from fsmde_edge.errors import InputError
from fsmde_edge.evaluation.gate import GateBudget
from fsmde_edge.progress import progress
from fsmde_edge.rig import VirtualPinhole
from fsmde_edge.targets import Target

if TYPE_CHECKING:
    from onnx import ModelProto

Calibrator = Literal[
    "measured", "measured-each", "max", "percentile-99.9", "percentile", "percentile-99.999", "entropy", "mse"
]
SAME = 1e-4
"""Equalisation moves factors between layers; depth may change by rounding alone, by less than this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """How a network becomes INT8.

    Attributes:
        calibrator: how a histogram becomes a range; `measured` is the one of least depth error,
            `measured-each` also tries the others for each tensor.
        keep_float, force_int8: patterns (fnmatch) of node names that overrule the placement.
        search: put blocks into half precision until the trial's budget holds.
        equalise: move factors between layers first.
        correct_bias: afterwards.
        learn_rounding: afterwards; slow.
    """

    calibrator: Calibrator = "measured"
    keep_float: tuple[str, ...] = ()
    force_int8: tuple[str, ...] = ()
    search: bool = True
    equalise: bool = False
    correct_bias: bool = False
    learn_rounding: bool = False

    def __post_init__(self) -> None:
        both = sorted(set(self.keep_float) & set(self.force_int8))
        if both:
            raise InputError(
                f"keep_float and force_int8 both name '{both[0]}'", hint="name it in one of them"
            )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frames:
    """What calibrates.

    Attributes:
        data: data sets, the first sample of the first one has the full rig.
        pinholes: the bundle's views.
        cameras: their names, in ring order.
        budget: the gate's.
        max_depth: LiDAR counts up to this many metres.
        allow_few: accept few pictures.
        recipe: its name, for messages.
    """

    data: Sequence[Dataset]
    pinholes: tuple[VirtualPinhole, ...]
    cameras: tuple[str, ...]
    budget: GateBudget
    max_depth: float
    allow_few: bool
    recipe: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Quantised:
    """What came of it.

    Attributes:
        fp32: the network that was quantised: as given, or equalised.
        model: its Q/DQ form, float32 where it is not INT8.
        plan, ranges: its plan, and what calibration saw.
        survey: which pictures calibration saw.
        calibrators: calibrator to its effect on the whole network, where they were compared.
        search: what the precision search tried, where it ran.
    """

    fp32: ModelProto
    model: ModelProto
    plan: Plan
    ranges: Ranges
    survey: Survey
    calibrators: Mapping[str, Effect]
    search: Search | None


def quantise(
    model: ModelProto,
    kind: str,
    frames: Frames,
    method: Method,
    target: Target,
    *,
    threads: int,
    say: Callable[[str], None],
) -> Quantised:
    """Quantise a network.

    Args:
        model: a tidy FP32 model that keeps the model contract.
        kind: of its output: metric, relative, disparity.
        frames: what calibrates.
        method: how.
        target: whose time the search counts.
        threads: of everything that computes.
        say: called with a line at each step.

    Errors:
        InputError: no, too few or unknown frames; a pattern that matches nothing; nothing left to quantise.
    """

    def trial_of(network: ModelProto) -> Trial:
        return make_trial(
            network,
            frames.data,
            frames.pinholes,
            frames.budget,
            kind=kind,
            max_depth=frames.max_depth,
            threads=threads,
        )

    options = PlanOptions(keep_float=method.keep_float, force_int8=method.force_int8)
    refuse_idle(method.force_int8, options.place(model))  # before any work
    trial: Trial | None = None
    if method.equalise:
        trial = trial_of(model)
        model = _equalised(model, trial, say)
    ranges, survey = _calibrate(model, frames, options, threads, say)
    calibrators: Mapping[str, Effect] = {}
    if method.calibrator in CALIBRATORS:
        options = replace(options, calibrator=method.calibrator)
    else:
        say("choosing the calibrator")
        trial = trial or trial_of(model)
        options, calibrators = _choose(model, ranges, options, trial, each=method.calibrator != "measured")
        say(f"calibrator {options.calibrator} of {len(calibrators)}, by depth error")
    what = Reconstruction(rounding=method.learn_rounding, bias=method.correct_bias)

    finished: dict[Plan, ModelProto] = {}  # the search has finished the plan that it chose

    def finish(lowered: ModelProto, plan: Plan) -> ModelProto:
        if not (what.rounding or what.bias):
            return lowered
        if plan not in finished:
            feeds = (trial or trial_of(model)).feeds
            finished[plan] = reconstruct(model, lowered, plan, feeds, what, threads=threads)
        return finished[plan]

    search = None
    if method.search:
        say("searching what must stay in half precision")
        trial = trial or trial_of(model)
        search = search_precision(model, ranges, options, trial, target, finish=finish)
        options = search.options
    plan = options.plan(model, ranges)
    if what.rounding or what.bias:
        say("learning how to round" if what.rounding else "correcting biases")
    lowered = finish(tensorrt.lower(model, plan), plan)
    return Quantised(
        fp32=model,
        model=lowered,
        plan=plan,
        ranges=ranges,
        survey=survey,
        calibrators=calibrators,
        search=search,
    )


def _calibrate(
    model: ModelProto, frames: Frames, options: PlanOptions, threads: int, say: Callable[[str], None]
) -> tuple[Ranges, Survey]:
    survey = Survey(frames.cameras)
    total = sum(len(dataset) for dataset in frames.data)
    say(f"calibrating on {total} frame sets")
    samples = progress(samples_of(frames.data), what="calibrating", total=total)
    ranges = calibrate(
        model, batches(samples, frames.pinholes, survey), options.place(model).calibrate, threads=threads
    )
    survey.require_enough(allow_few=frames.allow_few, where=frames.recipe)
    seen = ", ".join(f"{camera} {count}" for camera, count in survey.views.items())
    say(f"calibration saw {seen}; {survey.different} pictures that do not look alike")
    for camera in survey.unseen:
        say(f"warning: no calibration frame shows camera {camera}")
    return ranges, survey


def _equalised(model: ModelProto, trial: Trial, say: Callable[[str], None]) -> ModelProto:
    links = find_links(model)
    say(f"equalising the channels of {len(links)} convolutions")
    limits = channel_limits(model, link_tensors(links), trial.feeds, threads=trial.threads)
    result = equalise(model, limits)
    change = trial.effect(trial.run(result)).error
    if change > SAME:
        raise InputError(
            f"equalisation changes the network's depth by {change:.2%}", hint="build without 'equalise'"
        )
    return result


def _choose(
    model: ModelProto, ranges: Ranges, options: PlanOptions, trial: Trial, *, each: bool
) -> tuple[PlanOptions, Mapping[str, Effect]]:
    """The calibrator of least depth error; `each`, also the best one of every scale-sharing group."""
    if each:
        choice = choose_ranges(
            model, ranges, options, trial.feeds, metric=trial.metric, threads=trial.threads
        )
        return choice.options, choice.whole
    tried = {name: replace(options, calibrator=name) for name in CALIBRATORS}
    effects = {
        name: trial.effect(trial.run(tensorrt.lower(model, candidate.plan(model, ranges))))
        for name, candidate in tried.items()
    }
    return tried[min(effects, key=lambda name: effects[name].error)], effects
