"""fsmde-edge rig: other people's calibrations, what fits a bundle, and what a rig sees."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from fsmde_edge.cli.arguments import add_bundle, metres

if TYPE_CHECKING:
    from fsmde_edge.fit import Fit

KINDS = ("dgp", "nuscenes", "kalibr", "ros")

EXAMPLES = """examples:
  fsmde-edge rig import dgp /data/ddad_sample/scene_02 --out rig.yaml
  fsmde-edge rig import kalibr camchain-imucam.yaml --poses imu.yaml --out rig.yaml
  fsmde-edge rig import ros front.yaml left.yaml right.yaml --poses poses.yaml --out rig.yaml
  fsmde-edge rig fit rig.yaml bundle
  fsmde-edge rig show rig.yaml --out rig.svg

poses.yaml, one line a camera (its pose in the vehicle: x forward, y left, z up), in metres:
  front: {xyz: [1.6, 0.0, 1.5], xyzw: [-0.5, 0.5, -0.5, 0.5]}
For kalibr one is enough: imu, or any camera of the chain.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `rig`, by what is to be done."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    taken = actions.add_parser("import", help="make a rig file from a calibration")
    taken.add_argument("kind", choices=KINDS, help="what the files are")
    taken.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a data set, or calibration files")
    taken.add_argument("--poses", type=Path, metavar="YAML", help="where cameras are (kalibr, ros)")
    taken.add_argument("--out", type=Path, default=Path("rig.yaml"), metavar="YAML", help="default: rig.yaml")
    fit = actions.add_parser("fit", help="rectify a rig into a bundle's views: what fits and what is lost")
    fit.add_argument("rig", type=Path, metavar="RIG", help="a rig file")
    add_bundle(fit)
    show = actions.add_parser("show", help="draw a rig from above, with overlaps and blind spots")
    show.add_argument("rig", type=Path, metavar="RIG", help="a rig file")
    show.add_argument("--out", type=Path, metavar="FILE", help="a drawing: .svg or .png")
    show.add_argument("--distance", type=metres, default=10.0, metavar="M", help="radius looked at (10)")
    for action in (taken, fit, show):
        action.add_argument("--debug", action="store_true", help="show the traceback of an error")


def run(args: argparse.Namespace) -> int:
    """Do one of the three."""
    return {"import": _import, "fit": _fit, "show": _show}[args.action](args)


def _import(args: argparse.Namespace) -> int:
    from fsmde_edge.datasets.rigfile import save_rig
    from fsmde_edge.datasets.rigs import import_rig

    rig = import_rig(args.kind, args.files, args.poses)
    save_rig(args.out, rig)
    print(f"{args.out}: {len(rig)} cameras in ring order: {', '.join(rig.names)}")
    return 0


def _fit(args: argparse.Namespace) -> int:
    from fsmde_edge.bundle import open_bundle
    from fsmde_edge.datasets.rigfile import load_rig
    from fsmde_edge.fit import fit_rig, fitted_pinholes

    rig, manifest = load_rig(args.rig), open_bundle(args.bundle).manifest
    for line in _fit_lines(fit_rig(rig, manifest)):
        print(line)
    fitted_pinholes(rig, manifest)  # refuses what does not fit
    print("fits; run with --fit")
    return 0


def _fit_lines(fits: tuple[Fit, ...]) -> list[str]:
    lines = ["camera -> view: horizontal field of view; of the picture lost, of the view empty; fx ratio"]
    for fit in fits:
        low, high = fit.allowed
        lines.append(
            f"  {fit.camera} -> {fit.view}: {_degrees(fit.camera_hfov)} -> {_degrees(fit.view_hfov)}; "
            f"lost {fit.lost:.0%}, empty {fit.empty:.0%}; {fit.ratio:.2f} (allowed {low:.2f} to {high:.2f})"
            f"{'' if fit.fits else ' NOT ALLOWED'}"
        )
    return lines


def _degrees(angle: float) -> str:
    return "180° or more" if angle == float("inf") else f"{angle:.0f}°"


def _show(args: argparse.Namespace) -> int:
    from fsmde_edge.datasets.rigfile import load_rig
    from fsmde_edge.datasets.rigs.draw import draw_rig
    from fsmde_edge.datasets.rigs.surround import in_words, surround

    view = surround(load_rig(args.rig), args.distance)
    if args.out is not None:
        draw_rig(args.out, view)
    print(f"around the vehicle, {args.distance:g} m away, 0° forward, counter-clockwise:")
    for number, camera in enumerate(view.rig.cameras):
        seen = ", ".join(map(in_words, view.arcs(number))) or "nothing of the horizon"
        print(f"  {camera.name} {camera.width}x{camera.height}: {seen}")
    for first, second, both in view.overlaps():
        print(f"  {first} and {second} share {both:.0f}°")
    print(f"  blind: {', '.join(map(in_words, view.blind)) or 'nowhere'}")
    return 0
