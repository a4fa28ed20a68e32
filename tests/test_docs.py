"""What the README and the docs say is true: commands run, tables are up to date."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from fsmde_edge.cli import main as command_line
from fsmde_edge.compiler.foreign import ForeignConfig
from fsmde_edge.compiler.quantise import Method
from fsmde_edge.compiler.recipe import CalibRecipe
from fsmde_edge.datasets.selection import Selection
from fsmde_edge.evaluation.gate import GateBudget
from fsmde_edge.recipes import from_mapping

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = [block.replace("\\\n", " ") for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)]
COMMANDS = [
    line
    for block in BLOCKS
    for line in (shlex.split(line, comments=True) for line in block.splitlines())
    if line[:1] == ["fsmde-edge"]
]


def test_the_readme_shows_commands():
    assert len(COMMANDS) >= 8


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_in_the_readme_parses(command):
    command_line._parser(command[1:]).parse_args(command[1:])


@pytest.mark.slow
def test_the_commands_that_need_no_data_run_word_by_word(tmp_path):
    by_hand = next(block for block in BLOCKS if "fsmde-edge inspect" in block)
    program = Path(sys.executable).with_name("fsmde-edge")
    for line in by_hand.splitlines():
        arguments = shlex.split(line, comments=True)[1:]
        done = subprocess.run(
            [program, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        # A machine may really have a problem that doctor finds; everything else must succeed.
        assert done.returncode == 0 or arguments == ["doctor"], f"{line}: {done.stderr}"
        assert "Traceback" not in done.stderr
    assert (tmp_path / "bundle" / "manifest.json").is_file()
    assert (tmp_path / "mosaic.png").stat().st_size > 10_000


def test_tables_in_docs_are_what_the_records_say():
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "tables.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"run 'make tables': {done.stdout}{done.stderr}"


def test_pictures_that_pages_show_exist():
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for name in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / name).is_file(), f"{page.name} shows {name}"


def test_the_files_that_a_page_shows_are_files_that_build_reads():
    text = (ROOT / "docs" / "files.md").read_text(encoding="utf-8")
    recipe, convention = (
        yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    )
    assert from_mapping(CalibRecipe, recipe, where="docs").size == (384, 640)
    assert from_mapping(ForeignConfig, convention, where="docs").output.kind == "metric"
    rows = re.findall(r"^\| (`[^|]*) \|", text, re.MULTILINE)
    told = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    known = {field.name for kind in (Selection, Method, GateBudget) for field in fields(kind)}
    assert told == known | {"method", "budget"}
