"""fsmde-edge export: a bundle in the forms that other tools take."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from fsmde_edge.cli.arguments import add_bundle, add_threads

if TYPE_CHECKING:
    from fsmde_edge.bundle import Bundle
    from fsmde_edge.compiler.predict.dla import Version

EXAMPLES = """examples:
  fsmde-edge export bundle --calibration-cache dla.cache --tensorrt 10.3      JetPack 6
  fsmde-edge export bundle --calibration-cache dla.cache --tensorrt 8.5.2     JetPack 5
  fsmde-edge export bundle --placement dla --out dla.onnx --tensorrt 11.4.1   AGX Orin, JetPack 7.2.2
A calibration cache comes with dla.onnx (the float network) and dla.precisions (its layers that stay float);
a typed network says by its own types what is INT8. 10.8 to 11.4.0 have no DLA on a Jetson.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `export`."""
    add_bundle(parser)
    form = parser.add_mutually_exclusive_group(required=True)
    form.add_argument(
        "--calibration-cache",
        type=Path,
        metavar="FILE",
        help="one INT8 scale a tensor, as TensorRT up to 10.7 reads it for a DLA",
    )
    form.add_argument(
        "--placement",
        choices=("dla",),
        help="Q/DQ on every tensor that a DLA makes, as it wants them from TensorRT 11.4.1 on; with --out",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="with --placement: the ONNX file to write")
    parser.add_argument("--tensorrt", metavar="V", required=True, help="the TensorRT that reads it")
    parser.add_argument("--force", action="store_true", help="replace files of these names")
    add_threads(parser)


def run(args: argparse.Namespace) -> int:
    """Write what the DLA of that TensorRT takes."""
    from fsmde_edge.bundle import open_bundle
    from fsmde_edge.compiler.lowering.dla import refuse_board_without_dla
    from fsmde_edge.compiler.predict.dla import parse_version
    from fsmde_edge.errors import UsageError

    if (args.placement is None) != (args.out is None):
        raise UsageError("--placement and --out go together", hint="give both, or --calibration-cache FILE")
    version = parse_version(args.tensorrt)
    bundle = open_bundle(args.bundle)
    refuse_board_without_dla(bundle.manifest.target)
    if args.placement is None:
        line = _scales(bundle, version, args)
    else:
        line = write_typed(bundle, args.out, args.tensorrt, threads=args.threads, force=args.force)
    print(f"on the device, by NVIDIA's documentation (not run here):\n  {line}")
    return 0


def _scales(bundle: Bundle, version: Version, args: argparse.Namespace) -> str:
    """The cache, the float network and the names of its float layers; the line that builds them."""
    from fsmde_edge.compiler.lowering.dla import export_for_dla

    export = export_for_dla(bundle, args.calibration_cache, version, threads=args.threads, force=args.force)
    counted = ", ".join(f"{count} from {source}" for source, count in export.sources.items())
    print(f"cache        {export.cache}: {sum(export.sources.values())} scales ({counted})")
    print(f"network      {export.network}")
    print(f"float layers {export.precisions}")
    return export.trtexec()


def write_typed(bundle: Bundle, out: Path, tensorrt: str, *, threads: int, force: bool) -> str:
    """A network with Q/DQ where a DLA wants them, and what runs on it; the line that builds it.

    Errors:
        As `export_typed`.
    """
    from fsmde_edge.compiler.layers import dla_lines
    from fsmde_edge.compiler.lowering.dla_typed import export_typed
    from fsmde_edge.compiler.predict.dla import parse_version

    export = export_typed(bundle, out, parse_version(tensorrt), threads=threads, force=force)
    print(f"network      {export.network}: {export.pairs} tensors in INT8 ({export.gpu_pairs} for the GPU)")
    print(
        f"golden set   {export.deviation:.2%} mean deviation from FP32, exact arithmetic "
        f"({export.gpu_deviation:.2%} with the GPU's placement)"
    )
    print("gate         judged the GPU's placement, not this one")
    for line in dla_lines(bundle.model("fp32"), tensorrt):
        print(line)
    return export.trtexec()
