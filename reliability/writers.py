"""What is written, by kind: an old content, a new one in its place, and what a reader finds."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch

from tests.support.small_runs import small_config, small_split
from tshsr.config.run import RunConfig, read_config
from tshsr.data.dataset import Split
from tshsr.data.store import StoreCaption, StoreImage, open_store, write_store
from tshsr.data.text import Tokenizer
from tshsr.data.tokens import CaptionTokenizer
from tshsr.errors import TshsrError
from tshsr.files import write_text
from tshsr.knowledge.build import GraphSettings, build_graph
from tshsr.knowledge.graph import ConceptGraph
from tshsr.metrics.report import read_report
from tshsr.models.base import Matcher
from tshsr.models.build import build_matcher
from tshsr.pretrained import token_store
from tshsr.retriever import Retriever
from tshsr.system import no_progress
from tshsr.training.checkpoints import load_run, save_settings
from tshsr.training.state import State, load_last, load_state, save_best, save_last
from tshsr.training.trainer import make_optimiser

NOTHING = "nothing"
"""What a reader finds where there is nothing, or something that it refuses with a sentence before any use."""
PICTURES = tempfile.TemporaryDirectory(prefix="tshsr-pictures-")
"""Of the index."""
SENTENCES = ("a red dog here", "one blue boat"), ("the white cat here", "two tall trees")
"""Captions of the old and of the new content; both have as many different words."""


@dataclass(frozen=True)
class Kind:
    """A kind of file or folder.

    Attributes:
        name: In results.
        write: Writes the old (0) or the new (1) content into a folder, or continues an interrupted writing of it.
        read: A digest of what a user of the folder gets.
        whole: Whether one call replaces all; else the content may also lie between the old and the new (committed
            blocks of a long job), as long as the same call then completes it. Its digest is then a JSON object, by
            row: the old rows stay as they are, and those that were added are rows of the new content.
        begin: Makes what is read while it is written, before any trial and where no fault reaches it.
    """

    name: str
    write: Callable[[Path, int], None]
    read: Callable[[Path], str]
    whole: bool = True
    begin: Callable[[], object] = lambda: None


def digest(*parts: object) -> str:
    """A short hash of bytes and of the texts of other values."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part if isinstance(part, bytes) else repr(part).encode())
    return found.hexdigest()[:16]


def tensors_of(matcher: Matcher) -> list[object]:
    """Names and contents of the weights of a network."""
    return [part for name, values in matcher.state_dict().items() for part in (name, values.numpy().tobytes())]


def model(version: int) -> tuple[RunConfig, CaptionTokenizer, Matcher]:
    """A tiny network; the two versions differ in weights, words and a setting, and are of the same sizes."""
    tokenizer = Tokenizer.build(list(SENTENCES[version]), 1)
    config = small_config(epochs=2 + version)
    encoder = replace(config.model.encoder, feature_dim=4, vocabulary=len(tokenizer))
    config = replace(config, extractor="means", model=replace(config.model, encoder=encoder))
    torch.manual_seed(version)
    return config, tokenizer, build_matcher(config.model)


def write_checkpoint(folder: Path, version: int) -> None:
    """A saved model, as `save_pretrained` makes it."""
    config, tokenizer, matcher = model(version)
    Retriever(matcher, tokenizer, config, "tiny").save_pretrained(folder / "model")


def read_checkpoint(folder: Path) -> str:
    """Settings, words and weights."""
    config, tokenizer, matcher = load_run(folder / "model")
    return digest(config, tokenizer.identity(), *tensors_of(matcher))


def write_state(folder: Path, version: int) -> None:
    """The resumable state of a run after some steps."""
    config, _, matcher = model(version)
    optimiser = make_optimiser(config.optimiser, matcher)
    for values in matcher.parameters():
        values.grad = torch.full_like(values, 0.1 + version)
    optimiser.step()
    zscores = torch.arange(8, dtype=torch.float32) + version
    save_last(folder, matcher, optimiser, State("data", step=1 + version, window={"loss": 0.5}), zscores)


def read_state(folder: Path) -> str:
    """Weights, tensors of the optimiser and the step."""
    config, _, matcher = model(0)
    optimiser = make_optimiser(config.optimiser, matcher)
    load_last(folder, matcher, optimiser)
    state = optimiser.state_dict()["state"]
    tensors = [values.numpy().tobytes() for each in state.values() for values in each.values()]
    return digest(load_state(folder), *tensors_of(matcher), *tensors)


def write_best(folder: Path, version: int) -> None:
    """The best weights of a run; its settings stay."""
    config, tokenizer, _ = model(0)
    if not (folder / "config.json").exists():
        save_settings(folder, config, tokenizer)
    save_best(folder, model(version)[2], epoch=1 + version, step=4, rsum=100.0 + version)


def read_best(folder: Path) -> str:
    """Its weights, as evaluation reads them."""
    return digest(*tensors_of(load_run(folder)[2]))


def write_tokenizer(folder: Path, version: int) -> None:
    """A tokenizer."""
    model(version)[1].save_into(folder)


def read_tokenizer(folder: Path) -> str:
    """Its words."""
    return digest(Tokenizer.from_file(folder / "tokenizer.json").identity())


def write_settings(folder: Path, version: int) -> None:
    """The settings of a run, of which resuming with more epochs changes one."""
    config, tokenizer, _ = model(0)
    save_settings(folder, replace(config, training=replace(config.training, epochs=2 + version)), tokenizer)


def read_settings(folder: Path) -> str:
    """The settings."""
    return digest(read_config(folder / "config.json"))


STORE_IMAGES = 12


def write_a_store(folder: Path, version: int) -> None:
    """A feature store; the versions have another number of images and regions."""
    images, regions = STORE_IMAGES + version, 3 + version
    dice = np.random.default_rng(version)
    write_store(
        folder / "store",
        extractor="means",
        settings={"version": version},
        images=[StoreImage(f"p{number}") for number in range(images)],
        captions=[StoreCaption(f"c{number}", f"p{number}", SENTENCES[version][0], "train") for number in range(images)],
        regions=dice.normal(size=(images, regions, 700)).astype(np.float32),  # more than one write
        mask=np.ones((images, regions), bool),
        pooled=[np.full((images, 3), float(version))],
    )


def read_a_store(folder: Path) -> str:
    """Captions, ids and features."""
    split = open_store(folder / "store", "train")
    rows = np.arange(len(split.regions))
    return digest(split.captions, split.image_ids, split.regions.read_array(rows).tobytes())


BLOCK = 4


def token_states(captions: Sequence[str], first: int) -> token_store.StateBlock:
    """Made-up states of captions."""
    del first
    lengths = np.array([len(caption.split()) for caption in captions], np.int64)
    rows = [[hash_of(caption)] * 6 for caption in captions for _ in caption.split()]
    return token_store.StateBlock(lengths, np.array(rows, np.float16), np.array([[len(one)] for one in captions], "f4"))


def hash_of(caption: str) -> float:
    """A number of a caption."""
    return int(hashlib.sha256(caption.encode()).hexdigest()[:3], 16) / 8


def write_tokens(folder: Path, version: int) -> None:
    """A token store, in blocks; the old content is a part of it, left by a stopped job."""
    token_store.BLOCK = BLOCK
    captions = [f"{sentence} {number}" for number in range(5) for sentence in SENTENCES[0]]
    wanted = token_store.TokenManifest("net", "words", token_store.captions_hash(captions), len(captions), 6, 1)

    def compute(some: Sequence[str], first: int) -> token_store.StateBlock:
        if not version and first >= BLOCK:
            raise KeyboardInterrupt
        return token_states(some, first)

    store = token_store.TokenStore(captions, wanted, compute, no_progress, folder)
    try:
        states = store.open()
    except KeyboardInterrupt:
        return
    write_text(folder / "found.txt", digest(*(values.numpy().tobytes() for values in _read_all(states))))


def _read_all(states: token_store.TokenStates) -> list[torch.Tensor]:
    batch = states.read(np.arange(len(states.lengths)))
    parts = (batch.mask, batch.states, batch.pooled)
    return [part for part in parts if part is not None]


def read_tokens(folder: Path) -> str:
    """States of all captions, where they are complete."""
    return (folder / "found.txt").read_text() if (folder / "found.txt").exists() else NOTHING


def write_report(folder: Path, version: int) -> None:
    """An evaluation report."""
    from tshsr.evaluation.run import evaluate_scores

    scores = np.random.default_rng(version).normal(size=(10, 50)).astype(np.float32)
    right = np.repeat(np.arange(10), 5)
    details = {"data": "small", "split": "test", "models": ["run"], "seconds": 1.0}
    evaluate_scores({"fused": scores}, right, protocol="auto", **details).write(  # type: ignore[arg-type]
        folder / "report.json"
    )


def read_a_report(folder: Path) -> str:
    """Its recalls."""
    return digest(read_report(folder / "report.json").scores)


def write_scores(folder: Path, version: int) -> None:
    """Score matrices of `tshsr evaluate --scores-folder`; a finished folder is never overwritten."""
    from tshsr.cli.scores_folder import place_for_scores
    from tshsr.scoring.storage import MatricesInFiles

    if not version:
        return
    place = folder / "scores"
    if read_scores(folder) != NOTHING:
        return  # complete
    with place_for_scores(place, 1000) as part:
        if part is not None:
            matrices = MatricesInFiles((6, 8), part)
            for name in ("fused", "pooled"):
                for columns in (np.arange(4), np.arange(4, 8)):
                    matrices.write(name, columns, np.full((6, 4), 1.0 + len(name), np.float32))


def read_scores(folder: Path) -> str:
    """The matrices, where the folder is complete."""
    paths = [folder / "scores" / f"{name}.npy" for name in ("fused", "pooled")]
    return digest(*(path.read_bytes() for path in paths)) if all(path.exists() for path in paths) else NOTHING


def write_calibration(folder: Path, version: int) -> None:
    """A calibration beside weights."""
    from tshsr.scoring.calibration import Calibration

    figures = {"low": 1.0 + version, "high": 1.0, "intercept": 0.5, "pictures": 100, "candidates": 500}
    Calibration("beta", **figures, data="small", split="dev", weights="0" * 64).save(folder)  # type: ignore[arg-type]


def read_calibration(folder: Path) -> str:
    """Its values."""
    return digest(json.loads((folder / "calibration.json").read_text()))


def write_graph(folder: Path, version: int) -> None:
    """A concept graph."""
    settings = GraphSettings(lexicon="rules", vectors="random")
    build_graph(SENTENCES[version] * 2, settings, data=f"version {version}").save(folder / "concepts.safetensors")


def read_graph(folder: Path) -> str:
    """All parts of it."""
    graph = ConceptGraph.load(folder / "concepts.safetensors")
    return digest(graph.fingerprint, graph.data, graph.counts.tobytes())


def index_retriever() -> Retriever:
    """A tiny network over features of width 6."""
    config, tokenizer, _ = model(0)
    encoder = replace(config.model.encoder, feature_dim=6)
    config = replace(config, extractor="small", model=replace(config.model, encoder=encoder))
    torch.manual_seed(0)
    return Retriever(build_matcher(config.model), tokenizer, config, "tiny")


@cache
def index_pictures() -> Split:
    """The 12 pictures of the index, in a folder of their own that lasts as long as this process."""
    folder = Path(PICTURES.name)
    folder.chmod(0o755)  # a trial without rights reads them too
    return small_split(folder, "train", 12, each=1)


def write_index(folder: Path, version: int) -> None:
    """An index of 6 pictures (old), to which 6 are added in three commits (new)."""
    from tshsr.data.layouts import select_images
    from tshsr.index import building
    from tshsr.index.collection import Index

    building.Addition.rows_per_shard = property(lambda _: 2)  # type: ignore[assignment,method-assign]
    split = index_pictures()
    retriever = index_retriever()
    Index.build(folder / "index", retriever, split if version else select_images(split, 6))


def read_index(folder: Path) -> str:
    """Pictures that a search finds, with their scores, and captions, by id."""
    from tshsr.index.collection import Index
    from tshsr.index.database import open_table
    from tshsr.index.rows import CAPTIONS

    retriever = index_retriever()
    index = Index(folder / "index", retriever)
    found = index.search("a red dog", k=100)
    rows: dict[str, object] = {one.id: round(float(one.score), 5) for one in found}
    if not len(rows) == len(found) == len(index):
        return f"torn: {len(rows)} ids in {len(found)} of {len(index)} rows"
    captions = open_table(folder / "index", CAPTIONS).to_arrow().select(["id", "image", "caption"]).to_pylist()
    rows |= {one["id"]: [one["image"], one["caption"]] for one in captions}
    if len(rows) != len(found) + len(captions):
        return f"torn: {len(rows) - len(found)} ids of {len(captions)} captions"
    return json.dumps(rows, sort_keys=True)


KINDS = (
    Kind("checkpoint", write_checkpoint, read_checkpoint),
    Kind("state of a run (last)", write_state, read_state),
    Kind("best weights of a run", write_best, read_best),
    Kind("tokenizer", write_tokenizer, read_tokenizer),
    Kind("config", write_settings, read_settings),
    Kind("calibration", write_calibration, read_calibration),
    Kind("store", write_a_store, read_a_store),
    Kind("token store", write_tokens, read_tokens),
    Kind("report", write_report, read_a_report),
    Kind("scores", write_scores, read_scores),
    Kind("concept graph", write_graph, read_graph),
    Kind("index", write_index, read_index, whole=False, begin=index_pictures),
)


def found_by(kind: Kind, folder: Path) -> str:
    """What a reader finds; a refusal is `NOTHING` with its sentence."""
    try:
        return kind.read(folder)
    except (TshsrError, FileNotFoundError) as error:
        return f"{NOTHING}: {error}"
