"""How fast training is and where its time goes, into docs/results/training.json.

python tools/measure_training.py [--steps 30] [--threads 1] [RECIPE ...]
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from fsmde_edge.distill import trainer
from fsmde_edge.distill.command import TrainOptions, find_recipe, prepare
from fsmde_edge.distill.parallel import Team
from fsmde_edge.distill.teachers.load import load_teacher
from fsmde_edge.distill.trainer import Course, start, take_step
from fsmde_edge.files import atomic_write
from fsmde_edge.inference.machine import processor

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "docs" / "results" / "training.json"
RECIPES = ("streets-supervised", "streets-both")
SCENES = 64
"""Rendered for this; which scenes does not change how long a step takes."""


class Clock:
    """Seconds inside calls of some functions."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def timed(self, name: str, function: Any) -> Any:
        """The same function, timed."""

        def call(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            result = function(*args, **kwargs)
            self.seconds[name] = self.seconds.get(name, 0) + time.perf_counter() - began
            return result

        return call


def main() -> int:
    """Time every recipe's steps."""
    parser = argparse.ArgumentParser(description="How fast training is.")
    parser.add_argument("recipes", nargs="*", default=RECIPES)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = [_row(name, options) for name in options.recipes]
    header = [
        "recipe",
        "frame sets/s",
        "ms a step",
        "data",
        "teacher's file",
        "forwards",
        "backwards and step",
        "peak MB",
    ]
    title = f"Training at 2 frame sets of 6×192×320 a step, {options.threads} thread(s)"
    record = {"machine": processor(), "tables": [{"title": title, "header": header, "rows": rows}]}
    atomic_write(RECORD, (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())
    return 0


def _row(name: str, options: argparse.Namespace) -> list[str]:
    recipe = find_recipe(name)
    recipe = replace(recipe, streets=tuple(replace(s, scenes=SCENES) for s in recipe.streets))
    cpu = torch.device("cpu")
    teacher = None if recipe.teacher is None else load_teacher(recipe.teacher, cpu)
    asked = TrainOptions(recipe=name, out=Path(), render_workers=options.threads)
    data, lessons = prepare(recipe, asked, teacher, print)
    clock = Clock()
    course = Course(recipe, data, Team(0, 1, cpu), lessons)
    run = start(course)
    run.wrapped = clock.timed("forwards", run.learner)
    plain = trainer.lesson
    trainer.lesson = clock.timed("data", plain)  # type: ignore[assignment]
    if lessons is not None:
        object.__setattr__(course, "lessons", _Timed(lessons, clock))
    seconds = []
    for step in range(options.steps + 3):
        if step == 3:  # the first steps allocate
            clock.seconds.clear()
        began = time.perf_counter()
        take_step(run, course, step)
        seconds.append(time.perf_counter() - began)
    trainer.lesson = plain  # type: ignore[assignment]
    total = sum(seconds[3:])
    told, asked_teacher = clock.seconds["data"], clock.seconds.get("teacher", 0.0)
    shares = (
        told - asked_teacher,
        asked_teacher,
        clock.seconds["forwards"],
        total - told - clock.seconds["forwards"],
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sets = recipe.streets[0].sets_per_batch * options.steps / total
    median = float(np.median(seconds[3:])) * 1e3
    return [
        name,
        f"{sets:.2f}",
        f"{median:.0f}",
        *(f"{share / total:.1%}" for share in shares),
        f"{peak:.0f}",
    ]


class _Timed:
    """Lessons, timed."""

    def __init__(self, lessons: Any, clock: Clock) -> None:
        self.channels = lessons.channels
        self.of = clock.timed("teacher", lessons.of)


if __name__ == "__main__":
    sys.exit(main())
