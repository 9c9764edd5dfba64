"""Large tables are searched approximately, at high recall."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.indexed import Small, write_small_store
from tests.support.small_runs import small_split
from tshsr.data.dataset import Split
from tshsr.data.layouts import open_split, select_images
from tshsr.index import ann, snapshot
from tshsr.index.about import update_info
from tshsr.index.collection import Index


@pytest.fixture(scope="module")
def many(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Split:
    """Six hundred pictures."""
    folder = tmp_path_factory.mktemp("many")
    split = small_split(folder, "train", 600)
    write_small_store(folder / "store", split, pictures=False)
    return open_split(folder / "store", "all")


def test_the_ann_index_of_a_large_table_finds_the_same_rows(
    small: Small, many: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = Index.build(tmp_path / "exact", small.retriever(), select_images(many, 400))
    assert exact.about.probes == {}
    monkeypatch.setattr(ann, "MIN_ROWS", 300)
    monkeypatch.setattr(ann, "ROWS_PER_PARTITION", 50)
    monkeypatch.setattr(snapshot, "ASK_AGAIN", 0.0)
    index = Index.build(tmp_path / "index", small.retriever(), select_images(many, 400))
    assert set(index.about.probes) == {"pictures", "captions"}
    assert 1 <= index.about.probes["pictures"] <= 8
    assert index._pictures.snapshot().probes == index.about.probes["pictures"]
    update_info(index.folder, probes={**index.about.probes, "pictures": 8})
    assert index._pictures.snapshot().probes == 8, "measured after the version was written"
    assert len(index.search("a red dog", k=2**40)) == 400, "no memory is kept for more rows than there are"
    queries = [f"a {colour} {thing} here" for colour in ("red", "green", "blue") for thing in ("dog", "ball", "boat")]
    same = [
        {result.id for result in index.search(text)} == {result.id for result in exact.search(text)} for text in queries
    ]
    assert np.mean(same) >= 0.8
    kept = index.search("a red dog", where="id = 'p7'")
    assert [result.id for result in kept] == ["p7"]
    table, query = index._pictures.live, small.retriever().encode_captions("a red dog").pooled[0].numpy()
    for name in [f"p{number}" for number in range(0, 400, 8)]:
        assert len(ann.ann_search(table, query, 10, probes=1, where=f"id = '{name}'")) == 1, name
    assert len(set(ann.ann_search(table, query, 300, probes=1))) == 300, "a partition has about 50"
    probes, version = index.about.probes, index._pictures.live.version
    index.add(select_images(many, 450))
    assert index._pictures.live.version == version + 1, "50 of 450 rows are searched exactly: the ANN index stays"
    index.add(many)
    assert index.about.probes.keys() == probes.keys()
    assert ann.ann_indices(index._pictures.live)
    stats = index._pictures.live.index_stats(ann.ann_indices(index._pictures.live)[0])
    assert stats.num_unindexed_rows == 0, "above a quarter, the ANN index is rebuilt"
    assert len(index.search("a red dog", k=5)) == 5


def test_the_probed_partitions_hold_nearly_all_of_the_best_rows(
    small: Small, many: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ann, "MIN_ROWS", 300)
    monkeypatch.setattr(ann, "ROWS_PER_PARTITION", 50)
    index = Index.build(tmp_path / "index", small.retriever(), many)
    table, captions = index._pictures.live, index._captions.live
    queries = ann.sample_rows(captions)
    wanted = ann.exact_search(table, queries, 100)
    everything = table.search().select(["pooled"]).with_row_id(True).to_arrow()
    pooled = np.stack(everything["pooled"].to_numpy())
    scores = pooled @ queries[0].numpy()
    assert scores[np.isin(everything["_rowid"].to_numpy(), wanted[0])].min() >= np.sort(scores)[-100] - 1e-6
    probes = index.about.probes["pictures"]
    found = [ann.ann_search(table, query.numpy(), 100, probes) for query in queries]
    shares = [len(set(a) & set(b)) / 100 for a, b in zip(found, wanted, strict=True)]
    assert np.mean(shares) >= 0.9, "ties at the edge may fall either way"
    few = [ann.ann_search(table, query.numpy(), 20, probes=1) for query in queries]
    lost = [set(b[:20]) - set(a) for a, b in zip(few, wanted, strict=True)]
    assert any(lost), "one of 12 partitions is read, not all"


def test_partitions_chosen_when_all_were_read_are_chosen_again(
    small: Small, many: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ann, "MIN_ROWS", 300)
    index = Index.build(tmp_path / "index", small.retriever(), select_images(many, 400), captions=False)
    file = tmp_path / "index" / "index.json"
    values = json.loads(file.read_text())
    assert (values["probes"], values["probing"]) == ({"pictures": 1}, 1)
    del values["probing"]
    file.write_text(json.dumps(values))
    again = Index(tmp_path / "index", small.retriever())
    assert (again.about.probes, again._pictures.snapshot().probes) == ({}, 0), "searched exactly"
    index.add(select_images(many, 401), captions=False)
    assert index.about.probes == {"pictures": 1}


def test_without_captions_the_probes_are_chosen_by_random_sentences(
    small: Small, many: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ann, "MIN_ROWS", 300)
    monkeypatch.setattr(ann, "ROWS_PER_PARTITION", 50)
    index = Index.build(tmp_path / "index", small.retriever(), many, captions=False)
    assert set(index.about.probes) == {"pictures"}
    vectors = ann.sample_sentences(small.retriever())
    assert vectors.shape == (ann.SAMPLE_QUERIES, 8)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(ann.SAMPLE_QUERIES), atol=1e-5)
