"""The reranker: candidates of every kind get the network's scores, in its order, with boxes of words."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import tshsr
from tests.support.camera import Camera
from tests.support.fake_index import Colours
from tests.support.indexed import Small, built
from tshsr.errors import CheckpointError, DataError, InputError, SettingsError
from tshsr.features.extractor import PictureRegions
from tshsr.index.about import Smaller
from tshsr.index.collection import Index
from tshsr.models.build import build_matcher
from tshsr.pretrained.frozen_text import FrozenText
from tshsr.reranking.candidates import SplitSource
from tshsr.reranking.reranker import Reranker
from tshsr.reranking.selection import Selection, standardised
from tshsr.scoring.calibration import Calibration
from tshsr.scoring.compression import RegionPooling

CLOSE = 2e-3
"""Maximum change of a score by rounding regions to float16 in the index."""
QUERY = "a red dog here"


@pytest.fixture(scope="module")
def network(small: Small) -> tshsr.Retriever:
    return small.retriever()


@pytest.fixture
def files(small: Small) -> list[Path]:
    return sorted((small.store / "pictures").iterdir())[:4]


def scores_of(small: Small, text: str) -> dict[str, float]:
    """The network's score of every picture of the store."""
    split = small.split()
    return dict(zip(split.image_ids, small.retriever().score(split, [text])[:, 0].tolist(), strict=True))


def test_ids_of_an_index_are_ranked_as_a_search_ranks_them(reranker: Reranker, index_folder: Path) -> None:
    index = Index.open(index_folder)
    ranked = reranker.rank(QUERY, index.picture_ids(), k=5)
    found = index.search(QUERY, k=5)
    assert [one.id for one in ranked] == [result.id for result in found]
    assert [one.score for one in ranked] == pytest.approx([result.score for result in found], abs=1e-6)
    assert [one.words for one in ranked] == [result.words for result in found]
    assert [one.relevance for one in ranked] == [one.score for one in ranked]
    assert {(one.probability, one.first_stage) for one in ranked} == {(None, None)}


def test_results_name_their_place_among_the_candidates(reranker: Reranker) -> None:
    ids = ["p7", "p2", "p2", "p11", "p0"]
    ranked = reranker.rank(QUERY, ids, k=10)
    assert sorted(one.index for one in ranked) == [0, 1, 2, 3, 4]
    assert all(one.id == ids[one.index] for one in ranked)
    twice = [one for one in ranked if one.id == "p2"]
    assert twice[0].score == twice[1].score
    assert [one.index for one in twice] == [1, 2], "of equal candidates the earlier one is first"


def test_ids_of_a_feature_store_get_the_scores_of_the_network(small: Small) -> None:
    expected = scores_of(small, QUERY)
    reranker = Reranker.from_pretrained(small.run, source=small.store)
    ranked = reranker.rank(QUERY, ["p4", "p1", "p8"])
    assert {one.id: one.score for one in ranked} == pytest.approx(
        {name: expected[name] for name in ("p1", "p4", "p8")}, abs=1e-6
    )
    assert ranked[0].score == max(one.score for one in ranked)
    assert [word.word for word in ranked[0].words] == ["red", "dog", "here"]
    assert all(0 <= corner <= 1 for word in ranked[0].words for box in word.boxes for corner in box[:4])


def test_files_pictures_and_bytes_are_one_picture(network: tshsr.Retriever, files: list[Path]) -> None:
    reranker = Reranker(network, source=Camera())
    opened = [tshsr.read_picture(file) for file in files]
    buffer = io.BytesIO()
    opened[2].save(buffer, "PNG")
    mixed = [files[0], opened[1], buffer.getvalue(), Colours().extract([opened[3]])[0]]
    given = reranker.scores(QUERY, mixed)
    by_file = reranker.scores(QUERY, files)
    assert torch.allclose(given, by_file, atol=1e-6)
    assert len(set(given.tolist())) == 4, "different pictures have different scores"
    ranked = reranker.rank(QUERY, mixed)
    assert {one.index: one.id for one in ranked} == {0: str(files[0]), 1: "1", 2: "2", 3: "3"}


def test_without_a_source_strings_are_files(network: tshsr.Retriever, files: list[Path]) -> None:
    reranker = Reranker(network)
    with pytest.raises(DataError, match="the extractor 'small' can't be opened by its name"):
        reranker.rank(QUERY, [str(files[0])])
    with pytest.raises(DataError, match=r"nowhere\.png does not exist; name a picture file"):
        reranker.rank(QUERY, ["nowhere.png"])


def test_arrays_of_regions_of_any_number_get_the_scores_of_the_network(network: tshsr.Retriever, small: Small) -> None:
    split = small.split()
    batch = split.regions.read(np.arange(6))
    expected = network.score(batch, QUERY)[:, 0]
    reranker = Reranker(network)
    rows = [features[real].numpy() for features, real in zip(batch.regions, batch.mask, strict=True)]
    assert {len(row) for row in rows} == {2, 3}
    for candidates in (rows, batch, reranker.encode(rows), network.encode_images(batch)):
        assert torch.allclose(reranker.scores(QUERY, candidates), expected, atol=1e-6)
    whole = batch.regions[batch.mask.all(dim=1)].numpy()
    assert torch.allclose(reranker.scores(QUERY, whole), expected[batch.mask.all(dim=1)], atol=1e-6)
    assert reranker.rank(QUERY, whole)[0].words[0].boxes == (), "regions without boxes"


def test_kinds_of_candidates_can_be_mixed(network: tshsr.Retriever, small: Small) -> None:
    split = small.split()
    regions = split.regions.read([5])
    given = PictureRegions(regions.regions[0].numpy(), regions.boxes[0].numpy())
    reranker = Reranker(network, source=split)
    expected = scores_of(small, QUERY)
    found = reranker.scores(QUERY, ["p3", given, "p9"])
    assert found.tolist() == pytest.approx([expected["p3"], expected["p5"], expected["p9"]], abs=1e-6)


def test_a_picture_query_ranks_sentences(reranker: Reranker, small: Small) -> None:
    split = small.split()
    regions = split.regions.read([0])
    picture = PictureRegions(regions.regions[0].numpy(), regions.boxes[0].numpy())
    sentences = ["a red dog here", "one black tree", "the blue boat again today"]
    expected = small.retriever().score(regions, sentences)[0]
    ranked = reranker.rank(picture, sentences, k=2)
    assert [one.id for one in ranked] == [sentences[row] for row in expected.topk(2).indices]
    assert [one.score for one in ranked] == pytest.approx(expected.topk(2).values.tolist(), abs=1e-6)
    for one in ranked:
        assert one.id == sentences[one.index]
        assert {word.word for word in one.words} <= set(one.id.split())
        assert all(word.boxes for word in one.words)


def test_a_picture_is_not_compared_with_pictures(reranker: Reranker, files: list[Path]) -> None:
    for candidates in ([files[0]], [], "a dog"):
        with pytest.raises(InputError, match="the query is a picture and its candidates are no list of sentences"):
            reranker.rank(files[0], candidates)


def test_several_queries_give_what_each_gives_alone(reranker: Reranker) -> None:
    queries = ["a red dog here", "one blue boat", "the tree"]
    shared = reranker.encode(["p0", "p1", "p2", "p3"])
    together = reranker.rank_many(queries, [shared, ["p5", "p6"], shared], k=3)
    for query, candidates, ranked in zip(queries, [shared, ["p5", "p6"], shared], together, strict=True):
        alone = reranker.rank(query, candidates, k=3, words=False)
        assert [one.id for one in ranked] == [one.id for one in alone]
        assert [one.score for one in ranked] == pytest.approx([one.score for one in alone], abs=1e-6)
    assert reranker.rank_many([], []) == []
    with pytest.raises(InputError, match="2 queries have 1 lists of candidates; expected one each"):
        reranker.rank_many(queries[:2], [shared])


def test_threads_get_what_one_thread_gets(small: Small, index_folder: Path) -> None:
    reranker = Reranker.from_pretrained(small.run, source=index_folder)
    queries = [
        f"{start} {colour} {thing}" for start in ("a", "one") for colour in ("red", "blue") for thing in ("dog", "boat")
    ]
    ids = [f"p{number}" for number in range(12)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda query: reranker.rank(query, ids), queries * 3))
    assert found[: len(queries)] == [reranker.rank(query, ids) for query in queries]
    assert found[len(queries) :] == found[: len(queries)] * 2


def test_threads_read_queries_with_one_frozen_text_encoder(small: Small, tmp_path: Path) -> None:
    from tests.support.tiny_text import CAPTIONS, save_text

    text, config = FrozenText(str(save_text("bert", tmp_path / "bert"))), small.retriever().config
    encoder = replace(
        config.model.encoder, text="pretrained", text_weights=text.weights, text_width=text.width, vocabulary=len(text)
    )
    config = replace(config, model=replace(config.model, encoder=encoder))
    reranker = Reranker(tshsr.Retriever(build_matcher(config.model), text, config, "frozen"), source=small.split())
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda query: reranker.rank(query, ["p0", "p1", "p2"]), CAPTIONS * 4))
    assert found == [reranker.rank(query, ["p0", "p1", "p2"]) for query in CAPTIONS] * 4


def test_the_extractor_is_opened_once_for_all_threads(network: tshsr.Retriever, files: list[Path]) -> None:
    opened: list[Colours] = []

    class Counted(Camera):
        def extractor(self) -> Colours:
            opened.append(Colours())
            return opened[-1]

    reranker = Reranker(network, source=Counted())
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: reranker.scores(QUERY, files[:1]), range(8)))
    assert len(opened) == 1


def test_a_calibrated_network_gives_probabilities(small: Small) -> None:
    network = small.retriever()
    network.calibration = Calibration("platt", 4.0, 0.0, -2.0, 24, 10, "small", "dev", "")
    reranker = Reranker(network, source=small.split())
    ranked = reranker.rank(QUERY, ["p0", "p1", "p2"])
    for one in ranked:
        odds = 4 * one.score - 2 + np.log(23 / 11)  # 12 pictures are searched, 24 were when it was calibrated
        assert one.probability == pytest.approx(1 / (1 + np.exp(-odds)), abs=1e-6)
    cut = reranker.rank(QUERY, ["p0", "p1", "p2"], min_probability=ranked[1].probability)
    assert cut == ranked[:2]
    assert reranker.rank(QUERY, ["p0"], min_probability=0.9999) == []
    assert (
        Reranker(network, source=small.split(), pictures=24).rank(QUERY, ["p0"])[0].probability != ranked[0].probability
    )


def test_a_network_without_a_calibration_has_no_probabilities(reranker: Reranker) -> None:
    assert reranker.probabilities(torch.tensor([0.25])) is None
    with pytest.raises(SettingsError, match="has no calibration, so that its results have scores and no probabilities"):
        reranker.rank(QUERY, ["p0"], min_probability=0.5)


def test_the_first_stage_is_returned_and_weighs_in_the_order(reranker: Reranker) -> None:
    ids, given = ["p0", "p1", "p2", "p3"], [0.1, 0.4, 0.2, 0.3]
    alone = reranker.rank(QUERY, ids)
    ranked = reranker.rank(QUERY, ids, first_stage=given)
    assert [one.id for one in ranked] == [one.id for one in alone]
    assert [one.first_stage for one in ranked] == [given[one.index] for one in ranked]
    first = reranker.rank(QUERY, ids, first_stage=given, weight=1)
    assert [one.id for one in first] == ["p1", "p3", "p2", "p0"]
    assert {one.id: one.score for one in first} == {one.id: one.score for one in alone}


def test_two_stages_are_mixed_as_standardised_scores() -> None:
    scores, given = torch.tensor([0.2, 0.9, 0.4]), (30.0, 10.0, 50.0)
    selection = Selection(3, given, weight=0.25)
    mean, deviation = float(np.mean(scores.numpy())), float(np.std(scores.numpy()))
    expected = [
        0.75 * (score - mean) / deviation + 0.25 * (first - np.mean(given)) / np.std(given)
        for score, first in zip(scores.tolist(), given, strict=True)
    ]
    assert selection.relevance(scores).tolist() == pytest.approx(expected, abs=1e-6)
    assert [one.index for one in selection.best(scores)] == list(np.argsort(expected)[::-1])
    assert standardised(torch.full((3,), 0.5)).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k is 0; expected at least 1 result"),
        ({"min_probability": 30}, r"the minimum probability is 30; expected a number in 0\.\.1"),
        ({"min_probability": float("nan")}, r"the minimum probability is nan; expected a number in 0\.\.1"),
        ({"weight": 1.5}, r"weight is 1\.5; expected a number from 0 \(the network alone\) to 1"),
        ({"weight": 0.5}, r"weight is 0\.5, and there are no scores of a first stage; give first_stage"),
    ],
)
def test_options_that_cannot_be_used_are_refused(reranker: Reranker, options: dict[str, float], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        reranker.rank(QUERY, ["p0"], **options)


def test_inputs_that_cannot_be_used_are_refused(reranker: Reranker) -> None:
    with pytest.raises(DataError, match=r"has no picture 'p77'; did you mean 'p7'\?"):
        reranker.rank(QUERY, ["p1", "p77"])
    with pytest.raises(InputError, match="the query has no word"):
        reranker.rank("...", ["p1"])
    with pytest.raises(InputError, match="there are no candidates; give at least one picture"):
        reranker.rank(QUERY, [])
    with pytest.raises(InputError, match="there are no candidates; give at least one picture"):
        reranker.rank(QUERY, np.zeros((0, 3, 6), np.float32))
    with pytest.raises(InputError, match="there are no ids of pictures; give at least one"):
        reranker.source.encoded_pictures([])
    two, three = (PictureRegions(np.ones((n, 6), np.float32), np.zeros((5 - n, 4), np.float32)) for n in (2, 3))
    with pytest.raises(InputError, match="a picture has 3 boxes for 2 regions; expected one each, or none"):
        reranker.rank(QUERY, [two, three])
    with pytest.raises(InputError, match="candidates are a str; expected a list of pictures"):
        reranker.rank(QUERY, "p1")
    with pytest.raises(InputError, match="a candidate is a int; expected an id, a file, a PIL picture"):
        reranker.rank(QUERY, [1])
    with pytest.raises(InputError, match="first_stage has 1 scores for 2 candidates; expected one finite number each"):
        reranker.rank(QUERY, ["p1", "p2"], first_stage=[1.0])
    with pytest.raises(InputError, match="expected one finite number each"):
        reranker.rank(QUERY, ["p1"], first_stage=[float("nan")])
    with pytest.raises(InputError, match=r"the features of a picture have shape \(6,\); expected regions x features"):
        reranker.rank(QUERY, [np.zeros(6, np.float32)])


def test_the_number_of_pictures_is_that_of_the_index_when_it_is_used(small: Small, tmp_path: Path) -> None:
    index = built(small, tmp_path / "index", "test")
    reranker = Reranker(index.retriever, source=index)
    index.delete(["p8"])
    assert (reranker.pictures, Reranker(index.retriever, source=index, pictures=7).pictures) == (3, 7)


def test_pictures_are_ranked_with_those_of_an_index_with_pooled_regions(
    network: tshsr.Retriever, small: Small, tmp_path: Path
) -> None:
    smaller = Smaller(pooling=RegionPooling(torch.randn(2, 8)))
    index = Index.build(tmp_path / "index", network, small.split("test"), captions=False, smaller=smaller)
    reranker, picture = Reranker(network, source=index), np.random.default_rng(0).random((3, 6), np.float32)
    alone = [float(reranker.scores(QUERY, [one])[0]) for one in ("p8", picture)]
    assert reranker.scores(QUERY, ["p8", picture]).tolist() == pytest.approx(alone, abs=1e-6)
    assert reranker.scores(QUERY, [picture, "p8"]).tolist() == pytest.approx(alone[::-1], abs=1e-6)


def test_a_store_names_the_nearest_id(network: tshsr.Retriever, small: Small) -> None:
    source = SplitSource(small.split(), network)
    with pytest.raises(DataError, match=r"has no picture 'p12'; did you mean 'p\d+'\?"):
        source.encoded_pictures(["p12"])


def test_an_index_of_another_network_is_refused(small: Small, index_folder: Path) -> None:
    other = small.retriever()
    with torch.no_grad():
        next(other.matcher.parameters()).add_(1)
    with pytest.raises(CheckpointError, match="was made with other weights"):
        Reranker(other, source=index_folder)
    with pytest.raises(CheckpointError, match="was made with other weights"):
        Reranker(other, source=Index.open(index_folder))
