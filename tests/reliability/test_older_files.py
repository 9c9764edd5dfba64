"""Files that older versions wrote load, score as then, and are continued; `older/README.md` lists them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.support.small_runs import run, small_config, small_split, with_loss
from tshsr.config.run import RunConfig, read_config
from tshsr.data.check import check_data
from tshsr.data.dataset import Split
from tshsr.data.layouts import open_split
from tshsr.evaluation.score_files import read_scores
from tshsr.metrics.report import read_report
from tshsr.models.dropout import Dropout
from tshsr.pretrained.token_store import StateBlock, TokenManifest, TokenStore, captions_hash
from tshsr.retriever import Retriever
from tshsr.system import no_progress
from tshsr.training.checkpoints import load_tensors
from tshsr.training.state import load_match_zscores

OLDER = Path(__file__).resolve().parent / "older"
EXPECTED = json.loads((OLDER / "expected.json").read_text())
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
"""float32 on another kind of CPU."""


@pytest.fixture
def data(tmp_path: Path) -> tuple[Split, Split]:
    return small_split(tmp_path / "data", "train", 12), small_split(tmp_path / "data", "dev", 12)


def slim(config: RunConfig) -> RunConfig:
    return replace(config, model=replace(config.model, comparison_dim=6))


def test_the_files_are_small() -> None:
    assert sum(path.stat().st_size for path in OLDER.rglob("*")) < 400_000


@pytest.mark.parametrize("name", ["run", "model"])
def test_a_network_scores_as_it_did(name: str) -> None:
    split = open_split(OLDER / "store", "all")
    scores = Retriever.from_pretrained(OLDER / name).score(split, list(split.captions))
    torch.testing.assert_close(scores, torch.tensor(EXPECTED["scores"]), **CLOSE)


def test_a_stopped_run_ends_as_it_would_have(
    data: tuple[Split, Split], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Dropout, "forward", nn.Dropout.forward)  # the random numbers of then
    out = shutil.copytree(OLDER / "stopped", tmp_path / "run")
    assert run(slim(small_config(save_every_steps=2)), data, out, resume=True).steps == 6
    found, expected = (load_tensors(folder / "last" / "model.safetensors") for folder in (out, OLDER / "run"))
    torch.testing.assert_close(found, expected, **CLOSE)


def test_a_stopped_robust_run_continues_with_its_zscores(data: tuple[Split, Split], tmp_path: Path) -> None:
    out = shutil.copytree(OLDER / "stopped-robust", tmp_path / "run")
    assert load_match_zscores(out, captions=24) is not None
    config = slim(small_config(epochs=3, batch=12, save_every_steps=1, noise=0.4))
    assert run(with_loss(config, robust="mixture", warmup_epochs=1.0), data, out, resume=True).steps == 6


def test_settings_have_the_meaning_of_then() -> None:
    config = read_config(OLDER / "run" / "config.json")
    assert (config.recipe, config.training.epochs, config.loss.relations) == ("small", 2, 0)


def test_a_store_is_complete() -> None:
    problems, _ = check_data(str(OLDER / "store"))
    assert problems == []
    split = open_split(OLDER / "store", "test")
    assert (len(split.regions), len(split.captions), split.extractor) == (4, 8, "small")


def test_an_index_finds_what_it_found_and_can_be_extended(tmp_path: Path) -> None:
    pytest.importorskip("lancedb", reason="an index needs LanceDB (extra search)")
    from tshsr.index.collection import Index

    for name in ("run", "index"):  # side by side, as the index records them
        shutil.copytree(OLDER / name, tmp_path / name)
    index = Index.open(tmp_path / "index")
    found = index.search("a red dog", k=5)
    assert [one.id for one in found] == [name for name, _ in EXPECTED["search"]]
    np.testing.assert_allclose([one.score for one in found], [score for _, score in EXPECTED["search"]], rtol=1e-3)
    added = index.replace(open_split(OLDER / "store", "test"))
    assert (added.new, added.replaced, len(index)) == (0, 4, 12)
    assert [one.id for one in index.search("a red dog", k=5)] == [name for name, _ in EXPECTED["search"]]


def test_a_report_and_a_score_file_are_read() -> None:
    report = read_report(OLDER / "report.json")
    assert report.scores["fused"].image_to_text.r5 == 100.0
    np.testing.assert_allclose(read_scores(OLDER / "scores.npy"), EXPECTED["scores"], atol=1e-5)


def test_a_token_store_is_not_computed_again() -> None:
    captions = ["a red dog here", "one blue boat", "the white tree again today"] * 2

    def compute(_: Sequence[str], __: int) -> StateBlock:
        raise AssertionError("it is there")

    wanted = TokenManifest("net", "words", captions_hash(captions), len(captions), 4, 2)
    states = TokenStore(captions, wanted, compute, no_progress, OLDER / "cache").open()
    batch = states.read(np.array([0, 5]))
    assert batch.mask.sum(dim=1).tolist() == [4, 5]
    assert batch.states is not None
    assert batch.states[1, 0, 0] == 5.125
