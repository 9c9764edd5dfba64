"""Indexes with regions in int8, and with fewer, learned regions."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.support.command_line import refused, tshsr
from tests.support.indexed import Small
from tshsr.errors import DataError
from tshsr.index.about import Smaller, read_pooling
from tshsr.index.collection import Index
from tshsr.index.rows import ITEMS, PICTURES, WEIGHTS, encoding_of, schema_of, tokens_of
from tshsr.models.base import MEAN_WEIGHTS
from tshsr.scoring.compression import RegionPooling, compress


@pytest.fixture(scope="module")
def folder(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index in int8, made by the command."""
    out = tmp_path_factory.mktemp("int8") / "index"
    said = tshsr(*command(small, out), "--tokens", "int8")
    assert said.code == 0, said.err
    return out


def command(small: Small, out: Path) -> tuple[str | Path, ...]:
    """The command that makes an index."""
    return ("index", small.run, "--data", small.store, "--out", out, "--device", "cpu", "--quiet")


def test_regions_in_int8_score_as_those_in_float16(small: Small, folder: Path, index_folder: Path) -> None:
    one, other = Index.open(folder, run=str(small.run)), Index.open(index_folder)
    assert (one.about.tokens, other.about.tokens) == ("int8", "float16")
    for text in ("a red dog here", "one white boat"):
        exact = {result.id: result.score for result in other.search(text, 12)}
        found = {result.id: result.score for result in one.search(text, 12)}
        assert found == pytest.approx(exact, abs=0.02)
        assert found != exact
    assert one.search("a red dog here")[0].words
    assert one.explain("a red dog here", "p1").regions == 2


def test_an_index_keeps_its_numbers(small: Small, folder: Path) -> None:
    said = tshsr(*command(small, folder), "--replace")
    assert said.code == 0, said.err
    index = Index.open(folder, run=str(small.run))
    assert index.about.tokens == tokens_of(index._pictures.live.schema) == "int8"
    assert refused(*command(small, folder), "--tokens", "float16") == (
        f"tshsr: {folder} holds regions in int8, float16 was asked for; make another index in a new folder."
    )


def test_the_schema_says_the_numbers() -> None:
    assert tokens_of(schema_of(PICTURES, tokens="int8")) == "int8"
    assert tokens_of(schema_of(PICTURES)) == "float16"
    assert tokens_of(schema_of("captions", tokens="int8")) == "float16", f"{ITEMS} of captions are small"


@pytest.fixture(scope="module")
def pooled(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index with two learned regions a picture, made by the command."""
    out = tmp_path_factory.mktemp("pooled") / "index"
    said = tshsr(*command(small, out), "--regions", "2", "--tokens", "int8")
    assert said.code == 0, said.err
    return out


def test_pooled_regions_are_those_that_the_index_keeps(small: Small, pooled: Path, index_folder: Path) -> None:
    index, pooling = Index.open(pooled, run=str(small.run)), read_pooling(pooled)
    assert index.about.regions == 2
    assert pooling is not None
    assert read_pooling(index_folder) is None
    rows = index._pictures.live.search().limit(20).to_arrow()
    stored = encoding_of(small.retriever().matcher, rows, torch.device("cpu"))
    retriever, split = small.retriever(), small.split()
    images = retriever.encode_images(split)
    boxes = split.regions.read(range(12)).boxes
    wanted = compress(retriever.matcher, images, boxes, pooling=pooling, format="int8")
    order = [split.image_ids.index(name) for name in rows["id"].to_pylist()]
    assert torch.allclose(stored.items, wanted.items[order], atol=1e-5)
    assert torch.allclose(stored.pooled, images.pooled[order])
    assert torch.allclose(stored.mean(), images.mean()[order], atol=0.01), "int8 and the weights of both regions"
    plain = replace(stored, views={name: view for name, view in stored.views.items() if name != MEAN_WEIGHTS})
    assert not torch.allclose(plain.mean(), images.mean()[order], atol=0.02)
    assert WEIGHTS not in Index.open(index_folder)._pictures.live.schema.names, "without pooled regions"
    found = index.search("a red dog here", 3)
    assert all(len(word.boxes) <= 2 for result in found for word in result.words)
    assert index.explain("a red dog here", found[0].id).regions in (1, 2), "both of its regions may be pooled into one"


def test_explanations_of_smaller_regions_add_up(small: Small, folder: Path, pooled: Path, index_folder: Path) -> None:
    for place in (index_folder, folder, pooled):
        explanation = Index.open(place, run=str(small.run)).explain("a red dog here", "p0")
        for stream in explanation.streams.values():
            logit = sum(map(sum, stream.relevance)) + stream.whole + stream.bias
            assert logit == pytest.approx(math.log(stream.score / (1 - stream.score)), abs=1e-4)


def test_a_pooled_index_goes_on_with_its_regions(small: Small, pooled: Path) -> None:
    before = (pooled / "regions.safetensors").read_bytes()
    said = tshsr(*command(small, pooled), "--regions", "2", "--replace")
    assert said.code == 0, said.err
    assert (pooled / "regions.safetensors").read_bytes() == before
    assert tshsr(*command(small, pooled)).code == 0
    assert refused(*command(small, pooled), "--regions", "3") == (
        f"tshsr: {pooled} holds 2 regions of a picture, 3 were asked for; make another index in a new folder."
    )


def test_other_regions_than_those_of_the_index_are_refused(small: Small, index_folder: Path) -> None:
    with pytest.raises(DataError, match="holds all regions of a picture, 2 were asked for; make another index"):
        Index.create(
            index_folder,
            small.retriever(),
            extractor=small.split().extractor,
            smaller=Smaller(pooling=RegionPooling(torch.zeros(2, 8))),
        )
