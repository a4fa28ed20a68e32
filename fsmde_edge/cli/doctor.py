"""fsmde-edge doctor: what this machine has, and what to install."""

from __future__ import annotations

import argparse

EXAMPLES = """examples:
  fsmde-edge doctor
  fsmde-edge doctor --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `doctor`."""
    parser.add_argument("--json", action="store_true", help="the findings as JSON")


def run(args: argparse.Namespace) -> int:
    """Print every finding; exit 5 if there is a problem."""
    import json
    from dataclasses import asdict

    from fsmde_edge.doctor import examine

    findings = examine()
    if args.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        for finding in findings:
            print(f"{finding.level:8s} {finding.what:17s} {finding.detail}")
            if finding.advice:
                print(f"{'':26s} -> {finding.advice}")
    return 5 if any(finding.level == "problem" for finding in findings) else 0
