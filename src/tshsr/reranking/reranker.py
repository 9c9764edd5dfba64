"""The public reranker: a query and candidates -> the best of them, with scores, probabilities and boxes of words."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from tshsr.data.batches import ImageBatch
from tshsr.data.dataset import Split
from tshsr.data.pictures import MAX_PIXELS
from tshsr.errors import InputError
from tshsr.explain.word_boxes import WordBoxes, boxes_of_words
from tshsr.features.extractor import Extractor, PictureRegions
from tshsr.models.base import ItemEncoding
from tshsr.reranking.candidates import EncodedImages, Picture, Source, encode_candidates, open_source
from tshsr.reranking.selection import Ranked, Selection
from tshsr.retriever import Retriever, extractor_of
from tshsr.scoring.all_pairs import score_encoded
from tshsr.scoring.query import check_query

Candidates = Sequence[Picture] | ImageBatch | np.ndarray | ItemEncoding | EncodedImages
"""A list of pictures of any kind; a batch; features (images x regions x features); or encodings."""


class Reranker:
    """Reranks the candidates of another search by a trained network; thread-safe.

    Args:
        retriever: The network.
        source: Pictures by id: an index, a split, or the folder of an index or of a feature store. Without it, strings
            are picture files.
        pictures: Number of pictures of the searched collection, for probabilities; by default that of the source, and
            without one that of the collection of `tshsr calibrate`.

    Raises:
        DataError: Where there is no such source, or its features are of another extractor.
        CheckpointError: Where another network encoded the index.
    """

    def __init__(
        self, retriever: Retriever, *, source: Source | Split | str | Path | None = None, pictures: int | None = None
    ) -> None:
        self.retriever, self.source = retriever, open_source(source, retriever)
        self._pictures = pictures
        self._extractor: Extractor | None = None
        self._lock = threading.Lock()

    @classmethod
    def from_pretrained(
        cls,
        place: str | Path,
        *,
        source: Source | Split | str | Path | None = None,
        device: torch.device | str | None = None,
        **options: Any,
    ) -> Self:
        """Load a network with its calibration.

        Args:
            place: A run's folder, a saved model, or "owner/name" on the hub.
            source: As in the constructor.
            device: None: the CPU.
            options: Of `Retriever.from_pretrained`.

        Raises:
            CheckpointError: Where there is no such model, it is damaged, or another network encoded the index.
            DataError: Where there is no such source, or its features are of another extractor.
        """
        retriever = Retriever.from_pretrained(place, **options)
        return cls(retriever if device is None else retriever.to(device), source=source)

    @property
    def pictures(self) -> int | None:
        """Number of pictures of the searched collection; that of the source grows with it. None: no number is known."""
        return len(self.source) if self._pictures is None and self.source is not None else self._pictures

    def rank(
        self,
        query: str | Picture,
        candidates: Candidates | Sequence[str],
        k: int = 10,
        *,
        first_stage: Sequence[float] | None = None,
        weight: float = 0.0,
        words: bool = True,
        min_probability: float = 0.0,
    ) -> list[Ranked]:
        """The k best candidates, best first; of equal ones, the earlier candidate.

        With `weight` w, candidates are ordered by (1 - w) z(score) + w z(first stage), where z subtracts the mean over
        the candidates and divides by the standard deviation: the two scores need no common scale.

        Args:
            query: A sentence, with pictures as candidates; or a picture (a file as a `Path`), with sentences.
            candidates: A list of pictures: ids of the source (without a source: files), paths of files, PIL pictures,
                or features of regions; or the result of `encode`. For a picture query, sentences.
            first_stage: The score of each candidate in the search that found it, higher is better.
            weight: Of the first stage, 0..1; 0 orders by the network alone.
            words: Whether results have the boxes of words, which take about as long as scoring.
            min_probability: Candidates below it are left out.

        Raises:
            InputError: Where the query has no word, or there is no candidate.
            DataError: Where an id is unknown, or a picture can't be read.
            SettingsError: Where an option can't be used.
        """
        given = None if first_stage is None else tuple(map(float, first_stage))
        selection = Selection(k, given, weight, min_probability)
        selection.check(self.retriever.name, calibrated=self.retriever.calibration is not None)
        if not isinstance(query, str):
            return self._rank_sentences(query, sentences_of(candidates), selection, words=words)
        check_query(query, k)
        caption, images = self.retriever.encode_captions(query), self.encode(candidates)
        best = self._select(selection, self._score(images.encoding, caption)[:, 0])
        return self._with_words(query, caption, images, best, words=words)

    def rank_many(
        self, queries: Sequence[str], candidates: Sequence[Candidates], k: int = 10, *, words: bool = False
    ) -> list[list[Ranked]]:
        """`rank` for several sentences, whose words are encoded as one batch.

        Args:
            candidates: Those of each query; ids and pictures that several queries share are better encoded once, and
                given as `EncodedImages`.
            words: As in `rank`.

        Raises:
            InputError: Where a query has no word, or the numbers of queries and lists of candidates differ.
            DataError: Where an id is unknown, or a picture can't be read.
        """
        if len(queries) != len(candidates):
            raise InputError(f"{len(queries)} queries have {len(candidates)} lists of candidates; expected one each.")
        for query in queries:
            check_query(query, k)
        if not queries:
            return []
        captions, results = self.retriever.encode_captions(list(queries)), []
        for row, (query, listed) in enumerate(zip(queries, candidates, strict=True)):
            caption, images = captions[row : row + 1].trimmed(), self.encode(listed)
            best = self._select(Selection(k), self._score(images.encoding, caption)[:, 0])
            results.append(self._with_words(query, caption, images, best, words=words))
        return results

    def scores(self, query: str, candidates: Candidates) -> Float[Tensor, " images"]:
        """The fused score of each candidate with a sentence, in their order, on the CPU.

        Raises:
            InputError: Where the sentence has no word, or there is no candidate.
            DataError: Where an id is unknown, or a picture can't be read.
        """
        check_query(query, 1)
        return self._score(self.encode(candidates).encoding, self.retriever.encode_captions(query))[:, 0]

    def probabilities(self, scores: Float[Tensor, " images"]) -> Float[Tensor, " images"] | None:
        """The probabilities that belong to scores; None where the model has no calibration."""
        calibration = self.retriever.calibration
        return None if calibration is None else calibration.probability(scores, pictures=self.pictures)

    def encode(self, candidates: Candidates | Sequence[str], *, max_pixels: int = MAX_PIXELS) -> EncodedImages:
        """Pictures encoded once, for several queries.

        Args:
            candidates: As in `rank`.
            max_pixels: Limit of a picture file, by its header.

        Raises:
            InputError: Where there is no candidate, or an array has a wrong shape.
            DataError: Where an id is unknown, or a picture can't be read.
        """
        if isinstance(candidates, EncodedImages):
            return candidates
        return encode_candidates(self.retriever, candidates, self.source, self._extract, max_pixels)

    def _extract(self, pictures: Sequence[Image.Image]) -> list[PictureRegions]:
        """Regions of pictures, by the extractor of the network's features, opened at the first use."""
        with self._lock:
            if self._extractor is None:
                self._extractor = extractor_of(self.retriever) if self.source is None else self.source.extractor()
        return self._extractor.extract(pictures)

    def _score(self, images: ItemEncoding, captions: ItemEncoding) -> Float[Tensor, "images captions"]:
        device = self.retriever.device
        return score_encoded(self.retriever.matcher, images.to(device), captions.to(device))["fused"].float().cpu()

    def _select(self, selection: Selection, scores: Float[Tensor, " candidates"]) -> list[Ranked]:
        probabilities = self.probabilities(scores)
        return selection.best(scores, None if probabilities is None else probabilities.tolist())

    def _rank_sentences(
        self, query: Picture, sentences: list[str], selection: Selection, *, words: bool
    ) -> list[Ranked]:
        """The best sentences for a picture, with the boxes of their words in it."""
        for sentence in sentences:
            check_query(sentence, selection.k)
        image, captions = self.encode([query]), self.retriever.encode_captions(sentences)
        results = []
        for one in self._select(selection, self._score(image.encoding, captions)[0]):
            sentence, caption = sentences[one.index], captions[one.index : one.index + 1].trimmed()
            (found,) = self._with_words(sentence, caption, image, [replace(one, index=0)], words=words)
            results.append(replace(found, index=one.index, id=sentence))
        return results

    def _with_words(
        self, text: str, caption: ItemEncoding, images: EncodedImages, best: Sequence[Ranked], *, words: bool
    ) -> list[Ranked]:
        """Results with their ids, and the boxes of the words of a sentence."""
        found: Sequence[tuple[WordBoxes, ...]] = [()] * len(best)
        if words and best:
            device, chosen = self.retriever.device, images.rows([one.index for one in best])
            found = boxes_of_words(self.retriever, chosen.encoding.to(device), chosen.boxes, text, caption)
        return [replace(one, id=images.ids[one.index], words=boxes) for one, boxes in zip(best, found, strict=True)]


def sentences_of(candidates: object) -> list[str]:
    """The candidates of a picture query.

    Raises:
        InputError: Where they are no sentences.
    """
    listed = list(candidates) if isinstance(candidates, Sequence) and not isinstance(candidates, str) else []
    if not listed or not all(isinstance(one, str) for one in listed):
        raise InputError(
            "the query is a picture and its candidates are no list of sentences; give sentences, or a sentence as the "
            "query: the network compares pictures with text."
        )
    return [str(one) for one in listed]
