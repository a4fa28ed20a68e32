"""The training loop: AdamW, warm-up and cosine, averaged weights, exact resume."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fsmde_edge.distill.augment import SKY, Views, augment
from fsmde_edge.distill.data import ViewStore, draw_batch
from fsmde_edge.distill.losses import relative, silog, sky_hinge
from fsmde_edge.distill.recipe import TrainRecipe
from fsmde_edge.errors import InputError, writing
from fsmde_edge.files import atomic_write, make_folder
from fsmde_edge.student.checkpoint import load_checkpoint, load_exactly, read_safetensors
from fsmde_edge.student.config import STUDENTS
from fsmde_edge.student.network import Student

STATE_FILE = "state.pt"
LOG_FILE = "log.csv"
SAVE_EVERY = 500
NORM_BATCHES = 60
"""Batches over which batch-norm statistics are taken anew when a run goes on from a checkpoint."""


@dataclass(slots=True, eq=False)
class Run:
    """A training run in progress: everything that a resume needs."""

    student: Student
    averaged: Student
    optimiser: torch.optim.AdamW
    step: int = 0
    seconds: float = 0.0


def train(
    recipe: TrainRecipe,
    stores: tuple[ViewStore, ...],
    folder: Path,
    *,
    report: Callable[[str], None],
    save_every: int = SAVE_EVERY,
) -> Run:
    """Train a student, or go on where `folder` stopped.

    Args:
        recipe: what to do.
        stores: the rendered data, one a picture size.
        folder: keeps the state and log.csv; made if missing.
        report: called with a line at each save.
        save_every: steps between two saves.

    Returns:
        The finished run; `averaged` holds the weights to keep.

    Raises:
        InputError: the folder holds a run of another recipe, or the loss became NaN (the step is named).
    """
    make_folder(folder)
    run = _start(recipe, stores)
    _resume(run, recipe, folder / STATE_FILE)
    losses: list[float] = []
    start = time.monotonic()
    if recipe.freeze_norm:
        _freeze_norm(run.student)
    for step in range(run.step, recipe.steps):
        losses.append(_step(run, recipe, stores, step))
        run.step = step + 1
        if run.step % save_every == 0 or run.step == recipe.steps:
            run.seconds, start = run.seconds + time.monotonic() - start, time.monotonic()
            mean = sum(losses) / len(losses)
            losses.clear()
            _save(run, recipe, folder / STATE_FILE)
            _log(folder / LOG_FILE, run, mean)
            report(f"step {run.step}/{recipe.steps}: loss {mean:.4f}, {run.seconds / 60:.1f} min")
    run.averaged.eval()
    return run


def learning_rate(recipe: TrainRecipe, step: int) -> float:
    """Linear warm-up to the recipe's rate, then half a cosine to 1 % of it."""
    if step < recipe.warmup:
        return recipe.learning_rate * (step + 1) / recipe.warmup
    along = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * along)))


def _start(recipe: TrainRecipe, stores: tuple[ViewStore, ...]) -> Run:
    if recipe.student not in STUDENTS:
        raise InputError(f"no student is called {recipe.student}", hint=f"choose from {', '.join(STUDENTS)}")
    torch.manual_seed(recipe.seed)
    student = Student(STUDENTS[recipe.student])
    if recipe.init is not None:
        _take_imagenet(Path(recipe.init), student)
    student = student.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    if recipe.start is not None:
        _go_on_from(Path(recipe.start), student, recipe, stores)
    averaged = Student(student.config)
    averaged.load_state_dict(student.state_dict())
    optimiser = torch.optim.AdamW(list(_groups(student, recipe.weight_decay)), lr=recipe.learning_rate)
    return Run(student, averaged, optimiser)


def _take_imagenet(path: Path, student: Student) -> None:
    try:
        student.encoder.load_imagenet(read_safetensors(path)[0])
    except (KeyError, RuntimeError) as error:  # tensors of other names or shapes
        raise InputError(
            f"does not hold the weights of a ResNet-18 as wide as student {student.config.name}",
            where=path,
            hint="take the recipe's init out, or train student base",
        ) from error


def _go_on_from(path: Path, student: Student, recipe: TrainRecipe, stores: tuple[ViewStore, ...]) -> None:
    """Take a checkpoint's weights, and batch-norm statistics anew: their mean over batches of this recipe."""
    load_exactly(student, load_checkpoint(path)[0].state_dict(), where=path)
    norms = [module for module in student.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean
    with torch.no_grad():
        for number in range(NORM_BATCHES):
            views = _augmented(recipe, stores, step=recipe.steps + number)
            student(views.pictures, views.focal)
    for norm in norms:
        norm.momentum = 0.1


def _freeze_norm(student: Student) -> None:
    for module in student.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()


def _augmented(recipe: TrainRecipe, stores: tuple[ViewStore, ...], *, step: int) -> Views:
    """The batch of one step, from seed and step alone."""
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
    return augment(draw_batch(stores, seed=recipe.seed, step=step), recipe.augment, generator)


def _groups(student: Student, weight_decay: float) -> Iterator[dict[str, object]]:
    parameters = list(student.parameters())
    yield {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay}
    yield {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0}


def _step(run: Run, recipe: TrainRecipe, stores: tuple[ViewStore, ...], step: int) -> float:
    views = _augmented(recipe, stores, step=step)
    for group in run.optimiser.param_groups:
        group["lr"] = learning_rate(recipe, step)
    loss = _loss(run.student, views, recipe)
    if not math.isfinite(loss.item()):
        raise InputError(
            f"the loss is {loss.item()} at step {step} (batch seed {recipe.seed}, {step})",
            hint="lower the learning rate, or look at that batch",
        )
    run.optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(run.student.parameters(), recipe.clip)
    run.optimiser.step()
    _average(run, min(recipe.ema, (step + 1) / (step + 10)))
    return float(loss.item())


def _loss(student: Student, views: Views, recipe: TrainRecipe) -> Tensor:
    pictures = views.pictures.contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=recipe.mixed_precision):
        prediction = student(pictures, views.focal)
    depth = prediction.depth.float()
    loss = silog(depth, views.truth, forgive=recipe.silog_lambda)
    if recipe.relative_weight > 0:
        loss = loss + recipe.relative_weight * relative(depth, views.truth)
    return loss + recipe.sky_weight * sky_hinge(depth, views.truth == SKY)


@torch.no_grad()
def _average(run: Run, decay: float) -> None:
    for kept, new in zip(run.averaged.parameters(), run.student.parameters(), strict=True):
        kept.lerp_(new, 1 - decay)
    for buffer, current in zip(run.averaged.buffers(), run.student.buffers(), strict=True):
        buffer.copy_(current)


def _save(run: Run, recipe: TrainRecipe, path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(
        {
            "recipe": recipe.sha256,
            "student": run.student.state_dict(),
            "averaged": run.averaged.state_dict(),
            "optimiser": run.optimiser.state_dict(),
            "step": run.step,
            "seconds": run.seconds,
        },
        buffer,
    )
    atomic_write(path, buffer.getvalue())


def _resume(run: Run, recipe: TrainRecipe, path: Path) -> None:
    if not path.exists():
        return
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["recipe"] != recipe.sha256:
            raise InputError(
                "holds a run of another recipe", where=path.parent, hint="give another --out folder"
            )
        load_exactly(run.student, state["student"], where=path)
        load_exactly(run.averaged, state["averaged"], where=path)
        run.optimiser.load_state_dict(state["optimiser"])
        run.step, run.seconds = int(state["step"]), float(state["seconds"])
    except InputError:
        raise
    except Exception as error:  # broken bytes lead the reader anywhere
        raise InputError(
            "is not a training state that can be read", where=path, hint="remove it to start afresh"
        ) from error


def _log(path: Path, run: Run, loss: float) -> None:
    fresh = not path.is_file()
    with writing(path), path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if fresh:
            writer.writerow(("step", "loss", "seconds"))
        writer.writerow((run.step, f"{loss:.6f}", f"{run.seconds:.1f}"))
