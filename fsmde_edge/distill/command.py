"""A training run from recipe to checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

import fsmde_edge
from fsmde_edge.distill.data import TrainingSet, open_training_set
from fsmde_edge.distill.lessons import CachedLessons, prepare_lessons
from fsmde_edge.distill.parallel import Team, team
from fsmde_edge.distill.recipe import TrainRecipe, load_train_recipe
from fsmde_edge.distill.shards import default_cache
from fsmde_edge.distill.teachers.base import Teacher
from fsmde_edge.distill.teachers.cache import default_root
from fsmde_edge.distill.teachers.load import load_teacher
from fsmde_edge.distill.trainer import LOG_FILE, STATE_FILE, Course, train
from fsmde_edge.errors import InputError, UsageError
from fsmde_edge.files import check_writable
from fsmde_edge.recipes import PACKAGE
from fsmde_edge.student.checkpoint import load_checkpoint, read_safetensors, save_checkpoint

RECIPES = PACKAGE / "distill" / "recipes"
CHECKPOINT = "student.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """What the user asked for.

    Attributes:
        recipe: a path or a shipped name.
        out: folder of state, log and checkpoint.
        data_root: folder that the recipe's recordings are relative to.
        cache: folder of prepared frame sets and of teachers' outputs; None for the user's cache.
        render_workers: processes that prepare frame sets.
        threads: of PyTorch.
        device: `cpu`, `cuda` or `auto`.
        taught: whether a recipe may name a teacher.
    """

    recipe: str
    out: Path
    data_root: Path = Path()
    cache: Path | None = None
    render_workers: int = 1
    threads: int = 1
    device: str = "auto"
    taught: bool = True


def train_student(options: TrainOptions, say: Callable[[str], None]) -> Path:
    """Train, or go on where `out` stopped; under `torchrun` with all its processes.

    Returns:
        The checkpoint's path.

    Raises:
        InputError: no such recipe, data, teacher or weights, or `out` holds a run of another recipe.
    """
    recipe = find_recipe(options.recipe)
    if recipe.teacher is not None and not options.taught:
        raise UsageError(f"recipe {options.recipe} asks a teacher", hint="run: fsmde-edge distill")
    for weights in (recipe.init, recipe.start):
        if weights is not None:
            read_safetensors(Path(weights))
    for name in (STATE_FILE, LOG_FILE, CHECKPOINT):
        check_writable(options.out / name)
    torch.set_num_threads(options.threads)
    path = options.out / CHECKPOINT
    with team(options.device) as crew:
        tell = say if crew.leads else _silent
        teacher = None if recipe.teacher is None else load_teacher(recipe.teacher, crew.device)
        with crew.leader_first():
            data, lessons = prepare(recipe, options, teacher, tell)
        run = train(Course(recipe, data, crew, lessons), options.out, report=tell)
        if crew.leads:
            made = _made(options, recipe, run.seconds, teacher, crew)
            save_checkpoint(path, run.averaged, made=made)
            say(f"student: {path}")
    return path


def prepare(
    recipe: TrainRecipe, options: TrainOptions, teacher: Teacher | None, say: Callable[[str], None]
) -> tuple[TrainingSet, CachedLessons | None]:
    """A recipe's frame sets and what the teacher says of them, made where they are missing."""
    began = time.monotonic()
    data = open_training_set(
        recipe,
        root=options.data_root,
        cache=options.cache or default_cache(),
        workers=options.render_workers,
    )
    say(f"{len(data)} frame sets ready after {(time.monotonic() - began) / 60:.1f} min")
    if teacher is None:
        return data, None
    root = default_root() if options.cache is None else options.cache / "teachers"
    lessons = prepare_lessons(data, teacher, root)
    say(f"teacher {teacher.name} has seen them after {(time.monotonic() - began) / 60:.1f} min")
    return data, lessons


def find_recipe(name: str) -> TrainRecipe:
    """Read a recipe by path or shipped name.

    Raises:
        InputError: neither exists, or it cannot be read; shipped names are listed.
    """
    shipped = {path.stem: path for path in RECIPES.rglob("*.yaml")}
    if Path(name).is_file():
        return load_train_recipe(Path(name))
    if name.removesuffix(".yaml") in shipped:
        return load_train_recipe(shipped[name.removesuffix(".yaml")])
    names = ", ".join(sorted(shipped))
    raise InputError("no such training recipe", where=name, hint=f"give a path, or one of: {names}")


def _silent(_line: str) -> None:
    """Only the leading process speaks."""


def _made(
    options: TrainOptions, recipe: TrainRecipe, seconds: float, teacher: Teacher | None, crew: Team
) -> dict[str, object]:
    """How the student was made; what travels in its metadata."""
    taught = None
    if teacher is not None:
        taught = {
            "name": teacher.name,
            "fingerprint": teacher.fingerprint,
            "parameters": teacher.parameters,
        }
    command = "train" if recipe.teacher is None else "distill"
    return {
        "command": f"fsmde-edge {command} {options.recipe} --threads {options.threads}",
        "recipe": asdict(recipe),
        "recipe_sha256": recipe.sha256,
        "minutes": round(seconds / 60, 1),
        "processes": crew.size,
        "teacher": taught,
        "started_from": None if recipe.start is None else load_checkpoint(Path(recipe.start))[1],
        "fsmde_edge": fsmde_edge.__version__,
        "torch": torch.__version__,
    }
