"""Scene -> picture, with Pillow: each thing is drawn enlarged on a tile, shrunk (antialiasing) and pasted."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from tshsr.scenes.world import RING_HOLE, SIDE, Background, Scene, Thing, outline

SCALE = 3
"""Enlargement of tiles."""
PAINT = {
    "red": (215, 35, 40),
    "orange": (247, 135, 20),
    "yellow": (252, 222, 45),
    "green": (40, 160, 65),
    "blue": (35, 85, 215),
    "purple": (125, 50, 175),
    "pink": (250, 120, 190),
    "brown": (122, 78, 42),
    "black": (30, 30, 35),
}
PATTERN_WHITE = (250, 250, 248)
Colour = tuple[int, int, int]


def draw_scene(scene: Scene) -> Image.Image:
    """The picture: RGB, SIDE x SIDE; the same scene gives the same pixels."""
    picture = draw_background(scene.background)
    for thing in sorted(scene.things, key=lambda thing: -thing.radius):  # small things on top
        draw_thing(picture, thing)
    return picture


def draw_background(background: Background) -> Image.Image:
    """A plain colour, or two light ones mixed by a gradient, stripes or clouds."""
    if background.kind == "plain":
        return Image.new("RGB", (SIDE, SIDE), background.first)
    across = np.arange(SIDE, dtype=np.float64) / SIDE - 0.5
    along = across[None, :] * math.cos(background.angle) + across[:, None] * math.sin(background.angle)
    match background.kind:
        case "gradient":
            weight = np.clip(along + 0.5, 0, 1)
        case "stripes":
            weight = (np.floor(along * 9) % 2).astype(np.float64)
        case _:
            coarse = np.random.default_rng(background.seed).random((6, 6)).astype(np.float32)
            weight = np.asarray(Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC)).clip(0, 1)
    mask = Image.fromarray((255 * weight).astype(np.uint8))
    first = Image.new("RGB", (SIDE, SIDE), background.first)
    return Image.composite(Image.new("RGB", (SIDE, SIDE), background.second), first, mask)


def draw_thing(picture: Image.Image, thing: Thing) -> None:
    """Paste the thing, with its texture and a darker edge, onto the picture."""
    half = math.ceil(thing.radius) + 2
    left, top = math.floor(thing.x) - half, math.floor(thing.y) - half
    side = 2 * half + 1
    vertices = [(float(x), float(y)) for x, y in SCALE * (outline(thing) - (left, top))]
    mask = Image.new("L", (side * SCALE, side * SCALE))
    brush = ImageDraw.Draw(mask)
    brush.polygon(vertices, fill=255)
    centre = (SCALE * (thing.x - left), SCALE * (thing.y - top))
    hole = RING_HOLE * thing.radius * SCALE
    if thing.shape == "ring":
        brush.circle(centre, hole, fill=0)
    tile = draw_texture(thing, side * SCALE, centre)
    pen = ImageDraw.Draw(tile)
    edge = tuple(int(0.62 * value) for value in paint_of(thing))
    pen.line([*vertices, *vertices[:2]], fill=edge, width=2 * SCALE, joint="curve")
    if thing.shape == "ring":
        pen.circle(centre, hole, outline=edge, width=SCALE)
    picture.paste(tile.reduce(SCALE), (left, top), mask.reduce(SCALE))


def paint_of(thing: Thing) -> Colour:
    """The thing's colour with its tint."""
    red, green, blue = (min(max(a + b, 0), 255) for a, b in zip(PAINT[thing.colour], thing.tint, strict=True))
    return red, green, blue


def draw_texture(thing: Thing, side: int, centre: tuple[float, float]) -> Image.Image:
    """A square filled with the thing's colour and a white pattern whose period grows with the thing."""
    tile = Image.new("RGB", (side, side), paint_of(thing))
    if thing.texture == "plain":
        return tile
    pen = ImageDraw.Draw(tile)
    period = SCALE * max(0.3 * thing.radius, 5.0)
    cos, sin = math.cos(thing.slant), math.sin(thing.slant)
    count = math.ceil(SCALE * thing.radius / period)
    for i in range(-count, count + 1):
        for j in range(-count, count + 1) if thing.texture != "striped" else (0,):
            if thing.texture == "checked" and (i + j) % 2:
                continue
            x, y = centre[0] + period * (i * cos - j * sin), centre[1] + period * (i * sin + j * cos)
            draw_mark(pen, thing.texture, (x, y), (cos * period, sin * period), side)
    return tile


def draw_mark(
    pen: ImageDraw.ImageDraw, texture: str, at: tuple[float, float], step: tuple[float, float], side: int
) -> None:
    """One dot, stripe or square of a pattern; `step` leads to the next mark along the pattern's first direction."""
    (x, y), (u, v) = at, step
    match texture:
        case "dotted":
            pen.circle((x, y), 0.28 * math.hypot(u, v), fill=PATTERN_WHITE)
        case "striped":
            far = 2 * side / math.hypot(u, v)
            ends = [(x - far * v, y + far * u), (x + far * v, y - far * u)]
            pen.line(ends, fill=PATTERN_WHITE, width=round(0.42 * math.hypot(u, v)))
        case _:
            corners = [(x - u / 2 + v / 2, y - v / 2 - u / 2), (x + u / 2 + v / 2, y + v / 2 - u / 2)]
            corners += [(x + u / 2 - v / 2, y + v / 2 + u / 2), (x - u / 2 - v / 2, y - v / 2 + u / 2)]
            pen.polygon(corners, fill=PATTERN_WHITE)
