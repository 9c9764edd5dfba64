"""Caption files of the field: UTF-8 text, one caption a line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tshsr.errors import DataError


def read_lines(path: Path) -> tuple[str, ...]:
    """Lines of a UTF-8 file, stripped; only a line feed ends one, as Unicode's other line ends occur inside captions.

    Raises:
        DataError: Where the file can't be read, is no UTF-8, or holds an empty line.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror}.") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}:{line}: not UTF-8 ({error.reason}). Save the file as UTF-8.") from None
    lines = tuple(line.strip() for line in text.removesuffix("\n").split("\n"))
    if "" in lines:
        raise DataError(
            f"{path}:{lines.index('') + 1}: the line is empty; expected one entry a line, none of them empty."
        )
    return lines


def read_captions(path: Path) -> tuple[str, ...]:
    """Captions of a file, one a line.

    Raises:
        DataError: As `read_lines`, and where every line is a printed bytes object: b'...'. That slip of Python 2
            code run by Python 3 has cost others their results, since each caption then starts with a strange word.
    """
    captions = read_lines(path)
    if all(caption[:2] in ("b'", 'b"') and caption[-1] == caption[1] for caption in captions):
        raise DataError(
            f"{path}: every caption is a printed bytes object, like {captions[0]!r}; expected plain text. "
            "Write the file again with text decoded as UTF-8."
        )
    return captions


def captions_digest(captions: Sequence[str], image_of_caption: np.ndarray) -> str:
    """SHA-256 of captions and of the image that each belongs to, in their order: it tells data of one name apart.

    Args:
        captions: Their texts; spaces around them, and a mark of UTF-8 before them, do not count.
        image_of_caption: For each caption the row of its image.
    """
    texts = [caption.removeprefix("\ufeff").strip() for caption in captions]
    return hashlib.sha256(json.dumps([texts, image_of_caption.tolist()]).encode()).hexdigest()
