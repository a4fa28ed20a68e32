"""From radiance to a picture: exposure, white balance, tone curve, vignette, blur, noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.datasets.synthetic.textures import Values


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """How a camera turns radiance into a picture.

    Attributes:
        gain: red, green, blue.
        gamma: exponent of the tone curve.
        contrast: 0 none to 1 strong S-curve.
        saturation: 1 leaves colours alone.
        vignette: share of light lost in the corners.
        noise: deviation in grey levels at mid grey.
        blur: deviation in pixels.
        sharpness: strength of the unsharp mask.
        black: what the darkest 0..1 of the tone curve are cut off.
    """

    gain: tuple[float, float, float]
    gamma: float
    contrast: float
    saturation: float
    vignette: float
    noise: float
    blur: float
    sharpness: float
    black: float


def random_film(generator: np.random.Generator, exposure: float) -> Film:
    """Draw the cameras' look for one scene."""
    balance = np.exp(generator.normal(0, 0.07, 3))
    r, g, b = (exposure * balance / balance[1]).tolist()
    blur, sharpness = ((0.0, 0.0), (generator.uniform(0.3, 0.8), 0.0), (0.0, generator.uniform(0.2, 1.0)))[
        generator.choice(3, p=(0.3, 0.25, 0.45))
    ]
    return Film(
        gain=(r, g, b),
        gamma=float(generator.uniform(0.42, 0.52)),
        contrast=float(generator.uniform(0.0, 0.9)),
        saturation=float(generator.uniform(0.7, 1.25)),
        vignette=float(generator.uniform(0.0, 0.35)),
        noise=float(generator.uniform(0.5, 4.0)),
        blur=float(blur),
        sharpness=float(sharpness),
        black=float(max(0.0, generator.uniform(-0.05, 0.14))),
    )


def develop(radiance: Values, film: Film, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Radiance float32 [H, W, 3] to a picture uint8 [H, W, 3]."""
    import cv2

    height, width = radiance.shape[:2]
    v, u = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    fall = 1 - np.float32(film.vignette / 2) * (u * u + v * v)
    each = math.exp(generator.normal(0, 0.08))
    light = radiance * (np.array(film.gain, np.float32) * np.float32(each)) * fall[..., None]
    if film.blur > 0:
        light = cv2.GaussianBlur(light, (0, 0), film.blur)
    light = np.clip(light / (1 + np.float32(0.06) * light), 0, 1)
    tone = light ** np.float32(film.gamma)
    if film.sharpness > 0:
        tone = tone + np.float32(film.sharpness) * (tone - cv2.GaussianBlur(tone, (0, 0), 0.8))
    tone = np.clip((tone - np.float32(film.black)) / np.float32(1 - film.black), 0, 1)
    tone = tone * (1 - film.contrast) + film.contrast * (tone * tone * (3 - 2 * tone))
    grey = tone.mean(axis=-1, keepdims=True)
    tone = grey + (tone - grey) * np.float32(film.saturation)
    noise = generator.standard_normal(tone.shape, dtype=np.float32) * np.float32(film.noise)
    return np.asarray(np.clip(tone * 255 + noise + 0.5, 0, 255), dtype=np.uint8)
