"""What NVRTC makes of our kernels, and their least time on Orin, into docs/results/cubins.json.

    python tools/measure_cubins.py

Registers, shared memory and spills are the assembler's own words. The least time is bytes over bandwidth:
pictures (or the part of them that blocks read, where a lens leaves some unused), tables and the network's
input, each moved once, at the memory's full rate; a kernel that is there takes longer.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fsmde_edge.files import atomic_write
from fsmde_edge.gpu.nvrtc import compile_cubin, nvrtc_version, resources
from fsmde_edge.preprocessing.launch import SOURCE, THREADS, Launch, plan_launch
from fsmde_edge.preprocessing.raw import FORMATS, RawLayout
from fsmde_edge.rig import BrownConrady, Camera, Distortion, NoDistortion, VirtualPinhole
from fsmde_edge.targets import load_target

RECORD = Path(__file__).parent.parent / "docs" / "results" / "cubins.json"
ARCHITECTURES = ("sm_87", "sm_86", "sm_90")
TARGETS = ("orin-agx-64gb", "orin-nx-16gb", "orin-nano-8gb")
FORMAT_CODES = ("UYVY", "NV12", "RGB3", "RG12")
LENSES: dict[str, Distortion] = {"pinholes": NoDistortion(), "lenses": BrownConrady(k1=-0.3, k2=0.08)}
CAMERA, VIEW, VIEWS = (1936, 1216), (640, 384), 6


def main() -> int:
    """Compile, count, record."""
    launches = {(code, lens): launch_of(code, LENSES[lens]) for lens in LENSES for code in FORMAT_CODES}
    sizes = f"six cameras of {CAMERA[0]}×{CAMERA[1]} to {VIEWS}×{VIEW[1]}×{VIEW[0]}"
    record = {"data": f"NVRTC {nvrtc_version()}; {sizes}", "tables": [compiled(), moved(launches)]}
    atomic_write(RECORD, json.dumps(record, indent=1, ensure_ascii=False).encode() + b"\n")
    return 0


def launch_of(code: str, lens: Distortion) -> Launch:
    """The launch of six cameras alike."""
    width, height = CAMERA
    k = np.array([[1060.0, 0, width / 2], [0, 1060.0, height / 2], [0, 0, 1]])
    camera = Camera(
        name="a", width=width, height=height, intrinsics=k, camera_to_vehicle=np.eye(4), distortion=lens
    )
    layout = RawLayout(code=code, width=width, height=height)
    return plan_launch([camera] * VIEWS, [VirtualPinhole.of(camera, *VIEW)] * VIEWS, [layout] * VIEWS)


def compiled() -> dict[str, object]:
    """One row for each architecture."""
    rows = []
    for architecture in ARCHITECTURES:
        cubin = compile_cubin(SOURCE, architecture)
        used = resources(cubin)
        spills = used.spill_stores + used.spill_loads
        rows.append(
            [architecture, len(cubin.code), used.registers, used.registers * THREADS, used.stack, spills]
        )
    header = (SOURCE.name, "cubin bytes", "registers", "of a block", "stack bytes", "spilled bytes")
    return {"title": "Compiled", "header": header, "rows": [[str(cell) for cell in row] for row in rows]}


def moved(launches: dict[tuple[str, str], Launch]) -> dict[str, object]:
    """One row for each format and lens: bytes, and the least time in each target's first power mode."""
    modes = {name: load_target(name)[0].modes[0] for name in TARGETS}
    header = (
        *("", "tile", "shared KiB", "pictures MB", "read / pictures", "tables MB", "moved MB"),
        *(f"{name} {mode.name}, ms" for name, mode in modes.items()),
    )
    rows = []
    for (code, lens), launch in launches.items():
        least = launch.moved - max(0, launch.pictures - launch.staged)
        times = [f"{least / (mode.bandwidth_gb_s or 0) / 1e6:.3f}" for mode in modes.values()]
        sizes = [
            f"{launch.shape[2]}×{launch.shape[3]}",
            f"{launch.shared / 1024:.1f}",
            f"{launch.pictures / 1e6:.1f}",
            f"{launch.staged / launch.pictures:.2f}",
            f"{launch.tables.nbytes / 1e6:.2f}",
            f"{least / 1e6:.1f}",
        ]
        rows.append([f"{code} ({FORMATS[code].name}), {lens}", *sizes, *times])
    return {
        "title": "Bytes of a frame set, and the least time that they take",
        "header": header,
        "rows": rows,
    }


if __name__ == "__main__":
    sys.exit(main())
