from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.data_files import random_boxes, random_regions
from tests.support.small_runs import small_config, small_split
from tshsr.data.batches import ImageBatch
from tshsr.data.dataset import Split
from tshsr.data.text import Tokenizer
from tshsr.errors import CheckpointError, DataError, InputError
from tshsr.models.build import build_matcher
from tshsr.retriever import Retriever, as_batch
from tshsr.scoring.all_pairs import score_split
from tshsr.training.completion import complete

CAPTIONS = ["a red dog here", "one blue ball", "the green house again today"]


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    return small_split(tmp_path_factory.mktemp("data"), "train")


@pytest.fixture(scope="module")
def retriever(split: Split) -> Retriever:
    tokenizer = Tokenizer.build(split.captions, minimum_count=1)
    config = complete(small_config(), tokenizer, split, split)
    torch.manual_seed(3)
    return Retriever(build_matcher(config.model), tokenizer, config, "small model")


def test_every_image_is_scored_with_every_caption_as_in_an_evaluation(retriever: Retriever, split: Split) -> None:
    expected = score_split(retriever.matcher, retriever.tokenizer, split)["fused"]
    scores = retriever.score(split, split.captions)
    assert scores.shape == (10, 20)
    np.testing.assert_allclose(scores.numpy(), expected, atol=1e-6)
    assert not scores.requires_grad


def test_a_batch_an_array_and_encodings_score_alike(retriever: Retriever, split: Split) -> None:
    batch = split.regions.read([4, 1])
    expected = retriever.score(split, CAPTIONS)[[4, 1]]
    for images in (batch, batch.regions.numpy(), retriever.encode_images(split, indices=[4, 1])):
        torch.testing.assert_close(retriever.score(images, CAPTIONS), expected)
    torch.testing.assert_close(retriever.score(batch, retriever.encode_captions(CAPTIONS)), expected)


def test_long_lists_are_encoded_in_pieces_that_fit_together(
    retriever: Retriever, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    masked = ImageBatch(*(lambda batch: (batch.regions, batch.mask.clone()))(split.regions.read(range(5))))
    masked.mask[:2, 1:] = False
    whole = retriever.score(masked, CAPTIONS)
    monkeypatch.setattr("tshsr.retriever.ENCODE_BLOCK", 2)
    assert retriever.encode_captions(CAPTIONS).mask.sum(dim=1).tolist() == [4, 3, 5]
    torch.testing.assert_close(retriever.score(masked, CAPTIONS), whole)


def test_one_pair_has_all_its_scores_by_name(retriever: Retriever, split: Split) -> None:
    scores = retriever.score_pair(split.regions.read_array([2])[0], CAPTIONS[1])
    assert scores.keys() >= {"fused", "word_stream", "region_stream", "pooled", "level_0"}
    assert scores["fused"] == pytest.approx(float(retriever.score(split, CAPTIONS)[2, 1]), abs=1e-6)
    assert scores["fused"] == pytest.approx((scores["word_stream"] + scores["region_stream"]) / 2)


def test_one_string_is_one_caption(retriever: Retriever, split: Split) -> None:
    assert retriever.score(split, "a red dog").shape == (10, 1)


def test_pairs_are_traced_one_by_one(retriever: Retriever, split: Split) -> None:
    images, captions = split.regions.read([0, 1, 2]), CAPTIONS
    traces = retriever.trace(images, captions)
    assert traces.keys() == {"word_stream", "region_stream"}
    scores = retriever.score_pair(retriever.encode_images(split, indices=[1]), CAPTIONS[1])
    for name, trace in traces.items():
        assert float(trace.score[1]) == pytest.approx(scores[name], abs=1e-6)
    with pytest.raises(InputError, match="expected one caption for each image; got 3 images, 2 captions"):
        retriever.trace(images, captions[:2])


def test_a_saved_retriever_loads_equal(retriever: Retriever, split: Split, tmp_path: Path) -> None:
    retriever.save_pretrained(tmp_path / "model")
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert names == {"config.json", "tokenizer.json", "model.safetensors", "README.md"}
    assert "- Text: a vocabulary of " in (tmp_path / "model" / "README.md").read_text()
    again = Retriever.from_pretrained(tmp_path / "model")
    assert (again.name, again.config) == ("model", retriever.config)
    assert torch.equal(again.score(split, CAPTIONS), retriever.score(split, CAPTIONS))
    assert not again.matcher.training


def test_saving_again_replaces_the_model(retriever: Retriever, tmp_path: Path) -> None:
    retriever.save_pretrained(tmp_path)
    other = Retriever(build_matcher(retriever.config.model), retriever.tokenizer, retriever.config, "other")
    other.save_pretrained(tmp_path)
    assert "# other" in (tmp_path / "README.md").read_text().splitlines(), "its card, too"
    saved = Retriever.from_pretrained(str(tmp_path)).matcher.state_dict()
    assert all(torch.equal(weight, saved[name]) for name, weight in other.matcher.state_dict().items())


def test_saving_again_keeps_other_files_and_the_former_model_until_all_is_written(
    retriever: Retriever, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    retriever.save_pretrained(folder)
    (folder / "notes").mkdir()
    (folder / "notes" / "mine.txt").write_text("mine")
    links = {folder / "gone": "nowhere", folder / "notes" / "gone": "nowhere", folder / "other": "notes"}
    for link, target in links.items():
        link.symlink_to(target)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    other = Retriever(build_matcher(retriever.config.model), retriever.tokenizer, retriever.config, "other")

    def fail(_: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(type(other.tokenizer), "save_into", lambda _, folder: fail(folder))
        with pytest.raises(DataError, match=r"^Cannot write .*: No space left on device"):
            other.save_pretrained(folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    other.save_pretrained(folder)
    assert (folder / "notes" / "mine.txt").read_text() == "mine"
    assert {link: str(link.readlink()) for link in links} == links
    folder.rename(tmp_path / "model.former")  # killed between the two renames of a replacement
    saved = Retriever.from_pretrained(folder).matcher.state_dict()
    assert all(torch.equal(weight, saved[name]) for name, weight in other.matcher.state_dict().items())


def test_a_run_is_never_overwritten_by_a_saved_model(retriever: Retriever, tmp_path: Path) -> None:
    (tmp_path / "last").mkdir()
    (tmp_path / "last" / "state.json").write_text("{}")
    (tmp_path / "config.json").write_text("settings")
    for folder in (tmp_path, tmp_path / "last"):
        with pytest.raises(CheckpointError, match=r"is a run of `tshsr train`, or a part of one; save the model to"):
            retriever.save_pretrained(folder)
    assert (tmp_path / "config.json").read_text() == "settings"
    assert [path.name for path in (tmp_path / "last").iterdir()] == ["state.json"]


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere-at-all", "nowhere", "runs\\mine"])
def test_a_path_that_does_not_exist_is_one_sentence(name: str) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere|mine") as caught:
        Retriever.from_pretrained(name)
    assert str(caught.value).endswith("does not exist; expected a run's folder, or owner/name on the hub.")


@pytest.mark.parametrize("name", ["owner/no-such-model", "owner/bad name!"])
def test_a_hub_that_does_not_have_the_model_is_one_sentence(name: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=rf"{name} is no folder here, and the Hugging Face hub returned no"):
        Retriever.from_pretrained(name, local_files_only=True, cache_dir=tmp_path)


def test_a_model_of_the_hub_is_loaded_under_its_name(
    retriever: Retriever, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    retriever.save_pretrained(tmp_path / "cache")
    asked: list[object] = []

    def download(model_id: str, **options: object) -> str:
        asked.append((model_id, options["revision"], options["allow_patterns"]))
        return str(tmp_path / "cache")

    monkeypatch.setattr("tshsr.retriever.snapshot_download", download)
    monkeypatch.setattr("tshsr.retriever.is_reachable", lambda _: True)
    assert Retriever.from_pretrained("owner/model", revision="v1").name == "owner/model"
    files = ["config.json", "tokenizer.json", "model.safetensors", "calibration.json", "text/*"]
    assert asked == [("owner/model", "v1", files)]


def test_features_of_another_extractor_are_refused(retriever: Retriever, split: Split) -> None:
    message = "small model was trained on features of 'small', these are of 'butd'; extract the"
    with pytest.raises(DataError, match=message):
        retriever.check_extractor("butd")
    with pytest.raises(DataError, match=message):
        retriever.score(replace(split, extractor="butd"), CAPTIONS)
    retriever.check_extractor("small")


def test_what_cannot_be_encoded_is_refused(retriever: Retriever, split: Split) -> None:
    with pytest.raises(InputError, match="region features are 4 wide; this network expects 6"):
        retriever.encode_images(random_regions(2))
    with pytest.raises(InputError, match="there are no captions to encode"):
        retriever.encode_captions([])
    with pytest.raises(InputError, match=r"caption 1 has no word: '\?'"):
        retriever.encode_captions(["a dog", "?"])
    with pytest.raises(InputError, match=r"caption 0 is 5 \(int\); expected text"):
        retriever.encode_captions([5])
    with pytest.raises(InputError, match="indices choose images of a split"):
        retriever.encode_images(split.regions.read([0]), indices=[0])
    with pytest.raises(InputError, match="expected one image and one caption; got 10 and 1"):
        retriever.score_pair(split, "a dog")
    with pytest.raises(InputError, match=r"got .*; expected a list of image numbers from 0 to 9"):
        retriever.encode_images(split, indices=[])
    with pytest.raises(InputError, match=r"indices are of type bool; expected row numbers, such as np\.flatnonzero"):
        retriever.encode_images(split, indices=np.arange(10) == 5)


def test_an_array_becomes_a_batch_with_its_boxes() -> None:
    features, boxes = random_regions(2, dtype="float16"), random_boxes(2)
    batch = as_batch(features, boxes)
    assert batch.regions.dtype == torch.float32
    np.testing.assert_array_equal(batch.regions.numpy(), features.astype(np.float32))
    assert batch.boxes is not None
    assert torch.equal(batch.boxes, torch.from_numpy(boxes))
    assert bool(batch.mask.all())
    assert as_batch(features[0], boxes[0]).regions.shape == (1, 3, 4)
    assert as_batch(features[0], boxes[0], features[0, 0]).pooled.shape == (1, 4)
    assert torch.equal(as_batch(features, pooled=features[:, 0]).pooled, batch.regions[:, 0])
    with pytest.raises(InputError, match=r"boxes have shape \(1, 3, 4\); expected \(2, 3, 4\)"):
        as_batch(features, boxes[:1])
    with pytest.raises(
        InputError, match=r"boxes\[1, 2\] \(image, region\) is \[0.1, 0.1, 30.0, 1.0\]; expected x1 <= x2"
    ):
        as_batch(features, pixels(boxes, [0.1, 0.1, 30.0, 1.0]))
    with pytest.raises(InputError, match="expected x1 <= x2"):
        as_batch(features, pixels(boxes, [0.1, 0.1, np.nan, 1.0]))
    assert torch.equal(as_batch(features.tolist()).regions, batch.regions)


def pixels(boxes: np.ndarray, wrong: list[float]) -> np.ndarray:
    """The same boxes but for one."""
    changed = boxes.copy()
    changed[1, 2] = wrong
    return changed
