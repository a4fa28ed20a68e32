"""A training run from recipe to checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

import fsmde_edge
from fsmde_edge.distill.data import default_cache, open_store
from fsmde_edge.distill.recipe import TrainRecipe, load_train_recipe
from fsmde_edge.distill.trainer import LOG_FILE, STATE_FILE, train
from fsmde_edge.errors import InputError
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
        cache: folder of rendered scenes; None for the user's cache.
        render_workers: processes that render.
        threads: of PyTorch.
    """

    recipe: str
    out: Path
    cache: Path | None
    render_workers: int
    threads: int


def train_student(options: TrainOptions, say: Callable[[str], None]) -> Path:
    """Train, or go on where `out` stopped; returns the checkpoint's path.

    Raises:
        InputError: no such recipe, or `out` holds a run of another one.
    """
    recipe = load_train_recipe(_find(options.recipe))
    for start in (recipe.init, recipe.start):
        if start is not None:
            read_safetensors(Path(start))
    for name in (STATE_FILE, LOG_FILE, CHECKPOINT):
        check_writable(options.out / name)
    torch.set_num_threads(options.threads)
    began = time.monotonic()
    stores = tuple(
        open_store(
            streets,
            data_seed=recipe.data_seed,
            cache=options.cache or default_cache(),
            workers=options.render_workers,
        )
        for streets in recipe.streets
    )
    say(f"{sum(map(len, stores))} frame sets ready after {(time.monotonic() - began) / 60:.1f} min")
    run = train(recipe, stores, options.out, report=say)
    path = options.out / CHECKPOINT
    save_checkpoint(path, run.averaged, made=_made(options, recipe, run.seconds))
    return path


def _find(name: str) -> Path:
    shipped = RECIPES / f"{name.removesuffix('.yaml')}.yaml"
    if not Path(name).is_file() and shipped.is_file():
        return shipped
    if not Path(name).is_file():
        names = ", ".join(sorted(path.stem for path in RECIPES.glob("*.yaml")))
        raise InputError("no such training recipe", where=name, hint=f"give a path, or one of: {names}")
    return Path(name)


def _made(options: TrainOptions, recipe: TrainRecipe, seconds: float) -> dict[str, object]:
    """How the student was made; what travels in its metadata."""
    return {
        "command": f"fsmde-edge train {options.recipe} --threads {options.threads}",
        "recipe": asdict(recipe),
        "recipe_sha256": recipe.sha256,
        "minutes": round(seconds / 60, 1),
        "started_from": None if recipe.start is None else load_checkpoint(Path(recipe.start))[1],
        "fsmde_edge": fsmde_edge.__version__,
        "torch": torch.__version__,
    }
