"""Things that stand in a street: cars, trucks, trees, houses, poles, signs, people. Each is a few solids."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from fsmde_edge.datasets.synthetic.solids import (
    Colour,
    Material,
    Paint,
    Place,
    Solid,
    box,
    circle,
    column,
    ellipsoid,
    prism,
)

Maker = Callable[[np.random.Generator, Place], list[Solid]]


def tint(generator: np.random.Generator, base: Colour, spread: float = 0.25) -> Colour:
    """A colour near another one: brighter or darker, and a little off in hue."""
    factor = math.exp(generator.normal(0, spread)) * np.exp(generator.normal(0, spread / 4, 3))
    r, g, b = np.clip(np.array(base) * factor, 0.005, 0.95).tolist()
    return r, g, b


def car_colour(generator: np.random.Generator) -> Colour:
    """Mostly white, grey and black, some red, blue and others: linear albedo."""
    palette: tuple[Colour, ...] = (
        (0.75, 0.75, 0.75),
        (0.45, 0.46, 0.48),
        (0.2, 0.21, 0.22),
        (0.02, 0.02, 0.025),
        (0.06, 0.06, 0.07),
        (0.4, 0.02, 0.02),
        (0.03, 0.07, 0.25),
        (0.3, 0.25, 0.15),
        (0.05, 0.15, 0.1),
        (0.6, 0.45, 0.05),
    )
    share = np.array((4, 3, 3, 3, 2, 1.5, 1.5, 1, 0.6, 0.5))
    return tint(generator, palette[generator.choice(len(palette), p=share / share.sum())], 0.15)


def car(generator: np.random.Generator, place: Place) -> list[Solid]:
    """A passenger car: body, cabin with windows, four wheels. Its frame's x points where it drives."""
    size = generator.choice((0, 1, 2), p=(0.55, 0.3, 0.15))  # saloon or hatchback, SUV, van
    long = float(generator.uniform(3.9, 4.8) + 0.15 * size)
    wide = float(generator.uniform(1.7, 1.85) + 0.05 * size)
    waist = float(generator.uniform(0.88, 0.96) + 0.1 * size)
    top = float((1.42, 1.68, 1.9)[size] + generator.uniform(-0.05, 0.07))
    floor, front, back = 0.2 + 0.04 * size, long / 2, -long / 2
    colour = car_colour(generator)
    body = Paint(
        material=Material.CAR_BODY,
        colour=colour,
        second=(0.02, 0.02, 0.02),
        gloss=0.25,
        contrast=0.04,
        parameters=(floor, waist, long, wide),
    )
    nose = float(generator.uniform(0.1, 0.25))
    # prisms along y take the profile in (z, x)
    side = (
        (floor, back + 0.08),
        (floor + 0.25, back),
        (waist - 0.03, back + 0.03),
        (waist, back + 0.15),
        (waist - 0.02, front - 1.1),
        (waist - nose, front - 0.12),
        (floor + 0.25, front),
        (floor, front - 0.1),
    )
    parts = [prism(place, side, (-wide / 2, wide / 2), 1, body, taper=0.06)]
    cabin = replace(body, material=Material.CAR_CABIN, gloss=0.35, second=(0.012, 0.014, 0.016))
    hood = front - float(generator.uniform(1.15, 1.45)) + 0.35 * (size == 2)
    tail = back + float((generator.choice((0.12, 0.75)), 0.12, 0.06)[size])
    rake_front, rake_back = (
        float(generator.uniform(0.55, 0.9)),
        float(generator.uniform(0.15, 0.6) * (size < 2) + 0.08),
    )
    upper = ((waist - 0.05, tail), (top, tail + rake_back), (top, hood - rake_front), (waist - 0.05, hood))
    parts.append(prism(place, upper, (-wide / 2 + 0.04, wide / 2 - 0.04), 1, cabin, taper=0.28))
    radius = float(generator.uniform(0.3, 0.34) + 0.03 * (size > 0))
    tyre = Paint(
        material=Material.WHEEL, colour=(0.015, 0.015, 0.016), second=tint(generator, (0.35, 0.35, 0.36))
    )
    for x in (front - 0.85, back + 0.8):
        for y0 in (-wide / 2 - 0.01, wide / 2 - 0.2):
            disc = circle(radius, x, radius, 10)
            parts.append(prism(place, disc, (y0, y0 + 0.21), 1, tyre, casts_shadow=False))
    return parts


def truck(generator: np.random.Generator, place: Place) -> list[Solid]:
    """A lorry with a box, or a bus."""
    wide, wheels = 2.45, []
    tyre = Paint(material=Material.WHEEL, colour=(0.015, 0.015, 0.016), second=(0.2, 0.2, 0.2))
    if generator.random() < 0.45:
        long, top = float(generator.uniform(9, 12.5)), float(generator.uniform(2.9, 3.4))
        paint = Paint(
            material=Material.TRUCK,
            colour=tint(generator, car_colour(generator)),
            gloss=0.2,
            contrast=0.08,
            second=(0.02, 0.022, 0.025),
            parameters=(1.0, 0.0, 0.0, 0.0),
        )
        parts = [box(place, (-long / 2, -wide / 2, 0.35), (long / 2, wide / 2, top), paint)]
        wheels = [-long / 2 + 2.2, long / 2 - 2.4]
    else:
        long, top = float(generator.uniform(5.5, 9.5)), float(generator.uniform(2.8, 3.9))
        paint = Paint(
            material=Material.TRUCK, colour=car_colour(generator), gloss=0.05, contrast=0.15, layer=10
        )
        cab = Paint(
            material=Material.TRUCK,
            colour=car_colour(generator),
            gloss=0.2,
            second=(0.02, 0.022, 0.025),
            parameters=(2.0, 0.0, 0.0, 0.0),
        )
        dark = Paint(colour=(0.03, 0.03, 0.03))
        parts = [
            box(place, (-long / 2, -wide / 2, 0.95), (long / 2 - 2.0, wide / 2, top), paint),
            box(place, (long / 2 - 1.9, -wide / 2 + 0.08, 0.5), (long / 2, wide / 2 - 0.08, 2.5), cab),
            box(place, (-long / 2, -0.5, 0.5), (long / 2 - 1.0, 0.5, 0.95), dark),
        ]
        wheels = [-long / 2 + 1.2, long / 2 - 1.3]
    for x in wheels:
        for y0 in (-wide / 2 - 0.01, wide / 2 - 0.25):
            parts.append(
                prism(place, circle(0.48, x, 0.48, 10), (y0, y0 + 0.26), 1, tyre, casts_shadow=False)
            )
    return parts


def tree(
    generator: np.random.Generator, place: Place, tall: float | None = None, lumps: int | None = None
) -> list[Solid]:
    """A trunk and a crown of ragged lumps; every fourth is a conifer."""
    height = float(generator.uniform(4.5, 16)) if tall is None else tall
    bark = Paint(colour=tint(generator, (0.09, 0.07, 0.05), 0.35), layer=10, scale=1.2, contrast=0.5)
    green = tint(generator, (0.055, 0.085, 0.025), 0.35)
    leaves = Paint(material=Material.FOLIAGE, colour=green, layer=6, scale=0.5, contrast=0.85)
    conifer = generator.random() < 0.2
    clear = float(
        height * generator.uniform(0.02, 0.1) if conifer else min(generator.uniform(0.18, 0.4) * height, 3.5)
    )
    parts = [column(place, 0.0, 0.0, max(0.02 * height, 0.07), (-0.5, clear + 0.3 * height), bark)]
    reach = height * float(generator.uniform(0.12, 0.18) if conifer else generator.uniform(0.25, 0.42))
    count = int(generator.integers(5, 9)) if lumps is None else lumps
    for i in range(count):
        up = (i + 0.5) / count
        if conifer:
            radius, x, y = reach * (1.15 - up), 0.0, 0.0
            flat = 0.7 * (height - clear) / count
        else:
            radius = reach * float(generator.uniform(0.45, 0.8))
            spread = reach * 0.75 * math.sin(math.pi * min(0.15 + 0.75 * up, 1.0))
            angle = 2.4 * i + generator.uniform(-0.5, 0.5)
            x, y, flat = spread * math.cos(angle), spread * math.sin(angle), radius * 0.75
        z = clear + flat * 0.6 + (height - clear - 1.4 * flat) * up
        paint = replace(leaves, colour=tint(generator, green, 0.14), layer=6 + int(generator.integers(0, 2)))
        parts.append(ellipsoid(place, (x, y, z), (radius, radius, flat), paint, leafiness=0.75))
    return parts


def wood(generator: np.random.Generator, place: Place, tall: float) -> list[Solid]:
    """A piece of a wood's edge, as seen from far: lumps from the ground up."""
    green = tint(generator, (0.045, 0.07, 0.025), 0.3)
    lumps = []
    for low, high in ((-0.1, 0.6), (0.35, 1.0)):
        paint = Paint(
            material=Material.FOLIAGE, colour=tint(generator, green, 0.2), layer=6, scale=0.25, contrast=0.85
        )
        wide = tall * float(generator.uniform(0.3, 0.5)) * (1.2 - 0.5 * high)
        shift = float(generator.normal(0, 0.1 * tall))
        centre = (shift, 0.0, tall * (low + high) / 2)
        lumps.append(ellipsoid(place, centre, (wide, wide, tall * (high - low) / 2), paint, leafiness=0.6))
    return lumps


def bush(generator: np.random.Generator, place: Place) -> list[Solid]:
    """One or two lumps on the ground."""
    green = tint(generator, (0.06, 0.09, 0.03), 0.35)
    paint = Paint(material=Material.FOLIAGE, colour=green, layer=7, scale=0.9, contrast=0.55)
    size = float(generator.uniform(0.4, 1.3))
    return [
        ellipsoid(
            place, (size * k, 0.2 * k, 0.5 * size), (size, 0.85 * size, 0.8 * size), paint, leafiness=0.5
        )
        for k in range(int(generator.integers(1, 3)))
    ]


def bridge(generator: np.random.Generator, place: Place, reach: float) -> list[Solid]:
    """An overpass or a gantry across the road (along y), on pillars at both sides."""
    clear, deep = float(generator.uniform(4.8, 7.0)), float(generator.choice((0.5, generator.uniform(4, 14))))
    thick = float(generator.uniform(0.5, 2.0))
    paint = Paint(colour=tint(generator, (0.35, 0.34, 0.32), 0.4), layer=10, scale=0.15, contrast=0.3)
    parts = [
        box(
            place,
            (-deep / 2, -reach - 30 * (deep > 1), clear),
            (deep / 2, reach + 30 * (deep > 1), clear + thick),
            paint,
        )
    ]
    wide = 0.15 if deep < 1 else 0.6
    for y in (-reach, reach):
        parts.append(box(place, (-deep / 2, y - wide, -1.0), (deep / 2, y + wide, clear), paint))
    return parts


def hedge(generator: np.random.Generator, place: Place, long: float) -> list[Solid]:
    """A clipped hedge, a wall, a fence or a concrete barrier along x."""
    kind = generator.choice(4)
    high = float(
        (generator.uniform(0.7, 2.0), generator.uniform(0.5, 2.4), generator.uniform(0.8, 1.8), 0.85)[kind]
    )
    deep = (0.8, 0.25, 0.06, 0.4)[kind]
    paint = (
        Paint(
            material=Material.FOLIAGE,
            colour=tint(generator, (0.05, 0.08, 0.025), 0.3),
            layer=7,
            contrast=0.55,
        ),
        Paint(colour=tint(generator, (0.3, 0.22, 0.17), 0.4), layer=8, scale=0.6, contrast=0.3),
        Paint(colour=tint(generator, (0.25, 0.2, 0.15), 0.5), layer=9, scale=0.8, contrast=0.4),
        Paint(colour=tint(generator, (0.45, 0.43, 0.4), 0.2), layer=2, scale=0.3, contrast=0.25),
    )[kind]
    return [box(place, (-long / 2, -deep / 2, -1.0), (long / 2, deep / 2, high), paint)]


def person(generator: np.random.Generator, place: Place) -> list[Solid]:
    """Legs, trunk and head as upright ellipsoids."""
    tall = float(generator.uniform(1.45, 1.9))
    trousers = Paint(colour=tint(generator, (0.05, 0.05, 0.08), 0.6), contrast=0.15)
    shirt = Paint(colour=car_colour(generator), contrast=0.2)
    skin = Paint(colour=tint(generator, (0.35, 0.22, 0.16), 0.35))
    step = float(generator.uniform(0.05, 0.22))
    return [
        ellipsoid(place, (step, 0.09, 0.25 * tall), (0.1, 0.1, 0.26 * tall), trousers),
        ellipsoid(place, (-step, -0.09, 0.25 * tall), (0.1, 0.1, 0.26 * tall), trousers),
        ellipsoid(place, (0, 0, 0.66 * tall), (0.15, 0.24, 0.2 * tall), shirt),
        ellipsoid(place, (0.02, 0, 0.925 * tall), (0.1, 0.09, 0.075 * tall), skin),
    ]


def lamp(generator: np.random.Generator, place: Place) -> list[Solid]:
    """A street lamp or a utility pole; its arm points to +y."""
    if generator.random() < 0.4:
        wood = Paint(colour=tint(generator, (0.12, 0.09, 0.07), 0.3), layer=10, scale=1.0)
        tall = float(generator.uniform(8, 11))
        arm = box(place, (-0.06, -1.1, tall - 0.9), (0.06, 1.1, tall - 0.75), wood)
        return [column(place, 0, 0, 0.15, (-0.5, tall), wood), arm]
    metal = Paint(colour=tint(generator, (0.16, 0.17, 0.17), 0.7), contrast=0.1)
    tall, arm_long = float(generator.uniform(4.5, 10)), float(generator.uniform(0.5, 2.8))
    return [
        column(place, 0, 0, float(generator.uniform(0.06, 0.11)), (-0.5, tall), metal),
        box(place, (-0.05, 0, tall - 0.1), (0.05, arm_long, tall), metal),
        box(place, (-0.13, arm_long, tall - 0.12), (0.13, arm_long + 0.6, tall + 0.02), metal),
    ]


def sign(generator: np.random.Generator, place: Place) -> list[Solid]:
    """A traffic sign, a large board, or a bollard; it faces -x."""
    metal = Paint(colour=(0.25, 0.25, 0.25))
    kind = generator.random()
    if kind < 0.2:
        paint = Paint(colour=tint(generator, (0.5, 0.35, 0.1), 0.5))
        return [column(place, 0, 0, 0.09, (-0.3, float(generator.uniform(0.7, 1.1))), paint)]
    palette: tuple[Colour, ...] = (
        (0.45, 0.03, 0.03),
        (0.03, 0.1, 0.4),
        (0.03, 0.2, 0.08),
        (0.7, 0.5, 0.03),
        (0.6, 0.6, 0.6),
    )
    paint = Paint(material=Material.SIGN, colour=palette[generator.integers(5)], second=(0.75, 0.75, 0.75))
    if kind < 0.35:
        wide, high, low = (
            generator.uniform(0.8, 2.2),
            generator.uniform(0.6, 1.6),
            generator.uniform(1.2, 3.2),
        )
    else:
        wide, high, low = 0.33, 0.33 + 0.3 * float(generator.random() < 0.3), generator.uniform(1.9, 2.3)
    profile: tuple[tuple[float, float], ...]
    profile = ((-wide, low), (wide, low), (wide, low + 2 * high), (-wide, low + 2 * high))
    if kind > 0.6:
        profile = circle(0.0, low + high, 0.36, 8)
    board = prism(place, profile, (-0.03, 0.0), 0, paint)
    return [column(place, 0.04, 0, 0.035 + 0.02 * (wide > 0.5), (-0.3, low + high), metal), board]


def house(generator: np.random.Generator, place: Place, long: float, deep: float, floors: int) -> list[Solid]:
    """A building whose street front is at y = 0 of its frame and that reaches to y = deep."""
    palette: tuple[Colour, ...] = (
        (0.45, 0.4, 0.33),
        (0.3, 0.14, 0.09),
        (0.55, 0.53, 0.5),
        (0.35, 0.28, 0.2),
        (0.25, 0.25, 0.26),
        (0.6, 0.5, 0.32),
        (0.4, 0.2, 0.14),
        (0.65, 0.63, 0.6),
        (0.3, 0.34, 0.36),
        (0.12, 0.12, 0.13),
    )
    storey, pitch = float(generator.uniform(2.8, 3.9)), float(generator.uniform(1.4, 4.2))
    share = float(generator.choice((generator.uniform(0.35, 0.6), 0.88), p=(0.8, 0.2)))
    shop = float(generator.random() < 0.4)
    wall = Paint(
        material=Material.FACADE,
        colour=tint(generator, palette[generator.integers(10)], 0.3),
        second=tint(generator, (0.03, 0.035, 0.04), 0.5),
        layer=int(generator.choice((2, 3, 8, 9, 10))),
        scale=float(generator.uniform(0.15, 0.5)),
        contrast=float(generator.uniform(0.05, 0.3)),
        gloss=0.25,
        parameters=(storey, pitch, share, shop),
    )
    top = floors * storey + float(generator.uniform(0.2, 1.2))
    parts = [box(place, (-long / 2, 0, -2.0), (long / 2, deep, top), wall)]
    roof = Paint(
        material=Material.ROOF,
        colour=tint(generator, (0.12, 0.08, 0.07), 0.4),
        layer=9,
        scale=0.4,
        contrast=0.3,
    )
    if floors <= 3 and generator.random() < 0.75:
        rise, eaves = float(generator.uniform(1.5, 3.5)), 0.4
        profile = ((-eaves, top - 0.1), (deep + eaves, top - 0.1), (deep / 2, top + rise))
        parts.append(prism(place, profile, (-long / 2 - 0.3, long / 2 + 0.3), 0, roof))
    elif generator.random() < 0.6:
        trim = Paint(colour=tint(generator, (0.4, 0.38, 0.35), 0.3), layer=2, contrast=0.1)
        parts.append(
            box(place, (-long / 2 - 0.15, -0.15, top - 0.1), (long / 2 + 0.15, deep + 0.15, top + 0.4), trim)
        )
    if generator.random() < 0.3:
        cloth = Paint(colour=car_colour(generator), contrast=0.1)
        edge = float(generator.uniform(0.2, 0.45)) * long
        awning = ((-1.3, 2.6), (0.02, 2.6), (0.02, 3.1))
        parts.append(prism(place, awning, (-edge, edge), 0, cloth))
    return parts
