"""Opening data of any layout: feature store, SCAN's "precomp" files, Karpathy's JSON, pictures, built-in scenes."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from tshsr.data.dataset import Split
from tshsr.data.karpathy import SPLITS as KARPATHY_SPLITS
from tshsr.data.karpathy import find_json, karpathy_splits, open_karpathy
from tshsr.data.manifest import MANIFEST, read_manifest
from tshsr.data.picture_folder import find_captions, open_picture_folder, picture_splits
from tshsr.data.precomp import open_precomp, precomp_splits
from tshsr.data.store import EVERYTHING, open_store
from tshsr.errors import DataError, InputError
from tshsr.files import is_remote, is_there, place_of, reachable

Layout = Literal["store", "precomp", "karpathy", "pictures"]
SCENES = "scenes"
ALIASES = {"dev": "val", "val": "dev"}
SHOWN_NAMES = 8


def open_split(data: str | Path, split: str) -> Split:
    """Open one split of a data set in any known layout.

    Args:
        data: A folder, a Karpathy JSON, or the word "scenes" for the built-in generated data.
        split: Its name; "dev" and "val" mean the same. "all" opens every image of a store, with or without captions.

    Raises:
        DataError: Where there is no such data or split, or a file of it is damaged.
    """
    path = find_data(data)
    match layout_of(path):
        case "store":
            names = (*read_manifest(path).splits, EVERYTHING)
            return open_store(path, _split_name(path, split, names))
        case "precomp":
            return open_precomp(path, _split_name(path, split, precomp_splits(path)))
        case "karpathy":  # fixed names; reading COCO's JSON twice would take seconds
            return open_karpathy(_json(path), KARPATHY_SPLITS.get(split, split))
        case "pictures":
            return open_picture_folder(_captions(path), KARPATHY_SPLITS.get(split, split))


def splits_of(data: str | Path) -> tuple[str, ...]:
    """Names of the splits of a data set; ("all",) for a store without captions.

    Raises:
        DataError: Where there is no such data, or no known layout.
    """
    path = find_data(data)
    match layout_of(path):
        case "store":
            return tuple(sorted(read_manifest(path).splits)) or (EVERYTHING,)
        case "precomp":
            return precomp_splits(path)
        case "karpathy":
            return karpathy_splits(_json(path))
        case "pictures":
            return picture_splits(_captions(path))


def select_images(split: Split, images: int | Sequence[int]) -> Split:
    """A subset of a split's images, with all their captions; both are renumbered.

    Args:
        images: Number of images from the first on (at most all), or row numbers in their new order.

    Raises:
        InputError: Where it would be empty, or an image is repeated or does not exist.
    """
    chosen = np.arange(min(images, len(split.regions))) if isinstance(images, int) else np.asarray(images, np.int64)
    if len(np.unique(chosen)) != len(chosen):
        raise InputError("select_images was given an image twice; its captions could belong to only one of the two.")
    regions = split.regions.select(chosen)
    new_number = np.full(len(split.regions), -1, np.int64)
    new_number[chosen] = np.arange(len(chosen))
    of_caption = new_number[split.image_of_caption]
    kept = np.flatnonzero(of_caption >= 0)
    return replace(
        split,
        regions=regions,
        captions=tuple(split.captions[caption] for caption in kept),
        image_of_caption=of_caption[kept],
        image_ids=tuple(split.image_ids[image] for image in chosen),
        files=None if split.files is None else tuple(split.files[image] for image in chosen),
    )


def find_data(data: str | Path) -> Path:
    """The path of a data set; the word "scenes" means the built-in data, unless a store has that path.

    Args:
        data: A `Path` is never the word.

    Raises:
        DataError: Where there is no such file or folder, or a folder that is no store has the name of the word.
    """
    path = place_of(data)
    if is_remote(path):
        return _remote_store(path)
    if data == SCENES and not (path / MANIFEST).is_file():
        if path.is_dir():
            raise DataError(
                f"{SCENES} is the word for the built-in data, and a folder here has that name, too; write ./{SCENES} "
                "for the folder, or run this elsewhere for the built-in data."
            )
        from tshsr.data.generated import scenes_folder  # imports this module

        return scenes_folder()
    if not is_there(path):
        raise DataError(f"{path} does not exist{_suggestion(path)} Name a folder of data, or the word {SCENES!r}.")
    return path


def _remote_store(url: Path) -> Path:
    """A feature store on object storage.

    Raises:
        DataError: Where there is none, or the storage cannot be read.
    """
    with reachable(url):
        there = (url / MANIFEST).exists()
    if not there:
        raise DataError(f"{url} is no feature store: it has no {MANIFEST}. Other layouts are read from folders only.")
    return url


def layout_of(path: Path) -> Layout:
    """The layout of a folder or JSON file.

    Raises:
        DataError: Where the layout is unknown.
    """
    if (path / MANIFEST).is_file():
        return "store"
    if path.is_dir() and precomp_splits(path):
        return "precomp"
    if find_captions(path) is not None:
        return "pictures"
    if find_json(path) is not None:
        return "karpathy"
    holds = f"it holds {_names(path)}" if path.is_dir() else "it is a file"
    raise DataError(
        f"{path} has no known layout: {holds}. Expected a feature store (manifest.json), SCAN files "
        "(train_ims.npy and train_caps.txt, ...), Karpathy's dataset*.json with features beside it, or pictures with "
        "captions.txt."
    )


def _json(path: Path) -> Path:
    found = find_json(path)
    if found is None:
        raise DataError(f"{path} has no dataset*.json any more; copy it again.")
    return found


def _captions(path: Path) -> Path:
    found = find_captions(path)
    if found is None:
        raise DataError(f"{path} has no captions.txt any more; copy it again.")
    return found


def _split_name(path: Path, split: str, names: tuple[str, ...]) -> str:
    """The split's name in the files."""
    for name in (split, ALIASES.get(split)):
        if name in names:
            return name
    raise DataError(f"{path} has no split {split!r}; it has {', '.join(names)}.")


def _suggestion(path: Path) -> str:
    """The suffix of an error message for a missing path: the most similar name in its folder, if any."""
    siblings = {entry.name: entry for entry in path.parent.iterdir()} if path.parent.is_dir() else {}
    siblings |= {SCENES: Path(SCENES)} if path.parent == Path() else {}
    near = difflib.get_close_matches(path.name, sorted(siblings), n=1)
    near = near or [name for name in sorted(siblings) if name.startswith(path.name)]
    return f"; did you mean {siblings[near[0]]}?" if near else "."


def _names(folder: Path) -> str:
    """The names of a folder's entries, shortened."""
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    if not names:
        return "nothing"
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return ", ".join(names[:SHOWN_NAMES]) + more
