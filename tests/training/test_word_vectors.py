"""Training from word vectors: the embedding, its coverage, and a run that needs their file no more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.small_runs import StopError, run, small_config, small_split, stop_at, weights
from tshsr.config.run import RunConfig
from tshsr.data.dataset import Split
from tshsr.data.text import Tokenizer
from tshsr.errors import CheckpointError, SettingsError
from tshsr.retriever import Retriever
from tshsr.training.checkpoints import load_tensors
from tshsr.training.checks import check_training
from tshsr.training.events import Event, Saved, VectorsLoaded

VECTORS = {"red": 2.0, "dog": 3.0, "here": -2.0, "zebra": 5.0}
"""Words with vectors of six equal values."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Split, Split]:
    folder = tmp_path_factory.mktemp("data")
    return small_split(folder, "train"), small_split(folder, "dev", images=6)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    lines = [f"{word} {' '.join([str(value)] * 6)}\n" for word, value in VECTORS.items()]
    (tmp_path / "glove.txt").write_text("".join(lines))
    return tmp_path / "glove.txt"


def settings(file: Path | str, **changes: Any) -> RunConfig:
    config = small_config(epochs=1, save_every_steps=1)
    changes = {"word_vectors": str(file), **changes}
    return replace(config, model=replace(config.model, encoder=replace(config.model.encoder, **changes)))


def test_the_embedding_starts_from_the_vectors_and_the_rest_is_as_without(
    file: Path, data: tuple[Split, Split], tmp_path: Path
) -> None:
    starts = {}
    for name, config in (("with", settings(file)), ("without", settings(""))):

        def stop(event: Event) -> None:
            if isinstance(event, Saved):
                raise StopError

        with pytest.raises(StopError):
            run(config, data, tmp_path / name, listen=stop)
        starts[name] = load_tensors(tmp_path / name / "last" / "model.safetensors")
    ids = Tokenizer.from_file(tmp_path / "with" / "tokenizer.json").word_ids()
    assert ids.keys() >= {"red", "dog", "here", "boat"}
    assert not {*ids} & {"<pad>", "<unk>", "zebra"}
    changed = {ids[word]: value for word, value in VECTORS.items() if word in ids}
    for name, values in starts["with"].items():
        before = starts["without"][name]
        if name == "word_encoder.embedding.weight":
            same = [number not in changed for number in range(len(values))]
            assert torch.equal(values[same], before[same])
            assert all(values[number].tolist() == [value] * 6 for number, value in changed.items())
        else:
            assert torch.equal(values, before), name


def test_coverage_is_an_event(file: Path, data: tuple[Split, Split], tmp_path: Path) -> None:
    events: list[Event] = []
    run(settings(file), data, tmp_path / "run", listen=events.append)
    (loaded,) = (event for event in events if isinstance(event, VectorsLoaded))
    words = [word for caption in data[0].captions for word in caption.split()]
    assert (loaded.file, loaded.found, loaded.words) == (str(file), 3, len({*words}))
    assert loaded.tokens == pytest.approx(sum(word in VECTORS for word in words) / len(words))


def test_after_the_start_the_file_is_not_needed(file: Path, data: tuple[Split, Split], tmp_path: Path) -> None:
    run(settings(file), data, tmp_path / "whole")
    with pytest.raises(StopError):
        run(settings(file), data, tmp_path / "run", listen=stop_at(1))
    file.unlink()
    events: list[Event] = []
    run(settings(file), data, tmp_path / "run", resume=True, listen=events.append)
    assert not any(isinstance(event, VectorsLoaded) for event in events)
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")
    assert Retriever.from_pretrained(tmp_path / "run").score(data[1], ["a red dog"]).isfinite().all()
    with pytest.raises(
        CheckpointError, match=r"was begun with model\.encoder\.word_vectors = '.*glove\.txt', now it is"
    ):
        run(settings(""), data, tmp_path / "run", resume=True)


def test_vectors_of_another_width_leave_no_run(file: Path, data: tuple[Split, Split], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"has vectors of 6 values, and model\.encoder\.word_dim is 8; set"):
        run(settings(file, word_dim=8), data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_other_encoders_refuse_vectors(file: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"word_vectors is '.*', which transformer ignores; set model\.encoder\.text"
    ):
        check_training(settings(file, text="transformer"))
