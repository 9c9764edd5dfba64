"""Picture files of every kind, good and bad, made by the tests."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

COLOURS = ((215, 35, 40), (35, 85, 215), (40, 160, 65), (252, 222, 45))


def drawn(number: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """A disc and a box on a light ground, another picture for each number."""
    rng = np.random.default_rng(number)
    picture = Image.new("RGB", size, (225, 235, 240))
    pen = ImageDraw.Draw(picture)
    x, y = rng.integers(10, 40, size=2).tolist()
    pen.ellipse((x, y, x + 35, y + 35), fill=COLOURS[number % 4])
    pen.rectangle((x + 60, y + 20, x + 100, y + 60), fill=COLOURS[(number + 1) % 4])
    return picture


def write_pictures(folder: Path, count: int) -> list[str]:
    """JPEG files, every second one in a folder of its own; their paths in order."""
    names = [f"a/p{number:02d}.jpg" if number % 2 else f"p{number:02d}.jpg" for number in range(count)]
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        drawn(number).save(folder / name, quality=92)
    return sorted(names)


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header promises a size that its few bytes don't hold."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def write_rubbish(folder: Path) -> dict[str, str]:
    """Whatever else lies in folders of pictures; for each what is said of it."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = folder / "whole.jpg"
    drawn(0, (640, 480)).save(whole)
    content = whole.read_bytes()
    whole.unlink()
    (folder / "cut.jpg").write_bytes(content[: len(content) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "huge.png").write_bytes(png_of_size(60_000, 60_000))
    (folder / "large.png").write_bytes(png_of_size(12_500, 12_500))
    (folder / "notes.txt").write_text("not a picture")
    (folder / "noise.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(200)))
    (folder / "script.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    (folder / "folder.jpg").mkdir()
    (folder / "link.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(folder / "pipe.jpg")
    return {
        "cut.jpg": "truncated",
        "empty.jpg": "is empty (0 bytes)",
        "huge.png": "too many pixels",
        "large.png": "has 12500 x 12500 pixels; expected at most 150,000,000",
        "notes.txt": "its format is not known here",
        "noise.png": "is no readable picture",
        "script.eps": "its format is not known here",
        "folder.jpg": "is a folder",
        "link.jpg": "cannot be read (No such file or directory)",
        "pipe.jpg": "is no regular file",
    }


def crash(picture: Image.Image) -> int:
    """Stands for a decoder that ends its process; here, so that a new process has little to import."""
    if picture.size == (13, 13):
        os._exit(11)
    return picture.width
