"""Fixtures that all rooms share."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("house", deadline=None)  # other work on a machine is no failure
settings.load_profile("house")

REPOSITORY = Path(__file__).resolve().parents[1]

SMALL_RECIPE = """\
version: 1
size: [96, 160]
data:
  - {split: train, count: 2, seed: 5}
gate:
  - {split: dev, count: 2, seed: 5}
"""


@pytest.fixture(scope="session", autouse=True)
def own_state(tmp_path_factory) -> Iterator[Path]:
    """An engine store of the tests' own: what the user has finalised changes no result here."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("state")
        patch.setenv("XDG_STATE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real recordings beside the repository (never copied into it): ../shared/data, or $FSMDE_SHARED/data."""
    root = Path(os.environ.get("FSMDE_SHARED", REPOSITORY.parent / "shared")) / "data"
    if not root.is_dir():
        pytest.skip(f"real recordings are not on this machine (looked for {root}; set FSMDE_SHARED)")
    return root


@pytest.fixture(scope="session")
def small_recipe(tmp_path_factory) -> Path:
    """A calibration recipe of twelve synthetic views for calibration and twelve for the gate, at 96×160."""
    path = tmp_path_factory.mktemp("recipe") / "small.yaml"
    path.write_text(SMALL_RECIPE)
    return path


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory) -> Path:
    """A seeded student that nobody trained."""
    import torch

    from fsmde_edge.student.checkpoint import save_checkpoint
    from fsmde_edge.student.config import StudentConfig
    from fsmde_edge.student.network import Student

    path = tmp_path_factory.mktemp("student") / "small.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        student = Student(StudentConfig(name="small", width=8, decoder=(16, 16, 16, 16), bins=16))
    save_checkpoint(path, student, made={"seed": 0})
    return path


@pytest.fixture(scope="session")
def small_bundle(tmp_path_factory, small_recipe, small_checkpoint) -> Path:
    """A six-view INT8 bundle whose gate passed, built once; copy it before changing it."""
    from fsmde_edge.compiler.build import BuildOptions, build

    out = tmp_path_factory.mktemp("built") / "bundle"
    options = BuildOptions(
        precision="int8", out=out, checkpoint=small_checkpoint, recipe=str(small_recipe), threads=1
    )
    outcome = build(options, lambda _: None)
    assert outcome.gate is not None
    assert outcome.gate.passed, outcome.gate.reasons
    return out


@pytest.fixture
def read_only_folder(tmp_path) -> Iterator[Path]:
    """A folder that even root may not write to: a mount without writing, or, for others, its mode."""
    folder = tmp_path / "read-only"
    folder.mkdir()
    if os.geteuid() != 0:
        folder.chmod(0o555)
        yield folder
        return
    _mount(folder, "ro,size=64k")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def tiny_disk(tmp_path) -> Iterator[Path]:
    """A disk of 256 kB: a tmpfs of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    _mount(folder, "size=256k")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def _mount(folder: Path, options: str) -> None:
    mount = shutil.which("mount")
    command = [str(mount), "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small or read-only disk needs the right to mount one (run as root)")
