"""The training loop: AdamW, warm-up and cosine, averaged weights, exact resume, one process or several."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from fsmde_edge.distill.augment import augment
from fsmde_edge.distill.batch import SetBatch, TeacherViews, alone
from fsmde_edge.distill.data import Draw, TrainingSet
from fsmde_edge.distill.labels import keep_labels
from fsmde_edge.distill.learner import Learner
from fsmde_edge.distill.parallel import Team
from fsmde_edge.distill.qat import FakeQuantisation, plain, read_plan
from fsmde_edge.distill.recipe import TrainRecipe
from fsmde_edge.errors import InputError, UsageError, writing
from fsmde_edge.files import atomic_write, make_folder
from fsmde_edge.progress import progress
from fsmde_edge.student.checkpoint import load_checkpoint, load_exactly, read_safetensors
from fsmde_edge.student.config import STUDENTS
from fsmde_edge.student.network import Student

STATE_FILE = "state.pt"
LOG_FILE = "log.csv"
SAVE_EVERY = 500
NORM_BATCHES = 60
"""Batches over which batch-norm statistics are taken anew when a run goes on from a checkpoint."""


class Lessons(Protocol):
    """What a teacher says of training pictures."""

    @property
    def channels(self) -> int:
        """Of the teacher's features."""

    def of(self, draw: Draw) -> TeacherViews:
        """Of the pictures of a batch, as they are stored: before augmentation."""


@dataclass(frozen=True, slots=True, eq=False)
class Course:
    """What a run learns from, and where it runs.

    Attributes:
        recipe: what to do.
        data: the frame sets.
        lessons: the teacher's; None where the recipe names none.
        team: the processes.
    """

    recipe: TrainRecipe
    data: TrainingSet
    team: Team
    lessons: Lessons | None = None


@dataclass(slots=True, eq=False)
class Run:
    """A training run in progress: everything that a resume needs."""

    learner: Learner
    averaged: Student
    optimiser: torch.optim.AdamW
    step: int = 0
    seconds: float = 0.0
    wrapped: nn.Module = field(init=False)

    def __post_init__(self) -> None:
        self.wrapped = self.learner

    @property
    def student(self) -> Student:
        """The student in training."""
        return self.learner.student


def train(
    course: Course, folder: Path, *, report: Callable[[str], None], save_every: int = SAVE_EVERY
) -> Run:
    """Train a student, or go on where `folder` stopped.

    Args:
        course: recipe, data, teacher and processes.
        folder: keeps the state and log.csv; made if missing.
        report: called with a line at each save.
        save_every: steps between two saves.

    Returns:
        The finished run; `averaged` holds the weights to keep.

    Raises:
        InputError: the folder holds a run of another recipe, or the loss became NaN (the frame set is named).
    """
    recipe, leads = course.recipe, course.team.leads
    make_folder(folder)
    run = start(course)
    _resume(run, course, folder / STATE_FILE)
    if course.team.size > 1:
        run.wrapped = nn.parallel.DistributedDataParallel(run.learner)
    ledger, clock = _Ledger(), time.monotonic()
    for step in _steps(run, recipe, quiet=not leads):
        ledger.add(take_step(run, course, step))
        run.step = step + 1
        if run.step % save_every == 0 or run.step == recipe.steps:
            run.seconds, clock = run.seconds + time.monotonic() - clock, time.monotonic()
            means = ledger.close()
            if leads:
                _save(run, recipe, folder / STATE_FILE)
                _log(folder / LOG_FILE, run, means)
                report(f"step {run.step}/{recipe.steps}: {_told(means)}, {run.seconds / 60:.1f} min")
    run.averaged.eval()
    return run


def learning_rate(recipe: TrainRecipe, step: int) -> float:
    """Linear warm-up to the recipe's rate, then half a cosine to 1 % of it."""
    if step < recipe.warmup:
        return recipe.learning_rate * (step + 1) / recipe.warmup
    along = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * along)))


def start(course: Course) -> Run:
    """A run at step 0.

    Raises:
        InputError: no such student, or weights to start from that are not this student's.
    """
    recipe, device = course.recipe, course.team.device
    if recipe.student not in STUDENTS:
        raise InputError(f"no student is called {recipe.student}", hint=f"choose from {', '.join(STUDENTS)}")
    torch.manual_seed(recipe.seed)
    student = Student(STUDENTS[recipe.student])
    if recipe.init is not None:
        _take_imagenet(Path(recipe.init), student)
    student = student.to(device=device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    if recipe.start is not None:
        _go_on_from(Path(recipe.start), student, course)
    averaged = Student(student.config).to(device)
    averaged.load_state_dict(student.state_dict())
    channels = 0 if course.lessons is None else course.lessons.channels
    quantisation = None
    if recipe.quantise is not None and recipe.start is not None:
        plan = read_plan(Path(recipe.quantise.bundle), Path(recipe.start))
        quantisation = FakeQuantisation.of(student, plan)
    learner = Learner(
        student,
        recipe,
        teacher_channels=channels,
        total=course.team.total,
        quantisation=quantisation,
    ).to(device)
    if recipe.freeze_norm:
        freeze_norm(student)
    optimiser = torch.optim.AdamW(list(_groups(learner, recipe.weight_decay)), lr=recipe.learning_rate)
    return Run(learner, averaged, optimiser)


def take_step(run: Run, course: Course, step: int) -> Mapping[str, float]:
    """One optimiser step on this process's part of the global batch; returns its losses by name.

    Raises:
        InputError: a loss is not finite; names the frame set.
    """
    batch, teacher = lesson(course, step)
    for group in run.optimiser.param_groups:
        group["lr"] = learning_rate(course.recipe, step)
    losses: dict[str, Tensor] = run.wrapped(batch, teacher)
    loss = torch.stack(list(losses.values())).sum()
    if not math.isfinite(loss.item()):
        raise _not_finite(run, course, step, loss.item())
    run.optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(run.learner.parameters(), course.recipe.clip)
    run.optimiser.step()
    _average(run, min(course.recipe.ema, (step + 1) / (step + 10)))
    return {name: float(value.detach()) for name, value in losses.items()}


def lesson(course: Course, step: int, *, only: int | None = None) -> tuple[SetBatch, TeacherViews | None]:
    """This process's part of a step's batch, augmented; from seed and step alone.

    Args:
        course: what is learnt from.
        step: the step.
        only: one frame set of the global batch, by its place in it, instead of this process's part.
    """
    recipe = course.recipe
    whole = course.data.draw(seed=recipe.seed, step=step)
    places = course.team.part(range(len(whole.indices))) if only is None else [only]
    if not places:
        raise UsageError(
            f"a batch of {len(whole.indices)} frame sets does not feed {course.team.size} processes",
            hint="raise sets_per_batch in the recipe, or start fewer",
        )
    draw = Draw(whole.store, tuple(whole.indices[place] for place in places))
    batch = keep_labels(whole.store.batch(draw.indices), recipe.labels, draw)
    teacher = None if course.lessons is None else course.lessons.of(draw)
    seeds = [(recipe.seed * 1_000_003 + step) * 1_009 + place for place in places]
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    batch, teacher = augment(batch, teacher, recipe.augment, generators)
    device = course.team.device
    moved = None if teacher is None else TeacherViews(*(part.to(device) for part in teacher))
    return SetBatch(*(part.to(device) for part in batch)), moved


def freeze_norm(student: Student) -> None:
    """Keep the batch-norm statistics as they are."""
    for module in student.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


@dataclass(slots=True, eq=False)
class _Ledger:
    """Losses of the steps since the last save."""

    entries: list[Mapping[str, float]] = field(default_factory=list)

    def add(self, losses: Mapping[str, float]) -> None:
        self.entries.append(losses)

    def close(self) -> Mapping[str, float]:
        """Their means; the next page is empty."""
        means = {name: sum(e[name] for e in self.entries) / len(self.entries) for name in self.entries[0]}
        self.entries.clear()
        return means


def _steps(run: Run, recipe: TrainRecipe, *, quiet: bool) -> Iterator[int]:
    steps = range(run.step, recipe.steps)
    return iter(steps) if quiet else progress(steps, total=len(steps), what="training")


def _take_imagenet(path: Path, student: Student) -> None:
    try:
        student.encoder.load_imagenet(read_safetensors(path)[0])
    except (KeyError, RuntimeError) as error:  # tensors of other names or shapes
        raise InputError(
            f"does not hold the weights of a ResNet-18 as wide as student {student.config.name}",
            where=path,
            hint="take the recipe's init out, or train student base",
        ) from error


def _go_on_from(path: Path, student: Student, course: Course) -> None:
    """Take a checkpoint's weights, and batch-norm statistics anew: their mean over batches of this recipe.

    A finish in INT8 arithmetic keeps them: the bundle's plan is of the network as it is.
    """
    load_exactly(student, load_checkpoint(path)[0].state_dict(), where=path)
    if course.recipe.quantise is not None:
        return
    norms = [module for module in student.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean
    alone = Course(course.recipe, course.data, Team(0, 1, course.team.device))
    with torch.no_grad():
        for number in range(NORM_BATCHES):
            batch, _ = lesson(alone, course.recipe.steps + number)
            student(batch.pictures.flatten(0, 1), batch.focal.flatten())
    for norm in norms:
        norm.momentum = 0.1


def _groups(learner: Learner, weight_decay: float) -> Iterator[dict[str, object]]:
    parameters = list(learner.parameters())
    yield {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay}
    yield {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0}


def _not_finite(run: Run, course: Course, step: int, loss: float) -> InputError:
    """Find the frame set that spoils a batch."""
    whole = course.data.draw(seed=course.recipe.seed, step=step)
    for place in course.team.part(range(len(whole.indices))):
        batch, teacher = lesson(course, step, only=place)
        with torch.no_grad():
            losses = run.learner(batch, teacher, total=alone)
        if not all(math.isfinite(float(value)) for value in losses.values()):
            return InputError(
                f"the loss is {loss} at step {step}",
                where=whole.store.source.name(whole.indices[place]),
                hint="look at that frame set, or lower the learning rate",
            )
    return InputError(
        f"the loss is {loss} at step {step}, though no frame set alone makes it so",
        hint="lower the learning rate",
    )


@torch.no_grad()
def _average(run: Run, decay: float) -> None:
    current = plain(run.student)
    for name, kept in run.averaged.named_parameters():
        kept.lerp_(current[name], 1 - decay)
    for name, buffer in run.averaged.named_buffers():
        buffer.copy_(current[name])


def _save(run: Run, recipe: TrainRecipe, path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(
        {
            "recipe": recipe.sha256,
            "learner": run.learner.state_dict(),
            "averaged": run.averaged.state_dict(),
            "optimiser": run.optimiser.state_dict(),
            "step": run.step,
            "seconds": run.seconds,
        },
        buffer,
    )
    atomic_write(path, buffer.getvalue())


def _resume(run: Run, course: Course, path: Path) -> None:
    if not path.exists():
        return
    try:
        state = torch.load(path, map_location=course.team.device, weights_only=True)
        if state["recipe"] != course.recipe.sha256:
            raise InputError(
                "holds a run of another recipe", where=path.parent, hint="give another --out folder"
            )
        load_exactly(run.learner, state["learner"], where=path)
        load_exactly(run.averaged, state["averaged"], where=path)
        run.optimiser.load_state_dict(state["optimiser"])
        run.step, run.seconds = int(state["step"]), float(state["seconds"])
    except InputError:
        raise
    except Exception as error:  # broken bytes lead the reader anywhere
        raise InputError(
            "is not a training state that can be read", where=path, hint="remove it to start afresh"
        ) from error


def _told(means: Mapping[str, float]) -> str:
    whole = f"loss {sum(means.values()):.4f}"
    parts = ", ".join(f"{name} {value:.4f}" for name, value in means.items())
    return whole if len(means) == 1 else f"{whole} ({parts})"


def _log(path: Path, run: Run, means: Mapping[str, float]) -> None:
    fresh = not path.is_file()
    with writing(path), path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if fresh:
            writer.writerow(("step", "loss", *means, "seconds"))
        losses = (sum(means.values()), *means.values())
        writer.writerow((run.step, *(f"{value:.6f}" for value in losses), f"{run.seconds:.1f}"))
