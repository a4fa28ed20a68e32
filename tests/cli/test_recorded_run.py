"""`run --record` and back: the same depth, bit for bit, through the command line."""

from __future__ import annotations

import numpy as np
import pytest
from plyfile import PlyData

from fsmde_edge.cli.main import main

ONCE = ("--threads", "1", "--format", "npz")


def depths(folder):
    return [np.load(file)["depth"] for file in sorted(folder.glob("*.npz"))]


@pytest.fixture(scope="module")
def recording(small_bundle, tmp_path_factory):
    """A synthetic drive of two scenes, its depth beside it."""
    folder = tmp_path_factory.mktemp("drive")
    arguments = ["--source", "synthetic", "--frames", "5", "--out", str(folder / "depth"), *ONCE]
    assert main(["run", str(small_bundle), *arguments, "--record", str(folder / "drive.mcap")]) == 0
    return folder


@pytest.mark.parametrize("how", ["kernel", "definition"])
def test_a_recording_runs_to_the_same_depth_bit_for_bit(small_bundle, recording, tmp_path, how):
    arguments = ["--source", str(recording / "drive.mcap"), "--out", str(tmp_path), "--preprocess", how]
    assert main(["run", str(small_bundle), *arguments, *ONCE]) == 0
    then, now = depths(recording / "depth"), depths(tmp_path)
    assert len(then) == len(now) == 5
    for before, after in zip(then, now, strict=True):
        np.testing.assert_array_equal(after.view(np.uint32), before.view(np.uint32))


def test_a_recording_of_a_recording_is_the_same_again(small_bundle, recording, tmp_path):
    again = tmp_path / "again.mcap"
    source = ["--source", str(recording / "drive.mcap"), *ONCE]
    assert main(["run", str(small_bundle), *source, "--record", str(again)]) == 0
    folder = str(tmp_path / "depth")
    assert main(["run", str(small_bundle), "--source", str(again), "--out", folder, *ONCE]) == 0
    for before, after in zip(depths(recording / "depth"), depths(tmp_path / "depth"), strict=True):
        np.testing.assert_array_equal(after.view(np.uint32), before.view(np.uint32))


def test_a_jpeg_recording_says_that_its_depth_is_another(small_bundle, tmp_path, capfd):
    file = str(tmp_path / "drive.mcap")
    arguments = ["--source", "synthetic", "--frames", "1", "--record", file, "--record-jpeg", "80"]
    assert main(["run", str(small_bundle), *arguments, "--threads", "1"]) == 0
    assert main(["run", str(small_bundle), "--source", file, "--threads", "1"]) == 0
    assert "recording's pictures are JPEG" in capfd.readouterr().out


def test_a_truncated_recording_is_one_line_after_its_whole_sets(small_bundle, recording, tmp_path, capfd):
    cut = tmp_path / "cut.mcap"
    whole = (recording / "drive.mcap").read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    out = tmp_path / "depth"
    assert main(["run", str(small_bundle), "--source", str(cut), "--out", str(out), *ONCE]) == 3
    line = capfd.readouterr().err
    sets = len(depths(out))
    assert 1 <= sets < 5
    assert line.count("\n") == 1
    assert f"its {sets} whole sets were read; read no further than those: --frames {sets}" in line
    limited = ["--frames", str(sets), "--out", str(out), *ONCE]
    assert main(["run", str(small_bundle), "--source", str(cut), *limited]) == 0


def test_points_are_written_beside_everything_else(small_bundle, tmp_path):
    arguments = ["--source", "synthetic", "--frames", "2", "--points", str(tmp_path), "--points-stride", "8"]
    assert main(["run", str(small_bundle), *arguments, "--threads", "1"]) == 0
    clouds = [PlyData.read(str(tmp_path / f"{n:06d}.ply"))["vertex"] for n in range(2)]
    assert [cloud.count for cloud in clouds] == [6 * 12 * 20] * 2
    sure = [*arguments, "--min-confidence", "0.5"]
    assert main(["run", str(small_bundle), *sure, "--threads", "1"]) == 0
    assert PlyData.read(str(tmp_path / "000000.ply"))["vertex"].count < 6 * 12 * 20


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--record-jpeg", "80"], "--record-jpeg goes with --record"),
        (["--points-stride", "2"], "--points-stride goes with --points or --record"),
        (["--min-confidence", "0.5"], "--min-confidence goes with --points or --record"),
        (["--record", "drive.bag"], "drive.bag: a recording is an MCAP file; give it the ending .mcap"),
    ],
)
def test_options_that_do_not_go_together_are_one_line(
    small_bundle, arguments, line, capfd, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert main(["run", str(small_bundle), "--source", "synthetic", *arguments]) == 2
    assert capfd.readouterr().err == f"fsmde-edge: {line}\n"
    assert not list(tmp_path.iterdir())
