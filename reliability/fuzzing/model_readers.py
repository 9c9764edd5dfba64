"""Readers of networks and their caches: settings, weights, calibrations, states, word vectors, token stores."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import torch

from reliability.fuzzing.campaign import Reader, Seed
from reliability.fuzzing.data_readers import SENTENCES, lines, saved, store_files
from reliability.fuzzing.formats import mutated, mutated_word2vec
from reliability.fuzzing.mutations import mutated_json
from tshsr.config.models import EncoderConfig, ReasoningConfig, ScanConfig, SgrafConfig, TshsrConfig, VseConfig
from tshsr.config.run import RunConfig
from tshsr.data.text import Tokenizer
from tshsr.features.extractor import PictureRegions
from tshsr.features.resume import FinishedPicture, WorkFolder, existing_captions, read_existing
from tshsr.knowledge.build import GraphSettings, build_graph
from tshsr.knowledge.graph import ConceptGraph
from tshsr.knowledge.picture import picture
from tshsr.models.base import Matcher
from tshsr.models.build import build_matcher
from tshsr.pretrained.token_store import StateBlock, TokenManifest, TokenStore, captions_hash
from tshsr.pretrained.word_vectors import read_word_vectors
from tshsr.scoring.calibration import Calibration, weights_digest
from tshsr.system import no_progress
from tshsr.training.checkpoints import load_run, save_model
from tshsr.training.log import lines_until
from tshsr.training.state import State, load_last, load_match_zscores, load_state, save_last

FEATURES = 6
GRAPH = "concepts.safetensors"


def tokenizer() -> Tokenizer:
    """The vocabulary of the captions."""
    return Tokenizer.build(SENTENCES, 1)


def settings(kind: str = "tshsr", feature_dim: int = FEATURES, extractor: str = "small") -> RunConfig:
    """A tiny network of a method."""
    encoder = EncoderConfig(dim=8, word_dim=6, feature_dim=feature_dim, vocabulary=len(tokenizer()))
    small = ReasoningConfig(levels=1, seeds=(2,))
    method = {
        "tshsr": TshsrConfig(encoder=encoder, similarity_dim=4, comparison_dim=5, reasoning=small),
        "vse": VseConfig(encoder=replace(encoder, text="transformer", transformer_heads=2)),
        "scan": ScanConfig(encoder=encoder),
        "sgraf": SgrafConfig(encoder=encoder, similarity_dim=4),
    }[kind]
    return RunConfig(recipe="small", model=method, extractor=extractor)  # type: ignore[arg-type]


def save_run(folder: Path, config: RunConfig) -> None:
    """A flat model folder with random weights and a calibration."""
    torch.manual_seed(0)
    save_model(folder, config, tokenizer(), build_matcher(config.model))
    Calibration("platt", 2.0, 0.0, -1.0, 100, 50, "small", "dev", weights_digest(folder)).save(folder)


def run_files(folder: Path, kind: str) -> dict[str, bytes]:
    """Its files."""
    place = folder / kind
    save_run(place, settings(kind))
    return {path.name: path.read_bytes() for path in place.iterdir()}


def config_seeds(folder: Path) -> list[Seed]:
    """Settings of four methods, from which networks are built."""
    every = (run_files(folder, kind) for kind in ("tshsr", "tshsr", "vse", "scan", "sgraf"))
    return [Seed(files, load_run, ("config.json",)) for files in every]


def weight_seeds(folder: Path) -> list[Seed]:
    """Weights and the vocabulary beside them."""
    every = (run_files(folder, kind) for kind in ("tshsr", "scan"))
    return [Seed(files, load_run, ("model.safetensors",) * 4 + ("tokenizer.json",)) for files in every]


def calibration_seeds(folder: Path) -> list[Seed]:
    """A calibration."""
    files = run_files(folder, "scan")
    return [Seed(files, probable, ("calibration.json",))]


def probable(data: Path) -> object:
    """Probabilities by a calibration."""
    found = Calibration.load(data)
    return None if found is None else found.probability(torch.tensor([0.1, 0.9]), pictures=1000)


def state_seeds(folder: Path) -> list[Seed]:
    """The resumable state of a run, and its log."""
    config = settings()
    matcher, optimiser = new_training(config)
    for parameter in matcher.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    save_last(folder, matcher, optimiser, State("a digest", 3, 1.5, 1, 100.0), torch.ones(7))
    steps = [{"kind": "steps", "epoch": 1, "step": number, "loss": 0.5} for number in range(3)]
    (folder / "log.jsonl").write_bytes(lines([json.dumps(step) for step in steps]))
    return [Seed.of(folder, resumed)]


def new_training(config: RunConfig) -> tuple[Matcher, torch.optim.Optimizer]:
    """A network and its optimiser."""
    matcher = build_matcher(config.model)
    return matcher, torch.optim.Adam(matcher.parameters())


def resumed(data: Path) -> object:
    """What `train --resume` reads."""
    state = load_state(data)
    matcher, optimiser = new_training(settings())
    load_last(data, matcher, optimiser)
    for parameter in matcher.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    return load_match_zscores(data, captions=7), lines_until(data / "log.jsonl", state.step)


def vector_seeds(folder: Path) -> list[Seed]:
    """Word vectors in each format."""
    del folder
    words = ("dog", "a", "the", "caf\u00e9", "t-shirt")
    values = np.random.default_rng(0).normal(size=(len(words), 4)).astype(np.float32)
    rows = [f"{word} {' '.join(f'{value:.4f}' for value in row)}" for word, row in zip(words, values, strict=True)]
    glove, text = lines(rows), lines([f"{len(words)} 4", *rows])
    pairs = zip(words, values, strict=True)
    binary = f"{len(words)} 4\n".encode() + b"".join(f"{word} ".encode() + row.tobytes() + b"\n" for word, row in pairs)
    files = ("v.txt", glove), ("v.vec", text), ("v.txt.gz", gzip.compress(glove, 1)), ("v.bin", binary)
    ids = {word: number for number, word in enumerate(words)}

    def seed(name: str, **content: bytes) -> Seed:
        given = {name.replace("_", "."): one for name, one in content.items()}
        mutations = {"v.bin": mutated_word2vec} if name == "v.bin" else {}
        return Seed(given, lambda data: read_word_vectors(str(data / name), ids, 4), mutations=mutations)

    array = seed("v.npy", v_npy=saved(values), v_txt=lines(words))
    return [*(seed(name, **{name.replace(".", "_"): content}) for name, content in files), array]


def token_seeds(folder: Path) -> list[Seed]:
    """States of captions on disk."""
    token_store(folder).open()
    where = token_store(folder).folder.relative_to(folder)
    seed = Seed.of(folder, token_states)
    files = {name: content for name, content in seed.files.items() if not name.endswith("lock")}
    manifest = f"{where.as_posix()}/manifest.json"
    return [Seed(files, token_states, (manifest, manifest, manifest, *files), writes=True)]


def token_store(cache: Path) -> TokenStore:
    """A store of states that are made of nothing."""
    wanted = TokenManifest("network", "words", captions_hash(SENTENCES), len(SENTENCES), 4, 2)
    return TokenStore(SENTENCES, wanted, states, no_progress, cache)


def states(captions: Sequence[str], start: int) -> StateBlock:
    """Two nodes a caption."""
    del start
    count = len(captions)
    return StateBlock(np.full(count, 2), np.ones((2 * count, 4), np.float16), np.ones((count, 2), np.float32))


def token_states(data: Path) -> object:
    """All states, computed again where they are damaged."""
    return token_store(data).open().read(np.arange(len(SENTENCES)))


def graph_seeds(folder: Path) -> list[Seed]:
    """A concept graph; its manifest is a text of JSON inside the header, and is mutated on its own."""
    graph = build_graph(SENTENCES * 2, GraphSettings(lexicon="rules", vectors="random"), data="small")
    graph.save(folder / GRAPH)
    return [Seed.of(folder, concepts, mutations={GRAPH: mutated_graph})]


def mutated_graph(content: bytes, dice: Random) -> bytes:
    """Another manifest with the rest valid, or another header or other values."""
    if dice.random() < 0.5:
        return mutated(GRAPH, content, dice)
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    manifest = mutated_json(header["__metadata__"]["tshsr"].encode(), dice)
    header["__metadata__"]["tshsr"] = manifest.decode("utf-8", "replace")  # a header is UTF-8
    changed = json.dumps(header).encode()
    return len(changed).to_bytes(8, "little") + changed + content[8 + length :]


def concepts(data: Path) -> object:
    """What a network and `knowledge show` take from a graph."""
    graph = ConceptGraph.load(data / GRAPH)
    return graph.width, graph.adjacency(), graph.without_vector(), picture(graph)


def work_seeds(folder: Path) -> list[Seed]:
    """A store of pictures that are to be extracted again, and the work folder of an interrupted job."""
    store, work = folder / "store", folder / "work"
    store_files(store)
    records = [{"file": f"i{n}.png", "bytes": 9, "changed": n, "width": 8, "height": 6} for n in range(5)]
    (store / "files.jsonl").write_bytes(lines([json.dumps(record) for record in records]))
    finished = [FinishedPicture(f"i{number}.png", 9, number, 8, 6, 2) for number in range(3)]
    regions = PictureRegions(np.ones((2, 4), np.float32), np.zeros((2, 4), np.float32), np.ones(2, np.float32))
    WorkFolder(work, 2).add(finished, [regions] * 3)
    targets = ("store/files.jsonl", "store/captions.jsonl", "work/part-000000.safetensors")
    return [Seed.of(folder, reused, targets=targets, writes=True)]


def reused(data: Path) -> object:
    """What a further extraction takes from them."""
    work = WorkFolder(data / "work", 2)
    names = list(work.pictures)
    values = [list(work.read(names, "features")), list(work.read(names, "boxes")), list(work.read(names, "pooled"))]
    return read_existing(data / "store", "small", "float32", 2), existing_captions(data / "store"), values


READERS: Sequence[Reader] = (
    Reader("settings of runs", 7_000, config_seeds),
    Reader("weights", 4_000, weight_seeds),
    Reader("calibrations", 1_500, calibration_seeds),
    Reader("states to resume from", 2_000, state_seeds),
    Reader("word vectors", 5_500, vector_seeds),
    Reader("token stores", 3_000, token_seeds),
    Reader("concept graphs", 3_000, graph_seeds),
    Reader("stores to extend", 2_000, work_seeds),
)
