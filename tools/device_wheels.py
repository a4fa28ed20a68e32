"""Prove that the device install resolves to wheels alone on a Jetson: nothing compiles there.

    python tools/device_wheels.py [--out docs/results/device_wheels.json]

For each case (an extra, on a JetPack) pip resolves the requirements in pyproject.toml, as it would on the
board: aarch64, that Python, wheels alone, none of them for a newer glibc than the board's. Nothing is
installed, and only metadata are downloaded. pip evaluates environment markers for the machine that it runs
on; so every wheel's own requirements are walked again with the board's markers, and what pip left out is
added and resolved anew. Needs Python 3.11 or later, a network, and `packaging`. Exit 1 if a case fails.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomllib
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from fsmde_edge.files import atomic_write

REPOSITORY = Path(__file__).resolve().parents[1]
RESULT = REPOSITORY / "docs" / "results" / "device_wheels.json"
ROUNDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """What decides which wheels a board takes.

    Attributes:
        name: of its system.
        python: the version of its system's Python.
        glibc: minor version of its glibc 2.
    """

    name: str
    python: str
    glibc: int

    @property
    def pip_options(self) -> list[str]:
        """What makes pip resolve for this board instead of for this machine."""
        abi = "cp" + self.python.replace(".", "")
        options = ["--implementation", "cp", "--python-version", self.python]
        options += [word for name in (abi, "abi3", "none") for word in ("--abi", name)]
        platforms = [f"manylinux_2_{minor}_aarch64" for minor in range(self.glibc, 16, -1)]
        return options + [w for name in (*platforms, "manylinux2014_aarch64") for w in ("--platform", name)]

    @property
    def markers(self) -> dict[str, str]:
        """The environment that markers are evaluated in."""
        return {
            "implementation_name": "cpython",
            "implementation_version": f"{self.python}.0",
            "os_name": "posix",
            "platform_machine": "aarch64",
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": f"{self.python}.0",
            "python_version": self.python,
            "sys_platform": "linux",
        }


JETPACK_6 = Board(name="JetPack 6 (Ubuntu 22.04)", python="3.10", glibc=35)
JETPACK_7 = Board(name="JetPack 7 (Ubuntu 24.04)", python="3.12", glibc=39)

CASES: tuple[tuple[str, Board], ...] = (
    ("", JETPACK_6),
    ("", JETPACK_7),
    ("cuda12", JETPACK_6),
    ("cuda13", JETPACK_7),
    ("openvino", JETPACK_6),
    ("openvino", JETPACK_7),
)
"""(extra, or empty for the base install; board)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """One wheel that pip chose.

    Attributes:
        name: normalised.
        version: as released.
        tags: Python, ABI and platform, from its file name.
        requires: what it needs, markers and all.
    """

    name: str
    version: str
    tags: str
    requires: tuple[Requirement, ...]


class PipRefusedError(Exception):
    """pip found no set of wheels; the text is its own, without addresses."""


def main(arguments: list[str] | None = None) -> int:
    """Resolve every case, write the record, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args(arguments)
    cases = [examine(extra, board) for extra, board in CASES]
    atomic_write(args.out, json.dumps({"cases": cases, "tables": [_table(cases)]}, indent=1).encode() + b"\n")
    for case in cases:
        found = case["error"] or f"{len(case['wheels'])} wheels: {', '.join(case['wheels'])}"
        print(f"{case['extra'] or 'base':9s} {case['board']}, Python {case['python']}: {found}")
    return 1 if any(case["error"] for case in cases) else 0


def _table(cases: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The record in short, as tools/tables.py renders it."""
    rows = [
        (
            f"{case['extra'] or 'base'}, Python {case['python']}",
            case["board"],
            f"{len(case['wheels'])} wheels" if case["error"] is None else case["error"],
        )
        for case in cases
    ]
    return {"title": "The device install for aarch64", "header": ["", "board", "resolves to"], "rows": rows}


def examine(extra: str, board: Board) -> dict[str, Any]:
    """One case of the record: the wheels, or pip's refusal."""
    roots = requirements(extra)
    try:
        wheels, error = resolve(roots, board), None
    except PipRefusedError as refusal:
        wheels, error = [], str(refusal)
    return {
        "extra": extra or None,
        "board": board.name,
        "python": board.python,
        "newest_glibc": f"2.{board.glibc}",
        "requirements": [str(root) for root in roots],
        "wheels": {f"{wheel.name}=={wheel.version}": wheel.tags for wheel in wheels},
        "error": error,
    }


def requirements(extra: str) -> list[Requirement]:
    """What pyproject.toml asks for: the base install, with an extra."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(project["optional-dependencies"][extra] if extra else ())]
    return [Requirement(line) for line in lines]


def resolve(roots: Iterable[Requirement], board: Board) -> list[Wheel]:
    """All wheels that the board would install.

    Raises:
        PipRefusedError: something has no wheel for the board, or versions conflict.
    """
    asked = [root for root in roots if holds(root, board, ())]
    for _ in range(ROUNDS):
        chosen = ask_pip(asked, board)
        needed, missing = walk(asked, chosen, board)
        if not missing:
            return sorted((chosen[name] for name in needed), key=lambda wheel: wheel.name)
        asked += missing
    raise PipRefusedError(f"after {ROUNDS} rounds still missing: {', '.join(map(str, missing))}")


def ask_pip(asked: Iterable[Requirement], board: Board) -> dict[str, Wheel]:
    """One dry run of pip; the wheels by normalised name. Markers that do not hold here are stripped."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--dry-run"]
    command += ["--report", "-", "--ignore-installed", "--only-binary=:all:", *board.pip_options]
    with tempfile.TemporaryDirectory() as target:  # pip wants one for foreign platforms; it stays empty
        command += ["--target", target, *(str(bare(requirement)) for requirement in asked)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
        raise PipRefusedError(re.sub(r"\w+://\S+", "(address)", " ".join(lines or done.stderr.splitlines())))
    return {wheel.name: wheel for wheel in map(read_wheel, json.loads(done.stdout)["install"])}


def read_wheel(entry: Mapping[str, Any]) -> Wheel:
    """One entry of pip's report."""
    metadata = entry["metadata"]
    stem, ending = entry["download_info"]["url"].rsplit("/", 1)[1].rsplit(".", 1)
    if ending != "whl":
        raise PipRefusedError(f"{metadata['name']} would be built from source")
    return Wheel(
        name=canonicalize_name(metadata["name"]),
        version=metadata["version"],
        tags="-".join(stem.split("-")[-3:]),
        requires=tuple(map(Requirement, metadata.get("requires_dist", ()))),
    )


def walk(
    roots: Iterable[Requirement], chosen: Mapping[str, Wheel], board: Board
) -> tuple[set[str], list[Requirement]]:
    """Follow requirements with the board's markers: (wheels reached, requirements that none meets)."""
    seen: set[tuple[str, frozenset[str]]] = set()
    missing: list[Requirement] = []
    queue = list(roots)
    while queue:
        requirement = queue.pop()
        step = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        wheel = chosen.get(step[0])
        if wheel is None or not requirement.specifier.contains(wheel.version, prereleases=True):
            missing.append(bare(requirement))
        elif step not in seen:
            seen.add(step)
            queue += [r for r in wheel.requires if holds(r, board, requirement.extras)]
    return {name for name, _ in seen}, missing


def holds(requirement: Requirement, board: Board, extras: Iterable[str]) -> bool:
    """Whether a requirement applies on the board, for a package that was asked for with these extras."""
    marker = requirement.marker
    return marker is None or any(marker.evaluate({**board.markers, "extra": e}) for e in ("", *extras))


def bare(requirement: Requirement) -> Requirement:
    """A requirement without its marker."""
    copy = Requirement(str(requirement))
    copy.marker = None
    return copy


if __name__ == "__main__":
    sys.exit(main())
