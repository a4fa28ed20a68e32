"""`debug`, `export` and `inspect --dla`: what they write and print; Polygraphy itself reads the hand-over."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fsmde_edge.bundle import open_bundle
from fsmde_edge.cli.main import main
from fsmde_edge.compiler.handover import commands_for


@pytest.fixture(scope="module")
def handover(small_bundle, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("handover") / "debug"
    assert main(["debug", str(small_bundle), "--out", str(out)]) == 0
    return out


def test_debug_writes_models_inputs_and_the_commands_that_it_prints(small_bundle, handover, capfd, tmp_path):
    bundle = open_bundle(small_bundle)
    assert main(["debug", str(small_bundle), "--out", str(tmp_path / "again")]) == 0
    printed = capfd.readouterr().out
    written = (handover / "commands.txt").read_text()
    for command in commands_for(bundle):
        assert command.line in printed
        assert command.line in written
    for name in filter(None, bundle.manifest.models.values()):
        assert (handover / name).read_bytes() == (bundle.root / name).read_bytes()
    golden = bundle.golden()
    raw = np.frombuffer((handover / "images.bin").read_bytes(), np.uint8)
    np.testing.assert_array_equal(raw, golden.images.reshape(-1))
    np.testing.assert_array_equal(np.load(handover / "depth.int8.npy"), golden.depth["int8"])


def polygraphy(line: str, folder: Path) -> str:
    """Run one of the printed commands as a shell would, with the Polygraphy of this environment."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": path}
    done = subprocess.run(
        line, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_polygraphy_runs_the_commands_that_need_no_gpu(small_bundle, handover):
    pytest.importorskip("polygraphy", reason="Polygraphy is not installed")
    lines = [command.line for command in commands_for(open_bundle(small_bundle)) if not command.gpu]
    assert [line.split()[1] for line in lines] == ["inspect", "run", "run", "data"]
    assert "student.head.logits" in polygraphy(lines[0], handover)
    for line in lines[1:]:
        polygraphy(line, handover)
    depth = saved_depth(handover / "exact.json")
    assert np.abs(depth / np.load(handover / "depth.int8.npy") - 1).mean() < 1e-3
    assert (handover / "parts.json").stat().st_size > (handover / "every.json").stat().st_size


def saved_depth(path: Path):
    from polygraphy.comparator import RunResults

    [(_, [result])] = RunResults.load(str(path))
    return result["depth"]


def test_debug_replaces_only_what_it_made(small_bundle, handover, tmp_path, capfd):
    assert main(["debug", str(small_bundle), "--out", str(handover)]) == 3
    assert "already exists" in capfd.readouterr().err
    assert main(["debug", str(small_bundle), "--out", str(handover), "--force"]) == 0
    (tmp_path / "mine").mkdir()
    assert main(["debug", str(small_bundle), "--out", str(tmp_path / "mine"), "--force"]) == 3
    assert "not something that this command made" in capfd.readouterr().err


def test_export_says_what_it_wrote_and_the_command(small_bundle, tmp_path, capfd):
    cache = tmp_path / "new" / "dla.cache"
    arguments = ["export", str(small_bundle), "--calibration-cache", str(cache), "--threads", "1"]
    assert main([*arguments, "--tensorrt", "10.3"]) == 0
    printed = capfd.readouterr()
    assert printed.err == ""
    assert "--useDLACore=0 --allowGPUFallback" in printed.out
    assert {path.name for path in cache.parent.iterdir()} == {"dla.cache", "dla.onnx", "dla.precisions"}


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (
            ["export", "{b}", "--calibration-cache", "{t}/c", "--tensorrt", "10.16"],
            2,
            "10.16 has no DLA",
        ),
        (["export", "{b}", "--calibration-cache", "{t}/c", "--tensorrt", "11.3"], 2, "11.3 has no DLA"),
        (
            ["export", "{b}", "--calibration-cache", "{t}/c", "--tensorrt", "11.4.1"],
            2,
            "takes no cal",
        ),
        (["export", "{b}", "--calibration-cache", "{t}/c", "--tensorrt", "8.5"], 2, "give it as 8.5.2"),
        (["export", "{b}", "--calibration-cache", "{t}/c.onnx", "--tensorrt", "10.3"], 2, "cannot end in"),
        (["export", "{b}", "--calibration-cache", "{t}/c"], 2, "--tensorrt"),
        (["export", "{t}/none", "--calibration-cache", "{t}/c", "--tensorrt", "10.3"], 3, "no such bundle"),
        (["export", "{b}", "--calibration-cache", "{t}", "--tensorrt", "10.3"], 3, "no regular file"),
        (["inspect", "{b}", "--dla", "--tensorrt", "10.8"], 2, "TensorRT 10.8 has no DLA"),
        (["inspect", "{b}", "--tensorrt", "10.3"], 2, "goes with --dla"),
        (["inspect", "{b}", "--dla", "--json"], 2, "do not go together"),
        (["debug", "{t}/none", "--out", "{t}/d"], 3, "no such bundle"),
    ],
    ids=lambda value: " ".join(value[2:]) if isinstance(value, list) else "",
)
def test_what_cannot_be_done_is_one_line(small_bundle, tmp_path, capfd, arguments, code, says):
    assert main([word.format(b=small_bundle, t=tmp_path) for word in arguments]) == code
    printed = capfd.readouterr()
    assert printed.out == ""
    assert says in printed.err
    assert printed.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("version", "says"), [([], "10.3: scales"), (["--tensorrt", "11.4.1"], "11.4.1: INT8 and float16")]
)
def test_inspect_dla_lists_what_falls_back_and_why(small_bundle, capfd, version, says):
    assert main(["inspect", str(small_bundle), "--dla", *version]) == 0
    out = capfd.readouterr().out
    assert f"DLA with TensorRT {says}" in out
    assert "not what a device built" in out
    assert "student.head.CumSum: TensorRT has no DLA layer for CumSum; it could be rebuilt of others" in out
