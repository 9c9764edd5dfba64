"""The image vectors of joint encoders: extracted, stored and read beside the regions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.extractors import Joint, Means, everything
from tests.support.picture_files import drawn
from tests.support.tiny_networks import save, transformers
from tshsr.data.check import check_data, inspect
from tshsr.data.layouts import select_images
from tshsr.features.catalog import open_extractor
from tshsr.features.extraction import extract_folder
from tshsr.features.extractor import PictureRegions
from tshsr.features.resume import FILES, FinishedPicture, WorkFolder
from tshsr.features.shards import ExtractionOptions

PICTURES = [drawn(0), drawn(1, (90, 150))]
JOINT = {
    "clip": ("CLIPModel", 16),
    "metaclip2": ("MetaClip2Model", 16),
    "siglip": ("SiglipModel", 32),
    "siglip2": ("Siglip2Model", 32),
}


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("joint")
    for kind in (*JOINT, "dinov2", "rt-detr"):
        save(kind, folder / kind)
    return folder


@pytest.mark.parametrize("kind", JOINT)
def test_the_vector_is_that_of_get_image_features(networks: Path, kind: str) -> None:
    """For the input that the extractor feeds: the whole picture, stretched."""
    extractor: Any = open_extractor("grid", weights=networks / kind)
    name, width = JOINT[kind]
    network = getattr(transformers, name).from_pretrained(networks / kind).eval()
    assert extractor.joint_dim == width
    prepared = [extractor.prepare(picture) for picture in PICTURES]
    for given, found in zip(prepared, extractor.compute(prepared), strict=True):
        inputs = {key: torch.from_numpy(values[None]) for key, values in given.items()}
        with torch.inference_mode():
            own = network.get_image_features(**inputs).pooler_output[0].numpy()
        assert found.pooled.dtype == np.float32
        np.testing.assert_allclose(found.pooled, own, rtol=1e-6, atol=1e-6)  # a batch of two rounds differently


def test_other_networks_have_none(networks: Path) -> None:
    for family, kind in (("grid", "dinov2"), ("detector", "rt-detr")):
        extractor = open_extractor(family, weights=networks / kind)
        assert extractor.joint_dim == 0
        assert extractor.extract(PICTURES[:1])[0].pooled is None


def test_a_vision_tower_alone_has_none(networks: Path, tmp_path: Path) -> None:
    network = transformers.CLIPModel.from_pretrained(networks / "clip")
    transformers.CLIPVisionModel(network.config.vision_config).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text((networks / "clip/preprocessor_config.json").read_text())
    assert open_extractor("grid", weights=tmp_path).joint_dim == 0


def test_a_detector_takes_the_vector_of_the_network_behind_its_features(networks: Path) -> None:
    extractor = open_extractor("detector", weights=networks / "rt-detr", features_from=str(networks / "clip"))
    (found,), (own,) = (
        one.extract(PICTURES[:1]) for one in (extractor, open_extractor("grid", weights=networks / "clip"))
    )
    assert extractor.joint_dim == 16
    np.testing.assert_allclose(found.pooled, own.pooled, atol=1e-6)


def check_vectors(out: Path) -> None:
    """Each picture's vector is its own."""
    split = everything(out)
    batch = split.regions.read(range(len(split.regions)))
    assert batch.pooled is not None
    np.testing.assert_array_equal(batch.pooled[:, :2], batch.regions[:, 0, :2])
    np.testing.assert_array_equal(batch.pooled[:, 2], batch.regions[:, 0, 3])


def test_a_store_keeps_the_vectors(pictures: Path, out: Path) -> None:
    extract_folder(pictures, out, Joint(), options=ExtractionOptions(batch=4))
    check_vectors(out)
    assert inspect(out).joint_dim == everything(out).regions.joint_dim == 3
    chosen = select_images(everything(out), [7, 2]).regions.read([1, 0]).pooled
    assert torch.equal(chosen, everything(out).regions.read([2, 7]).pooled)


def test_an_interrupted_job_and_an_update_keep_the_vectors(pictures: Path, out: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        extract_folder(pictures, out, Joint(fails_after=5), options=ExtractionOptions(batch=2))
    again = Joint()
    assert extract_folder(pictures, out, again, options=ExtractionOptions(batch=2)).reused == 4
    check_vectors(out)
    drawn(50, (300, 90)).save(pictures / "new.jpg")
    assert extract_folder(pictures, out, again).reused == 10
    check_vectors(out)


def test_vectors_stay_float32_in_a_store_of_float16(pictures: Path, out: Path) -> None:
    extract_folder(pictures, out, Joint(), options=ExtractionOptions(dtype="float16"))
    assert np.load(out / "pooled.npy").dtype == np.float32
    assert np.load(out / "regions.npy").dtype == np.float16


def test_a_store_without_vectors_is_extracted_again(pictures: Path, out: Path) -> None:
    """One of an earlier version has the same name."""
    extract_folder(pictures, out, Means())
    assert extract_folder(pictures, out, Joint()).reused == 0
    check_vectors(out)
    assert (out / FILES).exists()


def test_parts_without_vectors_are_extracted_again(tmp_path: Path) -> None:
    value = np.ones((2, 4), np.float32)
    WorkFolder(tmp_path / "work").add([FinishedPicture("a", 1, 1, 5, 5, 2)], [PictureRegions(value, value)])
    assert not WorkFolder(tmp_path / "work", 3).pictures
    assert not list((tmp_path / "work").glob("part-*"))


def test_a_picture_whose_vector_is_not_finite_is_skipped(pictures: Path, out: Path) -> None:
    class Broken(Joint):
        def of(self, mean: np.ndarray, width: int) -> PictureRegions:
            regions = super().of(mean, width)
            broken = np.full(3, np.nan, np.float32) if self.seen == [10] and not self.broken else regions.pooled
            self.broken = True
            return PictureRegions(regions.features, regions.boxes, broken)

    extractor = Broken()
    extractor.broken = False
    done = extract_folder(pictures, out, extractor)
    assert [one.reason for one in done.skipped] == ["its image vector is not finite."]
    check_vectors(out)


def test_a_damaged_vector_is_found(pictures: Path, out: Path) -> None:
    extract_folder(pictures, out, Joint())
    vectors = np.load(out / "pooled.npy")
    vectors[4, 1] = np.inf
    np.save(out / "pooled.npy", vectors)
    problems, _ = check_data(str(out))
    assert [problem.partition(" ")[2] for problem in problems] == [
        "has changed since the store was written: its hash differs. Copy or write it again.",
        "image row 4: a value of the image vector is not finite. Extract this image again or leave it out.",
    ]
