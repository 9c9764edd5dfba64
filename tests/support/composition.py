"""Small annotation of SugarCrepe, ARO and Winoground, in their public layouts, and two pictures."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image


def write_sugarcrepe(folder: Path) -> None:
    """Two kinds, three cases."""
    swapped = {
        "0": {
            "filename": "a.png",
            "caption": "a red dog and a blue ball",
            "negative_caption": "a blue dog and a red ball",
        },
        "1": {"filename": "b.png", "caption": "a green boat", "negative_caption": "a white boat"},
    }
    added = {"0": {"filename": "b.png", "caption": "one boat", "negative_caption": "one boat and a tree"}}
    (folder / "swap_att.json").write_text(json.dumps(swapped))
    (folder / "add_obj.json").write_text(json.dumps(added))


def write_aro(folder: Path) -> None:
    """A relation and an attribution."""
    box = {"image_id": "1", "image_path": "a.png", "bbox_x": 1, "bbox_y": 2, "bbox_w": 4, "bbox_h": 3}
    relation = {
        **box,
        "true_caption": "the dog is on the ball",
        "false_caption": "the ball is on the dog",
        "relation_name": "on",
    }
    attribution = {
        **box,
        "true_caption": "the red dog and the blue ball",
        "false_caption": "the blue dog and the red ball",
        "attributes": ["red", "blue"],
    }
    (folder / "visual_genome_relation.json").write_text(json.dumps([relation]))
    (folder / "visual_genome_attribution.json").write_text(json.dumps([attribution]))


def write_winoground(folder: Path) -> None:
    """One case; the annotation leaves out the endings of picture files."""
    entry = {"id": 0, "image_0": "a", "image_1": "b", "caption_0": "a dog on a ball", "caption_1": "a ball on a dog"}
    (folder / "examples.jsonl").write_text(json.dumps({**entry, "tag": "Noun", "collapsed_tag": "Object"}) + "\n")


def write_pictures(folder: Path) -> None:
    """The pictures of these cases, 8 x 6."""
    folder.mkdir()
    for name, colour in (("a", (200, 0, 0)), ("b", (0, 0, 200))):
        Image.new("RGB", (8, 6), colour).save(folder / f"{name}.png")
