"""fsmde-edge: full-surround monocular depth on the edge."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

from fsmde_edge.cli.signals import Ended, ending_in_order
from fsmde_edge.cli.streams import patient_streams
from fsmde_edge.errors import INTERRUPTED, DeviceError, FsmdeError, InputError, MissingExtra, UsageError

COMMANDS = {
    "build": "compile a checkpoint or an ONNX network into a verified bundle",
    "finalise": "build a bundle's engines on this machine, prove that they are right, keep the fastest",
    "check": "measure a bundle: INT8 against FP32, and both against LiDAR",
    "run": "turn a recording into metric depth for all views",
    "bench": "measure a bundle's latency on this machine",
    "estimate": "say what a bundle would take on a board, kernel by kernel",
    "inspect": "show what a bundle holds",
    "export": "write what a DLA takes: a calibration cache, or a typed network",
    "debug": "hand a bundle over to Polygraphy and trtexec",
    "cameras": "list the cameras that are plugged in, what they give, and who could be who in a rig",
    "rig": "make a rig file, fit a rig to a bundle, draw what it sees",
    "doctor": "show what this machine has, and what to install",
    "train": "train a student on LiDAR alone",
    "distill": "train a student with a teacher: a depth foundation model, or a larger student",
    "ablate": "measure what each part of the distillation method is worth",
    "synth": "write synthetic streets as a data set in the DGP layout",
}

STOPPABLE = ("run", "bench")
"""Commands that Ctrl-C ends in good order, even before they have a result."""

BASE = {"cv2": "opencv-python-headless", "yaml": "pyyaml"} | {
    name: name for name in ("numpy", "onnx", "onnxruntime", "jinja2", "tqdm")
}
"""Modules that the package itself needs, to what installs them."""

COMPILE = ("torch", "safetensors", "onnxscript", "onnxsim")
QUIET = {"OPENCV_LOG_LEVEL": "SILENT", "OPENCV_FFMPEG_LOGLEVEL": "-8"}
"""What OpenCV would say of broken files becomes our one line."""


class _Parser(argparse.ArgumentParser):
    """Usage errors as one line on stderr, like every other error."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"see: {self.prog} --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: of the command line; the process's own if None.

    Returns:
        The exit code: 0; 2 usage; 3 input or output; 4 gate; 5 device; 130 interrupted; 128 and a signal's
        number where that ended it.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    with ending_in_order(), patient_streams() as flush:
        code = _guarded(lambda: _command(given), given)
        return _guarded(flush, given) or code


def _command(given: Sequence[str]) -> int:
    if any(word == "" or (word.startswith("--") and word.endswith("=")) for word in given):
        raise UsageError("an argument is empty", hint="see: fsmde-edge --help")
    try:
        options = _parser(given).parse_args(given)
    except SystemExit:  # --help and --version have printed what they had to
        return 0
    return int(options.run(options))


def _guarded(work: Callable[[], int], given: Sequence[str]) -> int:
    """Do some work; whatever a user can cause becomes one line and its exit code."""
    try:
        return work()
    except KeyboardInterrupt:
        if next((word for word in given if word in COMMANDS), None) in STOPPABLE:
            print("fsmde-edge: stopped before there was a result", file=sys.stderr)
            return 0
        print("fsmde-edge: interrupted", file=sys.stderr)
        return INTERRUPTED
    except Ended as end:
        print(f"fsmde-edge: ended by {end.signal.name}", file=sys.stderr)
        return 128 + end.signal
    except Exception as error:
        told = _told(error)
        if told is None:
            raise
        if "--debug" in given:
            traceback.print_exception(error)
        print(f"fsmde-edge: {told}", file=sys.stderr)
        return told.exit_code


def _told(error: Exception) -> FsmdeError | None:
    """An exception as the error that it means for a user; None for a fault of this program."""
    if isinstance(error, FsmdeError):
        return error
    if isinstance(error, MemoryError):
        return DeviceError("out of memory", hint="use fewer views, a smaller size, or a machine with more")
    if isinstance(error, ImportError):
        return _missing(error)
    if isinstance(error, OSError):
        reason = os.strerror(error.errno) if error.errno else str(error) or type(error).__name__
        return InputError(f"cannot be used ({reason})", where=error.filename, hint="check the path")
    if isinstance(error, RecursionError):
        return InputError("a file is nested too deeply to be read", hint="see which with --debug")
    if isinstance(error, UnicodeError) or "null byte" in str(error):
        return InputError(f"a name or a text cannot be used ({error})", hint="see which with --debug")
    return None


def _missing(error: ImportError) -> FsmdeError | None:
    package = (error.name or "").partition(".")[0]
    if package in COMPILE:
        return MissingExtra(package, extra="compile", why="this command")
    if package not in BASE:
        return None
    if isinstance(error, ModuleNotFoundError):
        what = f"the package '{BASE[package]}' is not installed"
        return DeviceError(what, hint="run: pip install fsmde-edge")
    return DeviceError(
        f"the package '{BASE[package]}' does not load ({error})", hint="run: fsmde-edge doctor"
    )


def _parser(given: Sequence[str]) -> argparse.ArgumentParser:
    """The whole parser's skeleton, with the arguments of the one command that is meant."""
    import fsmde_edge

    parser = _Parser(
        prog="fsmde-edge",
        description="Full-surround monocular depth on the edge: build a verified INT8 bundle, run it.",
        epilog="Start with: fsmde-edge build --precision int8 && fsmde-edge run --source synthetic",
    )
    parser.add_argument("--version", action="version", version=f"fsmde-edge {fsmde_edge.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, what in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=what,
            description=f"{what[0].upper()}{what[1:]}.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name in given:
            module = importlib.import_module(f"fsmde_edge.cli.{name}")
            module.add_arguments(command)
            command.epilog = module.EXAMPLES
            command.set_defaults(run=module.run)
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


if __name__ == "__main__":
    sys.exit(main())
