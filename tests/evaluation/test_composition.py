"""Accuracy on composition: formulas against a plain loop, pictures from files and stores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.composition import write_pictures
from tests.support.indexed import Small
from tests.support.small_runs import small_split
from tshsr.data.composition import CompositionCase, PictureRef, foil_cases
from tshsr.data.layouts import open_split
from tshsr.data.truth import read_truth
from tshsr.errors import DataError
from tshsr.evaluation.composition import (
    MAXSIM,
    PictureFiles,
    StoredPictures,
    accuracy,
    case_scores,
    count,
    difference,
    evaluate_composition,
    padded_batch,
)
from tshsr.explain.binding import foils_beaten
from tshsr.features.extractor import PictureRegions
from tshsr.features.scenes import ScenesExtractor
from tshsr.retriever import Retriever
from tshsr.scoring.maxsim import maxsim

COLOURS = ("a red dog", "a blue dog")


def case(
    *pictures: str, kind: str = "swap", captions: tuple[str, str] = ("a red dog", "a blue dog")
) -> CompositionCase:
    """A case of the small store."""
    return CompositionCase(kind, kind, tuple(PictureRef(name) for name in pictures), captions)


def test_the_accuracies_of_two_pictures_are_those_of_a_plain_loop() -> None:
    scores = np.random.default_rng(0).integers(0, 4, (500, 2, 2)).astype(np.float32)  # with ties
    text = image = group = 0
    for (a, b), (c, d) in scores.tolist():  # rows: pictures
        by_text, by_image = a > b and d > c, a > c and d > b
        text, image, group = text + by_text, image + by_image, group + (by_text and by_image)
    found = accuracy(scores)
    assert (found.cases, found.text, found.image, found.group) == (500, text / 500, image / 500, group / 500)


def test_a_tie_counts_against_the_model() -> None:
    found = accuracy(np.array([[[1.0, 1.0]], [[1.0, 0.5]], [[0.5, 1.0]]]))
    assert found.text == pytest.approx(1 / 3)
    assert found.image is found.group is None


def test_scores_are_those_of_the_network_and_of_its_tokens(small: Small) -> None:
    retriever, split = small.retriever(), small.split()
    cases = [case("p1", "p4"), case("p4", "p2", captions=("one white boat", "one green tree here again"))]
    found = case_scores(retriever, cases, StoredPictures.of(split), None)
    for number, each in enumerate(cases):
        rows = [split.image_ids.index(ref.name) for ref in each.pictures]
        images, captions = retriever.encode_images(split, indices=rows), retriever.encode_captions(each.captions)
        assert found["fused"][number].numpy() == pytest.approx(retriever.score(images, captions).numpy(), abs=1e-6)
        assert found["pooled"][number].numpy() == pytest.approx((images.pooled @ captions.pooled.T).numpy(), abs=1e-6)
        late = maxsim(images.unsqueeze(1), captions.unsqueeze(0))
        assert found[MAXSIM][number].numpy() == pytest.approx(late.numpy(), abs=1e-6)


def test_figures_are_counted_by_kind_and_over_all(small: Small) -> None:
    cases = [case("p0"), case("p0", kind="add"), case("p1"), case("p2")]
    scores = {
        "pooled": np.array([[[0, 1]], [[1, 0]], [[1, 0]], [[1, 0]]], np.float32),
        "fused": np.array([[[1, 0]], [[1, 0]], [[1, 0]], [[0, 1]]], np.float32),
    }
    found = count(cases, scores)
    assert list(found.kinds) == ["swap", "add"]
    assert found.kinds["swap"]["fused"].text == pytest.approx(2 / 3)
    assert found.overall["pooled"].text == found.overall["fused"].text == 0.75
    assert found.macro["fused"] == pytest.approx((2 / 3 + 1) / 2)
    assert list(found.over) == ["pooled"]
    assert found.over["pooled"].mean == 0
    assert evaluate_composition(small.retriever(), cases, StoredPictures.of(small.split())).overall["fused"].cases == 4


def test_the_interval_counts_the_cases_of_a_picture_as_dependent() -> None:
    a, b = np.tile([True, False, True, True], 50), np.tile([False, False, True, False], 50)
    alone = difference(a, b, np.arange(200))
    together = difference(a, b, np.repeat(np.arange(50), 4))
    spread = a.astype(float) - b
    assert alone.mean == together.mean == 0.5
    assert alone.high - alone.low == pytest.approx(2 * 1.96 * spread.std() / 200**0.5)
    assert together.high - together.low < alone.high - alone.low, "here the cases of each picture cancel"
    same = difference(a, b, np.tile(np.arange(4), 50))
    assert same.high - same.low > alone.high - alone.low


def test_false_captions_of_scenes_are_those_that_binding_counts(scenes: Path, run: Path) -> None:
    retriever, split = Retriever.from_pretrained(run), open_split(scenes, "test")
    truth = read_truth(scenes, "test")
    assert truth is not None
    found = evaluate_composition(retriever, foil_cases(split, truth), StoredPictures.of(split))
    won = foils_beaten(retriever, split, truth)
    assert found.overall["fused"].text == pytest.approx(won["fused"].mean(), abs=0.02)
    assert found.overall["pooled"].text == pytest.approx(won["pooled"].mean(), abs=0.02)
    assert set(found.kinds) <= {"attribute", "relation"}


def test_regions_are_computed_from_files_and_boxes(tmp_path: Path) -> None:
    write_pictures(tmp_path / "pictures")
    source = PictureFiles(tmp_path / "pictures", ScenesExtractor())
    batch = source.read([PictureRef("a"), PictureRef("folder/b.png"), PictureRef("a.png", (1, 1, 20, 5))])
    assert len(batch) == 3
    with pytest.raises(DataError, match=r"has no picture c\.png; name its folder with --pictures DIR"):
        source.read([PictureRef("c.png")])
    with pytest.raises(DataError, match=r"a\.png is 8 x 6; the box of its case is outside of it"):
        source.read([PictureRef("a.png", (9, 1, 20, 5))])


def test_pictures_with_different_numbers_of_regions_are_padded() -> None:
    regions = [PictureRegions(np.ones((count, 3)), np.ones((count, 4)), np.ones(2)) for count in (2, 4)]
    batch = padded_batch(regions)
    assert batch.mask.tolist() == [[True, True, False, False], [True] * 4]
    assert batch.regions[0, 2:].abs().sum() == 0
    assert batch.pooled is not None
    assert padded_batch([regions[0], replace(regions[1], pooled=None)]).pooled is None


def test_a_store_has_whole_pictures_by_name(small: Small) -> None:
    source = StoredPictures.of(small.split())
    assert len(source.read([PictureRef("p3.png"), PictureRef("p3")])) == 2
    with pytest.raises(DataError, match="has no picture cat; add it with tshsr features"):
        source.read([PictureRef("cat")])
    with pytest.raises(DataError, match="shows a part of the picture, and a store has regions of whole pictures"):
        source.read([PictureRef("p3", (0, 0, 1, 1))])


def test_a_file_name_that_two_stored_images_have_is_refused(tmp_path: Path) -> None:
    split = small_split(tmp_path, "dev", 4)
    source = StoredPictures.of(replace(split, image_ids=("train/1.jpg", "val/1.jpg", "2.jpg", "2.png")))
    for name, images in (("1.jpg", r"train/1\.jpg and val/1\.jpg"), ("2.gif", r"2\.jpg and 2\.png")):
        with pytest.raises(DataError, match=rf"names both {images} of small; give the image id of one"):
            source.read([PictureRef(name)])
    found = source.read([PictureRef("val/1.jpg"), PictureRef("2.png")])
    assert torch.equal(found.regions, split.regions.read([1, 3]).regions)


def test_cases_with_one_and_two_pictures_are_not_mixed(small: Small) -> None:
    with pytest.raises(DataError, match="one picture in part and two in part; evaluate each benchmark by itself"):
        evaluate_composition(small.retriever(), [case("p0"), case("p0", "p1")], StoredPictures.of(small.split()))
