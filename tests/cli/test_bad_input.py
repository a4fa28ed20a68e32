"""Bad input through the command line: one line on stderr, the design's exit code, nothing half-written."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from dgp_writer import CAMERAS, RING, write_calibration, write_dgp
from hearing import HEARING
from onnx import TensorProto, helper

from fsmde_edge.bundle import MANIFEST, SCHEMA, open_bundle, seal
from fsmde_edge.capture.video import rig_of_pinholes
from fsmde_edge.cli.main import COMMANDS, main
from fsmde_edge.datasets.rigfile import save_rig
from fsmde_edge.errors import BundleError
from fsmde_edge.recipes import shipped


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    def refuses(self, code: int, *words: str) -> None:
        """Exactly one line on stderr, with these words, and this exit code."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("fsmde-edge: ")
        assert "Traceback" not in self.err
        for word in words:
            assert word in lines[0]
        assert self.code == code


@pytest.fixture
def cli(capfd):
    """Runs one command in this process."""

    def run(*arguments: object) -> Said:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        return Said(code, *capfd.readouterr())

    return run


@pytest.fixture
def streets(tmp_path) -> Path:
    """A six-camera data set of one scene and two samples."""
    return write_dgp(tmp_path / "streets", scenes=("scene_a",), samples=2)


@pytest.fixture
def bundle(small_bundle, tmp_path) -> Path:
    """A copy that may be spoilt."""
    return Path(shutil.copytree(small_bundle, tmp_path / "bundle"))


def left(folder: Path) -> list[str]:
    """Everything below a folder, hidden leftovers too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def recipe(folder: Path, data: list[dict], gate: list[dict] | None = None) -> Path:
    path = folder / "recipe.yaml"
    content = {"version": 1, "size": [96, 160], "data": data}
    content["gate"] = gate or [{"split": "dev", "count": 1}]
    path.write_text(json.dumps(content))  # JSON is YAML
    return path


def options(checkpoint: Path, chosen: Path, root: Path) -> list[object]:
    """Of a build into `root / "b"`, whose recipe's paths start from `root`."""
    found = ["--checkpoint", checkpoint, "--calib", chosen, "--data-root", root, "--out", root / "b"]
    return [*found, "--threads", 1]


# Pictures, clouds and descriptions


@pytest.fixture(params=["run", "check"])
def reading(request, cli, small_bundle, streets, tmp_path):
    """Either command that reads the spoilt data set."""
    out = tmp_path / "out"
    if request.param == "run":
        return lambda: cli("run", small_bundle, "--source", streets, "--out", out, "--threads", 1)
    return lambda: cli(
        "check", small_bundle, "--data", streets, "--runs", 0, "--report", out / "a.html", "--threads", 1
    )


def test_a_missing_picture(reading, streets, tmp_path):
    (streets / "scene_a/rgb/CAMERA_05/0.png").unlink()
    reading().refuses(3, "CAMERA_05/0.png", "missing")
    assert left(tmp_path / "out") == []


@pytest.mark.parametrize("kept", [0, 20, 0.5])
def test_a_truncated_picture(reading, streets, tmp_path, kept):
    picture = streets / "scene_a/rgb/CAMERA_05/0.png"
    data = picture.read_bytes()
    picture.write_bytes(data[: int(len(data) * kept) if kept < 1 else kept])
    reading().refuses(3, "CAMERA_05/0.png")
    assert left(tmp_path / "out") == []


def test_sets_before_a_broken_picture_are_kept_whole(cli, small_bundle, streets, tmp_path):
    (streets / "scene_a/rgb/CAMERA_05/1.png").unlink()
    cli("run", small_bundle, "--source", streets, "--out", tmp_path / "out", "--threads", 1).refuses(3)
    assert left(tmp_path / "out") == ["000000", *(f"000000/{name}.png" for name in sorted(RING))]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_cloud_that_is_not_finite(cli, small_bundle, streets, value):
    cloud = streets / "scene_a/point_cloud/LIDAR/1.npz"
    points = np.load(cloud)["data"]
    points[0, 1] = value
    np.savez(cloud, data=points)
    said = cli("check", small_bundle, "--data", streets, "--runs", 0, "--threads", 1)
    said.refuses(3, "LIDAR/1.npz", "finite")
    assert said.out == ""


def test_a_pickled_cloud_is_never_unpickled(cli, small_bundle, streets, tmp_path):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "sprung",)

    cloud = streets / "scene_a/point_cloud/LIDAR/0.npz"
    np.savez(cloud, data=np.array([Trap()], dtype=object))
    cli("check", small_bundle, "--data", streets, "--runs", 0).refuses(3, "LIDAR/0.npz")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("target", ["../../outside.png", "/etc/hostname"])
def test_a_scene_that_points_outside_its_folder(reading, streets, target):
    outside = streets.parent / "outside.png"
    shutil.copy(streets / "scene_a/rgb/CAMERA_05/0.png", outside)
    scene = streets / "scene_a/scene_scene_a.json"
    scene.write_text(scene.read_text().replace("rgb/CAMERA_05/0.png", target))
    reading().refuses(3, "outside")


def test_a_calibration_of_five_of_the_six_cameras(reading, streets):
    write_calibration(streets / "scene_a/calibration/calib.json", CAMERAS[:5])
    reading().refuses(3, CAMERAS[5], "calib.json")


def test_a_recording_of_other_cameras_than_the_bundles(cli, small_bundle, tmp_path):
    three = write_dgp(tmp_path / "three", scenes=("scene_a",), cameras=RING[:3])
    said = cli("run", small_bundle, "--source", three, "--out", tmp_path / "out")
    said.refuses(3, "the bundle has 6 views", "3 cameras")
    assert left(tmp_path / "out") == []


def test_a_data_set_that_is_none(cli, small_bundle, tmp_path):
    cli("run", small_bundle, "--source", tmp_path / "absent").refuses(3, "missing")
    cli("check", small_bundle, "--data", tmp_path).refuses(3, "no data set that is known")


# Recipes


@pytest.mark.parametrize(
    "selection", [{"samples": [7]}, {"scenes": ["absent"]}, {"split": "train"}, {"samples": []}]
)
@pytest.mark.parametrize("part", ["data", "gate"])
def test_a_recipe_that_selects_no_frame(cli, streets, small_checkpoint, tmp_path, selection, part):
    right, wrong = {"path": streets.name, "samples": [0]}, {"path": streets.name, **selection}
    chosen = recipe(tmp_path, [wrong], [right]) if part == "data" else recipe(tmp_path, [right], [wrong])
    said = cli("build", *options(small_checkpoint, chosen, tmp_path))
    said.refuses(3, streets.name)
    assert not (tmp_path / "b").exists()


def test_a_recipe_with_an_unknown_camera(cli, streets, small_checkpoint, tmp_path):
    write_dgp(tmp_path / "three", scenes=("scene_b",), cameras=RING[:3])
    first = [
        {"path": "three", "samples": [0]},
        {"path": streets.name},
    ]  # the first gives the bundle's cameras
    chosen = recipe(tmp_path, first, [{"path": "three", "samples": [1]}])
    said = cli("build", *options(small_checkpoint, chosen, tmp_path))
    said.refuses(3, "which the bundle does not have", "full rig first")
    assert [name for name in left(tmp_path) if name.startswith((".", "b"))] == []


def test_a_recipe_that_judges_what_it_calibrates_on(cli, streets, small_checkpoint, tmp_path):
    chosen = recipe(tmp_path, [{"path": streets.name}], [{"path": streets.name, "samples": [1]}])
    said = cli("build", *options(small_checkpoint, chosen, tmp_path))
    said.refuses(3, "calibrates and judges on the same frames")


def test_a_recipe_of_one_look_alike_picture(cli, streets, small_checkpoint, tmp_path):
    same = (streets / "scene_a/rgb/CAMERA_01/0.png").read_bytes()
    for picture in streets.rglob("*.png"):
        picture.write_bytes(same)
    chosen = recipe(tmp_path, [{"path": streets.name}])
    said = cli("build", *options(small_checkpoint, chosen, tmp_path))
    said.refuses(3, "12 pictures, but only 1 that do not look alike", "--allow-few")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("version: 1\nsize: [96, 160]\ndata: []\ngate: []\n", "needs frames"),
        ("version: 2\nsize: [96, 160]\ndata: [{split: dev}]\ngate: [{split: dev}]\n", "version 2"),
        ("version: 1\nsize: [96, 161]\ndata: [{split: dev}]\ngate: [{split: test}]\n", "multiples of 32"),
        ("version: 1\nsiez: [96, 160]\n", "unknown key 'siez'"),
        ("version: [", "not valid YAML"),
    ],
)
def test_a_broken_recipe(cli, tmp_path, content, word):
    (tmp_path / "recipe.yaml").write_text(content)
    cli("build", "--calib", tmp_path / "recipe.yaml", "--out", tmp_path / "b").refuses(3, "recipe.yaml", word)


# Networks


class Trap:
    """Unpickling this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def spoil_with_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"state": Trap(path.with_name("sprung"))}))


def spoil_with_torch(path: Path) -> None:
    import torch

    torch.save({"state": Trap(path.with_name("sprung"))}, path)


def spoil_shape(path: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    state = load_file(path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    state["head.logits.bias"] = state["head.logits.bias"][:-1].clone()
    save_file(state, path, metadata)


def spoil_by_truncation(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (spoil_with_pickle, "pickle"),
        (spoil_with_torch, "pickle"),
        (spoil_shape, "head.logits.bias has shape (15,)"),
        (spoil_by_truncation, "not a readable safetensors file"),
        (Path.unlink, "no such checkpoint"),
    ],
)
def test_a_checkpoint_that_is_none(cli, small_checkpoint, small_recipe, tmp_path, spoil, word):
    path = Path(shutil.copy(small_checkpoint, tmp_path / "student.safetensors"))
    spoil(path)
    said = cli("build", "--checkpoint", path, "--calib", small_recipe, "--out", tmp_path / "b")
    said.refuses(3, "student.safetensors", word)
    assert left(tmp_path) == ([] if spoil is Path.unlink else ["student.safetensors"])


def foreign(path: Path, shape: tuple) -> Path:
    """An FP32 network that is none of ours: NCHW floats to their mean."""
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", ["input", "axes"], ["depth"], keepdims=1)],
        "foreign",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("depth", TensorProto.FLOAT, (shape[0], 1, *shape[2:]))],
        [helper.make_tensor("axes", TensorProto.INT64, [1], [1])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


@pytest.mark.parametrize("shape", [("N", 3, "H", "W"), (1, 3, 96, 160), (1, 5, 96, 160)])
def test_an_onnx_network_without_a_yaml(cli, small_recipe, tmp_path, shape):
    network = foreign(tmp_path / "depth.onnx", shape)
    said = cli("build", "--onnx", network, "--calib", small_recipe, "--out", tmp_path / "b")
    said.refuses(3, "depth.onnx")
    assert left(tmp_path) == ["depth.onnx"]


@pytest.mark.parametrize("shape", [("N", 3, "H", "W"), (1, 5, 96, 160)])
def test_an_onnx_network_that_its_yaml_does_not_describe(cli, small_recipe, tmp_path, shape):
    network = foreign(tmp_path / "depth.onnx", shape)
    (tmp_path / "depth.yaml").write_text("version: 1\noutput: {kind: metric}\n")
    said = cli(
        "build", "--onnx", network, "--convention", tmp_path / "depth.yaml", "--calib", small_recipe,
        "--out", tmp_path / "b",
    )  # fmt: skip
    said.refuses(3, "depth.")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("content", [b"", b"no protobuf at all"])
def test_a_file_that_is_no_onnx(cli, small_recipe, tmp_path, content):
    (tmp_path / "depth.onnx").write_bytes(content)
    said = cli("build", "--onnx", tmp_path / "depth.onnx", "--calib", small_recipe, "--out", tmp_path / "b")
    said.refuses(3, "depth.onnx")


# Bundles


def test_one_flipped_byte_in_any_file(cli, bundle):
    files = [bundle / MANIFEST, *(bundle / name for name in open_bundle(bundle).files)]
    assert len(files) >= 9
    for path in files:
        data = path.read_bytes()
        path.write_bytes(
            data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]
        )
        cli("inspect", bundle).refuses(3, str(path), "damaged")
        path.write_bytes(data)
    assert cli("inspect", bundle).code == 0


@pytest.mark.parametrize(
    "command",
    [["run", "--source", "synthetic"], ["check"], ["bench"], ["inspect"]],
    ids=lambda command: command[0],
)
def test_every_command_refuses_a_damaged_bundle(cli, bundle, command):
    model = bundle / "model.int8.onnx"
    model.write_bytes(model.read_bytes()[:-1])
    cli(command[0], bundle, *command[1:]).refuses(3, "model.int8.onnx", "damaged")


def test_a_manifest_of_a_newer_schema(cli, bundle):
    values = json.loads((bundle / MANIFEST).read_text())
    (bundle / MANIFEST).write_text(json.dumps({**values, "schema": SCHEMA + 1, "new": True}))
    cli("inspect", bundle).refuses(3, "newer fsmde-edge", "pip install -U")


def test_no_bundle(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cli("inspect").refuses(3, "no such bundle", "fsmde-edge build")
    cli("run", tmp_path, "--source", "synthetic").refuses(3, "not a bundle")


def failed(bundle: Path, verdict: str) -> None:
    """Seal the bundle again with another verdict."""
    opened = open_bundle(bundle)
    manifest = replace(opened.manifest, gate={**opened.manifest.gate, "verdict": verdict, "passed": False})
    (bundle / MANIFEST).unlink()
    seal(bundle, manifest)


def test_a_bundle_whose_gate_failed_does_not_run_by_itself(cli, bundle):
    failed(bundle, "failed")
    once = ("--source", "synthetic", "--frames", 1, "--threads", 1)
    cli("run", bundle, *once).refuses(4, "gate is failed", "--allow-failed")
    assert cli("run", bundle, *once, "--allow-failed").code == 0
    assert cli("run", bundle, *once, "--precision", "fp32").code == 0


# Output


@pytest.mark.parametrize("place", ["mount", "/proc/none", "through a file"])
@pytest.mark.parametrize(
    "command",
    [
        ["run", "{bundle}", "--source", "synthetic", "--frames", "1", "--out", "{out}/depth"],
        [
            "run",
            "{bundle}",
            "--source",
            "synthetic",
            "--frames",
            "1",
            "--format",
            "npz",
            "--out",
            "{out}/depth",
        ],
        ["run", "{bundle}", "--source", "synthetic", "--frames", "1", "--mosaic", "{out}/mosaic.png"],
        ["run", "{bundle}", "--source", "synthetic", "--frames", "1", "--mosaic", "{out}/mosaic.mp4"],
        ["check", "{bundle}", "--sets", "2", "--runs", "0", "--report", "{out}/check.html"],
        [
            "bench",
            "{bundle}",
            "--only",
            "models",
            "--runs",
            "1",
            "--warmup",
            "1",
            "--json",
            "{out}/bench.json",
        ],
        ["build", "--checkpoint", "{student}", "--calib", "{recipe}", "--out", "{out}/bundle"],
        ["synth", "{out}/streets", "--scenes", "1", "--length", "1", "--size", "32", "64"],
        ["train", "{train}", "--out", "{out}/run", "--cache", "{cache}"],
    ],
    ids=lambda command: " ".join(word for word in command if not word.startswith("{")),
)
def test_output_that_cannot_be_written(
    cli, small_bundle, small_recipe, small_checkpoint, request, tmp_path, command, place
):
    if place == "mount":
        out = request.getfixturevalue("read_only_folder")
    elif place == "/proc/none":
        out = Path(place)
    else:
        out = tmp_path / "file"
        out.write_bytes(b"")
    (tmp_path / "train.yaml").write_text(
        "{version: 1, student: tiny, steps: 1, streets: [{scenes: 1, size: [32, 64]}]}"
    )
    filled = [
        word.format(
            out=out,
            bundle=small_bundle,
            recipe=small_recipe,
            student=small_checkpoint,
            train=tmp_path / "train.yaml",
            cache=tmp_path / "cache",
        )
        for word in command
    ]
    cli(*filled).refuses(3, "cannot be written", str(out))


def test_a_full_disk_during_run(cli, small_bundle, tiny_disk):
    (tiny_disk / "ballast").write_bytes(bytes(200_000))
    out = tiny_disk / "depth"
    said = cli("run", small_bundle, "--source", "synthetic", "--out", out, "--threads", 1)
    said.refuses(3, "No space left", "free some space")
    import cv2

    for file in out.rglob("*.png"):
        assert cv2.imread(str(file), cv2.IMREAD_UNCHANGED) is not None
    assert [name for name in left(out) if ".tmp" in name] == []


def test_a_full_disk_during_build(cli, small_checkpoint, small_recipe, tiny_disk):
    said = cli(
        "build", "--precision", "fp32", "--checkpoint", small_checkpoint, "--calib", small_recipe,
        "--out", tiny_disk / "bundle", "--threads", 1,
    )  # fmt: skip
    said.refuses(3, "No space left", "free some space")
    assert left(tiny_disk) == []


def test_an_existing_output_is_refused_and_kept(cli, bundle, small_checkpoint, small_recipe, tmp_path):
    build = ("build", "--checkpoint", small_checkpoint, "--calib", small_recipe, "--out")
    cli(*build, bundle).refuses(3, "already exists", "--force")
    (tmp_path / "thesis").mkdir()
    cli(*build, tmp_path / "thesis", "--force").refuses(3, "--force does not delete it")
    open_bundle(bundle)


def test_kill_nine_during_build(cli, small_checkpoint, small_recipe, tmp_path):
    out = tmp_path / "bundle"
    arguments = [
        "build",
        "--checkpoint",
        str(small_checkpoint),
        "--calib",
        str(small_recipe),
        "--out",
        str(out),
    ]
    child = subprocess.Popen(
        [sys.executable, "-u", "-m", "fsmde_edge", *arguments, "--threads", "1"],
        stdout=subprocess.PIPE,
        text=True,
    )
    for line in child.stdout:
        if line.startswith("comparing with FP32"):  # the models are written, the manifest is not
            child.kill()
    assert child.wait() == -signal.SIGKILL
    leftovers = list(tmp_path.iterdir())
    assert [path.name.startswith(".tmp-") for path in leftovers] == [True]
    with pytest.raises(BundleError):
        open_bundle(leftovers[0])
    said = cli(*arguments, "--precision", "fp32", "--threads", 1)
    assert said.code == 0, said.err
    assert left(tmp_path)[0] == "bundle"
    assert open_bundle(out).manifest.precision == "fp32"


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "SIGTERM"), (signal.SIGHUP, 129, "SIGHUP")],
)
def test_a_signal_during_build(small_checkpoint, small_recipe, tmp_path, number, code, word):
    arguments = [
        "build",
        "--checkpoint",
        str(small_checkpoint),
        "--calib",
        str(small_recipe),
        "--threads",
        "1",
    ]
    child = subprocess.Popen(
        [*HEARING, sys.executable, "-u", "-m", "fsmde_edge", *arguments, "--out", str(tmp_path / "bundle")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in child.stdout:
        if line.startswith("reading the network"):
            child.send_signal(number)
    Said(child.wait(), "", child.stderr.read()).refuses(code, word)
    assert left(tmp_path) == []


# The command line itself


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["run"],
        ["run", "--source"],
        ["run", "--source", "synthetic", "--frames", "0"],
        ["run", "--source", "synthetic", "--frames", "many"],
        ["build", "--precision", "int4"],
        ["build", "--checkpoint", "a", "--onnx", "b"],
        ["build", "--convention", "c.yaml"],
        ["check", "--protocol", "best"],
        ["bench", "--runs", "-1"],
        ["inspect", "--everything"],
        ["inspect", "--dla", "--tensorrt", "9" * 5000 + ".1"],
        ["build", "--precision", "fp16", "--keep-float", "a"],
        ["build", "--precision", "fp32", "--no-search"],
        ["build", "--keep-float", "a", "--force-int8", "a"],
        ["estimate", "--compute", "1e-320"],
        ["synth"],
    ],
    ids=lambda arguments: " ".join(arguments)[:50],
)
def test_usage_errors(cli, arguments):
    said = cli(*arguments)
    said.refuses(2)
    assert said.out == ""


def test_options_that_do_not_go_together(cli, small_bundle):
    cli("check", small_bundle, "--scenes", "a").refuses(2, "--data")
    cli("run", small_bundle, "--source", "synthetic", "--backend", "opencl").refuses(2, "no backend")
    cli("run", small_bundle, "--source", "synthetic", "--mosaic", "a.gif").refuses(2, ".png")
    cli("run", small_bundle, "--source", "a.mp4", "b.mp4").refuses(2, "rig")


@pytest.mark.parametrize("command", COMMANDS)
def test_debug_shows_the_traceback_and_the_line(cli, command):
    said = cli(command, "--debug", "--no-such-option")
    assert said.code == 2
    assert "Traceback" in said.err
    assert said.err.splitlines()[-1].startswith("fsmde-edge: ")


def test_empty_arguments_are_refused(cli):
    for words in (["build", "--out", ""], ["run", "--source", ""], ["run", "--source="], ["synth", ""]):
        cli(*words).refuses(2, "empty")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bench", "--threads", "100000"], ["--threads", "too many"]),
        (["bench", "--runs", "\u0663"], ["--runs", "not a whole number"]),
        (["bench", "--runs", "9" * 5000], ["--runs", "not a whole number"]),
        (["check", "--max-depth", "nan"], ["--max-depth", "metres"]),
        (["check", "--max-depth", "inf"], ["--max-depth", "metres"]),
        (["check", "--max-depth", "0"], ["--max-depth", "metres"]),
        (["check", "--max-depth", "far"], ["--max-depth", "'far' is not a distance"]),
    ],
    ids=lambda value: value[1] if len(value) == 3 else "",
)
def test_numbers_that_mean_nothing(cli, arguments, words):
    cli(*arguments).refuses(2, *words)


def test_options_that_would_be_ignored(cli, small_bundle, streets, tmp_path):
    run = ("run", small_bundle, "--source")
    save_rig(tmp_path / "rig.yaml", rig_of_pinholes(open_bundle(small_bundle).manifest.views))
    cli(*run, "synthetic", "--scenes", "a").refuses(2, "--scenes", "synthetic")
    cli(*run, "synthetic", "--masks", "m").refuses(2, "--masks", "synthetic")
    cli(*run, "synthetic", "--png-scale", "10").refuses(2, "--png-scale")
    cli(*run, "synthetic", "--png-scale", "10", "--out", "o", "--format", "npz").refuses(2, "--png-scale")
    cli(*run, streets, "--rig", tmp_path / "rig.yaml").refuses(2, "--rig")
    cli("inspect", small_bundle, "--plan", "--json").refuses(2, "--plan and --json")


def test_reports_that_cannot_be_written_are_refused_before_measuring(cli, small_bundle, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for words in (["check", "--report"], ["check", "--table"], ["bench", "--json"]):
        cli(words[0], tmp_path / "absent", words[1], tmp_path / "file/x").refuses(3, "cannot be written")
        cli(words[0], tmp_path / "absent", words[1], tmp_path).refuses(3, "cannot be written")
    same = tmp_path / "same.x"
    cli("check", small_bundle, "--report", same, "--table", same).refuses(2, "the same file")


def test_the_root_is_no_place_for_a_bundle(cli, small_checkpoint, small_recipe):
    cli("build", "--checkpoint", small_checkpoint, "--calib", small_recipe, "--out", "/").refuses(3, "/")


@pytest.mark.parametrize(
    ("package", "hint"),
    [("cv2", "pip install fsmde-edge"), ("onnxruntime", "pip install fsmde-edge"), ("torch", "[compile]")],
)
def test_a_package_that_is_not_installed(cli, monkeypatch, small_bundle, package, hint):
    def needs(_args):
        __import__(package)

    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr("fsmde_edge.cli.inspect.run", needs)
    cli("inspect", small_bundle).refuses(5, hint)


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (PermissionError(13, "Permission denied", "/some/where"), "/some/where: cannot be used (Permission"),
        (RecursionError("maximum recursion depth exceeded"), "nested too deeply"),
        (ValueError("embedded null byte"), "null byte"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_the_last_net(cli, monkeypatch, error, word):
    def fails(_args):
        raise error

    monkeypatch.setattr("fsmde_edge.cli.inspect.run", fails)
    cli("inspect").refuses(3, word)


def test_a_fault_of_the_program_is_not_hidden(cli, monkeypatch):
    def fails(_args):
        raise ZeroDivisionError

    monkeypatch.setattr("fsmde_edge.cli.inspect.run", fails)
    with pytest.raises(ZeroDivisionError):
        cli("inspect")


# Bundles whose hashes are right and whose files are not


def resealed(bundle: Path, name: str, content: bytes, **change: object) -> Path:
    manifest = replace(open_bundle(bundle).manifest, **change)
    (bundle / name).write_bytes(content)
    (bundle / MANIFEST).unlink()
    seal(bundle, manifest)
    return bundle


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04junk", b"[" * 100_000, b"{}", b"null", b"[1]"])
def test_junk_in_a_bundle_is_named(cli, bundle, content):
    for name, command in (
        ("plan.json", ["inspect", bundle, "--plan"]),
        ("golden/inputs.npz", ["bench", bundle, "--runs", 1, "--threads", 1]),
        ("golden/preprocess.json", ["bench", bundle, "--runs", 1, "--threads", 1]),
        ("model.fp32.onnx", ["bench", bundle, "--runs", 1, "--threads", 1]),
        ("model.int8.onnx", ["run", bundle, "--source", "synthetic", "--frames", 1, "--threads", 1]),
    ):
        was = (bundle / name).read_bytes()
        resealed(bundle, name, content)
        cli(*command).refuses(3, name.partition("/")[0])
        resealed(bundle, name, was)


def test_an_int8_bundle_without_a_gate_does_not_run_by_itself(cli, bundle):
    resealed(bundle, "plan.json", (bundle / "plan.json").read_bytes(), gate={})
    assert not open_bundle(bundle).gate_passed
    once = ("--source", "synthetic", "--frames", 1, "--threads", 1)
    cli("run", bundle, *once).refuses(4, "gate is missing", "--allow-failed")
    assert cli("inspect", bundle).code == 0


def changed(bundle: Path, name: str, change: Callable[[dict], object], **manifest: object) -> Path:
    """A bundle whose JSON file says something else, sealed again."""
    values = json.loads((bundle / name).read_text())
    change(values)
    return resealed(bundle, name, json.dumps(values).encode(), **manifest)


def export(bundle: Path, cache: Path, *more: object) -> list[object]:
    return ["export", bundle, "--calibration-cache", cache, "--tensorrt", "10.3", "--threads", 1, *more]


@pytest.mark.parametrize(
    ("name", "change", "word"),
    [
        ("plan.json", lambda plan: plan["activations"][2].update(scale="x"), "[2].scale' must be of type"),
        ("plan.json", lambda plan: plan["activations"][2].update(scale=-1.0), "no scale of an INT8 tensor"),
        ("plan.json", lambda plan: plan["activations"][2].update(scale=1e300), "no scale of an INT8 tensor"),
        ("plan.json", lambda plan: plan["activations"][2].update(tensor=[5]), "[2].tensor' must be of type"),
        ("plan.json", lambda plan: plan.update(activations=[]), "is the plan of another network"),
        ("plan.json", lambda plan: plan.pop("calibrator"), "'calibrator' is missing"),
        ("ranges.json", lambda ranges: ranges.update(views=float("inf")), "'views' must be of type"),
        ("ranges.json", lambda ranges: ranges.update(tensors=[]), "'tensors' must be of type"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_plan_or_ranges_that_cannot_be(cli, bundle, tmp_path, name, change, word):
    changed(bundle, name, change)
    cli(*export(bundle, tmp_path / "dla" / "a.cache")).refuses(3, name, word)
    assert not (tmp_path / "dla").exists()


def arrays(path: Path, change: Callable[[dict], object]) -> bytes:
    with np.load(path) as file:
        values = dict(file)
    change(values)
    buffer = io.BytesIO()
    np.savez(buffer, **values)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "change", "word"),
    [
        ("depth.npz", lambda depth: depth.pop("fp32"), "no depth of fp32"),
        ("depth.npz", lambda depth: depth.pop("int8"), "no depth of int8"),
        ("depth.npz", lambda depth: depth.update(fp32=depth["fp32"][:, ::2]), "depths [V, H, W]"),
        ("depth.npz", lambda depth: depth.update(fp32=depth["fp32"].astype(str)), "are float32"),
        ("inputs.npz", lambda inputs: inputs.update(focal=inputs["focal"] * 0), "must be positive"),
        ("inputs.npz", lambda inputs: inputs.update(focal=inputs["focal"] * np.nan), "must be positive"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_golden_frames_that_cannot_be(cli, bundle, name, change, word):
    resealed(bundle, f"golden/{name}", arrays(bundle / "golden" / name, change))
    cli("finalise", bundle, "--runs", 1, "--threads", 1).refuses(3, "golden", word)


@pytest.mark.parametrize("method", [5, {"keep_float": 5}, {"force_int8": [7]}], ids=str)
def test_a_method_that_is_none_is_a_damaged_manifest(cli, bundle, method):
    """No engine keeps to negative bounds, so finalise asks how the plan was made."""
    calibration = {**open_bundle(bundle).manifest.calibration, "method": method}

    def impossible(bounds: dict) -> None:
        bounds["depth"]["mean"] = -1.0

    changed(bundle, "golden/bounds.json", impossible, calibration=calibration)
    said = cli("finalise", bundle, "--backend", "onnxruntime", "--json", "--runs", 1, "--threads", 1)
    assert said.err == ""
    int8 = json.loads(said.out)["candidates"][0]
    assert not int8["right"]
    assert "manifest.json: is damaged" in int8["reasons"][0]


# What is written beside a bundle


@pytest.mark.parametrize("taken", ["a.cache", "a.onnx", "a.precisions"])
def test_an_export_replaces_nothing_unasked_and_never_writes_a_part(cli, small_bundle, tmp_path, taken):
    (tmp_path / taken).write_text("mine")
    cli(*export(small_bundle, tmp_path / "a.cache")).refuses(3, taken, "already exists", "--force")
    assert left(tmp_path) == [taken]
    assert (tmp_path / taken).read_text() == "mine"
    (tmp_path / taken).unlink()
    (tmp_path / taken).mkdir()
    cli(*export(small_bundle, tmp_path / "a.cache", "--force")).refuses(3, taken, "no regular file")
    assert left(tmp_path) == [taken]


def test_a_disk_that_is_full_at_the_last_file_of_an_export_keeps_none(
    cli, small_bundle, tmp_path, monkeypatch
):
    write = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.suffix == ".cache":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    cli(*export(small_bundle, tmp_path / "a.cache")).refuses(3, "a.cache", "No space left")
    assert left(tmp_path) == []


@pytest.mark.parametrize("cache", ["/", ".", ".."])
def test_a_cache_without_a_name(cli, small_bundle, cache):
    cli(*export(small_bundle, Path(cache))).refuses(2, "no name for a cache")


@pytest.mark.parametrize(
    ("given", "word"),
    [
        (["--placement", "dla"], "--placement and --out go together"),
        (["--calibration-cache", "a.cache", "--out", "a.onnx"], "--placement and --out go together"),
        (["--placement", "dla", "--out", "a.onnx", "--calibration-cache", "a.cache"], "not allowed with"),
        (["--out", "a.onnx"], "is required"),
    ],
)
def test_an_export_writes_one_form(cli, small_bundle, given, word):
    cli("export", small_bundle, "--tensorrt", "11.4.1", *given).refuses(2, word)


def test_an_export_for_a_board_without_a_dla_is_refused(cli, small_bundle, tmp_path):
    bundle = tmp_path / "nano"
    shutil.copytree(small_bundle, bundle)
    plan = (bundle / "plan.json").read_bytes()
    resealed(bundle, "plan.json", plan, target="orin-nano-8gb")
    cli(*export(bundle, tmp_path / "a.cache")).refuses(2, "orin-nano-8gb", "no DLA")


@pytest.mark.parametrize(
    ("given", "code", "word"),
    [(["--precision", "fp32"], 2, "--precision int8"), (["--target", "orin-nano-8gb"], 2, "no DLA")],
)
def test_a_placement_that_nothing_has_use_for_is_refused_before_any_work(cli, tmp_path, given, code, word):
    cli("build", "--placement", "dla", *given, "--out", tmp_path / "b").refuses(code, word)
    (tmp_path / "b.dla.onnx").write_bytes(b"mine")
    cli("build", "--placement", "dla", "--out", tmp_path / "b").refuses(3, "b.dla.onnx", "already exists")
    assert (tmp_path / "b.dla.onnx").read_bytes() == b"mine"


@pytest.mark.parametrize("file", ["/dev/zero", "fifo"])
def test_a_network_that_is_no_regular_file_is_refused_at_once(cli, small_recipe, tmp_path, file):
    path = Path(file)
    if file == "fifo":
        path = tmp_path / file
        os.mkfifo(path)
    said = cli("build", "--onnx", path, "--calib", small_recipe, "--out", tmp_path / "b")
    said.refuses(3, "no regular file")


def test_an_export_never_writes_into_a_bundle(cli, bundle):
    cli(*export(bundle, bundle / "model.fp32.cache", "--force")).refuses(2, "never changed")
    open_bundle(bundle)


def test_debug_replaces_no_folder_that_merely_looks_like_its_own(cli, small_bundle, tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "inputs.py").write_text("mine")
    cli("debug", small_bundle, "--out", tmp_path / "work", "--force").refuses(3, "does not delete it")
    assert left(tmp_path) == ["work", "work/inputs.py"]


# Targets and measurements


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("gpu_mhz: 1300.5", "gpu_mhz: 0", "'gpu_mhz' of power mode MAXN cannot be 0"),
        ("gpu_mhz: 1300.5", "gpu_mhz: -5", "cannot be -5"),
        ("gpu_mhz: 1300.5", "gpu_mhz: 1.0e+308", "cannot be 1e+308"),
        ("gpu_mhz: 1300.5", "gpu_mhz: .nan", "finite number"),
        ("gpu_mhz: 1300.5, sms: 16", "gpu_mhz: 1300.5, sms: 0", "'sms' of power mode MAXN cannot be 0"),
        ("int8: 2048", "int8: 0", "'int8' of throughput cannot be 0"),
        ("workspace_mb: 4096", "workspace_mb: 0", "'workspace_mb' of builder cannot be 0"),
        ("tactic_memory_mb: null", "tactic_memory_mb: -1", "'tactic_memory_mb' of builder cannot be -1"),
        ("memory_gb: 64", "memory_gb: -64", "'memory_gb' of the target cannot be -64"),
    ],
)
def test_a_target_with_numbers_that_no_board_has(cli, small_bundle, tmp_path, old, new, word):
    profile = (shipped("engines") / "orin-agx-64gb.yaml").read_text()
    assert old in profile
    (tmp_path / "board.yaml").write_text(profile.replace(old, new, 1))
    said = cli("estimate", small_bundle, "--target", tmp_path / "board.yaml", "--json")
    said.refuses(3, "board.yaml", word)
    assert said.out == ""


def test_a_bundle_for_a_target_that_is_not_shipped_asks_for_its_profile(cli, bundle, tmp_path, monkeypatch):
    resealed(bundle, "plan.json", (bundle / "plan.json").read_bytes(), target="mine")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").write_text("not meant")  # a name in a manifest is no path
    for words in (["estimate", bundle], ["finalise", bundle], ["debug", bundle, "--out", tmp_path / "d"]):
        cli(*words).refuses(3, "target 'mine', which is not a shipped one", "--target")
    assert cli("debug", bundle, "--out", tmp_path / "d", "--target", "cpu").code == 0


@pytest.mark.parametrize(
    ("latency", "sessions"),
    [
        ({"int8": float("nan")}, {"int8": "TensorRT"}),
        ({"int8": -1.0}, {"int8": "TensorRT"}),
        ({"int8": 5e-324}, {"int8": "TensorRT"}),
        ({"int8": 1e308}, {"int8": "TensorRT"}),
        ({"int4": 1.0}, {"int4": "TensorRT"}),
        ({"int8": 1.0}, {}),
    ],
    ids=str,
)
def test_a_bench_that_cannot_be(cli, small_bundle, tmp_path, latency, sessions):
    content = {
        "bundle": open_bundle(small_bundle).hash,
        "latency": {name: {"p50": value} for name, value in latency.items()},
        "sessions": sessions,
    }
    (tmp_path / "bench.json").write_text(json.dumps(content))
    said = cli(
        "estimate", small_bundle, "--target", "orin-agx-64gb", "--bench", tmp_path / "bench.json", "--json"
    )
    said.refuses(3, "bench.json", "cannot be")
    assert said.out == ""


def test_a_model_that_a_bundle_has_not_is_refused_before_anything_is_printed(cli, small_bundle):
    for precision, step in (("fp16", "--precision fp16"), ("int4", "choose one of these")):
        said = cli("inspect", small_bundle, "--layers", "--precision", precision)
        said.refuses(3, f"has no {precision} model", step)
        assert said.out == ""


# The engine store


def test_rolling_back_takes_no_options_of_building(cli, small_bundle):
    back = ("finalise", small_bundle, "--backend", "onnxruntime", "--rollback")
    for option in (["--json"], ["--target", "cpu"], ["--allow-failed"]):
        said = cli(*back, *option)
        said.refuses(2, option[0])
        assert said.out == ""


@pytest.mark.parametrize(
    "content", [b"", b"[" * 100_000, b"[1]", None], ids=["empty", "deep", "list", "folder"]
)
def test_a_choice_that_is_none(cli, small_bundle, tmp_path, monkeypatch, content):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    place = tmp_path / "fsmde-edge" / "engines" / open_bundle(small_bundle).hash
    place.mkdir(parents=True)
    for folder in (place, place.parent):
        folder.chmod(0o700)
    if content is None:
        (place / "choice.json").mkdir(mode=0o700)
    else:
        (place / "choice.json").write_bytes(content)
    code = 5 if content is None else 3
    cli("run", small_bundle, "--source", "synthetic", "--frames", 1).refuses(code, "choice.json")


def test_a_full_disk_during_synth_leaves_nothing(cli, tiny_disk):
    said = cli("synth", tiny_disk / "streets", "--scenes", 1, "--length", 2, "--size", 96, 160)
    said.refuses(3, "No space left")
    assert left(tiny_disk) == []
