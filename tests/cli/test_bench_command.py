"""`bench` through the command line: rates, soak, JSON, and two measurements compared."""

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
from hearing import HEARING

from fsmde_edge.benchmark.drift import Drift
from fsmde_edge.benchmark.record import Measurement
from fsmde_edge.bundle import open_bundle
from fsmde_edge.cli.main import main

QUICK = ["--threads", "1", "--warmup", "1", "--size", "320x192", "--rates", "40,80", "--seconds", "0.2"]


@pytest.fixture(scope="module")
def measured(small_bundle, tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "a.json"
    words = ["bench", small_bundle, *QUICK, "--repeats", "4", "--runs", "2", "--json", path]
    assert main([str(word) for word in words]) == 0
    return path


def test_the_json_holds_what_is_needed_to_believe_it(measured, small_bundle):
    found = json.loads(measured.read_text())
    pipeline = found["pipeline"]
    assert found["bundle"] == open_bundle(small_bundle).hash
    assert found["complete"] is True
    assert {"fp32", "int8"} <= set(found["latency"]) == set(found["sessions"])
    assert [rate["hz"] for rate in pipeline["rates"]] == [40, 80]
    for rate in pipeline["rates"]:
        assert set(rate["stages"]) == {"preprocess", "infer", "total", "latency"}
        assert all(len(values) == 4 for values in rate["runs"].values())
        assert rate["published"] == 4 * round(0.2 * rate["hz"])
        stages = rate["stages"]
        assert stages["total"]["p50"] <= stages["latency"]["p50"]
        assert stages["latency"]["p50"] <= stages["latency"]["p99"] <= stages["latency"]["max"]
    assert pipeline["fed"]["layouts"][0] == "UYVY 320x192"
    assert pipeline["throughput"]["probes"]
    assert pipeline["warmup"] == 1
    assert pipeline["peak_mib"] > 10


def test_a_bench_beside_itself_shows_no_difference(measured, capsys):
    assert main(["bench", "--compare", str(measured), str(measured)]) == 0
    out = capsys.readouterr().out
    rows = [line for line in out.splitlines() if " Hz, " in line]
    assert len(rows) == 2 * 5
    assert all("no difference seen" in line and " 1.000 " in line for line in rows)


def test_different_bundles_are_compared_only_if_asked_for(measured, tmp_path, capsys):
    other = tmp_path / "b.json"
    replace(Measurement.load(measured), bundle="c" * 64).save(other)
    words = ["bench", "--compare", str(measured), str(other)]
    assert main(words) == 3
    assert "did not measure the same: bundles" in capsys.readouterr().err
    assert main([*words, "--across"]) == 0
    assert "DIFFERENT: bundles" in capsys.readouterr().out


def test_an_age_that_grows_is_an_error_after_everything_is_written(
    small_bundle, tmp_path, capsys, monkeypatch
):
    grown = Drift(slope=2.0, low=1.5, high=2.5, minutes=10.0, median=20.0)
    monkeypatch.setattr("fsmde_edge.benchmark.measure.drift_of", lambda *_: grown)
    path = tmp_path / "soak.json"
    words = ["bench", small_bundle, *QUICK, "--only", "pipeline", "--repeats", "1", "--soak", "0.01"]
    assert main([*map(str, words), "--json", str(path)]) == 5
    said = capsys.readouterr()
    assert "the age GROWS" in said.out
    assert "depth grows older: 2.000 ms a minute" in said.err
    assert Measurement.load(path).pipeline.drift == grown


def test_a_short_soak_has_a_slope(small_bundle, tmp_path, capsys):
    words = ["bench", small_bundle, *QUICK, "--only", "pipeline", "--repeats", "1", "--soak", "0.02"]
    assert main([*map(str, words), "--json", str(tmp_path / "soak.json")]) in (0, 5)
    drift = Measurement.load(tmp_path / "soak.json").pipeline.drift
    assert drift.minutes == pytest.approx(0.02, rel=0.1)
    assert "soak: the age" in capsys.readouterr().out


def test_control_c_keeps_the_runs_that_were_whole(small_bundle, tmp_path):
    path = tmp_path / "bench.json"
    words = ["bench", small_bundle, *QUICK, "--only", "pipeline", "--repeats", "100000", "--json", path]
    command = [*HEARING, sys.executable, "-m", "fsmde_edge", *map(str, words)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(timeout=8)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate()
    assert child.returncode == 0, err
    found = Measurement.load(path)
    assert not found.complete
    assert found.pipeline.rates, out
    assert "not all that was asked for" in out


def test_a_recording_can_be_fed(small_bundle, tmp_path):
    path = tmp_path / "bench.json"
    words = ["bench", small_bundle, "--only", "pipeline", "--source", "synthetic", "--pixel-format", "NV12"]
    words += ["--rates", "40", "--seconds", "0.1", "--repeats", "1", "--threads", "1", "--warmup", "1"]
    assert main([*map(str, words), "--json", str(path)]) == 0
    fed = Measurement.load(path).pipeline.fed
    assert fed.layouts == ("NV12 160x96",) * 6


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--rates", "10,10"], "twice"),
        (["--rates", "0"], "sets a second"),
        (["--rates", "nan"], "sets a second"),
        (["--rates", "10,"], "sets a second"),
        (["--seconds", "-1"], "seconds"),
        (["--soak", "inf"], "minutes"),
        (["--across"], "--compare"),
        (["--source", "synthetic", "--size", "64x32"], "--size"),
        (["--rig", "rig.yaml"], "--source"),
        (["--compare", "a.json"], "--compare"),
        (["--pixel-format", "RGGB"], "RGGB"),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_a_usage_error(capfd, words, said):
    assert main(["bench", *words]) == 2
    err = capfd.readouterr().err
    assert said in err
    assert len(err.splitlines()) == 1


def test_a_damaged_record_is_named(measured, tmp_path, capsys):
    broken = tmp_path / "broken.json"
    shutil.copy(measured, broken)
    broken.write_text(broken.read_text()[:-50])
    assert main(["bench", "--compare", str(measured), str(broken)]) == 3
    assert "broken.json" in capsys.readouterr().err
