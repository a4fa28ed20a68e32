"""Tiling noise: the luminance textures of all surfaces, the clouds, and the ragged edges of foliage."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.floating[Any]]

SIZE = 128
LEVELS = 6
LAYERS = 12
"""Layers 0-1 asphalt, 2-3 concrete, 4-5 grass and soil, 6-7 foliage, 8-9 brick and blocks, 10-11 stains."""


def fractal_noise(generator: np.random.Generator, size: int, first: int, octaves: int, fall: float) -> Values:
    """Tiling value noise, mean 0, deviation 1.

    Args:
        generator: the source of randomness.
        size: the result is float32 [size, size].
        first: cells a side of the coarsest octave.
        octaves: each next one has twice the cells.
        fall: amplitude of each octave relative to the one before.
    """
    import cv2

    total = np.zeros((size, size), np.float32)
    for octave in range(octaves):
        cells = min(first << octave, size)
        grid = generator.standard_normal((cells, cells)).astype(np.float32)
        padded = np.pad(grid, 2, mode="wrap")
        step = size // cells
        fine = cv2.resize(padded, None, fx=step, fy=step, interpolation=cv2.INTER_CUBIC)
        total += np.float32(fall**octave) * fine[2 * step : 2 * step + size, 2 * step : 2 * step + size]
    total -= total.mean()
    return np.asarray(total / max(float(total.std()), 1e-6), dtype=np.float32)


@lru_cache(maxsize=8)
def cloud_cover(seed: int) -> Values:
    """Tiling cover of clouds, float32 [1024, 1024], mean 0, deviation 1; a few for each hundred of seeds."""
    return fractal_noise(np.random.default_rng((seed // 100, seed % 4, 78)), 1024, 2, 6, 0.6)


@lru_cache(maxsize=64)
def texture_stack(seed: int) -> tuple[Values, ...]:
    """Mip levels of one set of textures.

    Args:
        seed: of the set; splits use different ones.

    Returns:
        LEVELS arrays float32 [LAYERS, n, n], n = SIZE, SIZE / 2, ...; mean about 0, deviation about 1.
    """
    generator = np.random.default_rng((seed, 77))
    recipes = [(8, 5, 1.0), (4, 6, 0.9), (4, 6, 0.7), (8, 5, 0.8), (8, 5, 0.9), (2, 7, 0.85)]
    recipes += [(8, 4, 1.0), (4, 5, 0.95), (4, 4, 0.6), (4, 4, 0.6), (2, 5, 0.6), (1, 6, 0.6)]
    layers = [fractal_noise(generator, SIZE, *recipe) for recipe in recipes]
    for layer in (8, 9):
        layers[layer] = 0.6 * layers[layer] + _bricks(generator, rows=16 if layer == 8 else 8)
    for layer in (2, 3):
        layers[layer] = 0.7 * layers[layer] + _slabs(generator, cells=4 << (layer - 2))
    level = np.stack(layers).astype(np.float32)
    levels = [level]
    for _ in range(LEVELS - 1):
        n = level.shape[1] // 2
        level = level.reshape(LAYERS, n, 2, n, 2).mean(axis=(2, 4))
        levels.append(level)
    return tuple(levels)


def _bricks(generator: np.random.Generator, rows: int) -> Values:
    high, wide = SIZE // rows, 2 * SIZE // rows
    v, u = np.mgrid[:SIZE, :SIZE]
    row = v // high
    shifted = (u + (row % 2) * (wide // 2)) % SIZE
    tone = generator.standard_normal((rows, SIZE // wide)).astype(np.float32)
    joint = (v % high == 0) | (shifted % wide == 0)
    return np.where(joint, np.float32(1.6), 0.7 * tone[row, shifted // wide]).astype(np.float32)


def _slabs(generator: np.random.Generator, cells: int) -> Values:
    step = SIZE // cells
    v, u = np.mgrid[:SIZE, :SIZE]
    tone = generator.standard_normal((cells, cells)).astype(np.float32)
    joint = (v % step == 0) | (u % step == 0)
    return np.where(joint, np.float32(-2.0), 0.5 * tone[v // step, u // step]).astype(np.float32)


def sample(
    stack: tuple[Values, ...], layer: NDArray[np.intp], u: Values, v: Values, footprint: Values
) -> Values:
    """Look textures up, each texel standing for the surface that a pixel covers.

    Args:
        stack: mip levels of `texture_stack`.
        layer: [P], which texture.
        u, v: [P], position in repeats.
        footprint: [P], size of a pixel in repeats.

    Returns:
        float32 [P].
    """
    level = np.log2(np.maximum(footprint * SIZE, 1))
    whole = np.minimum(level.astype(np.int32), LEVELS - 1)
    size = (SIZE >> whole).astype(np.int32)
    column = np.floor(u * size).astype(np.int32) & (size - 1)
    row = np.floor(v * size).astype(np.int32) & (size - 1)
    flat, starts = _flat(stack)
    value = flat[starts[whole] + (layer * size + row) * size + column]
    return np.asarray(value * np.clip(LEVELS - level, 0, 1), dtype=np.float32)


def _flat(stack: tuple[Values, ...]) -> tuple[Values, NDArray[np.int64]]:
    sizes = np.cumsum([0] + [level.size for level in stack[:-1]])
    return np.concatenate([level.ravel() for level in stack]), sizes


@lru_cache(maxsize=1)
def _leaves() -> Values:
    generator = np.random.default_rng(5)
    noise = fractal_noise(generator, 64, 8, 3, 0.8)
    return np.asarray(np.clip(0.5 + 0.6 * noise, 0, 1.6), dtype=np.float32)


def leaf_noise(spot: Sequence[Values], half: NDArray[np.float64], salt: int) -> Values:
    """How deep the gaps of a crown are at points of its unit sphere, about 0..1.4.

    Args:
        spot: three arrays [P], coordinates on the unit sphere.
        half: the crown's half axes in metres; larger crowns have finer gaps.
        salt: tells one crown from the next.
    """
    scale = np.float32(9 + 5 * min(float(half.max()), 8.0))
    x, y, z = (part * scale for part in spot)
    leaves = _leaves()
    one = leaves[_cell(y + np.float32(0.4) * x + 7 * salt), _cell(z - np.float32(0.3) * x + 13 * salt)]
    two = leaves[_cell(x + np.float32(0.3) * z + 5 * salt), _cell(np.float32(0.8) * z + np.float32(0.5) * y)]
    return np.asarray((one + two) * np.float32(0.5), dtype=np.float32)


def _cell(position: Values) -> NDArray[np.int32]:
    return np.asarray(np.floor(position).astype(np.int32) & 63, dtype=np.int32)
