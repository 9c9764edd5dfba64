"""Training from pixels."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.picture_files import png_of_size
from tests.support.pixel_runs import UNAUGMENTED, both_splits, photographs, picture_data, pixel_config
from tests.support.small_runs import StopError, log, run, small_config, stop_at, weights, with_loss, with_optimiser
from tests.support.tiny_networks import save
from tshsr.config.run import RunConfig, read_config, write_config
from tshsr.data.dataset import Split
from tshsr.errors import CheckpointError, DataError, SettingsError
from tshsr.features.backbone import GridExtractor
from tshsr.features.extractor import PictureRegions
from tshsr.features.pixels import VisionExtractor
from tshsr.index.photographs import update_photographs
from tshsr.models.build import build_matcher
from tshsr.pretrained.vision import open_vision
from tshsr.retriever import Retriever
from tshsr.training.checkpoints import load_tensors
from tshsr.training.checks import check_training
from tshsr.training.pixels import PictureBatches, PixelLoader, next_batch
from tshsr.training.trainer import make_optimiser, parameter_groups

PATCHES = "vision.network.embeddings.patch_embedding.weight"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save("clip", tmp_path_factory.mktemp("networks") / "clip")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_data(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def data(pictures: Path) -> tuple[Split, Split]:
    return both_splits(pictures)


@pytest.fixture(scope="module")
def whole(clip: Path, data: tuple[Split, Split], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps without an interruption, decoded in a thread."""
    out = tmp_path_factory.mktemp("whole") / "run"
    run(pixel_config(clip), data, out)
    return out


@pytest.fixture(scope="module")
def checkpointed(clip: Path, data: tuple[Split, Split], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with gradient checkpointing."""
    out = tmp_path_factory.mktemp("checkpointed") / "run"
    run(pixel_config(clip, vision={"gradient_checkpointing": True}), data, out)
    return out


def test_training_changes_the_patch_embedding(whole: Path, clip: Path) -> None:
    trained, before = load_tensors(whole / "last" / "model.safetensors"), load_tensors(clip / "model.safetensors")
    assert not torch.equal(trained[PATCHES], before["vision_model.embeddings.patch_embedding.weight"])


@pytest.mark.parametrize(("step", "workers"), [(1, 0), pytest.param(3, 2, marks=pytest.mark.slow)])
def test_a_resumed_run_ends_with_the_same_weights_by_any_number_of_workers(
    clip: Path, data: tuple[Split, Split], whole: Path, tmp_path: Path, step: int, workers: int
) -> None:
    with pytest.raises(StopError):
        run(pixel_config(clip), data, tmp_path / "run", listen=stop_at(step))
    run(pixel_config(clip, workers=workers), data, tmp_path / "run", resume=True)
    for which in ("last", "best"):
        assert weights(tmp_path / "run", which) == weights(whole, which)
    same = [[{**line, "seconds": 0} for line in log(out)] for out in (whole, tmp_path / "run")]
    assert same[0] == same[1]


def test_a_run_resumes_and_loads_without_the_original_weights(
    data: tuple[Split, Split], whole: Path, tmp_path: Path
) -> None:
    own, out = save("clip", tmp_path / "clip"), tmp_path / "run"
    with pytest.raises(StopError):
        run(pixel_config(own), data, out, listen=stop_at(2))
    (own / "model.safetensors").unlink()
    run(pixel_config(own), data, out, resume=True)
    assert weights(out) == weights(whole)
    retriever = Retriever.from_pretrained(out)
    assert retriever.features_of.startswith("grid-clip-2x2-")
    assert retriever.score(data[1], ["a disc"]).shape == (4, 1)


def test_wrong_pairs_are_found_by_a_network_that_stays_in_evaluation_mode(
    clip: Path, data: tuple[Split, Split], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that reads ahead restores the mode it found: in training mode some passes would have dropout."""
    compute, modes = VisionExtractor.compute, []

    def recorded(self: VisionExtractor, prepared: Sequence[np.ndarray]) -> list[PictureRegions]:
        modes.append(self.vision.training)
        return compute(self, prepared)

    monkeypatch.setattr(VisionExtractor, "compute", recorded)
    run(with_loss(pixel_config(clip), robust="mixture", warmup_epochs=1.0), data, tmp_path / "run")
    assert len(modes) == 3, "dev twice, and the training pictures before the second epoch"
    assert not any(modes)


def test_only_the_tuned_blocks_are_trained(clip: Path, data: tuple[Split, Split], tmp_path: Path) -> None:
    run(pixel_config(clip, vision={"tuned_blocks": 1}, epochs=1), data, tmp_path / "run")
    trained, before = load_tensors(tmp_path / "run/last/model.safetensors"), load_tensors(clip / "model.safetensors")
    changed = {
        name
        for name in before
        if name.startswith("vision_model.") and not torch.equal(trained[f"vision.network.{name[13:]}"], before[name])
    }
    assert changed
    assert {name for name in changed if "layers.0" in name or "embeddings" in name or "pre_layrnorm" in name} == set()


def test_bfloat16_and_gradient_checkpointing_train(
    clip: Path, data: tuple[Split, Split], checkpointed: Path, tmp_path: Path
) -> None:
    config = pixel_config(clip, precision="bf16", vision={"gradient_checkpointing": True})
    run(config, data, tmp_path / "bf16")
    losses = [[line["loss"] for line in log(out) if "loss" in line] for out in (tmp_path / "bf16", checkpointed)]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    assert losses[0] != losses[1]


def test_gradient_checkpointing_changes_no_weight(whole: Path, checkpointed: Path) -> None:
    assert weights(checkpointed) == weights(whole)


def test_evaluation_is_of_unaugmented_pictures(whole: Path, data: tuple[Split, Split], clip: Path) -> None:
    """Without training the features are those of the extractor `grid`; those of the run are its own."""
    retriever = Retriever.from_pretrained(whole)
    split = retriever.readable(data[1])
    assert split.extractor == retriever.features_of != GridExtractor(str(clip), cells=2).name
    batch, again = split.regions.read([0, 1, 2, 3]), split.regions.read([2])
    assert batch.regions.shape == (4, 5, 32)
    assert batch.boxes is not None
    assert split.regions.boxes is not None
    np.testing.assert_array_equal(batch.boxes.numpy(), split.regions.boxes)
    torch.testing.assert_close(batch.regions[2:3], again.regions, atol=1e-5, rtol=0)
    assert retriever.readable(split) is split


def test_a_folder_of_photographs_is_searched_by_the_runs_own_features(
    whole: Path, pictures: Path, tmp_path: Path
) -> None:
    retriever = Retriever.from_pretrained(whole)
    done = update_photographs(pictures, tmp_path / "out", retriever, run=whole)
    assert len(done.index) == done.added > 0
    assert done.index.about.extractor == retriever.features_of


def test_a_run_refuses_what_it_cannot_read(whole: Path, data: tuple[Split, Split], tmp_path: Path) -> None:
    retriever = Retriever.from_pretrained(whole)
    with pytest.raises(DataError, match=r"small, split train has no pictures, which a network with a vision encoder"):
        retriever.readable(replace(data[0], data="small", pictures=None))
    gone = replace(data[0], files=("gone.jpg", *(data[0].files or ())[1:]))
    with pytest.raises(DataError, match=r"1 of 8 pictures are missing in .*, the first is that of image 'a/p01'"):
        retriever.readable(gone)
    with pytest.raises(DataError, match=r"reads features of its own vision network \('grid-clip-2x2-.*'\), these are"):
        retriever.check_extractor("scenes-pixels-1")
    config = small_config()
    encoder = replace(config.model.encoder, feature_dim=3, vocabulary=9)
    features = Retriever(build_matcher(replace(config.model, encoder=encoder)), retriever.tokenizer, config, "plain")
    with pytest.raises(DataError, match=r"plain was trained on features of '' and has no vision network; make feat"):
        features.extractor()


def test_pictures_without_a_vision_network_are_refused(data: tuple[Split, Split], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds pictures without region features; .* --model.encoder.vision.weights"):
        run(small_config(), data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_broken_picture_ends_training_with_its_name(clip: Path, tmp_path: Path, workers: int) -> None:
    folder = picture_data(tmp_path / "pictures")
    broken = folder / "p00.jpg"
    broken.write_bytes(broken.read_bytes()[:600])
    with pytest.raises(DataError, match=rf"^{broken} is no readable picture \(.*\); expected a file like \.png or"):
        run(pixel_config(clip, workers=workers), both_splits(folder), tmp_path / "run")


def test_a_huge_picture_is_refused_before_it_is_decoded(clip: Path, tmp_path: Path) -> None:
    folder = picture_data(tmp_path / "pictures")
    (folder / "p00.jpg").write_bytes(png_of_size(12_500, 12_500))
    with pytest.raises(DataError, match=r"p00\.jpg has 12500 x 12500 pixels; expected at most 150,000,000 in all"):
        run(pixel_config(clip), both_splits(folder), tmp_path / "run")


def batches(clip: Path, split: Split, workers: int, epoch: int = 1) -> list[np.ndarray]:
    """Pixels of three batches of an epoch."""
    vision = open_vision(pixel_config(clip).model.encoder.vision)[1]
    augmentation = pixel_config(clip).training.augmentation
    loader = PixelLoader(PictureBatches.of(split, vision.design.preprocessing, augmentation, 7), workers)
    loader.requests.requests = [(epoch, np.array(rows)) for rows in ([0, 3], [5], [1, 3, 7])]
    assert loader.loader is not None
    stream = iter(loader.loader)
    found = [next_batch(stream).pixels.numpy() for _ in range(3)]
    loader.close()
    return found


@pytest.mark.slow
def test_pixels_do_not_depend_on_the_number_of_workers(clip: Path, data: tuple[Split, Split]) -> None:
    for one, other in zip(batches(clip, data[0], 0), batches(clip, data[0], 2), strict=True):
        np.testing.assert_array_equal(one, other)


def test_pixels_depend_on_epoch_and_picture_alone(clip: Path, data: tuple[Split, Split]) -> None:
    found = batches(clip, data[0], workers=0)
    np.testing.assert_array_equal(found[0][1], found[2][1], "the same picture in another batch")
    assert (batches(clip, data[0], 0, epoch=2)[1] != found[1]).any()


def test_pictures_with_left_or_right_in_a_caption_are_never_mirrored(data: tuple[Split, Split], clip: Path) -> None:
    vision = open_vision(pixel_config(clip).model.encoder.vision)[1]
    always = replace(UNAUGMENTED, mirror=1.0)
    dataset = PictureBatches.of(data[0], vision.design.preprocessing, always, 0)
    assert dataset.may_mirror == (False, *[True] * 7), "the second caption of the first picture says left"
    plain = PictureBatches.of(data[0], vision.design.preprocessing, UNAUGMENTED, 0)
    for image in range(8):
        one, other = (each[0, np.array([image])] for each in (plain, dataset))
        expected = np.asarray(one)[..., ::-1] if dataset.may_mirror[image] else one
        np.testing.assert_array_equal(expected, other)


def test_groups_of_the_optimiser_have_their_own_rates(clip: Path) -> None:
    config = pixel_config(clip)
    completed, _ = open_vision(config.model.encoder.vision)
    encoder = replace(config.model.encoder, feature_dim=32, vocabulary=9, vision=completed)
    matcher = build_matcher(replace(config.model, encoder=encoder))
    groups = parameter_groups(with_optimiser(config, vision_factor=0.2, vision_decay=0.5).optimiser, matcher)
    name_of = {id(parameter): name for name, parameter in matcher.named_parameters()}
    factors = {name_of[id(each)]: group["factor"] for group in groups for each in group["params"]}
    assert factors["region_encoder.projection.weight"] == 1
    assert factors["vision.projection.weight"] == pytest.approx(0.2)
    assert factors[PATCHES] == pytest.approx(0.2 * 0.25)
    assert set(factors) == {name for name, _ in matcher.named_parameters()}
    assert sum(len(group["params"]) for group in groups) == len(factors)
    optimiser = make_optimiser(replace(config.optimiser, vision_decay=0.5), matcher)
    assert [group["factor"] for group in optimiser.param_groups] == pytest.approx([1, 0.025, 0.05, 0.1])


def test_without_a_vision_network_there_is_one_group_in_the_order_of_the_parameters() -> None:
    config = small_config()
    matcher = build_matcher(replace(config.model, encoder=replace(config.model.encoder, feature_dim=3, vocabulary=9)))
    (group,) = make_optimiser(config.optimiser, matcher).param_groups
    assert group["factor"] == 1
    assert all(one is other for one, other in zip(group["params"], matcher.parameters(), strict=True))


def test_settings_of_runs_before_training_from_pixels_load(tmp_path: Path) -> None:
    config = small_config()
    values = json.loads(json.dumps(read_back(config, tmp_path)))
    del values["model"]["encoder"]["vision"], values["training"]["augmentation"], values["training"]["workers"]
    del values["optimiser"]["vision_factor"], values["optimiser"]["vision_decay"]
    (tmp_path / "old.json").write_text(json.dumps(values))
    assert read_config(tmp_path / "old.json").model == config.model


def read_back(config: RunConfig, folder: Path) -> dict[str, dict[str, dict[str, object]]]:
    (folder / "config.json").write_text(write_config(config))
    assert read_config(folder / "config.json") == config
    values: dict[str, dict[str, dict[str, object]]] = json.loads((folder / "config.json").read_text())
    return values


def test_settings_out_of_range_are_refused(clip: Path) -> None:
    config = pixel_config(clip)
    augmentation = config.training.augmentation
    for wrong, message in (
        (pixel_config(clip, vision={"cells": 0}), "model.encoder.vision.cells is 0; expected 1 to 64."),
        (
            pixel_config(clip, vision={"tuned_blocks": -1}),
            "model.encoder.vision.tuned_blocks is -1; expected 0 or more.",
        ),
        (pixel_config(clip, workers=-1), "training.workers is -1; expected 0 or more."),
        (with_optimiser(config, vision_factor=0.0), "optimiser.vision_factor is 0.0; expected above 0."),
        (with_optimiser(config, vision_decay=1.5), "optimiser.vision_decay is 1.5; expected above 0, at most 1."),
        (
            pixel_config(clip, augmentation=replace(augmentation, crop=0.0)),
            "training.augmentation.crop is 0.0; expected above 0, at most 1.",
        ),
        (
            pixel_config(clip, augmentation=replace(augmentation, mirror=2.0)),
            "training.augmentation.mirror is 2.0; expected 0 to 1.",
        ),
        (
            pixel_config(clip, augmentation=replace(augmentation, colour=1.0)),
            "training.augmentation.colour is 1.0; expected 0 or more, below 1.",
        ),
    ):
        with pytest.raises(SettingsError) as refusal:
            check_training(wrong)
        assert str(refusal.value) == message


def test_resuming_with_other_vision_settings_is_refused(clip: Path, data: tuple[Split, Split], whole: Path) -> None:
    with pytest.raises(CheckpointError, match=r"was begun with model\.encoder\.vision\.tuned_blocks = 2, now it is 1"):
        run(pixel_config(clip, vision={"tuned_blocks": 1}, epochs=3), data, whole, resume=True)


@pytest.mark.slow
def test_thirty_two_photographs_are_overfitted(tmp_path: Path) -> None:
    weights_folder, split = save("vit", tmp_path / "vit"), photographs(tmp_path / "pictures")
    config = pixel_config(
        weights_folder, epochs=60, batch=64, evaluate_every=60, save_every_steps=0, augmentation=UNAUGMENTED
    )
    encoder = replace(config.model.encoder, dim=32, word_dim=16, dropout=0.0)
    config = replace(
        config,
        model=replace(config.model, encoder=encoder, comparison_dim=16),
        loss=replace(config.loss, warmup_epochs=30),
        optimiser=replace(config.optimiser, learning_rate=0.02, schedule="cosine", vision_factor=1.0, vision_decay=1.0),
    )
    run(config, (split, split), tmp_path / "run")
    retriever = Retriever.from_pretrained(tmp_path / "run")
    scores = retriever.score(split, split.captions).numpy()
    images = split.image_of_caption
    assert (images[scores.argmax(axis=1)] == np.arange(len(scores))).all(), "R@1 = 100, image to text"
    assert (scores.argmax(axis=0) == images).all(), "R@1 = 100, text to image"


def test_a_process_that_ends_is_one_sentence() -> None:
    def stream() -> Iterator[np.ndarray | str]:
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")
        yield ""

    with pytest.raises(
        DataError, match=r"^a process that decodes training pictures ended \(DataLoader worker .*\); find damaged pict"
    ):
        next_batch(stream())


def test_a_script_without_a_guard_does_not_run_again_in_each_worker(clip: Path, data: tuple[Split, Split]) -> None:
    seen: list[object] = []

    class Loader:
        def __iter__(self) -> Iterator[str]:
            seen.append(vars(sys.modules["__main__"])["__file__"])
            return iter(())

    vision = open_vision(pixel_config(clip).model.encoder.vision)[1]
    loader = PixelLoader(PictureBatches.of(data[0], vision.design.preprocessing, UNAUGMENTED, 7), 0)
    loader.loader = Loader()  # type: ignore[assignment]
    assert list(loader.steps(0, [], None)) == []  # type: ignore[arg-type]
    assert seen == [None]
