"""Pictures of the index for a browser: their size, and a copy that is no larger than it is shown."""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path

from PIL import Image

from tshsr.errors import PictureError
from tshsr.features.pictures import read_picture
from tshsr.index.pictures import size_of

SIDES = (480, 1600)
"""Longest sides that are asked for: in the grid, and alone."""
KINDS = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "GIF": "image/gif"}
"""What every browser shows; other formats are sent as JPEG."""
AS_IT_IS = 300_000
"""Bytes up to which a file that needs no shrinking is sent untouched."""


def upright_size(path: Path) -> tuple[int, int] | None:
    """Width and height as a picture is shown, from its header; None where it can't be read."""
    try:
        return _size(path, path.stat().st_mtime_ns)
    except OSError:
        return None


@lru_cache(maxsize=20_000)
def _size(path: Path, changed: int) -> tuple[int, int] | None:
    del changed  # part of the key: a replaced file is looked at again
    return size_of(path)


def shown(path: Path, side: int, max_pixels: int) -> tuple[bytes, str]:
    """A picture as it is sent, and its media type.

    Args:
        path: A picture of the index.
        side: Longest side in pixels.
        max_pixels: The largest picture that is decoded.

    Raises:
        PictureError: Where the file is gone or is no readable picture.
    """
    try:
        return _shown(path, path.stat().st_mtime_ns, side, max_pixels)
    except OSError as error:
        raise PictureError(
            f"{path.name} can't be read ({error.strerror}); it must stay where it was indexed."
        ) from None
    except PictureError as error:
        # Where the file lies is nobody's business.
        raise PictureError(str(error).replace(str(path), path.name)) from None


@lru_cache(maxsize=256)
def _shown(path: Path, changed: int, side: int, max_pixels: int) -> tuple[bytes, str]:
    del changed
    picture = read_picture(path, max_pixels=max_pixels)
    if max(picture.size) <= side and path.stat().st_size <= AS_IT_IS:
        with Image.open(path) as opened:
            kind = KINDS.get(opened.format or "")
        if kind is not None:
            return path.read_bytes(), kind
    picture.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    small = io.BytesIO()
    picture.save(small, "JPEG", quality=85)
    return small.getvalue(), "image/jpeg"
