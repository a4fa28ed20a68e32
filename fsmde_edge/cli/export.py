"""fsmde-edge export: a bundle in the forms that other tools take."""

from __future__ import annotations

import argparse
from pathlib import Path

from fsmde_edge.cli.arguments import add_bundle, add_threads

EXAMPLES = """examples:
  fsmde-edge export bundle --calibration-cache dla.cache --tensorrt 10.3      JetPack 6
  fsmde-edge export bundle --calibration-cache dla.cache --tensorrt 8.5.2     JetPack 5
writes dla.cache, dla.onnx (the float network) and dla.precisions (its layers that stay float)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `export`."""
    add_bundle(parser)
    parser.add_argument(
        "--calibration-cache",
        type=Path,
        metavar="FILE",
        required=True,
        help="one INT8 scale a tensor, as TensorRT up to 10.7 reads it for a DLA",
    )
    parser.add_argument("--tensorrt", metavar="V", required=True, help="the TensorRT that reads it")
    parser.add_argument("--force", action="store_true", help="replace files of these names")
    add_threads(parser)


def run(args: argparse.Namespace) -> int:
    """Write the calibration cache, the float network and the names of its float layers."""
    from fsmde_edge.bundle import open_bundle
    from fsmde_edge.compiler.lowering.dla import export_for_dla
    from fsmde_edge.compiler.predict.dla import parse_version

    version = parse_version(args.tensorrt)
    bundle = open_bundle(args.bundle)
    export = export_for_dla(bundle, args.calibration_cache, version, threads=args.threads, force=args.force)
    counted = ", ".join(f"{count} from {source}" for source, count in export.sources.items())
    print(f"cache        {export.cache}: {sum(export.sources.values())} scales ({counted})")
    print(f"network      {export.network}")
    print(f"float layers {export.precisions}")
    print(f"on the device, by NVIDIA's documentation (not run here):\n  {export.trtexec()}")
    return 0
