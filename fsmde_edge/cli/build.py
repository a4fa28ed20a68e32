"""fsmde-edge build: from checkpoint to a verified bundle."""

from __future__ import annotations

import argparse
from pathlib import Path

from fsmde_edge.cli.arguments import add_threads

EXAMPLES = """examples:
  fsmde-edge build --precision int8
      the shipped tiny student, calibrated on synthetic streets, into ./bundle
  fsmde-edge build --precision int8 --checkpoint student.safetensors --calib ddad --data-root /data \\
      --target orin-agx-64gb --out ddad-int8
  fsmde-edge build --precision int8 --keep-float 'student.head.*' --learn-rounding
  fsmde-edge build --precision int8 --target orin-agx-64gb --placement dla
      also bundle.dla.onnx, for the DLA of TensorRT 11.4.1
  fsmde-edge build --precision int8 --onnx depth.onnx --convention depth.yaml --calib mine.yaml --out theirs
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `build`."""
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16", "int8"),
        default="int8",
        help="default: int8 (with fp32 beside it)",
    )
    network = parser.add_mutually_exclusive_group()
    network.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="a student's .safetensors (default: the shipped tiny one)",
    )
    network.add_argument("--onnx", type=Path, metavar="FILE", help="somebody else's FP32 depth network")
    parser.add_argument(
        "--convention",
        type=Path,
        metavar="YAML",
        help="what --onnx takes and gives: layout, scaling, output",
    )
    parser.add_argument(
        "--calib", default="synthetic", metavar="RECIPE", help="calibration recipe: a path or a shipped name"
    )
    parser.add_argument(
        "--data-root",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="folder that the recipe's paths start from",
    )
    parser.add_argument(
        "--target", default="cpu", metavar="PROFILE", help="target profile: a path or shipped name"
    )
    parser.add_argument(
        "--keep-float",
        action="append",
        default=[],
        metavar="PATTERN",
        help="nodes that stay in half precision, as 'student.encoder.layer1.*'; repeatable",
    )
    parser.add_argument(
        "--force-int8",
        action="append",
        default=[],
        metavar="PATTERN",
        help="nodes that become INT8 whatever rules and search say; repeatable",
    )
    parser.add_argument(
        "--no-search",
        action="store_true",
        help="do not search which blocks depth needs in half precision",
    )
    parser.add_argument("--learn-rounding", action="store_true", help="learn how weights are rounded; slow")
    parser.add_argument(
        "--placement",
        choices=("gpu", "dla"),
        default="gpu",
        help="dla: also write OUT.dla.onnx, with Q/DQ where a DLA wants them (see 'fsmde-edge export')",
    )
    parser.add_argument("--out", type=Path, default=Path("bundle"), metavar="DIR", help="default: ./bundle")
    parser.add_argument("--force", action="store_true", help="replace an existing bundle, whole")
    parser.add_argument(
        "--allow-few",
        action="store_true",
        help="accept few calibration pictures, and a gate without a verdict; the bundle says so",
    )
    add_threads(parser)


def run(args: argparse.Namespace) -> int:
    """Build, print the gate's numbers, exit 4 if they are beyond the budget."""
    from fsmde_edge.compiler.build import BuildOptions, build
    from fsmde_edge.compiler.search_report import chosen_line
    from fsmde_edge.errors import GateFailed, UsageError
    from fsmde_edge.evaluation.gate_report import gate_table

    if args.convention is not None and args.onnx is None:
        raise UsageError("--convention describes the network of --onnx, which is not given")
    for flag in ("keep_float", "force_int8", "no_search", "learn_rounding"):
        if args.precision != "int8" and getattr(args, flag):
            raise UsageError(f"--{flag.replace('_', '-')} goes with --precision int8", hint="leave one out")
    both = sorted(set(args.keep_float) & set(args.force_int8))
    if both:
        raise UsageError(f"--keep-float and --force-int8 both name '{both[0]}'", hint="leave one out")
    dla = _dla_file(args)
    options = BuildOptions(
        precision=args.precision,
        out=args.out,
        checkpoint=args.checkpoint,
        onnx=args.onnx,
        convention=args.convention,
        recipe=args.calib,
        target=args.target,
        keep_float=tuple(args.keep_float),
        force_int8=tuple(args.force_int8),
        search=False if args.no_search else None,
        learn_rounding=args.learn_rounding,
        data_root=args.data_root,
        force=args.force,
        allow_few=args.allow_few,
        threads=args.threads,
    )
    outcome = build(options, print)
    fp32 = outcome.sizes["fp32"]
    for name, size in outcome.sizes.items():
        print(f"model.{name}.onnx: {size / 1e6:.2f} MB ({size / fp32:.2f} of FP32)")
    if outcome.search is not None:
        print(chosen_line(outcome.search))
    if outcome.gate is not None:
        print(gate_table(outcome.gate).as_text())
        print(f"gate: {outcome.gate.verdict}")
    print(f"bundle {args.out}: {outcome.hash[:16]}")
    if dla is not None:
        _write_dla(args, dla)
    gate = outcome.gate
    if gate is None or gate.accepted(allow_few=args.allow_few):
        return 0
    raise GateFailed(
        f"the gate is {gate.verdict}: {'; '.join(gate.reasons)}",
        where=args.out,
        hint="look at its reports/gate.html, then keep blocks in float (--keep-float), choose "
        "more frames, or accept a gate without a verdict with --allow-few",
    )


TYPED = "11.4.1"
"""The TensorRT that brought the DLA back, with types for scales."""


def _dla_file(args: argparse.Namespace) -> Path | None:
    """Where --placement dla writes; what forbids it is said before any work."""
    from fsmde_edge.compiler.lowering.dla import refuse_board_without_dla
    from fsmde_edge.errors import OutputError, UsageError

    if args.placement == "gpu":
        return None
    if args.precision != "int8":
        raise UsageError("--placement dla goes with --precision int8", hint="leave one out")
    refuse_board_without_dla(args.target)
    out: Path = args.out
    path = out.with_name(f"{out.name}.dla.onnx")
    if path.exists() and not args.force:
        raise OutputError(
            "already exists", where=path, hint="choose another --out, or replace it with --force"
        )
    return path


def _write_dla(args: argparse.Namespace, path: Path) -> None:
    from fsmde_edge.bundle import open_bundle
    from fsmde_edge.cli.export import write_typed

    line = write_typed(open_bundle(args.out), path, TYPED, threads=args.threads, force=args.force)
    print(f"on the device, by NVIDIA's documentation (not run here):\n  {line}")
