"""What a search found, as data and as pictures: the first five answers, and where the right one stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from tshsr.data.dataset import Split
from tshsr.errors import InputError
from tshsr.pages.document import escape, picture_use


@dataclass(frozen=True)
class Hit:
    """One answer of a search.

    Attributes:
        item: A caption, or the name of a picture.
        score: Its score.
        right: Whether it is a right answer.
    """

    item: str
    score: float
    right: bool


@dataclass(frozen=True)
class Search:
    """A query, its first answers, and the rank of the best right one.

    Attributes:
        query: A caption (pictures are searched) or the name of a picture (captions are searched).
        hits: The first answers, best first.
        rank: Rank of the best right answer, from 1; ties count against it.
        answer: The best right answer.
    """

    query: str
    hits: tuple[Hit, ...]
    rank: int
    answer: Hit

    def shown(self) -> list[tuple[int, Hit]]:
        """Ranks and answers to show: the first ones, and the right one where it is not among them."""
        first = list(enumerate(self.hits, start=1))
        return first if any(hit.right for hit in self.hits) else [*first, (self.rank, self.answer)]


def search_pictures(scores: np.ndarray, split: Split, caption: int, *, names: Sequence[str], k: int = 5) -> Search:
    """The pictures that a caption finds.

    Args:
        scores: Images x captions.
        split: Whose images and captions these are.
        caption: Number of the caption.
        names: Name of each image's picture.
        k: Number of answers to keep.
    """
    right = np.arange(len(scores)) == split.image_of_caption[caption]
    return _search(split.captions[caption], scores[:, caption], right, names, k)


def search_captions(scores: np.ndarray, split: Split, image: int, *, names: Sequence[str], k: int = 5) -> Search:
    """The captions that a picture finds.

    Args:
        scores: Images x captions.
        split: Whose images and captions these are.
        image: Number of the image.
        names: Name of each image's picture.
        k: Number of answers to keep.

    Raises:
        InputError: Where the image has no caption.
    """
    return _search(names[image], scores[image], split.image_of_caption == image, split.captions, k)


def _search(query: str, scores: np.ndarray, right: np.ndarray, items: Sequence[str], k: int) -> Search:
    if not right.any():
        raise InputError(f"nothing is a right answer to {query!r}; expected an image with captions of its own.")
    order = np.lexsort((right, -scores))  # equal scores: the right one last, as the rank has it
    best = int(order[right[order]][0])
    rank = 1 + int((scores[~right] >= scores[best]).sum())
    hits = tuple(Hit(items[i], float(scores[i]), bool(right[i])) for i in order[:k].tolist())
    return Search(query, hits, rank, Hit(items[best], float(scores[best]), right=True))


def first_examples(ranks: np.ndarray, *, found: int, missed: int) -> list[int]:
    """The first queries answered right at rank 1 and the first that were not: examples that nobody picked."""
    return [int(query) for query in (*np.flatnonzero(ranks == 1)[:found], *np.flatnonzero(ranks > 1)[:missed])]


def picture_gallery(search: Search, ids: Mapping[str, str], pictures: Mapping[str, Image.Image]) -> str:
    """A caption and the pictures it found.

    Args:
        search: The search.
        ids: Element id of each picture on the page.
        pictures: The pictures by name.
    """
    items = "".join(
        f"<li{' class=is-right' if hit.right else ''}>{picture_use(ids[hit.item], pictures[hit.item].size, hit.item)}"
        f"{number} · {hit.score:.2f}{' ✓ right' if hit.right else ''}</li>"
        for number, hit in search.shown()
    )
    return (
        f'<article class="search"><h3 class="caption" dir="auto">{escape(search.query)}</h3>'
        f'{_verdict(search, "The right picture")}<ol class="hits">{items}</ol></article>'
    )


def caption_gallery(search: Search, ids: Mapping[str, str], pictures: Mapping[str, Image.Image]) -> str:
    """A picture and the captions it found; arguments as in `picture_gallery`."""
    items = "".join(
        f'<li value="{number}"{" class=is-right" if hit.right else ""}>'
        f"<bdi>{escape(hit.item)}</bdi>{' ✓' if hit.right else ''}"
        f'<span class="score">{hit.score:.2f}</span></li>'
        for number, hit in search.shown()
    )
    picture = picture_use(ids[search.query], pictures[search.query].size, search.query)
    return (
        f'<article class="search beside">{picture}<div>{_verdict(search, "The first right caption")}'
        f'<ol class="ranked">{items}</ol></div></article>'
    )


def _verdict(search: Search, what: str) -> str:
    mark, css = ("✓", "right") if search.rank == 1 else ("✗", "wrong")
    return f'<p class="verdict {css}">{mark} {what} is at rank {search.rank}</p>'
