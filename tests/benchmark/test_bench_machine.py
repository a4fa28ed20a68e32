"""A machine's state from sysfs: a made tree of a Jetson's, and one that tells nothing."""

from pathlib import Path

import pytest

from fsmde_edge.benchmark.machine import MachineState, describe_machine, read_state, versions


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


CONF = """\
# comment: < POWER_MODEL ID=2 NAME=NOT_THIS >
< PM_CONFIG DEFAULT=2 >
< POWER_MODEL ID=0 NAME=15W >
CPU_A78_0 MIN_FREQ 729600
< POWER_MODEL ID=2 NAME=MAXN_SUPER >
"""
ORIN = {
    "var/lib/nvpmodel/status": "pmode:0002\nfmode:quiet\n",
    "etc/nvpmodel.conf": CONF,
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1728000\n",
    "sys/devices/system/cpu/cpu10/cpufreq/scaling_cur_freq": "729600\n",
    "sys/devices/system/cpu/cpu2/cpufreq/scaling_cur_freq": "1190400\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": "1\n",
    "sys/class/devfreq/17000000.gpu/cur_freq": "1020000000\n",
    "sys/class/devfreq/15340000.vic/cur_freq": "115200000\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "51250\n",
    "sys/class/thermal/thermal_zone1/type": "gpu-thermal\n",
    "sys/class/thermal/thermal_zone1/temp": "52906\n",
    "sys/class/thermal/thermal_zone2/type": "cv0-thermal\n",
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
}


def test_a_jetson_tells_everything(tmp_path):
    root = write(tmp_path, ORIN | {"sys/devices/platform/gpu.0/load": "347\n"})
    state = read_state(root)
    assert state == MachineState(
        power_mode="MAXN_SUPER",
        cpu_mhz={"cpu0": 1728.0, "cpu2": 1190.4, "cpu10": 729.6},
        gpu_mhz=1020.0,
        gpu_load=0.347,
        celsius={"cpu-thermal": 51.25, "gpu-thermal": 52.906},
    )
    assert list(state.cpu_mhz) == ["cpu0", "cpu2", "cpu10"]
    assert str(state) == (
        "power mode MAXN_SUPER, CPU 730 to 1728 MHz, GPU 1020 MHz, GPU load 35%, 52.9 °C (gpu-thermal)"
    )
    assert describe_machine(root)["board"] == "NVIDIA Jetson Orin Nano Developer Kit"


def test_jetpack_5_keeps_the_load_elsewhere(tmp_path):
    root = write(
        tmp_path,
        {"sys/devices/gpu.0/load": "1000\n", "sys/class/devfreq/17000000.ga10b/cur_freq": "306000000\n"},
    )
    state = read_state(root)
    assert (state.gpu_load, state.gpu_mhz) == (1.0, 306.0)


def test_a_mode_without_a_name_is_its_number(tmp_path):
    assert read_state(write(tmp_path, {"var/lib/nvpmodel/status": "pmode:0003"})).power_mode == "3"


def test_zones_of_one_name_are_kept_apart(tmp_path):
    zones = {
        f"sys/class/thermal/thermal_zone{i}/{n}": v
        for i in (0, 1)
        for n, v in (("type", "acpitz"), ("temp", "1000"))
    }
    assert set(read_state(write(tmp_path, zones)).celsius) == {"acpitz", "acpitz (thermal_zone1)"}


@pytest.mark.parametrize("text", ["", "N/A", "\xff\xfe"])
def test_a_machine_that_tells_nothing_is_not_guessed_at(tmp_path, text):
    root = write(tmp_path, {"sys/class/thermal/thermal_zone0/temp": text, "sys/devices/gpu.0/load": text})
    state = read_state(root)
    assert state == MachineState(cpu_mhz={}, celsius={})
    assert "tells no power mode" in str(state)
    assert "board" not in describe_machine(root)


def test_versions_name_what_computes():
    assert {"python", "fsmde-edge", "numpy", "onnxruntime"} <= set(versions())
