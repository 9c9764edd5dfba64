"""Two-stage scoring: v·t finds candidates, the network reasons about those alone, in two rounds (`candidates.py`).

In 16 bits all pairs are the first stage: what they rank first is scored anew in the network's own precision.

Axes: images | captions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tshsr.data.batches import pad_sequences
from tshsr.data.dataset import Split
from tshsr.data.text import Tokenizer
from tshsr.models.base import ItemEncoding, Matcher
from tshsr.scoring.all_pairs import (
    ENCODE_BLOCK,
    Budget,
    Lengths,
    blocks,
    by_length,
    is_out_of_memory,
    ready,
    score_split,
    tile_bytes,
)
from tshsr.scoring.candidates import Depth, candidates, merged, rounds
from tshsr.scoring.options import DEFAULT_OPTIONS, ScoringOptions
from tshsr.scoring.precision import lowered
from tshsr.scoring.storage import writable
from tshsr.system import Progress, no_progress

EXACT = 16
"""Of every image and every caption so many of the best answers by 16 bits are scored exactly: R@10 asks for ten."""


@dataclass(frozen=True)
class TwoStage:
    """Scores of a two-stage search over a whole split.

    Attributes:
        scores: `fused` and `pooled`, float32, images x captions. Where nothing was reasoned about, `fused` holds v·t
            lowered below every reasoned score: candidates come first, the others follow in the order of v·t.
        reasoned: Which pairs were reasoned about.
    """

    scores: dict[str, np.ndarray]
    reasoned: np.ndarray


class Captions:
    """Captions in blocks of like length, encoded when they are asked for; what fits the budget is kept encoded.

    Args:
        matcher: The network.
        tokens: Each caption as a row of token numbers.
        place: Where to encode.
        budget: Bytes that encodings may take.
    """

    def __init__(self, matcher: Matcher, tokens: list[list[int]], place: torch.device, budget: int) -> None:
        self.matcher, self.tokens, self.place = matcher, tokens, place
        self.left = budget
        self.columns = list(blocks(by_length(tokens), ENCODE_BLOCK))
        self.kept: dict[int, ItemEncoding] = {}

    def __iter__(self) -> Iterator[tuple[np.ndarray, ItemEncoding]]:
        """The numbers of some captions, and their encoding."""
        for number, columns in enumerate(self.columns):
            yield columns, self.kept[number] if number in self.kept else self._encode(number, columns)

    def _encode(self, number: int, columns: np.ndarray) -> ItemEncoding:
        encoding = self.matcher.encode_captions(pad_sequences([self.tokens[i] for i in columns]).to(self.place))
        size = bytes_of(encoding)
        if size <= self.left:
            self.left -= size
            self.kept[number] = encoding
        return encoding


@torch.inference_mode()
def score_two_stage(
    matcher: Matcher,
    tokenizer: Tokenizer,
    split: Split,
    depth: Depth,
    options: ScoringOptions = DEFAULT_OPTIONS,
) -> TwoStage:
    """Rank all pairs of a split by v·t, and reason about the best of every image and of every caption.

    Args:
        matcher: A network with a pooled score.
        tokenizer: The network's tokenizer.
        split: What to score.
        depth: Candidates of a query, on average.
        options: The precision is that of the second stage; the matrices are in memory.
    """
    with ready(matcher, options.device) as place:
        scorer = lowered(matcher, options.dtype)
        dtype = next(scorer.parameters()).dtype
        images = encoded(matcher, split, place)
        texts = Captions(matcher, tokenizer.encode(split.captions), place, options.byte_budget)
        pooled = np.empty((len(split.regions), len(split.captions)), np.float32)
        for columns, text in texts:
            products = [part.pooled @ text.pooled.T for part in images]
            pooled[:, columns] = torch.cat(products).float().cpu().numpy()
        fused, reasoned = np.full_like(pooled, -np.inf), np.zeros(pooled.shape, dtype=bool)
        reason = Reasoning(scorer, [part.at(dtype) for part in images], texts, fused, Budget(options.byte_budget))
        for wanted in rounds(fused, pooled, depth):
            done = int(reasoned.sum())
            total = int(wanted.sum()) if done else 2 * int(wanted.sum())  # the first round is half of what is to come
            reason.about(wanted & ~reasoned, done, total, options.progress)
            reasoned |= wanted
        if scorer is not matcher:
            exactly = Reasoning(matcher, images, texts, fused, Budget(options.byte_budget))
            exactly.about_the_best(merged(fused, pooled, reasoned), among=reasoned)
    return TwoStage({"fused": merged(fused, pooled, reasoned), "pooled": pooled}, reasoned)


@torch.inference_mode()
def score_split_at(
    matcher: Matcher,
    tokenizer: Tokenizer,
    split: Split,
    options: ScoringOptions = DEFAULT_OPTIONS,
) -> Mapping[str, np.ndarray]:
    """`score_split` in a precision; where that is a lower one, the fused scores of the best answers are exact again.

    Rounding moves a score by a thousandth or so. That decides among the best answers of a query, which are few:
    `EXACT` of every image and of every caption, two pairs in a hundred for 1,000 images with five captions each.
    """
    scores = score_split(matcher, tokenizer, split, options)
    if options.dtype is not None:
        with ready(matcher, options.device) as place:
            texts = Captions(matcher, tokenizer.encode(split.captions), place, options.byte_budget)
            fused, budget = writable(scores, "fused"), Budget(options.byte_budget)
            Reasoning(matcher, encoded(matcher, split, place), texts, fused, budget).about_the_best(fused)
    return scores


def encoded(matcher: Matcher, split: Split, place: torch.device) -> list[ItemEncoding]:
    """The images of a split, encoded, in blocks of `ENCODE_BLOCK`."""
    read = (split.regions.read(rows).to(place) for rows in blocks(np.arange(len(split.regions)), ENCODE_BLOCK))
    return [matcher.encode_images(batch) for batch in read]


@dataclass(frozen=True)
class Reasoning:
    """Fills in the fused scores of some pairs after others.

    Attributes:
        scorer: The network, in the precision of the second stage.
        images: The images, encoded, in blocks of `ENCODE_BLOCK`.
        texts: The captions.
        fused: The scores, images x captions.
        budget: Bytes of temporaries.
    """

    scorer: Matcher
    images: list[ItemEncoding]
    texts: Captions
    fused: np.ndarray
    budget: Budget

    def about_the_best(self, scores: np.ndarray, among: np.ndarray | None = None) -> None:
        """Score the `EXACT` best of every image and of every caption by some scores; None: among all pairs."""
        best = candidates(scores, Depth(EXACT, EXACT))
        wanted = best if among is None else best & among
        self.about(wanted, 0, int(wanted.sum()), no_progress)

    def about(self, wanted: np.ndarray, done: int, total: int, progress: Progress) -> None:
        """Score the pairs of a mask, and tell how many of all are done."""
        exact = next(self.scorer.parameters()).dtype
        for columns, text in self.texts:
            lengths, text = Lengths.of(text), text.at(exact)
            for first, part in zip(range(0, len(self.fused), ENCODE_BLOCK), self.images, strict=True):
                places, rows = wanted[first : first + len(part), columns].T.nonzero()  # by caption, so by length
                scores = score_listed(self.scorer, part, text, lengths, (rows, places), self.budget)
                self.fused[first + rows, columns[places]] = scores.cpu().numpy()
                done += len(rows)
            progress(done, total)


def score_listed(
    matcher: Matcher,
    images: ItemEncoding,
    captions: ItemEncoding,
    lengths: Lengths,
    pairs: tuple[np.ndarray, np.ndarray],
    budget: Budget,
) -> Float[Tensor, " pairs"]:
    """The fused scores of pairs, some at a time; where memory runs out, fewer at a time. Nothing here waits for a GPU.

    Args:
        matcher: The network.
        images: Images.
        captions: Captions.
        lengths: Of the captions.
        pairs: Rows of images, and of as many captions.
        budget: Bytes of temporaries.
    """
    place = images.mask.device
    rows, columns = (torch.from_numpy(side).to(place) for side in pairs)
    words = np.array(lengths.words)[pairs[1]]
    found = torch.empty(len(rows), device=place)
    gathered = bytes_of(images) // len(images) + bytes_of(captions) // len(captions)
    cost = matcher.bytes_per_pair(images.mask.shape[-1], captions.mask.shape[-1]) + gathered
    done = 0
    while done < len(rows):
        some = slice(done, done + max(1, tile_bytes(images, cost, budget) // cost))
        try:
            longest = int(words[some].max())
            right = captions[columns[some]].cut(longest, padded=lengths.holes or int(words[some].min()) < longest)
            scores = matcher.score_pairs(images[rows[some]], right)["fused"]
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            many = len(words[some])
            if not is_out_of_memory(error) or many == 1:
                raise
            budget.lower(cost * (many // 2), error)
        else:
            found[some] = scores
            done += len(scores)
    return found


def bytes_of(encoding: ItemEncoding) -> int:
    """Memory of an encoding."""
    parts = (encoding.items, encoding.mask, encoding.pooled, encoding.gram, *encoding.views.values())
    return sum(part.numel() * part.element_size() for part in parts)
