"""Limits of a recipe's numbers."""

from __future__ import annotations

import math

from fsmde_edge.errors import InputError

SMALLEST = 1e-12
"""What must be above zero is at least this."""


def within(recipe: object, least: float, most: float, *names: str) -> None:
    """Refuse numbers of a recipe that are not finite or leave their limits.

    Args:
        recipe: a dataclass.
        least, most: both allowed; `most` may be infinite.
        names: its fields.

    Raises:
        InputError: the first such field, and what it may be.
    """
    for name in names:
        value = getattr(recipe, name)
        if not (least <= value <= most and math.isfinite(value)):
            limits = f"from {least:g}" + (f" to {most:g}" if math.isfinite(most) else "")
            raise InputError(f"{name} cannot be {value}", hint=f"choose a finite number {limits}")
