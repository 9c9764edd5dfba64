"""Pictures with captions, a tiny vision network, and a tiny run from pixels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.picture_files import drawn, write_pictures
from tests.support.small_runs import small_config
from tshsr.config.models import VisionConfig
from tshsr.config.run import AugmentationConfig, RunConfig
from tshsr.data.dataset import Split
from tshsr.data.layouts import open_split, select_images

SHARED = Path(__file__).resolve().parents[3] / "shared"
"""Real data next to the checkout."""
UNAUGMENTED = AugmentationConfig(crop=1.0, mirror=0.0, colour=0.0)
WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def picture_data(folder: Path, count: int = 12) -> Path:
    """A folder of drawn pictures, each with two captions; two thirds are for train, the others for dev."""
    names = write_pictures(folder, count)
    lines = [
        f"{name}\t{text} {WORDS[i % 12]}\t{'dev' if i % 3 == 2 else 'train'}"
        for i, name in enumerate(names)
        for text in ("a disc and a box", "left is the disc" if i == 0 else "picture number")
    ]
    (folder / "captions.txt").write_text("\n".join(lines) + "\n")
    return folder


def both_splits(folder: Path) -> tuple[Split, Split]:
    """Train and dev."""
    return open_split(folder, "train"), open_split(folder, "dev")


def pixel_config(weights: Path, *, vision: dict[str, Any] | None = None, **training: Any) -> RunConfig:
    """Settings of two epochs of two steps, with the whole vision network trained.

    Args:
        weights: Folder of the vision network.
        vision: Fields of `VisionConfig`.
        training: Fields of `TrainingConfig`.
    """
    config = small_config(**{"workers": 0, **training})
    own = VisionConfig(**{"weights": str(weights), "cells": 2, "tuned_blocks": 2, **(vision or {})})
    return replace(config, model=replace(config.model, encoder=replace(config.model.encoder, vision=own)))


def photographs(folder: Path, count: int = 32) -> Split:
    """Photographs of Flickr8k with two captions each where they are beside the checkout, else drawn pictures."""
    if SHARED.is_dir():
        split = select_images(open_split(SHARED / "data" / "flickr8k", "train"), count)
        kept = np.arange(len(split.captions)) % 5 < 2
        captions = tuple(text for text, keep in zip(split.captions, kept, strict=True) if keep)
        return replace(split, captions=captions, image_of_caption=split.image_of_caption[kept])
    folder.mkdir()
    lines = []
    for number in range(count):
        drawn(number).save(folder / f"{number:02d}.png")
        name = f"{WORDS[number % 12]} {WORDS[number // 12]}"
        lines += [f"{number:02d}.png\tpicture {name}\ttrain", f"{number:02d}.png\ta drawing of {name}\ttrain"]
    (folder / "captions.txt").write_text("\n".join(lines) + "\n")
    return open_split(folder, "train")
