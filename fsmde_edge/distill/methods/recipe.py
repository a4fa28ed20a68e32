"""Which method trains the student, and with which weights: the part of a recipe that names no data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from fsmde_edge.distill.limits import within
from fsmde_edge.errors import InputError

METHODS: Mapping[str, tuple[str, ...]] = {
    "supervised": (),
    "ckd": ("ckd",),
    "vrkd": ("vrkd",),
    "both": ("ckd", "vrkd"),
    "response": ("response",),
    "hinton": ("hinton",),
    "fitnet": ("fitnet",),
    "rkd": ("rkd",),
}
"""Method to the terms that it adds to the supervised loss; each is a field of `MethodRecipe`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisedRecipe:
    """The loss on LiDAR, which every method has.

    Attributes:
        silog_lambda: share of the mean log error that SILog forgives (0 none, 1 scale-invariant).
        relative_weight: of the mean relative error, beside SILog.
        sky_weight: of the loss that keeps the sky far.
    """

    silog_lambda: float = 0.85
    relative_weight: float = 0.0
    sky_weight: float = 0.1

    def __post_init__(self) -> None:
        within(self, 0, 1, "silog_lambda")
        within(self, 0, math.inf, "relative_weight", "sky_weight")


@dataclass(frozen=True, slots=True, kw_only=True)
class CkdRecipe:
    """Cross-interaction distillation.

    Attributes:
        bins: where the teacher's probabilities come from: its disparity's position (`direct`), or its
            features through an adapter and the student's own bin head (`shared`), or its disparity brought to
            the student's own scale and shift (`student`): no view's centres must learn the teacher's scale.
        probability_weight: of the divergence of the student's probabilities from the teacher's.
        centre_weight: of the error of the student's centres under the teacher's probabilities.
        anchor_weight: of the divergence of the shared bins from the direct ones.
        temperature: τ of both divergences.
        warp: κ, how much of the bins far things get (see `binning.positions`).
        softness: standard deviation of the direct assignment, in bins.
        relative_weight: in the centres' error, of the relative one beside the log ratio.
    """

    bins: Literal["direct", "shared", "student"] = "shared"
    probability_weight: float = 1.0
    centre_weight: float = 1.0
    anchor_weight: float = 1.0
    temperature: float = 2.0
    warp: float = 50.0
    softness: float = 1.0
    relative_weight: float = 0.0

    def __post_init__(self) -> None:
        positive = ("probability_weight", "centre_weight", "anchor_weight", "relative_weight")
        within(self, 0, math.inf, *positive)
        within(self, 0.05, 100, "temperature", "softness")
        within(self, 1e-3, 1e6, "warp")
        if self.bins == "shared" and self.anchor_weight == 0:
            raise InputError(
                "shared bins without an anchor_weight are never trained",
                hint="set anchor_weight above 0, or bins: direct",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class VrkdRecipe:
    """View-relational distillation.

    Attributes:
        weight: of the error of the student's relations.
        bands: from top to bottom, into which a region is cut.
    """

    weight: float = 1.0
    bands: int = 3

    def __post_init__(self) -> None:
        within(self, 0, math.inf, "weight")
        within(self, 1, 16, "bands")


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseRecipe:
    """The student's depth to the teacher's, aligned to LiDAR.

    Attributes:
        weight: of the error.
        relative_weight: in it, of the relative error beside the log ratio (see `losses.depth_error`).
    """

    weight: float = 1.0
    relative_weight: float = 0.0

    def __post_init__(self) -> None:
        within(self, 0, math.inf, "weight", "relative_weight")


@dataclass(frozen=True, slots=True, kw_only=True)
class HintonRecipe:
    """Distillation of bin probabilities in metres.

    Attributes:
        weight: of the divergence.
        temperature: τ.
        softness: standard deviation of the teacher's assignment to the student's bins, in bins.
    """

    weight: float = 1.0
    temperature: float = 2.0
    softness: float = 1.0

    def __post_init__(self) -> None:
        within(self, 0, math.inf, "weight")
        within(self, 0.05, 100, "temperature", "softness")


@dataclass(frozen=True, slots=True, kw_only=True)
class FitNetRecipe:
    """Distillation of features.

    Attributes:
        weight: of the squared distance of normalised features.
    """

    weight: float = 1.0

    def __post_init__(self) -> None:
        within(self, 0, math.inf, "weight")


@dataclass(frozen=True, slots=True, kw_only=True)
class RkdRecipe:
    """Relational distillation; 1 : 2 is the paper's ratio.

    Attributes:
        distance_weight: of the error of distances between views.
        angle_weight: of the error of angles between three views.
    """

    distance_weight: float = 1.0
    angle_weight: float = 2.0

    def __post_init__(self) -> None:
        within(self, 0, math.inf, "distance_weight", "angle_weight")


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodRecipe:
    """A method and its settings.

    Attributes:
        name: in `METHODS`.
        supervised: settings of the loss on LiDAR.
        ckd, vrkd, response, hinton, fitnet, rkd: settings of a term; None for its defaults where the method
            has the term. Settings of a term that the method does not have are an error.
    """

    name: Literal["supervised", "ckd", "vrkd", "both", "response", "hinton", "fitnet", "rkd"] = "supervised"
    supervised: SupervisedRecipe = field(default_factory=SupervisedRecipe)
    ckd: CkdRecipe | None = None
    vrkd: VrkdRecipe | None = None
    response: ResponseRecipe | None = None
    hinton: HintonRecipe | None = None
    fitnet: FitNetRecipe | None = None
    rkd: RkdRecipe | None = None

    def __post_init__(self) -> None:
        if self.name not in METHODS:
            raise InputError(f"no method is called {self.name}", hint=f"choose from {', '.join(METHODS)}")
        terms = {term for known in METHODS.values() for term in known}
        for term in sorted(terms - set(METHODS[self.name])):
            if getattr(self, term) is not None:
                raise InputError(f"method {self.name} has no term {term}", hint=f"take '{term}' out")

    @property
    def needs_teacher(self) -> bool:
        """Whether anything is distilled."""
        return bool(METHODS[self.name])
