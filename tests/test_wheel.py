"""The wheel as a user has it: its contents, and the main job from an empty environment and another folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "fsmde_edge"
WEIGHTS = PACKAGE / "student" / "weights" / "tiny.safetensors"

# A wide budget: these frames are too few and too small to judge a network by, and this is not about accuracy.
RECIPE = """\
version: 1
size: [96, 160]
data:
  - {split: train, count: 2, seed: 5}
gate:
  - {split: dev, count: 2, seed: 5}
budget: {deviation: 1, p99: 2, worst_tile: 2, farther: 1, abs_rel_change: 2}
"""

OFFLINE = ("NewConnectionError", "NameResolutionError", "ConnectTimeoutError", "Network is unreachable")

pytestmark = pytest.mark.slow


class Environment:
    """An empty virtual environment outside the repository, with the wheel in it.

    Args:
        folder: where it is made.
        wheel: what is installed.
        extras: such as "[compile]".
    """

    def __init__(self, folder: Path, wheel: Path, extras: str = "") -> None:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        self.bin = folder / "bin"
        pip = [self.bin / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        pip += ["--no-compile", "--constraint", REPOSITORY / "constraints.txt"]
        done = subprocess.run([*pip, f"{wheel}{extras}"], capture_output=True, text=True, check=False)
        if done.returncode and any(sign in done.stderr for sign in OFFLINE):
            pytest.skip("pip reaches no package registry from here: the wheel cannot be installed")
        assert done.returncode == 0, done.stderr

    def run(self, cwd: Path, *command: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a script of the environment in a folder; nothing of this process's Python leaks in."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        kept |= {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(cwd / ".cache")}
        line = [str(self.bin / command[0]), *command[1:]]
        done = subprocess.run(line, cwd=cwd, env=kept, capture_output=True, text=True, check=False)
        assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, REPOSITORY]
    done = subprocess.run(command, cwd=out, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def contents(wheel) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def large() -> Iterator[Path]:
    """A folder that goes when the tests end: an environment with torch is a gigabyte."""
    with tempfile.TemporaryDirectory(prefix="fsmde-wheel-") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def base(large, wheel) -> Environment:
    return Environment(large / "base", wheel)


@pytest.fixture(scope="module")
def compiler(large, wheel) -> Environment:
    return Environment(large / "compile", wheel, "[compile]")


@pytest.fixture(scope="module")
def work(tmp_path_factory, compiler, request) -> Path:
    """A folder in which the installed build made ./bundle, from the shipped student once there is one."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "small.yaml").write_text(RECIPE)
    command = ["fsmde-edge", "build", "--precision", "int8", "--calib", "small.yaml"]
    command += ["--allow-few", "--threads", "1"]
    if not WEIGHTS.exists():
        command += ["--checkpoint", str(request.getfixturevalue("small_checkpoint"))]
    compiler.run(folder, *command)
    return folder


def test_the_wheel_holds_recipes_targets_and_types(contents):
    shipped = {"calib": "fsmde_edge/shipped/calib", "engines": "fsmde_edge/shipped/engines"}
    for folder, inside in shipped.items():
        assert {f"{inside}/{path.name}" for path in (REPOSITORY / folder).glob("*.yaml")} <= contents
    recipes = (PACKAGE / "distill" / "recipes").glob("*.yaml")
    assert {path.relative_to(REPOSITORY).as_posix() for path in recipes} <= contents
    assert "fsmde_edge/py.typed" in contents


def test_the_wheel_holds_every_module_and_the_weights(contents):
    modules = {path.relative_to(REPOSITORY).as_posix() for path in PACKAGE.rglob("*.py")}
    assert modules <= contents
    assert not WEIGHTS.exists() or WEIGHTS.relative_to(REPOSITORY).as_posix() in contents


def test_the_wheel_holds_nothing_else(contents):
    tops = {name.partition("/")[0] for name in contents}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"fsmde_edge"}
    assert not any("test" in Path(name).parts[-1] or "__pycache__" in name for name in contents)
    assert any(name.endswith("LICENSE") for name in contents)


def test_the_installed_build_makes_a_bundle_from_another_folder(work, compiler):
    found = compiler.run(work, "python", "-c", "import fsmde_edge; print(fsmde_edge.__file__)").stdout
    assert Path(found.strip()).is_relative_to(compiler.bin.parent)
    manifest = json.loads((work / "bundle" / "manifest.json").read_text())
    assert [name for name, file in manifest["models"].items() if file] == ["fp32", "int8", "int8-fp16"]


def test_shipped_recipes_and_targets_are_found_by_name(work, compiler):
    code = (
        "from fsmde_edge.compiler.recipe import load_recipe; from fsmde_edge.targets import load_target; "
        "load_recipe('synthetic'); load_target('orin-agx-64gb')"
    )
    compiler.run(work, "python", "-c", code)


def test_check_and_run_follow_in_the_same_environment(work, compiler, tmp_path):
    bundle = str(work / "bundle")
    command = ["check", bundle, "--sets", "2", "--runs", "2", "--allow-few", "--threads", "1"]
    report = json.loads(compiler.run(tmp_path, "fsmde-edge", *command, "--json").stdout)
    assert {"gate", "accuracy", "cross_view", "latency_ms"} <= set(report)
    compiler.run(
        tmp_path, "fsmde-edge", "run", bundle, "--source", "synthetic", "--frames", "2", "--mosaic", "m.png"
    )
    assert (tmp_path / "m.png").read_bytes().startswith(b"\x89PNG")


def test_the_device_install_has_no_torch(base, tmp_path):
    code = (
        "import importlib.util as u; print([n for n in ('torch', 'onnxsim', 'onnxscript') if u.find_spec(n)])"
    )
    assert base.run(tmp_path, "python", "-c", code).stdout.strip() == "[]"


def test_the_device_install_explains_itself(base, tmp_path):
    assert "doctor" in base.run(tmp_path, "fsmde-edge", "--help").stdout
    findings = json.loads(base.run(tmp_path, "fsmde-edge", "doctor", "--json").stdout)
    levels = {finding["what"]: finding["level"] for finding in findings}
    assert levels["ONNX Runtime"] == "ok"
    assert levels["compile tools"] == "note"


def test_the_device_install_inspects_and_runs_a_bundle(base, work, tmp_path):
    bundle = str(work / "bundle")
    assert "every file verified" in base.run(tmp_path, "fsmde-edge", "inspect", bundle).stdout
    command = ["run", bundle, "--source", "synthetic", "--frames", "2", "--mosaic", "m.png", "--out", "depth"]
    base.run(tmp_path, "fsmde-edge", *command, "--threads", "1")
    assert (tmp_path / "m.png").exists()
    assert len(list((tmp_path / "depth").rglob("*.png"))) == 2 * 6


def test_the_device_install_names_the_extra_that_builds(base, tmp_path, small_checkpoint):
    (tmp_path / "small.yaml").write_text(RECIPE)
    command = ["build", "--calib", "small.yaml", "--checkpoint", str(small_checkpoint)]
    done = base.run(tmp_path, "fsmde-edge", *command, code=5)
    assert "fsmde-edge[compile]" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.yaml"]
