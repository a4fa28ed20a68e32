"""A bundle that is small enough for an emulated machine: 6×96×160, FP32, of a student that nobody trained.

What is tested and measured there is the way from six cameras to depth, which any weights show; vivid's test
picture is no street. It is built outside the guest and kept in the cache.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RECIPE = """\
version: 1
size: [96, 160]
data:
  - {split: train, count: 2, seed: 5}
gate:
  - {split: dev, count: 2, seed: 5}
"""
STUDENT = """\
import sys, torch
from pathlib import Path
from fsmde_edge.student.checkpoint import save_checkpoint
from fsmde_edge.student.config import StudentConfig
from fsmde_edge.student.network import Student
torch.manual_seed(0)
student = Student(StudentConfig(name="small", width=8, decoder=(8, 8, 8, 8), bins=16))
save_checkpoint(Path(sys.argv[1]), student, made={"seed": 0})
"""


def small_bundle(cache: Path) -> Path:
    """Its folder; built first where it is missing.

    Raises:
        CalledProcessError: the build fails.
    """
    state = hashlib.sha256((RECIPE + STUDENT).encode()).hexdigest()[:12]
    folder = cache / f"bundle-{state}"
    if not (folder / "manifest.json").is_file():
        cache.mkdir(parents=True, exist_ok=True)
        recipe, checkpoint = cache / "small.yaml", cache / "small.safetensors"
        recipe.write_text(RECIPE)
        _python("-c", STUDENT, checkpoint)
        options = ("--precision", "fp32", "--checkpoint", checkpoint, "--calib", recipe, "--out", folder)
        _python("-m", "fsmde_edge", "build", *options, "--force")
    return folder


def _python(*arguments: object) -> None:
    command = [sys.executable, *map(str, arguments)]
    subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
