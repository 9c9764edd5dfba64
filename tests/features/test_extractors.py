"""Extractors over networks of `transformers`, with tiny random networks of the real classes."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.support.picture_files import drawn
from tests.support.tiny_networks import DETECTORS, GRIDS, save, transformers
from tshsr.boxes import pool_boxes
from tshsr.errors import DataError, SettingsError
from tshsr.features.catalog import open_extractor, rebuild_extractor
from tshsr.features.extractor import Extractor
from tshsr.pretrained.networks import Preprocessing, unusual_settings

PICTURES = [drawn(0), drawn(1, (90, 150)), drawn(2)]


@pytest.fixture(scope="session")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of each kind."""
    folder = tmp_path_factory.mktemp("networks")
    for kind in (*GRIDS, *DETECTORS):
        save(kind, folder / kind)
    return folder


def opened(networks: Path, kind: str, **choices: object) -> Extractor:
    return open_extractor("grid" if kind in GRIDS else "detector", weights=networks / kind, **choices)


@pytest.mark.parametrize("kind", [*GRIDS, *DETECTORS])
def test_every_kind_gives_the_whole_picture_and_regions_with_their_boxes(networks: Path, kind: str) -> None:
    extractor = opened(networks, kind)
    found = extractor.extract(PICTURES)
    for regions in found:
        count = len(regions.boxes)
        assert 1 < count <= extractor.regions
        assert regions.features.shape == (count, extractor.feature_dim)
        assert regions.features.dtype == regions.boxes.dtype == np.float32
        assert np.isfinite(regions.features).all()
        np.testing.assert_array_equal(regions.boxes[0], (0, 0, 1, 1))
        assert ((regions.boxes >= 0) & (regions.boxes <= 1)).all()
        assert (regions.boxes[:, :2] < regions.boxes[:, 2:]).all()
    assert not np.allclose(found[0].features[0], found[2].features[0], atol=1e-6), "another picture, other features"


@pytest.mark.parametrize("kind", [*GRIDS, *DETECTORS])
def test_a_pictures_regions_do_not_depend_on_its_batch(networks: Path, kind: str) -> None:
    extractor = opened(networks, kind)
    for picture, together in zip(PICTURES, extractor.extract(PICTURES), strict=True):
        (alone,) = extractor.extract([picture])
        np.testing.assert_allclose(alone.boxes, together.boxes, atol=1e-5)
        np.testing.assert_allclose(alone.features, together.features, atol=1e-4)


@pytest.mark.parametrize("kind", [*GRIDS, *DETECTORS])
def test_a_stores_extractor_is_rebuilt_from_its_manifest(networks: Path, kind: str) -> None:
    extractor = opened(networks, kind)
    again = rebuild_extractor(extractor.name, {**extractor.settings, "pictures": "/somewhere"})
    for one, other in zip(extractor.extract(PICTURES[:1]), again.extract(PICTURES[:1]), strict=True):
        np.testing.assert_array_equal(one.features, other.features)


def test_cells_pool_their_own_place(networks: Path) -> None:
    """A mark in the lower right corner changes its cell more than the one in the upper left."""
    picture, marked = Image.new("RGB", (96, 64), (200, 200, 200)), Image.new("RGB", (96, 64), (200, 200, 200))
    marked.paste((255, 0, 0), (80, 50, 96, 64))
    for kind in ("convnext", "dinov2", "dinov3", "siglip2"):
        plain, changed = opened(networks, kind, cells=2).extract([picture, marked])
        moved = np.abs(plain.features - changed.features)[1:].mean(axis=1)
        assert moved.argmax() == 3, kind
        np.testing.assert_allclose(plain.boxes[4], (0.5, 0.5, 1, 1))


def test_a_grid_of_patches_is_that_of_the_networks_own_output(networks: Path) -> None:
    import transformers

    extractor = opened(networks, "clip", cells=4)
    (found,) = extractor.extract(PICTURES[:1])
    network = transformers.CLIPModel.from_pretrained(networks / "clip").vision_model.eval()
    processor = transformers.CLIPImageProcessorPil.from_pretrained(networks / "clip")
    size = {"height": 56, "width": 56}
    pixels = processor(PICTURES[0], size=size, do_center_crop=False, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        own = network(pixels)
        patches = network.post_layernorm(own.last_hidden_state)[0, 1:].numpy()
    np.testing.assert_allclose(found.features[1:], patches, atol=2e-2)
    np.testing.assert_allclose(found.features[0], own.pooler_output[0].numpy(), atol=2e-2)


@pytest.mark.parametrize("kind", ["detr", "rt-detr", "yolos"])
def test_a_detectors_boxes_are_those_of_its_own_post_processing(networks: Path, kind: str) -> None:
    import transformers

    extractor = opened(networks, kind, overlap=1.0, regions=20)
    (found,) = extractor.extract(PICTURES[:1])
    network = transformers.AutoModelForObjectDetection.from_pretrained(networks / kind).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(networks / kind, backend="pil")
    with torch.inference_mode():
        output = network(pixel_values=processor(PICTURES[0], return_tensors="pt")["pixel_values"])
    centred = output.pred_boxes[0].numpy()
    edges = np.concatenate([centred[:, :2] - centred[:, 2:] / 2, centred[:, :2] + centred[:, 2:] / 2], axis=1).clip(
        0, 1
    )
    for box in found.boxes[1:]:
        assert np.abs(edges - box).max(axis=1).min() < 0.02


def test_boxes_of_a_padded_square_lie_on_the_picture(networks: Path) -> None:
    extractor = opened(networks, "owlv2")
    (wide,) = extractor.extract([drawn(0, (160, 80))])
    raw = extractor.detector.detect([extractor.prepare(drawn(0, (160, 80))).pixels])[0]
    for box in wide.boxes[1:]:
        own = raw.boxes * (1, 2, 1, 2)
        assert np.abs(own.clip(0, 1) - box).max(axis=1).min() < 1e-5


def test_features_can_come_from_another_network_pooled_inside_the_boxes(networks: Path) -> None:
    extractor = opened(networks, "rt-detr", features_from=str(networks / "dinov2"), regions=7)
    own = opened(networks, "rt-detr", regions=7)
    (found,), (boxes,) = extractor.extract(PICTURES[:1]), own.extract(PICTURES[:1])
    np.testing.assert_array_equal(found.boxes, boxes.boxes)
    feature_map = extractor.backbone.maps([extractor.backbone.prepare(PICTURES[0])])[0]
    np.testing.assert_allclose(found.features[1:], pool_boxes(feature_map.patches, found.boxes[1:]), atol=1e-6)
    np.testing.assert_allclose(found.features[0], feature_map.whole, atol=1e-6)
    assert extractor.name != own.name


def test_the_name_depends_on_weights_and_options_but_not_on_the_path(networks: Path, tmp_path: Path) -> None:
    name = opened(networks, "dinov2").name
    shutil.copytree(networks / "dinov2", tmp_path / "copy")
    assert open_extractor("grid", weights=tmp_path / "copy").name == name
    assert opened(networks, "dinov2", cells=3).name != name
    weights = load_file(tmp_path / "copy" / "model.safetensors")
    weights["layernorm.bias"] = weights["layernorm.bias"] + 1
    save_file(weights, tmp_path / "copy" / "model.safetensors", {"format": "pt"})
    assert open_extractor("grid", weights=tmp_path / "copy").name != name
    with pytest.raises(DataError, match="Restore the weights that it was made with"):
        rebuild_extractor(name, {"family": "grid", "weights": str(tmp_path / "copy"), "cells": 6})


@pytest.mark.parametrize(
    ("kind", "file", "changes"),
    [
        ("clip", "config.json", {"hidden_act": "gelu"}),
        ("clip", "config.json", {"num_attention_heads": 2}),
        ("siglip2", "preprocessor_config.json", {"max_num_patches": 32}),
        ("siglip2", "preprocessor_config.json", {"image_mean": [0.4, 0.5, 0.5]}),
        ("detr", "config.json", {"activation_function": "gelu"}),
    ],
)
def test_settings_that_change_features_are_part_of_the_name(
    networks: Path, tmp_path: Path, kind: str, file: str, changes: dict[str, object]
) -> None:
    shutil.copytree(networks / kind, tmp_path / kind)
    settings = json.loads((tmp_path / kind / file).read_text())
    settings.get("vision_config", settings).update(changes)
    (tmp_path / kind / file).write_text(json.dumps(settings))
    before, after = opened(networks, kind), opened(tmp_path, kind)
    assert before.name != after.name
    assert not np.array_equal(before.extract(PICTURES[:1])[0].features, after.extract(PICTURES[:1])[0].features)


def test_usual_settings_are_no_part_of_the_name() -> None:
    """Stores of earlier versions keep their extractors."""
    clip = transformers.CLIPVisionConfig
    for config, found in (
        (clip(), {}),
        (clip(hidden_size=1024, num_attention_heads=16, num_hidden_layers=24), {}),
        (transformers.SwinConfig(embed_dim=128, num_heads=[4, 8, 16, 32]), {}),
        (clip(hidden_act="gelu"), {"network": {"hidden_act": "gelu"}}),
    ):
        network = torch.nn.Module()
        network.config = config
        assert unusual_settings(network) == found


def test_a_filter_of_number_zero_is_kept() -> None:
    size = [8, 8]
    assert [
        Preprocessing.from_processor({"size": size, "do_normalize": False, **given}, "here").resample
        for given in ({"resample": 0}, {"resample": 3}, {"resample": None}, {})
    ] == [0, 3, 2, 2]


def test_a_prompt_is_part_of_the_name_of_a_detector_with_a_text_prompt(networks: Path) -> None:
    one = opened(networks, "grounding-dino", prompt="person. animal.")
    other = opened(networks, "grounding-dino", prompt="object.")
    assert one.name != other.name
    assert one.settings["prompt"] == "person. animal."
    assert "prompt" not in opened(networks, "detr").settings


@pytest.mark.parametrize("kind", ["rt-detr", "owlv2"])
def test_a_prompt_for_a_detector_without_a_text_prompt_is_refused(networks: Path, kind: str) -> None:
    with pytest.raises(SettingsError, match=r"prompt is 'dog\.', but .* is a .*, which takes no text prompt; leave"):
        opened(networks, kind, prompt="dog.")


def test_missing_weights_which_would_be_random_are_refused(networks: Path, tmp_path: Path) -> None:
    shutil.copytree(networks / "dinov2", tmp_path / "cut")
    weights = load_file(tmp_path / "cut" / "model.safetensors")
    del weights["layernorm.weight"]
    save_file(weights, tmp_path / "cut" / "model.safetensors", {"format": "pt"})
    with pytest.raises(DataError, match=r"cut lacks 1 weights of a Dinov2Model, for example layernorm\.weight"):
        open_extractor("grid", weights=tmp_path / "cut")


def test_for_a_classifier_without_a_pooler_the_mean_of_its_patches_is_the_whole(networks: Path) -> None:
    first, second = opened(networks, "vit", cells=1), opened(networks, "vit", cells=1)
    (found,) = first.extract(PICTURES[:1])
    np.testing.assert_allclose(found.features[0], found.features[1], atol=1e-5)
    assert first.name == second.name, "random weights of the missing pooler do not enter the name"


def test_a_network_of_another_kind_is_refused_at_once(networks: Path) -> None:
    with pytest.raises(DataError, match=r"expected a vision network .*object detectors go with --extractor detector"):
        open_extractor("grid", weights=networks / "detr")
    with pytest.raises(DataError, match="its network is of another kind than AutoModelForObjectDetection"):
        open_extractor("detector", weights=networks / "clip")


def test_a_folder_without_a_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot load .*Expected a folder with config\.json, model\.safetensors and"):
        open_extractor("grid", weights=tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        (
            "model.safetensors",
            b"version https://git-lfs.github.com/spec/v1\noid",
            "model.safetensors is a pointer of Git",
        ),
        ("model.safetensors", b"", r"model.safetensors is damaged or cut short \(0 bytes"),
        ("model.safetensors", b"\x08\0\0\0\0\0\0\0{}", r"model.safetensors is damaged or cut short \(10 bytes"),
        (
            "config.json",
            b'{"model_type": "dinov2", "num_attention_heads": 0}',
            r"cannot load .*one of its files is damaged \(ZeroDivisionError",
        ),
        ("config.json", b'{"model_type": "dinov2", "num_attention_heads": null}', "cannot load "),
        ("config.json", b"[]", "cannot load "),
        ("preprocessor_config.json", b"[]", "cannot load "),
    ],
)
def test_a_damaged_file_of_a_network_is_one_sentence(
    networks: Path, tmp_path: Path, file: str, content: bytes, said: str
) -> None:
    shutil.copytree(networks / "dinov2", tmp_path / "damaged")
    (tmp_path / "damaged" / file).write_bytes(content)
    with pytest.raises(DataError, match=said):
        open_extractor("grid", weights=tmp_path / "damaged")


@pytest.mark.parametrize(
    ("name", "choices", "said"),
    [
        ("gird", {}, "there is no extractor 'gird'; expected one of scenes, grid, detector, "),
        ("grid", {}, "the extractor grid needs weights: a folder of a network for transformers, or its name on the"),
        ("scenes", {"cells": 3}, "the extractor scenes has no cells; it has no options and no weights"),
        ("scenes", {"weights": "x"}, "the extractor scenes has no weights; it has no options and no weights"),
        ("clip", {"overlap": 0.5}, "the extractor clip has no overlap; it has cells"),
        ("grid", {"weights": "x", "cells": 0}, "cells is 0; expected 1 to 64"),
        ("detector", {"weights": "x", "regions": 0}, "regions is 0; expected at least 1"),
        ("detector", {"weights": "x", "overlap": 0.0}, "overlap is 0; expected more than 0 and at most 1"),
    ],
)
def test_a_wrong_choice_is_refused(name: str, choices: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        open_extractor(name, **choices)
    assert said in str(refusal.value)


def test_features_of_another_tool_have_no_extractor() -> None:
    with pytest.raises(DataError, match="features of 'precomp-2048' were made by another tool"):
        rebuild_extractor("precomp-2048", {"converted_from": "precomp"})


def test_without_transformers_one_sentence_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(
        SettingsError, match=r"needs transformers, which is not installed: pip install 'tshsr\[features\]'"
    ):
        open_extractor("grid", weights="anything")
