"""The rules of the house: imports point down, no circle, nothing heavy before it is needed."""

from __future__ import annotations

import ast
import graphlib
import statistics
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import fsmde_edge
from fsmde_edge.cli.main import COMMANDS

PACKAGE = Path(fsmde_edge.__file__).parent
HEAVY = ("torch", "onnx", "onnxruntime", "tensorrt", "cuda", "cv2", "openvino", "transformers")
COMPILE_EXTRA = ("torch", "safetensors", "onnxscript", "onnxsim")

GROUND = {
    "",  # the package itself: its version
    "errors", "files", "rig", "frames", "preprocess", "bundle", "recipes", "progress", "views", "doctor",
    "fit", "golden", "gpu", "graph", "preprocessing", "recording", "targets",
}  # fmt: skip
READERS = {"capture", "datasets", "inference", "student"}
ROOMS: dict[str, set[str]] = {
    "datasets": set(),
    "inference": set(),
    "student": set(),
    "capture": {"datasets"},
    "evaluation": READERS,
    "sinks": {"evaluation"},
    "watch": {"capture", "inference", "evaluation"},
    "runtime": {"capture", "inference", "evaluation", "sinks", "watch"},
    "api": {"capture", "datasets", "inference", "sinks", "runtime"},
    "benchmark": {"capture", "inference", "evaluation"},
    "compiler": {*READERS, "evaluation"},
    "distill": {*READERS, "evaluation", "compiler"},
    "finalise": {"inference", "evaluation", "compiler"},
    "cli": {
        *READERS,
        "evaluation",
        "benchmark",
        "sinks",
        "watch",
        "runtime",
        "compiler",
        "distill",
        "finalise",
    },
    "__main__": {"cli"},
}
"""Room to the rooms that it may import, besides itself and the ground floor."""

TORCH_ROOMS = ("student.", "distill.")
"""Where torch may be imported at a module's top: nothing of the device path lives here."""


def name_of(path: Path) -> str:
    """A module's name below the package, as `capture.video`; a package's own is `capture`."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip(".")


TREES = {name_of(path): ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}


def module_level(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes that run when a module is imported: no function bodies, no `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        is_function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        is_typing = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        if not is_function and not is_typing:
            yield node
            yield from module_level(node)


def imported(nodes: Iterator[ast.AST]) -> set[str]:
    """Full names of imported modules; a submodule that is imported from its package counts as itself."""
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            inside = node.module.removeprefix("fsmde_edge").lstrip(".")
            for alias in node.names:
                child = f"{inside}.{alias.name}".lstrip(".")
                ours = node.module.partition(".")[0] == "fsmde_edge" and child in TREES
                found.add(f"fsmde_edge.{child}" if ours else node.module)
    return found


def of_the_house(names: set[str]) -> set[str]:
    """Ours among them, named below the package."""
    return {
        name.removeprefix("fsmde_edge").lstrip(".")
        for name in names
        if name.partition(".")[0] == "fsmde_edge"
    }


def run_python(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_module_has_a_room():
    rooms = {name.partition(".")[0] for name in TREES}
    assert rooms == GROUND | set(ROOMS)


def test_imports_point_down():
    offenders = {}
    for module, tree in TREES.items():
        room = module.partition(".")[0]
        allowed = GROUND if room in GROUND else GROUND | ROOMS[room] | {room}
        allowed = allowed | {"api"} if module == "" else allowed  # the front door, opened when it is used
        found = {name.partition(".")[0] for name in of_the_house(imported(ast.walk(tree)))}
        offenders[module] = found - allowed
    assert {module: found for module, found in offenders.items() if found} == {}


def test_there_is_no_circle():
    graph = {name: of_the_house(imported(module_level(tree))) for name, tree in TREES.items()}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_there_is_no_circle_of_rooms():
    graphlib.TopologicalSorter(ROOMS).prepare()


def test_imports_are_absolute():
    relative = [
        f"{module}:{node.lineno}"
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert relative == []


def test_nothing_raises_not_implemented():
    offenders = [
        f"{module}:{statement.lineno}"
        for module, tree in TREES.items()
        for statement in ast.walk(tree)
        if isinstance(statement, ast.Raise) and "NotImplementedError" in ast.dump(statement)
    ]
    assert offenders == []


def test_heavy_imports_live_inside_functions():
    offenders = {}
    for module, tree in TREES.items():
        allowed = {"torch"} if module.startswith(TORCH_ROOMS) else set()
        found = {name.partition(".")[0] for name in imported(module_level(tree))} & set(HEAVY)
        offenders[module] = found - allowed
    assert {module: found for module, found in offenders.items() if found} == {}


def test_every_module_can_be_imported():
    script = """
        import importlib, sys
        for name in sys.argv[1:]:
            importlib.import_module(name)
    """
    names = [f"fsmde_edge.{name}".rstrip(".") for name in TREES if name != "__main__"]
    child = run_python(script, *names)
    assert child.returncode == 0, child.stderr


def test_without_the_compile_extra_only_the_training_rooms_are_closed():
    script = f"""
        import importlib, sys
        {BLOCK}
        for name in sys.argv[1:]:
            try:
                importlib.import_module("fsmde_edge." + name)
            except ModuleNotFoundError as error:
                print(name, error.name)
    """
    child = run_python(script, *(name for name in TREES if name not in ("", "__main__")))
    assert child.returncode == 0, child.stderr
    closed = [line.split() for line in child.stdout.splitlines()]
    assert closed
    assert all(name.startswith(TORCH_ROOMS) and missing == "torch" for name, missing in closed)


@pytest.mark.parametrize("arguments", [None, [], *([name] for name in COMMANDS)])
def test_help_loads_nothing_heavy(arguments):
    script = """
        import sys
        import fsmde_edge
        try:
            if sys.argv[1:] != ["import only"]:
                from fsmde_edge.cli.main import main
                main([*sys.argv[1:], "--help"])
        except SystemExit as end:
            assert end.code == 0
        print("loaded:", *sorted({name.partition(".")[0] for name in sys.modules}))
    """
    child = run_python(script, *(["import only"] if arguments is None else arguments))
    assert child.returncode == 0, child.stderr
    loaded = child.stdout.splitlines()[-1].split()
    assert loaded[0] == "loaded:"
    assert set(loaded) & set(HEAVY) == set()
    if arguments:
        assert "examples:" in child.stdout


def test_help_takes_a_small_multiple_of_starting_python():
    def median_of(*command: str) -> float:
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            subprocess.run([sys.executable, *command], stdout=subprocess.DEVNULL, check=True)
            seconds.append(time.perf_counter() - start)
        return statistics.median(seconds)

    assert median_of("-m", "fsmde_edge", "--help") < 25 * median_of("-c", "pass")


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "{bundle}", "--source", "synthetic", "--frames", "1", "--out", "{out}"],
        ["run", "{bundle}", "--source", "synthetic", "--frames", "1", "--mosaic", "{out}.png"],
        ["check", "{bundle}", "--sets", "2", "--runs", "1", "--report", "{out}.html"],
        [
            "bench",
            "{bundle}",
            "--runs",
            "1",
            "--warmup",
            "1",
            "--rates",
            "20",
            "--seconds",
            "0.1",
            "--repeats",
            "1",
        ],
        ["finalise", "{bundle}", "--runs", "1", "--backend", "onnxruntime"],
        ["inspect", "{bundle}", "--plan"],
        ["inspect", "{bundle}", "--layers"],
        ["inspect", "{bundle}", "--dla"],
        ["export", "{bundle}", "--calibration-cache", "{out}.cache", "--tensorrt", "10.3"],
        ["debug", "{bundle}", "--out", "{out}"],
        ["estimate", "{bundle}", "--target", "orin-agx-64gb"],
    ],
    ids=" ".join,
)
def test_the_device_path_needs_no_torch(small_bundle, tmp_path, monkeypatch, arguments):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))  # finalise shall change no other test
    script = f"""
        import sys
        {BLOCK}
        from fsmde_edge.cli.main import main
        sys.exit(main(sys.argv[1:]))
    """
    filled = [argument.format(bundle=small_bundle, out=tmp_path / "out") for argument in arguments]
    child = run_python(
        script, *filled, *([] if arguments[0] in {"inspect", "estimate", "debug"} else ["--threads", "1"])
    )
    assert child.returncode == 0, child.stderr
    assert child.stderr == ""


BLOCK = f"""
        class Absent:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in {COMPILE_EXTRA!r}:
                    raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
        sys.meta_path.insert(0, Absent())
""".strip()
"""Makes the packages of the extra `compile` look absent."""
