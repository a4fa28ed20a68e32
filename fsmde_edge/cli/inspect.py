"""fsmde-edge inspect: what a bundle holds."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from fsmde_edge.cli.arguments import add_bundle

EXAMPLES = """examples:
  fsmde-edge inspect
  fsmde-edge inspect bundle --plan      also every tensor: INT8 or float, scale, reason
  fsmde-edge inspect bundle --layers    also the kernels: by our model of TensorRT, and RTX's own
  fsmde-edge inspect bundle --layers --precision int8-fp16
  fsmde-edge inspect bundle --dla       also what a DLA would run, and what falls back to the GPU
  fsmde-edge inspect bundle --dla --tensorrt 11.4.1
  fsmde-edge inspect bundle --json
"""

SHA256_DIGITS = 64
DLA_TENSORRT = "10.3"
"""Of JetPack 6, the one that most boards with a DLA run."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `inspect`."""
    add_bundle(parser)
    parser.add_argument("--plan", action="store_true", help="every tensor and weight: INT8 or float, and why")
    parser.add_argument(
        "--layers", action="store_true", help="what becomes one kernel, by our model and RTX's"
    )
    parser.add_argument("--precision", metavar="P", help="with --layers: which model (default: the smallest)")
    parser.add_argument("--dla", action="store_true", help="what a Jetson's DLA would run, and what not")
    parser.add_argument("--tensorrt", metavar="V", help=f"with --dla: of which TensorRT ({DLA_TENSORRT})")
    parser.add_argument("--json", action="store_true", help="the manifest as JSON")


def run(args: argparse.Namespace) -> int:
    """Verify the bundle and print what it says of itself."""
    import json

    from fsmde_edge.bundle import MANIFEST, open_bundle

    _refuse_mixtures(args)
    bundle = open_bundle(args.bundle)
    if args.json:
        print(json.dumps(json.loads((bundle.root / MANIFEST).read_text(encoding="utf-8")), indent=1))
        return 0
    manifest = bundle.manifest
    held = [name for name, file in manifest.models.items() if file]
    listed = bundle.model(args.precision or held[-1])  # refused before anything is printed
    height, width = manifest.size
    print(f"bundle       {bundle.root} ({bundle.hash[:16]}), every file verified")
    print(f"made         {manifest.created} by fsmde-edge {manifest.version} for {manifest.target}")
    print(f"from         {_plain(manifest.source)}")
    unit = "metres" if manifest.metric else manifest.kind
    print(f"network      {len(manifest.views)} x {height} x {width}, {unit}")
    print(f"views        {', '.join(f'{v.name} (fx {v.fx:.0f})' for v in manifest.views)}")
    for name, file in manifest.models.items():
        if file:
            print(f"model        {name:10s} {(bundle.root / file).stat().st_size / 1e6:8.2f} MB  {file}")
    if manifest.calibration:
        print(f"calibration  {_plain(manifest.calibration)}")
    if manifest.gate:
        keys = ("verdict", "deviation", "p99", "worst_tile", "farther", "abs_rel_change")
        print(f"gate         {_plain({key: manifest.gate[key] for key in keys})}")
    print(f"tools        {_plain(manifest.tools)}")
    for notice in manifest.notices:
        print(f"notice       {notice}")
    if args.plan:
        for line in _plan_lines(bundle.root / "plan.json"):
            print(line)
    if args.layers:
        from fsmde_edge.compiler.layers import layer_lines

        for line in layer_lines(listed):
            print(line)
    if args.dla:
        from fsmde_edge.compiler.layers import dla_lines
        from fsmde_edge.compiler.lowering.dla import refuse_board_without_dla

        refuse_board_without_dla(manifest.target)
        for line in dla_lines(bundle.model("fp32"), args.tensorrt or DLA_TENSORRT):
            print(line)
    return 0


def _refuse_mixtures(args: argparse.Namespace) -> None:
    from fsmde_edge.errors import UsageError

    if args.plan and args.json:
        raise UsageError("--plan and --json do not go together", hint="the plan is JSON: BUNDLE/plan.json")
    if args.layers and args.json:
        raise UsageError(
            "--layers and --json do not go together", hint="kernels as JSON: fsmde-edge estimate --json"
        )
    if args.dla and args.json:
        raise UsageError("--dla and --json do not go together", hint="give one of them")
    if args.tensorrt and not args.dla:
        raise UsageError("--tensorrt goes with --dla", hint="add --dla")
    if args.dla:
        from fsmde_edge.compiler.predict.dla import dla_way, parse_version

        dla_way(parse_version(args.tensorrt or DLA_TENSORRT))  # refused before anything is printed
    if args.precision and not args.layers:
        raise UsageError("--precision goes with --layers", hint="add --layers")


def _plain(values: Mapping[str, object]) -> str:
    """What can be read at a glance; nested values are only named: --json has all of them."""
    nested = [key for key, value in values.items() if isinstance(value, (dict, list, tuple))]
    told = [f"{key} {_short(value)}" for key, value in values.items() if key not in nested]
    more = [f"and {', '.join(nested)} (--json)"] if nested else []
    return ", ".join([*told, *more])


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    return f"{text[:12]}…" if len(text) == SHA256_DIGITS and text.isalnum() else text


def _plan_lines(file: Path) -> list[str]:
    from fsmde_edge.bundle import read_json, reading
    from fsmde_edge.errors import BundleError

    if not file.is_file():
        raise BundleError("holds no plan: it was built without INT8", where=file.parent)
    plan, lines = read_json(file), list[str]()
    with reading(file):
        for kind in ("activations", "weights"):
            lines.append(f"\n{kind}")
            for row in plan[kind]:
                scale = f"{row['scale']:.3g}" if row.get("scale") else ""
                precision = "int8 " if row["int8"] else "float"
                lines.append(f"  {precision} {scale:>9s}  {row['tensor']} ({row['node']}): {row['reason']}")
    return lines
