"""Recall and cost of the two-stage search as a collection grows, into `benchmarks/results/growth-flickr8k.json`.

    python -m benchmarks.growth --run checkpoints/flickr8k-photos --data flickr8k-store

The captions of the test split search for their pictures among 1,000 (the test pictures), then among all real pictures
(those of the other splits too, on which the network was trained), then among distractors that are made from the latter.
A distractor is a mixture of two real pictures that are alike: a quarter of the regions of one are those of the other,
at the same places, and the network pools them as it pools any picture's. No distractor has a region of a test picture.
Three figures show how close this comes to real growth: recall among the real pictures and as many distractors in place
of those that are not of the test split; the same with distractors that are made of 1,000 pictures; and recall where
every rank among the real pictures grows with the collection.

Axes: queries | pictures | regions | dim (joint space).
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import tyro
from jaxtyping import Float
from torch import Tensor

from benchmarks.tables import RESULTS
from tshsr.data.dataset import Split
from tshsr.data.layouts import open_split
from tshsr.errors import SettingsError, TshsrError
from tshsr.files import write_text
from tshsr.index.search import CANDIDATES
from tshsr.models.base import ItemEncoding, join_encodings
from tshsr.models.streams import StreamMatcher
from tshsr.models.whole import whole_vector
from tshsr.retriever import Retriever
from tshsr.scoring.all_pairs import ENCODE_BLOCK, blocks, score_encoded
from tshsr.system import keep_freed_memory, provenance

LOG = logging.getLogger("benchmarks.growth")
ALIKE, REPLACED = 0.1, 0.25
"""A distractor's second picture is among this share of the pictures, nearest first by v·v, and gives it this share of
its regions, in the mean. More regions, or of nearer pictures, make distractors that are harder than real pictures."""
BLOCK = 4096
DEPTHS = (10, 20, 50, 100, 200, 500, 1000)
SHARES = (0.5, 0.8, 0.9, 0.95)
"""Shares of the queries whose picture the first stage shall keep."""
TIMED, TIMED_QUERIES = (CANDIDATES, 10 * CANDIDATES), 50
"""Candidates of the timed second stages: two numbers, so that a query's share of the cost and a candidate's are known;
and the captions, evenly spread."""
CLOSE = 1e-4
"""Largest difference between a mixture that is pooled here and the same mixture encoded from its features."""


@dataclass(frozen=True)
class Growth:
    """The run, its data and the sizes of the collection."""

    run: str = "checkpoints/flickr8k-photos"
    """The network."""
    data: str = "flickr8k-store"
    """A feature store with the split test, and further pictures."""
    sizes: tuple[int, ...] = (1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 100_000, 300_000, 1_000_000)
    """Pictures of the collection; the first is that of the test split."""
    rescored: tuple[int, ...] = (1_000, 8_000)
    """Sizes at which the second stage runs, too. The table has only sizes without distractors: no network was trained
    on mixtures."""
    queries: int = 1_000
    """Captions of the second stage: the first ones of evenly spread test pictures."""
    source: int = 1_000
    """Real pictures of which the distractors of the comparison are made."""


@dataclass
class Collection:
    """Real pictures, and mixtures of those that are not of the test split.

    Attributes:
        items: Encoded regions of the real pictures, test pictures first.
        pooled_items: The regions that v is pooled from, where the network projects them apart.
        given: Their image vectors, where the network reads any.
        tests: Number of test pictures.
        near: For each picture its nearest ones, none of them a test picture.
    """

    matcher: StreamMatcher
    items: Float[Tensor, "pictures regions dim"]
    pooled: Float[Tensor, "pictures dim"]
    pooled_items: Float[Tensor, "pictures regions dim"] | None
    given: Tensor | None
    tests: int
    near: np.ndarray

    def mixtures(self, count: int, *, of: int, seed: int) -> Mixtures:
        """Random mixtures of the first `of` pictures after the test pictures."""
        generator = np.random.default_rng(seed)
        first = generator.integers(self.tests, self.tests + of, count)
        alike = max(1, int(ALIKE * of))
        choices = {row: self.near[row][self.near[row] < self.tests + of][:alike] for row in np.unique(first).tolist()}
        place = generator.integers(0, alike, count)
        second = np.array([choices[row][at] for row, at in zip(first.tolist(), place.tolist(), strict=True)], np.int64)
        return Mixtures(first, second, generator.random((count, self.items.shape[1])) < REPLACED)

    def real(self, rows: np.ndarray) -> ItemEncoding:
        """Real pictures by number."""
        given = None if self.given is None else self.given[rows]
        return self.encoded(self.items[rows], self.vector(self.pooling[rows], given))

    def mixed(self, mixtures: Mixtures, numbers: np.ndarray) -> ItemEncoding:
        """Mixtures by number."""
        return self.encoded(self.mix(self.items, mixtures, numbers), self.mixed_vector(mixtures, numbers))

    @property
    def pooling(self) -> Float[Tensor, "pictures regions dim"]:
        """The regions that v is pooled from."""
        return self.items if self.pooled_items is None else self.pooled_items

    def mix(self, items: Tensor, mixtures: Mixtures, numbers: np.ndarray) -> Float[Tensor, "rows regions dim"]:
        """Regions of mixtures, of the regions `items` of the real pictures."""
        first, second = mixtures.first[numbers], mixtures.second[numbers]
        return torch.where(torch.from_numpy(mixtures.of_second[numbers])[:, :, None], items[second], items[first])

    def mixed_vector(self, mixtures: Mixtures, numbers: np.ndarray) -> tuple[Tensor, Tensor | None]:
        """`vector` of mixtures; image vectors are mixed in proportion to the regions."""
        given = self.given
        if given is not None:
            share = torch.from_numpy(mixtures.of_second[numbers]).float().mean(dim=1)[:, None]
            given = (1 - share) * given[mixtures.first[numbers]] + share * given[mixtures.second[numbers]]
        return self.vector(self.mix(self.pooling, mixtures, numbers), given)

    def encoded(self, items: Float[Tensor, "rows regions dim"], vector: tuple[Tensor, Tensor | None]) -> ItemEncoding:
        """The network's encoding of encoded regions and `vector` of them."""
        v, share = vector
        return self.matcher.complete(items, torch.ones(items.shape[:2], dtype=torch.bool), v, None, share)

    def vector(self, pooling: Tensor, given: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """V from the regions that it is pooled from, and their share in it."""
        mask = torch.ones(pooling.shape[:2], dtype=torch.bool)
        return whole_vector(self.matcher.region_whole, self.matcher.region_pooling, pooling, mask, given)

    def vectors(self, mixtures: Mixtures) -> Iterator[Float[Tensor, "pictures dim"]]:
        """V of all mixtures, in blocks."""
        for numbers in blocks(np.arange(len(mixtures.first)), BLOCK):
            yield self.mixed_vector(mixtures, numbers)[0]


@dataclass(frozen=True)
class Mixtures:
    """Distractors: for each its two pictures, and of each region whether it is the second one's."""

    first: np.ndarray
    second: np.ndarray
    of_second: np.ndarray


@dataclass
class FirstStage:
    """Ranks of the wanted pictures and best candidates, while pictures are added.

    Attributes:
        better: For each query the number of other pictures with at least the score of the wanted one.
        best: Scores of the best candidates of the first `kept` queries, and their numbers.
    """

    queries: Float[Tensor, "queries dim"]
    wanted: np.ndarray
    own: Tensor
    kept: np.ndarray
    depth: int
    better: Tensor = field(init=False)
    best: Tensor = field(init=False)
    numbers: Tensor = field(init=False)
    pictures: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.better = torch.zeros(len(self.queries), dtype=torch.int64)
        self.best = torch.full((len(self.kept), self.depth), -torch.inf)
        self.numbers = torch.full((len(self.kept), self.depth), -1, dtype=torch.int64)

    def add(self, vectors: Float[Tensor, "pictures dim"]) -> None:
        """Add pictures, numbered from `pictures` on."""
        start = time.perf_counter()
        scores = self.queries @ vectors.T
        self.seconds += time.perf_counter() - start
        new = torch.arange(self.pictures, self.pictures + len(vectors))
        same = torch.from_numpy(self.wanted)[:, None] == new
        self.better += ((scores >= self.own[:, None]) & ~same).sum(dim=1)
        kept = scores[self.kept]
        more = kept.topk(min(self.depth, kept.shape[1]))
        joined = torch.cat([self.best, more.values], dim=1)
        numbers = torch.cat([self.numbers, new[more.indices]], dim=1)
        chosen = joined.topk(self.depth)
        self.best, self.numbers = chosen.values, numbers.gather(1, chosen.indices)
        self.pictures += len(vectors)


def main() -> None:
    """Simulate, and write the results file."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    keep_freed_memory()
    wanted = tyro.cli(Growth, description=__doc__)
    made = provenance()
    try:
        with torch.inference_mode():
            measured = simulate(wanted)
    except TshsrError as error:
        sys.exit(str(error))
    values = {"command": " ".join(["python -m benchmarks.growth", *sys.argv[1:]]), **made, **measured}
    write_text(RESULTS / "growth-flickr8k.json", json.dumps(values, indent=2) + "\n")


def simulate(wanted: Growth) -> dict[str, Any]:
    """Everything that is measured."""
    retriever = Retriever.from_pretrained(wanted.run)
    test, everything = open_split(wanted.data, "test"), open_split(wanted.data, "all")
    collection = encode(retriever, test, everything)
    vectors = caption_vectors(retriever, test)
    LOG.info("encoded %d pictures and %d captions", len(collection.items), len(vectors))
    real = len(collection.items)
    mixtures = collection.mixtures(max(0, max(wanted.sizes) - real), of=real - collection.tests, seed=0)
    rows = grow(wanted, retriever, test, collection, mixtures, vectors)
    return {
        "model": retriever.name,
        "dim": retriever.config.model.encoder.dim,
        "regions": collection.items.shape[1],
        "queries": len(vectors),
        "rescored_queries": min(wanted.queries, len(test.regions)),
        "candidates": CANDIDATES,
        "tests": collection.tests,
        "real": real,
        "threads": torch.get_num_threads(),
        "second_stage_milliseconds": second_stage_milliseconds(retriever, test, collection),
        "rows": rows,
        "check": check(wanted, collection, vectors, test),
    }


def encode(retriever: Retriever, test: Split, everything: Split) -> Collection:
    """The real pictures, test pictures first, the others shuffled.

    Raises:
        SettingsError: Where the network's pictures cannot be mixed.
    """
    matcher = retriever.matcher
    if not isinstance(matcher, StreamMatcher) or matcher.compares_places or everything.regions.mask is not None:
        raise SettingsError(f"{retriever.name}: pictures can be mixed for networks of streams without places only.")
    position = {name: row for row, name in enumerate(everything.image_ids)}
    tests = [position[name] for name in test.image_ids]
    others = np.setdiff1d(np.arange(len(everything.regions)), tests)
    order = np.concatenate([tests, np.random.default_rng(0).permutation(others)])
    items, pooled, apart, given = [], [], [], []
    for numbers in blocks(order, ENCODE_BLOCK):
        batch = everything.regions.read(numbers)
        encoding = matcher.encode_images(batch)
        items.append(encoding.items)
        pooled.append(encoding.pooled)
        if matcher.pooled_regions is not None:
            apart.append(matcher.pooled_regions.project(matcher.region_encoder.inputs(batch), batch.mask))
        given.append(batch.pooled)
    vectors = torch.cat(pooled)
    whole = None if matcher.region_whole is None else torch.cat([each for each in given if each is not None])
    near = np.stack([nearest(vectors, row, len(tests)) for row in range(len(vectors))])
    pooled_items = torch.cat(apart) if apart else None
    collection = Collection(matcher, torch.cat(items), vectors, pooled_items, whole, len(tests), near)
    check_mixing(collection, retriever, everything, order)
    return collection


def nearest(vectors: Float[Tensor, "pictures dim"], row: int, tests: int) -> np.ndarray:
    """Pictures other than those of the test split and this one, nearest first."""
    scores = vectors[tests:] @ vectors[row]
    if row >= tests:
        scores = scores.index_fill(0, torch.tensor([row - tests]), -torch.inf)
    order = scores.argsort(descending=True)[: len(scores) - 1].numpy() + tests
    return order.astype(np.int32)


def check_mixing(collection: Collection, retriever: Retriever, everything: Split, order: np.ndarray) -> None:
    """Compare mixtures of encoded regions with the encoding of mixed features.

    Raises:
        SettingsError: Where they differ: regions are not encoded one by one.
    """
    mixtures = collection.mixtures(64, of=len(order) - collection.tests, seed=1)
    first, second = (everything.regions.read(order[rows]) for rows in (mixtures.first, mixtures.second))
    chosen = torch.from_numpy(mixtures.of_second)[:, :, None]
    features = torch.where(chosen, second.regions, first.regions)
    share = chosen.float().mean(dim=1)
    given = first.pooled
    if given is not None and second.pooled is not None:
        given = (1 - share) * given + share * second.pooled
    batch = type(first)(features, first.mask, first.boxes, given)
    difference = float((retriever.matcher.encode_images(batch).pooled - next(collection.vectors(mixtures))).abs().max())
    if difference > CLOSE:
        raise SettingsError(f"{retriever.name}: mixed regions differ by {difference:.2g} from mixed features.")


def caption_vectors(retriever: Retriever, test: Split) -> Float[Tensor, "queries dim"]:
    """T of all captions of the test split."""
    parts = blocks(np.arange(len(test.captions)), ENCODE_BLOCK)
    return torch.cat([retriever.encode_captions([test.captions[n] for n in part]).pooled for part in parts])


def grow(
    wanted: Growth, retriever: Retriever, test: Split, collection: Collection, mixtures: Mixtures, vectors: Tensor
) -> list[dict[str, Any]]:
    """The figures at each size of the collection."""
    stage = first_stage(collection, vectors, test, wanted.queries)
    rows, real_ranks = [], np.empty(0, np.int64)
    for size in sorted({*wanted.sizes, len(collection.items)}):
        for part in parts_until(collection, mixtures, stage.pictures, size):
            stage.add(part)
        row = {"pictures": size, **figures(stage)}
        if size == len(collection.items):
            real_ranks = stage.better.numpy() + 1
        if size >= len(collection.items):
            row["if_proportional"] = proportional(real_ranks, size / len(collection.items))
        if size in wanted.rescored:
            row |= rescore(retriever, test, collection, mixtures, stage)
        LOG.info("%s", row)
        rows.append(row)
    return rows


def first_stage(collection: Collection, vectors: Tensor, test: Split, queries: int) -> FirstStage:
    """A first stage without pictures."""
    own = (vectors * collection.pooled[test.image_of_caption]).sum(dim=1)
    pictures = np.unique(np.linspace(0, len(test.regions) - 1, min(queries, len(test.regions))).astype(np.int64))
    firsts = np.array([int(np.flatnonzero(test.image_of_caption == picture)[0]) for picture in pictures])
    return FirstStage(vectors, test.image_of_caption, own, firsts, CANDIDATES)


def parts_until(collection: Collection, mixtures: Mixtures, start: int, stop: int) -> Iterator[Tensor]:
    """V of the pictures of these numbers: the real ones, then the mixtures."""
    real = len(collection.items)
    if start < real:
        yield from in_blocks(collection.pooled[start : min(stop, real)])
    for numbers in blocks(np.arange(max(start, real), max(stop, real)) - real, BLOCK):
        yield collection.mixed_vector(mixtures, numbers)[0]


def in_blocks(vectors: Float[Tensor, "pictures dim"]) -> list[Tensor]:
    """Slices of at most `BLOCK` rows."""
    return [vectors[start : start + BLOCK] for start in range(0, len(vectors), BLOCK)]


def figures(stage: FirstStage) -> dict[str, Any]:
    """Recall of the first stage by depth, and the depth for shares of the queries."""
    ranks = np.sort(stage.better.numpy() + 1)
    return {
        "first_stage_recall": {str(depth): 100 * float(np.mean(ranks <= depth)) for depth in DEPTHS},
        "depth_for": {str(share): int(ranks[int(np.ceil(share * len(ranks))) - 1]) for share in SHARES},
        "r": recalls(ranks),
        "median_rank": float(np.median(ranks)),
        "first_stage_milliseconds": 1000 * stage.seconds / len(stage.queries),
    }


def recalls(ranks: np.ndarray) -> list[float]:
    """R@1, R@5 and R@10 in percent."""
    return [100 * float(np.mean(ranks <= depth)) for depth in (1, 5, 10)]


def proportional(ranks: np.ndarray, factor: float) -> dict[str, float]:
    """Recall by depth, where every rank among the real pictures grows with the collection."""
    grown = 1 + (ranks - 1) * factor
    return {str(depth): 100 * float(np.mean(grown <= depth)) for depth in DEPTHS}


def rescore(
    retriever: Retriever, test: Split, collection: Collection, mixtures: Mixtures, stage: FirstStage
) -> dict[str, Any]:
    """Recalls before and after the second stage, for the kept queries."""
    real, ranks, pairs = len(collection.items), [], 0
    for query, numbers in zip(stage.kept.tolist(), stage.numbers.numpy(), strict=True):
        numbers = numbers[numbers >= 0]
        order = np.concatenate([numbers[numbers < real], numbers[numbers >= real]])
        parts = [collection.real(order[order < real])] if (order < real).any() else []
        parts += [collection.mixed(mixtures, order[order >= real] - real)] if (order >= real).any() else []
        caption = retriever.encode_captions(test.captions[query])
        scores = score_encoded(retriever.matcher, join_encodings(parts), caption)["fused"][:, 0].numpy()
        mine = order == stage.wanted[query]
        ranks.append(1 + int((scores[~mine] >= scores[mine]).sum()) if mine.any() else stage.pictures)
        pairs += len(order)
    found = np.array(ranks)
    return {
        "r_before_second_stage": recalls(stage.better.numpy()[stage.kept] + 1),
        "r_after_second_stage": recalls(found),
        "not_among_candidates": 100 * float(np.mean(found == stage.pictures)),
        "pairs": pairs,
    }


def second_stage_milliseconds(retriever: Retriever, test: Split, collection: Collection) -> dict[str, float]:
    """Processor time of scoring the candidates of one caption, by their number: medians over captions.

    Both sides are encoded before the clock starts. The cost does not depend on the pictures: they are random.
    """
    images = collection.real(np.random.default_rng(0).integers(0, len(collection.items), max(TIMED)))
    chosen = np.linspace(0, len(test.captions) - 1, TIMED_QUERIES).astype(np.int64)
    captions = [retriever.encode_captions(test.captions[number]) for number in chosen]
    found = {}
    for count in TIMED:
        seconds = []
        for caption in captions:
            start = time.process_time()
            score_encoded(retriever.matcher, images[:count], caption)
            seconds.append(time.process_time() - start)
        found[str(count)] = 1000 * float(np.median(seconds))
    return found


def check(wanted: Growth, collection: Collection, vectors: Tensor, test: Split) -> dict[str, Any]:
    """All real pictures, against as many with distractors: in place of all others, and made of a few of them."""
    real, tests = len(collection.items), collection.tests
    source = min(wanted.source, real - tests)
    replaced = collection.mixtures(real - tests, of=real - tests, seed=2)
    mixtures = collection.mixtures(real - tests - source, of=source, seed=3)
    found: dict[str, Sequence[Tensor]] = {
        "real": in_blocks(collection.pooled),
        "replaced": [collection.pooled[:tests], *collection.vectors(replaced)],
        "few": [*in_blocks(collection.pooled[: tests + source]), *collection.vectors(mixtures)],
    }
    stages = {name: first_stage(collection, vectors, test, 1) for name in found}
    for name, parts in found.items():
        for part in parts:
            stages[name].add(part)
    return {"source": source, "pictures": real, **{name: figures(stage) for name, stage in stages.items()}}


if __name__ == "__main__":
    main()
