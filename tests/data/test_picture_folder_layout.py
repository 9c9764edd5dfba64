"""A folder of pictures with captions as a data set: the layout of training from pixels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.picture_files import write_pictures
from tshsr.data.check import check_data
from tshsr.data.layouts import layout_of, open_split, select_images, splits_of
from tshsr.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six pictures, three of them in a subfolder, with two captions each for train and dev."""
    names = write_pictures(tmp_path, 6)
    splits = ("train", "train", "dev")
    lines = [f"{name}\tcaption {k} of {name}\t{splits[i % 3]}" for k in range(2) for i, name in enumerate(names)]
    (tmp_path / "captions.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_captions_and_pictures_become_splits(folder: Path) -> None:
    assert (layout_of(folder), splits_of(folder)) == ("pictures", ("dev", "train"))
    split = open_split(folder, "val")
    assert split.name == "dev"
    assert split.captions == tuple(f"caption {k} of {name}.jpg" for k in range(2) for name in ("a/p05", "p04"))
    assert split.image_ids == ("a/p05", "p04")
    assert split.image_of_caption.tolist() == [0, 1, 0, 1]
    assert split.picture(0) == folder / "a" / "p05.jpg"
    chosen = select_images(split, [1])
    assert (chosen.image_ids, len(chosen.regions)) == (("p04",), 1)


def test_checking_lists_captions_without_a_picture(folder: Path) -> None:
    with (folder / "captions.txt").open("a") as file:
        file.write("gone.jpg\ta dog\ttrain\n")
    problems, _ = check_data(folder)
    assert len(problems) == 1
    assert (
        "1 of 13 captions are left out, the first of the picture 'gone.jpg', which is not in the folder" in problems[0]
    )


def test_karpathys_json_without_features_is_a_folder_of_pictures(folder: Path) -> None:
    (folder / "captions.txt").unlink()
    images = [
        {"filename": f"p{i:02d}.jpg", "split": split, "imgid": i, "sentences": [{"raw": f"a thing {i}", "imgid": i}]}
        for i, split in ((0, "train"), (2, "restval"), (4, "test"))
    ]
    (folder / "dataset_own.json").write_text(json.dumps({"images": images}))
    assert (layout_of(folder), splits_of(folder)) == ("pictures", ("test", "train"))
    for place in (folder, folder / "dataset_own.json"):
        assert open_split(place, "train").captions == ("a thing 0", "a thing 2")
    np.save(folder / "features.npy", np.ones((3, 2, 4), np.float32))
    assert layout_of(folder) == "karpathy"


def test_there_are_no_regions_to_read(folder: Path) -> None:
    regions = open_split(folder, "train").regions
    for read in (regions.read, regions.read_array):
        with pytest.raises(DataError, match=r"holds pictures without region features; make features with tshsr feat"):
            read([0])
    assert (regions.feature_dim, regions.joint_dim, regions.most(), list(regions.pooled_blocks(2))) == (0, 0, 0, [])


def test_a_missing_split_lists_the_known_ones(folder: Path) -> None:
    with pytest.raises(DataError, match=r"captions.txt has no split 'test'; it has dev, train"):
        open_split(folder, "test")


def test_a_check_decodes_every_picture(folder: Path) -> None:
    problems, info = check_data(folder)
    assert problems == []
    assert info is not None
    assert [(split.name, split.images, split.captions) for split in info.splits] == [("dev", 2, 4), ("train", 4, 8)]
    broken = folder / "p02.jpg"
    broken.write_bytes(broken.read_bytes()[:500])
    (problem,) = check_data(folder)[0]
    assert problem.startswith(f"{broken} is no readable picture (")
