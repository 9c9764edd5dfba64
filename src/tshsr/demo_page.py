"""What the page of the demo shows: the figures, and the first searches that went right and wrong."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image

from tshsr.data.dataset import Split
from tshsr.data.truth import Truth
from tshsr.errors import DataError
from tshsr.explain.attribution import explain_pair
from tshsr.explain.probes import pointing_chance
from tshsr.metrics.recall import image_to_text_ranks, text_to_image_ranks
from tshsr.metrics.report import Report
from tshsr.pages.charts import training_charts
from tshsr.pages.galleries import Search, first_examples, search_captions, search_pictures
from tshsr.pages.report import ReportPage, WordMaps
from tshsr.retriever import Retriever

FOUND, MISSED = 2, 2
"""How many searches of either outcome the page shows in each direction."""


def make_page(
    report: Report,
    retriever: Retriever,
    test: Split,
    truth: Truth,
    scores: np.ndarray,
    facts: Mapping[str, str],
    log: list[Mapping[str, object]],
) -> ReportPage:
    """The report page, with the first searches that went right and wrong: nobody picked them."""
    names = test.image_ids
    captions = first_examples(text_to_image_ranks(scores, test.image_of_caption), found=FOUND, missed=MISSED)
    images = first_examples(image_to_text_ranks(scores, test.image_of_caption), found=FOUND, missed=MISSED)
    by_caption = tuple(search_pictures(scores, test, caption, names=names) for caption in captions)
    by_picture = tuple(search_captions(scores, test, image, names=names) for image in images)
    explained = [caption for caption in captions if truth.regions_of_word[caption]][: FOUND + 1]
    maps = tuple(word_maps_of(retriever, test, truth, caption) for caption in explained)
    used = used_pictures(by_caption, by_picture, maps)
    return ReportPage(
        title="Two streams, level by level: TSHSR on built-in scenes",
        report=report,
        facts=facts,
        charts=training_charts(log),
        pointing_chance=pointing_chance(test, truth),
        pictures={name: open_picture(test, names.index(name)) for name in used},
        text_to_image=by_caption,
        image_to_text=by_picture,
        maps=maps,
    )


def word_maps_of(retriever: Retriever, test: Split, truth: Truth, caption: int) -> WordMaps:
    """What the network made of a caption and its own image, with the truth."""
    image = int(test.image_of_caption[caption])
    explanation = explain_pair(retriever, test.regions.read([image]), test.captions[caption])
    return WordMaps(test.image_ids[image], explanation, truth.regions_of_word[caption])


def used_pictures(
    by_caption: tuple[Search, ...], by_picture: tuple[Search, ...], maps: tuple[WordMaps, ...]
) -> list[str]:
    """Names of all pictures on the page, each once."""
    names = [hit.item for search in by_caption for _, hit in search.shown()]
    names += [search.query for search in by_picture]
    names += [entry.picture for entry in maps]
    return list(dict.fromkeys(names))


def open_picture(split: Split, image: int) -> Image.Image:
    """The picture of an image.

    Raises:
        DataError: Where its file is gone.
    """
    path = split.picture(image)
    if path is None:
        raise DataError(
            f"{split.data} has lost the picture of {split.image_ids[image]}; remove its folder, and it is made again."
        )
    with Image.open(path) as opened:
        return opened.convert("RGB")
