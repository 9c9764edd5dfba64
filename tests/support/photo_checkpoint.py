"""A checkpoint as it comes with the source: regions of EfficientNet-Lite2, words of MiniLM; tiny, not trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.support.small_runs import small_config
from tshsr.features.extractor import Extractor
from tshsr.models.build import build_matcher
from tshsr.pretrained.frozen_text import FrozenText
from tshsr.retriever import Retriever


def save_checkpoint(folder: Path, extractor: Extractor) -> None:
    """Write the flat model folder."""
    text, config = FrozenText("minilm"), small_config()
    encoder = replace(
        config.model.encoder,
        feature_dim=extractor.feature_dim,
        text="pretrained",
        text_weights="minilm",
        text_width=text.width,
        text_fingerprint=text.fingerprint,
        vocabulary=len(text),
    )
    config = replace(config, extractor=extractor.name, model=replace(config.model, encoder=encoder))
    Retriever(build_matcher(config.model), text, config, "photos").save_pretrained(folder)
