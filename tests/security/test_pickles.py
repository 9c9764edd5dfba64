"""No reader executes what a file holds: payloads that would leave a mark, offered to every reader of binary files."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.data_files import random_regions, small_store, write_karpathy, write_precomp
from tests.support.payloads import Payloads
from tshsr.data.karpathy import open_karpathy
from tshsr.data.pictures import read_picture
from tshsr.data.precomp import open_precomp
from tshsr.data.store import open_store
from tshsr.errors import TshsrError
from tshsr.evaluation.score_files import read_scores
from tshsr.index.about import read_pooling
from tshsr.pretrained.networks import load_network
from tshsr.pretrained.word_vectors import read_word_vectors
from tshsr.training.checkpoints import load_run, load_tensors
from tshsr.training.noisy_pairs import read_noise_index
from tshsr.training.state import load_state

Prepared = tuple[list[Path], Callable[[], object]]
"""Files that are replaced by a payload in turn, and the reading of them."""


def scores(folder: Path) -> Prepared:
    files = [folder / f"scores{suffix}" for suffix in (".npy", ".npz", ".pt", ".pth")]
    return files, lambda: [read_scores(file) for file in files if file.exists()]


def precomp(folder: Path) -> Prepared:
    data = folder / "precomp"
    write_precomp(data, "test", random_regions(2), each=5)
    files = [data / name for name in ("test_ims.npy", "test_boxes.npz", "test_boxes.npy", "test_pooled.npy")]
    return files, lambda: open_precomp(data, "test")


def karpathy(folder: Path) -> Prepared:
    data = folder / "karpathy"
    path = write_karpathy(data, ["test", "test"], [2, 2])
    np.save(data / "features.npy", random_regions(2))
    return [data / "features.npy", data / "boxes.npy", data / "boxes.npz", path], lambda: open_karpathy(path, "test")


def store(folder: Path) -> Prepared:
    data = small_store(folder / "store")
    return [data / name for name in ("regions.npy", "boxes.npy", "manifest.json")], lambda: open_store(data, "test")


def noise_index(folder: Path) -> Prepared:
    write_precomp(folder / "train", "train", random_regions(2), each=5)
    split = open_precomp(folder / "train", "train")
    return [folder / "noise.npy"], lambda: read_noise_index(folder / "noise.npy", split)


def checkpoint(folder: Path) -> Prepared:
    run = folder / "run"
    run.mkdir()
    names = ("config.json", "tokenizer.json", "model.safetensors", "model.pt", "pytorch_model.bin")
    return [run / name for name in names], lambda: load_run(run)


def tensors(folder: Path) -> Prepared:
    return [folder / "optimiser.safetensors"], lambda: load_tensors(folder / "optimiser.safetensors")


def training_state(folder: Path) -> Prepared:
    (folder / "last").mkdir()
    return [folder / "last" / "state.json"], lambda: load_state(folder)


def pooling(folder: Path) -> Prepared:
    return [folder / name for name in ("pooling.safetensors", "index.json")], lambda: read_pooling(folder)


def word_vectors(folder: Path) -> Prepared:
    files = [folder / f"vectors{ending}" for ending in (".npy", ".txt", ".bin", ".txt.gz")]

    def read() -> None:
        for file in files:
            if file.exists():
                read_word_vectors(str(file), {"dog": 1}, 2)

    return files, read


def picture(folder: Path) -> Prepared:
    return [folder / "x.jpg"], lambda: read_picture(folder / "x.jpg")


READERS = (
    *(scores, precomp, karpathy, store, noise_index, checkpoint, tensors),
    *(training_state, pooling, word_vectors, picture),
)


@pytest.fixture(scope="module")
def payloads(tmp_path_factory: pytest.TempPathFactory) -> Payloads:
    return Payloads(tmp_path_factory.mktemp("marks") / "mark")


def test_the_payload_leaves_a_mark_where_it_is_loaded(tmp_path: Path) -> None:
    payloads = Payloads(tmp_path / "mark")
    contents = dict(payloads.contents())
    loaders = (
        lambda: pickle.loads(contents["pickle-2"]),
        lambda: np.load(written(tmp_path / "x.npy", contents["array-3"]), allow_pickle=True),
        lambda: torch.load(written(tmp_path / "x.pt", contents["torch-zip"]), weights_only=False),
    )
    for load in loaders:
        load()
        assert payloads.mark.is_dir()
        payloads.mark.rmdir()


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
def test_no_payload_is_executed(reader: Callable[[Path], Prepared], payloads: Payloads, tmp_path: Path) -> None:
    files, read = reader(tmp_path)
    for name, content in payloads.contents():
        for file in files:
            before = file.read_bytes() if file.exists() else None
            written(file, content)
            with pytest.raises(TshsrError) as refusal:
                read()
            assert not payloads.mark.exists(), f"{file.name} as {name}"
            assert "weights_only=False" not in str(refusal.value), "no advice to load it unsafely"
            file.unlink() if before is None else file.write_bytes(before)


@pytest.mark.slow
def test_no_pickled_weights_of_a_pretrained_network_are_executed(payloads: Payloads, tmp_path: Path) -> None:
    tiny_networks = pytest.importorskip("tests.support.tiny_networks")
    network = tiny_networks.save("vit", tmp_path / "vit")
    (network / "model.safetensors").unlink()
    for name, content in payloads.contents():
        if not name.startswith(("torch-", "pickle-2")):  # the others are no weights to transformers
            continue
        written(network / "pytorch_model.bin", content)
        with pytest.raises(TshsrError):
            load_network("AutoModel", str(network))
        assert not payloads.mark.exists(), name
    shutil.rmtree(network)


def written(file: Path, content: bytes) -> Path:
    file.write_bytes(content)
    return file
