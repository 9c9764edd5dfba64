"""A search in an index agrees with the full score matrix, and returns the regions of words."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tshsr
from tests.support.indexed import Small
from tshsr.data.dataset import Split
from tshsr.errors import DataError, InputError, SettingsError
from tshsr.explain.attribution import explain_pair
from tshsr.features.extractor import PictureRegions
from tshsr.index import search as searching
from tshsr.index.collection import Index
from tshsr.index.database import failing_filter
from tshsr.index.metadata import metadata_of
from tshsr.index.snapshot import Snapshot

CLOSE = 2e-3
"""Maximum change of a score by rounding regions to float16 (1 part in 2048)."""


def names(split: Split, scores: torch.Tensor, k: int) -> list[str]:
    """The images of the best scores."""
    return [split.image_ids[image] for image in scores.topk(k).indices.tolist()]


def test_searching_captions_finds_what_the_full_matrix_finds(small: Small, index: Index) -> None:
    split = small.split()
    scores = small.retriever().score(split, split.captions)
    assert len(split.captions) >= 20
    for caption, text in enumerate(split.captions):
        found = index.search(text, k=10)
        assert [result.id for result in found] == names(split, scores[:, caption], 10)
        exact = [float(scores[split.image_ids.index(result.id), caption]) for result in found]
        assert [result.score for result in found] == pytest.approx(exact, abs=CLOSE)


def test_candidates_are_those_of_the_pooled_score(small: Small, index: Index) -> None:
    split, index.candidates = small.split(), 4
    images, text = small.retriever().encode_images(split), split.captions[3]
    pooled = images.pooled @ small.retriever().encode_captions(text).pooled[0]
    scores = small.retriever().score(split, [text])[:, 0]
    wanted = sorted(pooled.topk(4).indices.tolist(), key=lambda image: -float(scores[image]))
    assert [result.id for result in index.search(text, k=3)] == [split.image_ids[image] for image in wanted[:3]]
    assert len(index.search(text, k=6)) == 6, "never fewer candidates than results"


def test_pictures_find_captions_as_the_full_matrix_does(small: Small, index: Index) -> None:
    split, captions = small.split(), small.split().caption_ids
    scores = small.retriever().score(split, split.captions)
    assert captions[:3] == ["p0#0", "p0#1", "p1#0"]
    batch = split.regions.read([4])
    regions = PictureRegions(batch.regions[0][batch.mask[0]].numpy(), batch.boxes[0][batch.mask[0]].numpy())
    found = index.search_picture(regions, k=5)
    best = scores[4].topk(5)
    assert [result.score for result in found] == pytest.approx(best.values.tolist(), abs=CLOSE)
    assert found[0].caption in split.captions
    assert found[0].image == found[0].id.partition("#")[0]
    with pytest.raises(InputError, match=r"features have shape \(2, 5\); expected N x 6"):
        index.search_picture(PictureRegions(np.zeros((2, 5), np.float32), np.zeros((2, 4), np.float32)))


def test_results_hold_files_and_regions_of_content_words(small: Small, index: Index) -> None:
    found = index.search("a red dog in the zebra", k=2)
    assert [word.word for word in found[0].words] == ["red", "dog"], "no function words, none outside the vocabulary"
    assert index.unknown_words("a red dog in the zebra") == ("in", "the", "zebra")
    assert found[0].file == str((small.store / "pictures" / f"{found[0].id}.png").resolve())
    split = small.split()
    explanation = explain_pair(small.retriever(), split.regions.read([split.image_ids.index(found[0].id)]), "red dog")
    assert explanation.boxes is not None
    for result in found:
        for word in result.words:
            weights = [box[4] for box in word.boxes]
            assert 1 <= len(word.boxes) <= 3
            assert weights == sorted(weights, reverse=True)
            assert 0 < sum(weights) <= 1 + 1e-5


def test_the_regions_of_a_word_are_weighted_by_the_mean_of_both_streams(small: Small, index: Index) -> None:
    text = "one red dog here"
    result = index.search(text, k=1)[0]
    explanation = index.explain(text, result.id)
    streams = [stream.word_regions[1] for stream in explanation.streams.values()]
    assert len(streams) == 2
    mean = np.mean(streams, axis=0)
    best = int(mean.argmax())
    assert [word.word for word in result.words] == ["one", "red", "dog", "here"]
    assert explanation.boxes is not None
    assert result.words[1].boxes[0] == pytest.approx((*explanation.boxes[best], mean[best]), abs=1e-4)
    assert result.score == pytest.approx(explanation.scores["fused"], abs=1e-5)


def test_an_explanation_is_that_of_the_network(small: Small, index: Index) -> None:
    split = small.split()
    exact = explain_pair(small.retriever(), split.regions.read([1]), "one red dog")
    stored = index.explain("one red dog", "p1")
    assert stored.scores == pytest.approx(exact.scores, abs=CLOSE)
    assert stored.words == exact.words
    assert stored.regions == exact.regions == 2, "p1 has a region less"
    assert np.array(stored.boxes) == pytest.approx(np.array(exact.boxes))
    with pytest.raises(DataError, match="has no picture 'p77'; did you mean 'p7'"):
        index.explain("one red dog", "p77")


def test_invalid_queries_are_refused(index: Index) -> None:
    with pytest.raises(InputError, match="the query has no word: '  '; describe what the picture shows"):
        index.search("  ")
    with pytest.raises(SettingsError, match="k is 0; expected at least 1 result"):
        index.search("a dog", k=0)


def test_only_files_of_the_index_are_returned(small: Small, index: Index) -> None:
    assert index.picture_file("p0") == (small.store / "pictures" / "p0.png").resolve()
    assert index.picture_file("../pictures/p0") is None
    assert index.picture_file("nothing") is None


def test_the_python_interface_opens_an_index(small: Small, index: Index) -> None:
    opened = tshsr.Index.open(index.folder)
    assert (len(opened), opened.captions) == (12, 24)
    assert opened.search("a red dog", k=1) == index.search("a red dog", k=1)
    assert opened.sample_captions(3) == [small.split().captions[place] for place in (0, 11, 23)]


def test_filters_select_by_metadata(small: Small, index: Index) -> None:
    rows = [
        {"id": f"p{number}", "year": 2000 + number, "place": "Oslo" if number % 2 else None} for number in range(12)
    ]
    index.add(small.split(), metadata=metadata_of(rows, "facts"))
    found = index.search("a red dog", k=12, where="year > 2005 AND place = 'Oslo'")
    assert {result.id for result in found} == {"p7", "p9", "p11"}
    assert {result.metadata["year"] for result in found} == {2007, 2009, 2011}
    assert index.search("a red dog", where="year > 3000") == []
    scores = small.retriever().score(small.split(), ["a red dog"])[:, 0]
    assert [r.id for r in found] == [f"p{n}" for n in sorted((7, 9, 11), key=lambda n: -float(scores[n]))]


def test_a_filter_runs_exactly_as_it_was_checked(index: Index) -> None:
    assert {result.id for result in index.search("a red dog", where="id = 'p1') OR (id = 'p0'")} == {"p0", "p1"}
    assert len(index.search("a red dog", k=12, where="id != 'folder'")) == 12, "strings are not column names"


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("yeer > 3", "the filter 'yeer > 3' cannot be used: No field named yeer; expected a condition on id, file,"),
        ("width >", "cannot be used: Expected: an expression"),
        ("width", "cannot be used: The filter width does not return a boolean"),
        ("width > 3; DROP TABLE pictures", "cannot be used: Expected: )"),
        ("pooled > 3", "cannot be used: "),
        (
            "folder LIKE '/%'",
            "cannot be used: No field named folder; expected a condition on id, file, width, height, such",
        ),
        ("FOLDER LIKE '/%'", "cannot be used: No field named"),
        ("`folder` LIKE '/%'", "cannot be used: No field named folder"),
        ("\"folder\" LIKE '/%'", "cannot be used: No field named folder"),
        ("width > 5) OR (folder LIKE '/%'", "cannot be used: No field named folder"),
        ("/* ' */ folder LIKE '/%' /* ' */", "cannot be used: No field named folder"),
        ("id = ?", "cannot be used: LanceDB cannot evaluate it"),
        ("10 / (width - 8) > 1", "cannot be used: Divide by zero"),  # on a row alone
        ("CAST(file AS INT) > 3", "cannot be used: Cast error: Cannot cast string 'p0.png'"),
    ],
)
def test_a_filter_that_cannot_be_used_is_one_sentence(index: Index, where: str, said: str) -> None:
    with pytest.raises(DataError) as caught:
        index.search("a red dog", where=where)
    assert said in str(caught.value)
    assert str(caught.value).endswith("such as width > 500.")
    assert "\n" not in str(caught.value)


def test_out_of_memory_is_not_reported_as_a_damaged_index(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fail(*question: object) -> None:
        calls.append(question)
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(searching, "ranked", fail)
    regions = PictureRegions(np.ones((2, 6), np.float32), np.ones((2, 4), np.float32))
    for run in (lambda: index.search("a red dog"), lambda: index.search_picture(regions)):
        with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
            run()
    assert len(calls) == 2, "each ran once"


def test_an_index_that_cannot_be_read_for_a_moment_is_not_called_damaged(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*question: object) -> None:
        raise OSError("LanceError(IO): Unable to open file: Too many open files (os error 24)")

    monkeypatch.setattr(Snapshot, "candidates", fail)
    with pytest.raises(DataError, match=r"cannot be read \(Too many open files\); remove this cause, then try again"):
        index.search("a red dog")


def test_a_search_retries_where_its_version_was_deleted(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    nearest = Snapshot.nearest

    def lost(self: Snapshot, *question: object) -> object:
        calls.append(self)
        if len(calls) == 1:
            raise RuntimeError("Not found: data/1.lance")
        return nearest(self, *question)  # type: ignore[arg-type]

    monkeypatch.setattr(Snapshot, "nearest", lost)
    assert len(index.search("a red dog")) == 10
    assert calls[0] is not calls[1]
    exact = Snapshot._exact

    def once(self: Snapshot, *question: object) -> object:
        calls.append(self)
        if len(calls) == 1:
            with failing_filter(self.table, self.visible, "width > 1"):
                raise RuntimeError("Not found: data/1.lance")
        return exact(self, *question)  # type: ignore[arg-type]

    calls.clear()
    monkeypatch.setattr(Snapshot, "nearest", nearest)
    monkeypatch.setattr(Snapshot, "_exact", once)
    assert len(index.search("a red dog", where="width > 1")) == 10, "the filter is not blamed"
    monkeypatch.setattr(Snapshot, "nearest", lambda *_: (_ for _ in ()).throw(RuntimeError("Not found: data/1.lance")))
    with pytest.raises(
        DataError, match=r"index cannot be read \(Not found: data/1\.lance\); run tshsr index on it again"
    ):
        index.search("a red dog")
