"""What each part of the method is worth: every method with the same data, steps, trials and seeds.

Three passes over one recipe: `tune` tries every method's settings on the dev split with one seed; `dev`
trains each method's best setting with all seeds and scores it on dev; `final` scores those students on the
test split, once: a result that is there is never made again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from fsmde_edge.datasets.selection import Selection, open_selection
from fsmde_edge.distill.command import TrainOptions, prepare
from fsmde_edge.distill.evaluate import Score, evaluate
from fsmde_edge.distill.methods.recipe import MethodRecipe
from fsmde_edge.distill.parallel import Team, team
from fsmde_edge.distill.recipe import LabelsRecipe, TrainRecipe
from fsmde_edge.distill.teachers.load import load_teacher
from fsmde_edge.distill.teachers.recipe import TeacherRecipe
from fsmde_edge.distill.trainer import Course, train
from fsmde_edge.errors import InputError
from fsmde_edge.files import atomic_write, check_writable
from fsmde_edge.recipes import from_mapping, read_yaml

Pass = Literal["tune", "dev", "final"]

TUNING_SEED = 1000
"""Of no run that counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A method that takes part.

    Attributes:
        trials: settings among which the dev split chooses.
        seeds: runs of the best.
        labels: amounts of ground truth, by their names in the recipe, besides `full`.
    """

    trials: tuple[MethodRecipe, ...]
    seeds: int
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AblationRecipe:
    """A comparison of methods.

    Attributes:
        version: of this file format; 1.
        train: what all share; its method and seed are each run's own.
        teacher: of every method that has one.
        contenders: method to how it takes part; all have as many trials.
        labels: name to an amount of ground truth.
        dev, test: synthetic streets that settings are chosen on, and that count; seeds fixed beforehand.
    """

    version: int
    train: TrainRecipe
    teacher: TeacherRecipe
    contenders: Mapping[str, Contender]
    dev: Selection
    test: Selection
    labels: Mapping[str, LabelsRecipe]

    def __post_init__(self) -> None:
        if self.version != 1:
            raise InputError(f"ablation recipe version {self.version} is not known", hint="update fsmde-edge")
        if len(self.train.streets) != 1 or self.train.recordings:
            raise InputError("an ablation trains on one source of streets", hint="keep one")
        if len({len(contender.trials) for contender in self.contenders.values()}) != 1:
            raise InputError("methods have different numbers of trials", hint="give all as many")
        for name, contender in self.contenders.items():
            if not contender.trials or contender.seeds < 1:
                raise InputError(f"method {name} needs a trial and a seed", hint="add one")
            if any(trial.name != name for trial in contender.trials):
                raise InputError(f"a trial under {name} is of another method", hint="move it")
            for labels in contender.labels:
                if labels not in self.labels:
                    raise InputError(f"no amount of labels is called {labels}", hint="add it under labels")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of all pictures."""
        return self.train.streets[0].size


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run.

    Attributes:
        method: its name and settings.
        labels: name of the amount of ground truth.
        seed: of weights, batches and augmentation.
        trial: number of the setting.
    """

    method: MethodRecipe
    labels: str
    seed: int
    trial: int

    @property
    def name(self) -> str:
        """Of its result: method, labels, seed."""
        return f"{self.method.name}-{self.labels}-{self.seed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AblationOptions:
    """What the user asked for.

    Attributes:
        recipe: a YAML file.
        which: the pass.
        only: methods to run; all if empty.
        work: folder of training states and students.
        out: folder of results.
        commit: of this program, for the record.
        train: threads, workers, cache and device.
    """

    recipe: Path
    which: Pass
    only: tuple[str, ...]
    work: Path
    out: Path
    commit: str
    train: TrainOptions


def load_ablation(path: Path) -> AblationRecipe:
    """Read a recipe.

    Raises:
        InputError: missing, not YAML, or impossible.
    """
    return from_mapping(AblationRecipe, read_yaml(path), where=path)


def ablate(options: AblationOptions, say: Callable[[str], None]) -> None:
    """Do a pass; what is done is not done again, what was cut off goes on.

    Raises:
        InputError: the recipe, or results of an earlier pass that are missing.
    """
    recipe = load_ablation(options.recipe)
    unknown = sorted(set(options.only) - set(recipe.contenders))
    if unknown:
        raise InputError(
            f"no method here is called {unknown[0]}", hint=f"known: {', '.join(recipe.contenders)}"
        )
    check_writable(options.out / "result.json")
    torch.set_num_threads(options.train.threads)
    with team(options.train.device) as crew:
        for job in _jobs(recipe, options):
            result = _result_path(options, job)
            if not result.exists():
                record = _run(job, recipe, options, crew)
                atomic_write(result, (json.dumps(record, indent=1) + "\n").encode())
                say(f"{result.stem}: Abs Rel {record['abs_rel']:.4f}")


def train_recipe(recipe: AblationRecipe, job: Job) -> TrainRecipe:
    """What one run trains by."""
    return replace(
        recipe.train,
        method=job.method,
        seed=job.seed,
        teacher=recipe.teacher if job.method.needs_teacher else None,
        labels=recipe.labels.get(job.labels, LabelsRecipe()),
    )


def _jobs(recipe: AblationRecipe, options: AblationOptions) -> Iterator[Job]:
    """A pass's runs, seeds outermost: what is cut short has every method equally often."""
    chosen = {n: c for n, c in recipe.contenders.items() if not options.only or n in options.only}
    if options.which == "tune":
        for trial in range(len(next(iter(recipe.contenders.values())).trials)):
            for contender in chosen.values():
                yield Job(method=contender.trials[trial], labels="full", seed=TUNING_SEED, trial=trial)
        return
    for seed in range(max(contender.seeds for contender in chosen.values())):
        for contender in chosen.values():
            if seed < contender.seeds:
                best = _best(contender, options)
                for labels in ("full", *contender.labels):
                    yield Job(method=contender.trials[best], labels=labels, seed=seed, trial=best)


def _best(contender: Contender, options: AblationOptions) -> int:
    """The trial that was best on dev."""
    scores = []
    for number, trial in enumerate(contender.trials):
        job = Job(method=trial, labels="full", seed=TUNING_SEED, trial=number)
        path = _result_path(replace(options, which="tune"), job)
        if len(contender.trials) > 1 and not path.is_file():
            raise InputError(
                "this trial was not run", where=path, hint="run 'fsmde-edge ablate --tune' first"
            )
        scores.append(json.loads(path.read_text())["abs_rel"] if path.is_file() else 0.0)
    return scores.index(min(scores))


def _result_path(options: AblationOptions, job: Job) -> Path:
    if options.which == "tune":
        return options.out / "tune" / f"{job.method.name}-{job.trial}.json"
    folder = options.out / "dev" if options.which == "dev" else options.out
    return folder / f"{job.name}.json"


def _run(job: Job, recipe: AblationRecipe, options: AblationOptions, crew: Team) -> dict[str, Any]:
    own = train_recipe(recipe, job)
    teacher = None if own.teacher is None else load_teacher(own.teacher, crew.device)
    data, lessons = prepare(own, options.train, teacher, _silent)
    folder = options.work / (f"tune-{job.method.name}-{job.trial}" if options.which == "tune" else job.name)
    if options.which == "final" and not (folder / "state.pt").is_file():
        raise InputError("this run was not trained", where=folder, hint="run 'fsmde-edge ablate' first")
    run = train(Course(own, data, crew, lessons), folder, report=_silent, save_every=200)
    selection = recipe.test if options.which == "final" else recipe.dev
    dataset = open_selection(selection, size=recipe.size, root=Path())
    score = evaluate(run.averaged, dataset, size=recipe.size, team=crew, max_depth=selection.max_depth)
    taught = None if teacher is None else teacher.fingerprint
    return {**_record(job, own, options, run.seconds, score), "teacher": taught}


def _record(
    job: Job, own: TrainRecipe, options: AblationOptions, seconds: float, score: Score
) -> dict[str, Any]:
    return {
        "method": job.method.name,
        "labels": job.labels,
        "seed": job.seed,
        "settings": asdict(job.method),
        "recipe_sha256": own.sha256,
        "commit": options.commit,
        "steps": own.steps,
        "seconds": round(seconds, 1),
        "split": "test" if options.which == "final" else "dev",
        **asdict(score),
    }


def _silent(_line: str) -> None:
    """A run among many says nothing of itself."""
