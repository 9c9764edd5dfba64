"""Reranking of the top candidates: milliseconds a query, ours and onnxruntime's, and the recall of int8.

    python -m benchmarks.rerank --data STORE

Writes `benchmarks/results/reranker.json`. Queries are captions of the split; their candidates are the pictures with the
highest v·t. The index holds the split's pictures; the exported graphs run in onnxruntime with as many threads. CPU time
stands beside wall-clock time, because other jobs of the machine lengthen the latter: with one thread the two are equal
on a machine that does nothing else.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from benchmarks.recall_changes import change_of_recalls
from benchmarks.search import quantiles
from benchmarks.tables import RESULTS
from tshsr.data.dataset import Split
from tshsr.data.layouts import open_split
from tshsr.export.files import Exported, export
from tshsr.files import write_text
from tshsr.index.collection import Index
from tshsr.pretrained.pieces import PretrainedTokenizer
from tshsr.pretrained.text import token_batch
from tshsr.reranking.candidates import EncodedImages
from tshsr.reranking.reranker import Reranker
from tshsr.retriever import Retriever
from tshsr.scoring.all_pairs import blocks, score_encoded
from tshsr.system import keep_freed_memory, package_version, provenance

LOG = logging.getLogger("benchmarks.rerank")
WARMUP = 5
"""Untimed queries at the start."""
ENCODED = 64
"""Images or captions per call of an exported graph, outside the timing."""
Feed = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Settings:
    """What is measured."""

    data: Path
    """A feature store with the extractor of the run."""
    run: Path = Path("checkpoints/flickr8k-photos")
    """A run with a frozen or tuned text encoder."""
    split: str = "test"
    """Which split of the data."""
    candidates: int = 100
    """Candidates per query."""
    queries: int = 100
    """Timed queries."""
    recall_queries: int = 5000
    """Queries of the recalls."""
    threads: int = 1
    """Threads of torch and of onnxruntime."""


def main() -> None:
    """Measure, and write the results file."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    keep_freed_memory()
    settings = tyro.cli(Settings, description=__doc__)
    torch.set_num_threads(settings.threads)
    retriever, split = Retriever.from_pretrained(settings.run), open_split(settings.data, settings.split)
    with tempfile.TemporaryDirectory() as folder:
        exported = export(retriever, Path(folder) / "exported", int8=True)
        LOG.info("exported")
        graphs = Graphs(retriever, exported, settings.threads)
        speed = Speed(settings, retriever, split, graphs)
        values: dict[str, Any] = {
            "command": " ".join(["python -m benchmarks.rerank", *sys.argv[1:]]),
            **provenance(),
            "data": f"{split.data} {split.name}",
            "run": retriever.name,
            "candidates": settings.candidates,
            "queries": settings.queries,
            "recall_queries": min(settings.recall_queries, len(split.captions)),
            "threads": settings.threads,
            "reranker": {
                "milliseconds": speed.whole(Path(folder) / "index"),
                "parts": speed.parts(),
                "bytes": {name: path.stat().st_size for name, path in exported.files.items()},
                "largest_difference": speed.largest_difference(),
                **recalls(settings, split, graphs),
            },
        }
    values["versions"]["onnxruntime"] = package_version("onnxruntime")
    write_text(RESULTS / "reranker.json", json.dumps(values, indent=2) + "\n")


class Graphs:
    """The exported graphs in onnxruntime; `kinds` are the names of files, such as text or text.int8."""

    def __init__(self, retriever: Retriever, exported: Exported, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.sessions = {name: onnxruntime.InferenceSession(path, options) for name, path in exported.files.items()}
        if not isinstance(retriever.tokenizer, PretrainedTokenizer):
            raise SystemExit(f"{retriever.name} has no pretrained text encoder; name a run with one.")
        self.tokenizer = retriever.tokenizer.tokenizer

    def text(self, captions: Sequence[str], kind: str = "text") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Words, their mask, and t."""
        batch = token_batch(self.tokenizer.encode(captions), self.tokenizer.pad_id)
        mask, nodes = batch.mask.numpy(), batch.word_of_token
        given = {"tokens": batch.tokens.numpy(), "word_mask": mask, "word_of_token": nodes.numpy()}  # type: ignore[union-attr]
        words, t = self.sessions[kind].run(None, given)
        return words, mask, t

    def images(self, split: Split, kind: str = "images") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Regions, their mask, and v of all images of a split, which have equally many regions."""
        found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for rows in blocks(np.arange(len(split.regions)), ENCODED):
            batch = split.regions.read(rows)
            given = {"features": batch.regions, "region_mask": batch.mask, "boxes": batch.boxes, "pooled": batch.pooled}
            wanted = {one.name for one in self.sessions[kind].get_inputs()}
            feed = {name: one.numpy() for name, one in given.items() if name in wanted and one is not None}
            regions, v = self.sessions[kind].run(None, feed)
            found.append((regions, batch.mask.numpy(), v))
        regions, mask, v = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return regions, mask, v

    def score(self, feed: Feed, kind: str = "head") -> np.ndarray:
        """Scores of pairs."""
        scores: np.ndarray = self.sessions[kind].run(["score"], dict(feed))[0]
        return scores


Side = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Items, mask and pooled vectors of images or captions."""


def head_feed(images: Side, caption: Side, chosen: np.ndarray) -> Feed:
    """The inputs of the head for chosen images and one caption."""
    regions, region_mask, v = (part[chosen] for part in images)
    words, word_mask, t = (np.repeat(part, len(chosen), axis=0) for part in caption)
    return {"regions": regions, "region_mask": region_mask, "v": v, "words": words, "word_mask": word_mask, "t": t}


class Speed:
    """Timed queries over one list of candidates each."""

    def __init__(self, settings: Settings, retriever: Retriever, split: Split, graphs: Graphs) -> None:
        self.settings, self.retriever, self.split, self.graphs = settings, retriever, split, graphs
        self.images = retriever.encode_images(split)
        count = settings.queries + WARMUP
        self.queries = [split.captions[row] for row in np.linspace(0, len(split.captions) - 1, count).astype(int)]
        self.captions = [retriever.encode_captions(query) for query in self.queries]
        vectors = torch.cat([caption.pooled for caption in self.captions])
        self.chosen = (vectors @ self.images.pooled.T).topk(settings.candidates, dim=1).indices
        boxes = split.regions.read([0]).boxes
        self.boxes = None if boxes is None else boxes[0].numpy()

    def timed(self, call: Callable[[int], object]) -> dict[str, float]:
        """Median and 95th percentile of a call for each query, and the median of its CPU time, in milliseconds."""
        seconds, busy = [], []
        for number in range(len(self.queries)):
            start, cpu = time.perf_counter(), time.process_time()
            call(number)
            busy.append(time.process_time() - cpu)
            seconds.append(time.perf_counter() - start)
        return {**quantiles(seconds[WARMUP:]), "cpu": quantiles(busy[WARMUP:])["p50"]}

    def whole(self, folder: Path) -> dict[str, dict[str, float]]:
        """`Reranker.rank` with candidates of each kind."""
        ids = [[self.split.image_ids[row] for row in rows] for rows in self.chosen.tolist()]
        index = Index.build(folder, self.retriever, self.split, captions=False)
        indexed, stored = Reranker(self.retriever, source=index), Reranker(self.retriever, source=self.split)
        boxes = (self.boxes,) * self.settings.candidates
        encoded = [EncodedImages(tuple(ids[row]), self.images[self.chosen[row]], boxes) for row in range(len(ids))]
        cases: dict[str, Callable[[int], object]] = {
            "encoded": lambda row: indexed.rank(self.queries[row], encoded[row], words=False),
            "index": lambda row: indexed.rank(self.queries[row], ids[row], words=False),
            "index_words": lambda row: indexed.rank(self.queries[row], ids[row]),
            "store": lambda row: stored.rank(self.queries[row], ids[row], words=False),
        }
        found = {name: self.timed(call) for name, call in cases.items()}
        LOG.info("%s", found)
        return found

    def parts(self) -> dict[str, dict[str, dict[str, float]]]:
        """Reading the query and scoring the candidates, in torch and in onnxruntime."""
        picked = [self.images[rows] for rows in self.chosen]
        feeds = [self.feed(row) for row in range(len(self.queries))]
        found = {
            "text": {
                "torch": self.timed(lambda row: self.retriever.encode_captions(self.queries[row])),
                "onnx": self.timed(lambda row: self.graphs.text([self.queries[row]])),
                "int8": self.timed(lambda row: self.graphs.text([self.queries[row]], "text.int8")),
            },
            "head": {
                "torch": self.timed(lambda row: score_encoded(self.retriever.matcher, picked[row], self.captions[row])),
                "onnx": self.timed(lambda row: self.graphs.score(feeds[row])),
                "int8": self.timed(lambda row: self.graphs.score(feeds[row], "head.int8")),
            },
        }
        LOG.info("%s", found)
        return found

    def feed(self, row: int) -> Feed:
        """Our encodings as inputs of the exported head."""
        sides = (self.images, self.captions[row])
        images, caption = ((side.items.numpy(), side.mask.numpy(), side.pooled.numpy()) for side in sides)
        return head_feed(images, caption, self.chosen[row].numpy())

    def largest_difference(self) -> float:
        """Of a score by the exported head from ours, over all timed queries."""
        most = 0.0
        for row, rows in enumerate(self.chosen):
            ours = score_encoded(self.retriever.matcher, self.images[rows], self.captions[row])["fused"][:, 0]
            most = max(most, float(np.abs(self.graphs.score(self.feed(row)) - ours.numpy()).max()))
        return most


def recalls(settings: Settings, split: Split, graphs: Graphs) -> dict[str, Any]:
    """R@1, R@5 and R@10 of sentences -> images by the graphs, each part in int8 alone and all of them.

    `recall_changes` are those of their sums from float32, with intervals over pictures.
    """
    count = min(settings.recall_queries, len(split.captions))
    chosen = np.linspace(0, len(split.captions) - 1, count).astype(int)
    right = split.image_of_caption[chosen]
    texts = {kind: [graphs.text([split.captions[row]], kind) for row in chosen] for kind in ("text", "text.int8")}
    pictures = {kind: graphs.images(split, kind) for kind in ("images", "images.int8")}
    cases = {
        "onnx": ("images", "text", "head"),
        "int8 text": ("images", "text.int8", "head"),
        "int8 images": ("images.int8", "text", "head"),
        "int8 head": ("images", "text", "head.int8"),
        "int8": ("images.int8", "text.int8", "head.int8"),
    }
    found = {"v·t": first_stage(pictures["images"], texts["text"], right)}
    ranks_of: dict[str, np.ndarray] = {}
    for name, (image_kind, text_kind, head_kind) in cases.items():
        images, ranks = pictures[image_kind], []
        for caption, answer in zip(texts[text_kind], right.tolist(), strict=True):
            near = np.argsort(-(images[2] @ caption[2][0]), kind="stable")[: settings.candidates]
            scores = graphs.score(head_feed(images, caption, near), head_kind)
            ranks.append(rank_of(scores, near, answer))
        ranks_of[name] = np.array(ranks)
        found[name] = [100 * float(np.mean(ranks_of[name] <= k)) for k in (1, 5, 10)]
        LOG.info("%s: %s", name, found[name])
    plain = ranks_of.pop("onnx")
    changes = {name: change_of_recalls(ranks, plain, right) for name, ranks in ranks_of.items()}
    return {"recall": found, "recall_changes": changes}


def first_stage(images: Side, captions: Sequence[Side], right: np.ndarray) -> list[float]:
    """The recalls of v·t alone."""
    every = np.arange(len(images[2]))
    ranks = [rank_of(images[2] @ one[2][0], every, answer) for one, answer in zip(captions, right, strict=True)]
    return [100 * float(np.mean(np.array(ranks) <= k)) for k in (1, 5, 10)]


def rank_of(scores: np.ndarray, candidates: np.ndarray, answer: int) -> float:
    """1-based rank of the right answer, ties against it; infinite where it is no candidate."""
    place = np.flatnonzero(candidates == answer)
    return float((scores >= scores[place[0]]).sum()) if len(place) else float("inf")


if __name__ == "__main__":
    main()
