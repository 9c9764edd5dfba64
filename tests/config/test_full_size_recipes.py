"""The full-size recipes, on small files of their data's layout."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.data_files import random_regions, write_precomp
from tshsr.config.recipes import recipe
from tshsr.data.layouts import open_split
from tshsr.retriever import Retriever
from tshsr.training.fit import fit


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "tshsr-flickr30k",
        "tshsr-coco",
        "vse-flickr30k",
        "scan-flickr30k",
        "sgr-flickr30k",
        "saf-flickr30k",
        "two-stream-sgr-flickr30k",
    ],
)
def test_a_full_size_recipe_trains_on_files_of_its_layout(name: str, tmp_path: Path) -> None:
    for split, images in (("train", 4), ("dev", 2)):
        write_precomp(tmp_path / "data", split, random_regions(images, 36, 2048, dtype="float16"))
    config = recipe(name)
    assert (config.model.encoder.dim, config.training.batch) == (1024, 128)
    assert getattr(config.model, "similarity_dim", 256) == 256
    config = replace(config, training=replace(config.training, epochs=1))
    splits = {split: open_split(tmp_path / "data", split) for split in ("train", "dev")}
    result = fit(config, **splits, out=tmp_path / "run", device="cpu")
    assert result.steps == 1
    retriever = Retriever.from_pretrained(tmp_path / "run")
    scores = retriever.score(splits["dev"], list(splits["dev"].captions))
    assert scores.shape == (2, 10)
    assert scores.isfinite().all()
