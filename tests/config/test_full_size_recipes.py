"""The full-size recipes, on small files of their data's layout."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.data_files import random_regions, write_precomp
from tests.support.tiny_text import save_text
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("tshsr-flickr30k-bert", "bert"),
        ("tshsr-coco-bert", "bert"),
        ("tshsr-flickr30k-clip", "clip"),
        ("tshsr-coco-siglip2", "siglip2"),
    ],
)
def test_a_recipe_with_a_pretrained_encoder_trains_with_a_tiny_one(name: str, kind: str, tmp_path: Path) -> None:
    config = recipe(name)
    encoder = config.model.encoder
    assert (encoder.text, encoder.text_weights, config.training.batch) == ("pretrained", kind, 128)
    tuned = 1 if encoder.text_tuned_layers else 0
    assert tuned == (kind == "bert")
    weights = save_text(kind, tmp_path / "network")
    encoder = replace(encoder, text_weights=str(weights), text_tuned_layers=tuned)
    config = replace(config, model=replace(config.model, encoder=encoder))
    config = replace(config, training=replace(config.training, epochs=1))
    for split, images in (("train", 4), ("dev", 2)):
        width = {"bert": 0, "clip": 16, "siglip2": 32}[kind]  # of the tiny networks' joint spaces
        pooled = np.random.default_rng(0).normal(size=(images, width)).astype(np.float32) if width else None
        regions = random_regions(images, 9, 2048 if kind == "bert" else 768, dtype="float16")
        write_precomp(tmp_path / "data", split, regions, pooled=pooled)
    splits = {split: open_split(tmp_path / "data", split) for split in ("train", "dev")}
    assert fit(config, **splits, out=tmp_path / "run", device="cpu").steps == 1
    scores = Retriever.from_pretrained(tmp_path / "run").score(splits["dev"], list(splits["dev"].captions))
    assert scores.shape == (2, 10)
    assert scores.isfinite().all()
