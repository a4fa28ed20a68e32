"""Sun, sky and air of a scene."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.datasets.synthetic.solids import Colour
from fsmde_edge.datasets.synthetic.textures import Values


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Light:
    """Sun, sky and air.

    Attributes:
        sun: unit vector towards the sun.
        sun_colour, sky_colour: radiance on a white surface.
        zenith, horizon: the sky's own colours.
        clouds: 0 clear to 1 covered.
        haze: 1 / metres.
        exposure: gain before the tone curve.
    """

    sun: NDArray[np.float64]
    sun_colour: Colour
    sky_colour: Colour
    zenith: Colour
    horizon: Colour
    clouds: float
    haze: float
    exposure: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Weather:
    """A kind of weather and hour.

    Attributes:
        share: how often.
        elevation: range of the sun's, in degrees.
        sun: its strength; warm: its colour.
        grey: 0 blue sky to 1 grey sky.
        glow: brightness of the sky as it is seen; level: of what it sends onto surfaces.
        rim: colour of the sky near the horizon.
        clouds: cover, where it is fixed.
        haze: factor on it.
    """

    share: float
    elevation: tuple[float, float]
    sun: float
    grey: float
    glow: float
    level: float
    warm: Colour = (1.0, 0.98, 0.95)
    rim: Colour = (0.8, 0.9, 1.0)
    clouds: float | None = None
    haze: float = 1.0


_EVENING: Colour = (1.0, 0.85, 0.7)
_WEATHERS = (
    _Weather(share=0.42, elevation=(30, 75), sun=2.6, grey=0.25, glow=1.5, level=0.75, warm=(1, 0.95, 0.87)),
    _Weather(share=0.26, elevation=(30, 70), sun=0.12, grey=0.95, glow=2.0, level=1.0, clouds=1.0),
    _Weather(
        share=0.14,
        elevation=(7, 25),
        sun=2.2,
        grey=0.35,
        glow=1.2,
        level=0.6,
        warm=(1, 0.8, 0.55),
        rim=_EVENING,
    ),
    _Weather(
        share=0.06, elevation=(3, 8), sun=0.5, grey=0.6, glow=0.7, level=0.5, warm=(1, 0.6, 0.4), rim=_EVENING
    ),
    _Weather(share=0.12, elevation=(15, 60), sun=1.0, grey=0.8, glow=1.7, level=0.95, clouds=0.8, haze=3.0),
)
"""Sunny, overcast, low sun, dusk, hazy."""


def random_light(generator: np.random.Generator) -> Light:
    """Draw weather and hour."""
    weather = _WEATHERS[generator.choice(len(_WEATHERS), p=[weather.share for weather in _WEATHERS])]
    up, around = math.radians(generator.uniform(*weather.elevation)), generator.uniform(0, 2 * math.pi)
    strength = weather.sun * generator.uniform(0.8, 1.2)
    glow = weather.glow * math.exp(generator.normal(0.15, 0.35))
    target = math.exp(generator.normal(0, 0.3))
    clouds = float(generator.uniform(0, 0.7))
    haze = float(generator.choice((0.0006, 0.002, 0.006), p=(0.6, 0.3, 0.1)))
    blue, white = np.array((0.28, 0.5, 1.0)), np.array((0.95, 0.98, 1.0))
    grey = weather.grey
    return Light(
        sun=np.array((math.cos(up) * math.cos(around), math.cos(up) * math.sin(around), math.sin(up))),
        sun_colour=_colour(strength * np.array(weather.warm)),
        sky_colour=_colour(weather.level * ((0.35 * blue + 0.65 * white) * (1 - grey) + white * grey)),
        zenith=_colour(glow * (0.75 * blue * (1 - grey) + white * grey)),
        horizon=_colour(glow * np.array(weather.rim)),
        clouds=clouds if weather.clouds is None else weather.clouds,
        haze=haze * weather.haze,
        exposure=target / (weather.level + 0.6 * strength * max(0.3, math.sin(up))),
    )


def sky_radiance(light: Light, direction: Values, clouds: Values) -> Values:
    """The sky's radiance, float32 [P, 3], in unit directions [P, 3]; `clouds` by `cloud_cover`."""
    up = np.maximum(direction[:, 2], 0)
    high = np.sqrt(up)[:, None]
    colour = np.array(light.horizon, np.float32) * (1 - high) + np.array(light.zenith, np.float32) * high
    reach = 1 / (up + np.float32(0.12))
    size = len(clouds)
    row, column = (
        (direction[:, i] * reach * np.float32(0.09 * size)).astype(np.int32) & (size - 1) for i in (0, 1)
    )
    cover = clouds[row, column] * np.minimum(
        np.float32(1), 3 / reach
    )  # fades where a pixel covers much of it
    cloud = np.clip((cover + np.float32(3.2 * light.clouds - 1.6)) * np.float32(0.7), 0, 1)[:, None]
    white = np.array(light.horizon, np.float32) * (
        np.float32(1.0) + 0.12 * np.clip(cover, -1.5, 1.5)[:, None]
    )
    colour = colour * (1 - cloud) + white * cloud
    towards = np.clip(direction @ light.sun.astype(np.float32), 0, 1)
    glow = 0.6 * towards**8 + 8 * towards**400
    return np.asarray(colour + glow[:, None] * np.array(light.sun_colour, np.float32) * 0.5, dtype=np.float32)


def _colour(value: NDArray[np.float64]) -> Colour:
    r, g, b = value.tolist()
    return r, g, b
