"""fsmde-edge: full-surround monocular depth on the edge."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from fsmde_edge.errors import INTERRUPTED, FsmdeError, UsageError

COMMANDS = {
    "build": "compile a checkpoint or an ONNX network into a verified bundle",
    "check": "measure a bundle: INT8 against FP32, and both against LiDAR",
    "run": "turn a recording into metric depth for all views",
    "bench": "measure a bundle's latency on this machine",
    "inspect": "show what a bundle holds",
    "doctor": "show what this machine has, and what to install",
    "train": "train a student on synthetic streets",
    "synth": "write synthetic streets as a data set in the DGP layout",
}


class _Parser(argparse.ArgumentParser):
    """Usage errors as one line on stderr, like every other error."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"see: {self.prog} --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: of the command line; the process's own if None.

    Returns:
        The exit code: 0; 2 usage; 3 input or output; 4 gate; 5 device; 130 interrupted.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    try:
        options = _parser(given).parse_args(given)
        return int(options.run(options))
    except FsmdeError as error:
        return _failed(error, error.exit_code, debug=debug)
    except KeyboardInterrupt:
        print("fsmde-edge: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away (as in `… | head`): no error of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except MemoryError as error:
        return _failed(
            FsmdeError("out of memory", hint="use fewer views, a smaller size, or a machine with more"),
            5,
            debug=debug,
            cause=error,
        )


def _failed(error: FsmdeError, code: int, *, debug: bool, cause: BaseException | None = None) -> int:
    if debug:
        traceback.print_exception(cause or error)
    print(f"fsmde-edge: {error}", file=sys.stderr)
    return code


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
