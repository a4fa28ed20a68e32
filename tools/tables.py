"""Render the tables of docs/*.md from recorded results.

A page holds pairs of comment lines; everything between them is rendered from docs/results/NAME.json:

    <!-- table: NAME -->                     all tables of that record
    <!-- table: NAME | FP32 beside INT8 -->  those whose titles start like this
    <!-- end -->

`python tools/tables.py` writes; `--check` only says whether anything would change (exit 1).
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from fsmde_edge.evaluation.report import Table

DOCS = Path(__file__).parent.parent / "docs"
_BLOCK = re.compile(r"(<!-- table: ([\w./-]+)(?: \| ([^>]+?))? -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> int:
    """Render every page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a page is out of date")
    options = parser.parse_args()
    stale = []
    for page in sorted(DOCS.rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        rendered = _BLOCK.sub(_render, text)
        if rendered != text:
            stale.append(page)
            if not options.check:
                page.write_text(rendered, encoding="utf-8")
    for page in stale:
        print(f"{'out of date' if options.check else 'rendered'}: {page.relative_to(DOCS.parent)}")
    return 1 if stale and options.check else 0


def _render(block: re.Match[str]) -> str:
    record = json.loads((DOCS / "results" / f"{block[2]}.json").read_text(encoding="utf-8"))
    tables = [Table(**table) for table in record["tables"]]
    if block[3]:
        tables = [table for table in tables if table.title.startswith(block[3])]
    if not tables:
        sys.exit(f"no table of {block[2]} has a title that starts with '{block[3]}'")
    parts = [f"**{table.title}**\n\n{table.as_markdown()}\n" for table in tables]
    return f"{block[1]}{_origin(record)}\n\n" + "\n".join(parts) + block[4]


def _origin(record: dict[str, Any]) -> str:
    """Bundle, data and machine of a record, in one line."""
    parts = []
    if record.get("bundle"):
        parts.append(f"bundle `{record['bundle'][:16]}`")
    parts += [str(record[key]) for key in ("data", "machine") if record.get(key)]
    return f"_{', '.join(parts)}_"


if __name__ == "__main__":
    sys.exit(main())
