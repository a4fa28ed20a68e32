"""TensorRT's messages, kept instead of printed: what it says when it refuses becomes our one line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def collecting_logger(trt: Any, messages: list[tuple[Any, str]]) -> Any:
    """A logger that appends (severity, text) to a list."""

    class Log(trt.ILogger):  # type: ignore[misc]  # the class has no types
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            messages.append((severity, message))

    return Log()


def first_error(trt: Any, messages: Iterable[tuple[Any, str]]) -> str:
    """What the first message of an error says."""
    return first_line(text for severity, text in messages if severity <= trt.ILogger.Severity.ERROR)


def first_line(texts: Iterable[str]) -> str:
    """The first line of the first text, with the next where it only names the node."""
    lines = [line.strip() for line in next(iter(texts), "").strip().splitlines()]
    if not lines:
        return "refused without a reason"
    return ": ".join(lines[:2]) if lines[0].startswith("Invalid Node") else lines[0]
