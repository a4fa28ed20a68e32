"""Calibration recipes: YAML files read into frozen data."""

from __future__ import annotations

from dataclasses import dataclass, field

from fsmde_edge.bundle import sha256_of
from fsmde_edge.compiler.quantise import Method
from fsmde_edge.datasets.selection import Selection
from fsmde_edge.errors import InputError
from fsmde_edge.evaluation.gate import GateBudget
from fsmde_edge.recipes import Named, find_shipped, from_mapping, read_yaml, refuse_size


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibRecipe:
    """How a network is calibrated and judged.

    Attributes:
        version: of this file format; 1.
        size: network height and width, multiples of 32.
        data: frames that calibrate; the first sample of the first entry gives the bundle's cameras.
        gate: frames that judge; calibration must not see them.
        method: how the network becomes INT8.
        budget: what INT8 may cost.
        notices: what travels with the bundle, such as the data's licence.
    """

    version: int
    size: tuple[int, int]
    data: tuple[Selection, ...]
    gate: tuple[Selection, ...]
    method: Method = field(default_factory=Method)
    budget: GateBudget = field(default_factory=GateBudget)
    notices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.version != 1:
            raise InputError(
                f"calibration recipe version {self.version} is not known", hint="update fsmde-edge"
            )
        if not self.data or not self.gate:
            raise InputError(
                "a calibration recipe needs frames to calibrate on (data) and to judge by (gate)",
                hint="add entries as in calib/synthetic.yaml",
            )
        refuse_size(self.size)


def load_recipe(name: str) -> tuple[CalibRecipe, Named]:
    """Read a calibration recipe, by path or shipped name.

    Raises:
        InputError: not found, or not a valid recipe.
    """
    path = find_shipped(name, "calib")
    recipe = from_mapping(CalibRecipe, read_yaml(path), where=path)
    return recipe, Named(name=path.stem, sha256=sha256_of(path))
