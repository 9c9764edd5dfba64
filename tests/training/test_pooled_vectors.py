"""Vectors of the whole picture and caption from the encoders: added to pooled items, or alone, as ranking's start."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.picture_files import write_pictures
from tests.support.small_runs import StopError, run, small_config, stop_at, weights, with_loss
from tests.support.tiny_networks import NETWORKS, transformers
from tests.support.tiny_text import CAPTIONS, save_text
from tshsr.config.models import (
    EMBEDDING_KINDS,
    DsgslConfig,
    HardAlignmentConfig,
    HremConfig,
    ImramConfig,
    ModelConfig,
    RcarConfig,
    ScanConfig,
    SgrafConfig,
    ShanConfig,
    TwoStreamSgrConfig,
    VisionConfig,
    VseConfig,
)
from tshsr.config.run import RunConfig
from tshsr.data.dataset import Split
from tshsr.data.layouts import open_split
from tshsr.errors import DataError, SettingsError
from tshsr.explain.attribution import explain_pair
from tshsr.features.catalog import open_extractor
from tshsr.features.extraction import extract_folder
from tshsr.index.collection import Index
from tshsr.pretrained import frozen_text
from tshsr.retriever import Retriever
from tshsr.scoring.all_pairs import score_split
from tshsr.scoring.depth import Depth
from tshsr.scoring.rerank import score_two_stage
from tshsr.training.checkpoints import load_tensors
from tshsr.training.checks import check_training
from tshsr.training.completion import check_joint, complete, make_tokenizer

KINDS = ("clip", "siglip", "siglip2")
PICTURES = 6
"""As many as CAPTIONS."""


@dataclass(frozen=True)
class JointData:
    """A joint encoder, a store of its features, and its own cosines of all pairs.

    Attributes:
        weights: Folder of network, tokenizer and image processor.
        split: All pictures with a caption each.
        cosines: Pictures x captions.
    """

    weights: Path
    split: Split
    cosines: np.ndarray


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], JointData]:
    return functools.cache(lambda kind: make_joint(kind, tmp_path_factory.mktemp(kind)))


def make_joint(kind: str, folder: Path) -> JointData:
    """A network whose cosines differ by more than rounding; its tokens differ from process to process."""
    for seed in range(20):
        data = try_joint(kind, folder / str(seed), seed)
        if all(np.diff(np.sort(data.cosines, axis=axis), axis=axis).min() > 1e-5 for axis in (0, 1)):
            return data
    raise RuntimeError("20 random networks in a row give ties")


def try_joint(kind: str, folder: Path, seed: int) -> JointData:
    folder.mkdir()
    save_text(kind, folder / "network", seed)
    NETWORKS[kind]()[1].save_pretrained(folder / "network")
    write_pictures(folder / "pictures", PICTURES)
    extractor: Any = open_extractor("grid", weights=folder / "network")
    extract_folder(folder / "pictures", folder / "store", extractor)
    store = open_split(folder / "store", "all")
    split = replace(store, captions=CAPTIONS, image_of_caption=np.arange(PICTURES))
    return JointData(folder / "network", split, own_cosines(folder / "network", extractor, split))


def own_cosines(weights: Path, extractor: Any, split: Split) -> np.ndarray:
    """By `get_image_features` and `get_text_features`, one picture and one caption at a time."""
    network = transformers.AutoModel.from_pretrained(weights).eval()
    rules = transformers.AutoTokenizer.from_pretrained(weights)
    fixed = network.config.model_type != "clip"
    padding = {"padding": "max_length", "max_length": network.config.text_config.max_position_embeddings}
    images, captions = [], []
    with torch.inference_mode():
        for number in range(PICTURES):
            path = split.picture(number)
            assert path is not None
            given = extractor.prepare(Image.open(path).convert("RGB"))
            inputs = {key: torch.from_numpy(values[None]) for key, values in given.items()}
            images.append(network.get_image_features(**inputs).pooler_output)
        for caption in split.captions:
            inputs = rules([caption.lower() if fixed else caption], return_tensors="pt", **(padding if fixed else {}))
            names = ("input_ids",) if fixed else ("input_ids", "attention_mask")
            captions.append(network.get_text_features(**{key: inputs[key] for key in names}).pooler_output)
    v, t = (torch.nn.functional.normalize(torch.cat(rows), dim=-1) for rows in (images, captions))
    return (v @ t.T).numpy()


METHODS: dict[str, Callable[[Any], ModelConfig]] = {
    "tshsr": lambda encoder: replace(small_config().model, encoder=encoder),
    "tshsr with a global node": lambda encoder: replace(small_config().model, encoder=encoder, global_node=True),
    "scan": lambda encoder: ScanConfig(encoder=encoder, streams="both"),
    "sgraf": lambda encoder: SgrafConfig(encoder=encoder, similarity_dim=6, steps=2),
    "saf": lambda encoder: SgrafConfig(encoder=encoder, similarity_dim=6, reasoning="saf"),
    "two-stream sgr": lambda encoder: TwoStreamSgrConfig(encoder=encoder, similarity_dim=6, steps=2, comparison_dim=5),
    "rcar": lambda encoder: RcarConfig(encoder=encoder, similarity_dim=6, streams="both"),
    "chan": lambda encoder: HardAlignmentConfig(encoder=encoder, streams="both"),
    "hrem": lambda encoder: HremConfig(encoder=encoder, heads=2),
    "dsgsl": lambda encoder: DsgslConfig(encoder=encoder, similarity_dim=6, comparison_dim=5, neighbours=2),
    "imram": lambda encoder: ImramConfig(encoder=encoder),
    "shan": lambda encoder: ShanConfig(encoder=encoder),
    "vse": lambda encoder: VseConfig(encoder=encoder),
}


def settings(weights: Path, how: str, method: str = "tshsr", **changes: Any) -> RunConfig:
    """A small run with vectors of the encoders."""
    config = small_config(epochs=2, batch=3, save_every_steps=1, dev_images=0)
    text = {"text": "pretrained", "text_weights": str(weights), "pooled_vectors": how, "dropout": 0.0, **changes}
    config = replace(config, model=METHODS[method](replace(config.model.encoder, **text)))
    return with_loss(config, warmup_epochs=1, relations=1.0 if method in ("hrem", "dsgsl") else 0.0)


def begun(data: JointData, config: RunConfig, out: Path) -> Retriever:
    """The state that a run saves before its first step."""

    def stop(event: Any) -> None:
        raise StopError

    with pytest.raises(StopError):
        run(config, (data.split, data.split), out, listen=stop)
    return Retriever.from_pretrained(out, which="last")


@pytest.fixture(scope="module")
def untrained(
    joint: Callable[[str], JointData], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], Retriever]:
    """Of a method and `pooled_vectors`, over CLIP: the state before the first step."""

    def make(method: str, how: str) -> Retriever:
        data = joint("clip")
        return begun(data, settings(data.weights, how, method), tmp_path_factory.mktemp("untrained") / "run")

    return functools.cache(make)


def same_ranking(scores: np.ndarray, cosines: np.ndarray) -> bool:
    """In both directions."""
    return all(np.array_equal(scores.argsort(axis), cosines.argsort(axis)) for axis in (0, 1))


def check_start(retriever: Retriever, data: JointData) -> None:
    scores = score_split(retriever.matcher, retriever.tokenizer, data.split)
    assert {"fused", "pooled"} <= scores.keys()
    np.testing.assert_allclose(scores["pooled"], data.cosines, atol=1e-6)
    for name, values in scores.items():
        assert same_ranking(values, data.cosines), name


@pytest.mark.parametrize("how", ["frozen", "adapter"])
@pytest.mark.parametrize("kind", KINDS)
def test_before_the_first_step_the_ranking_is_the_encoders(
    kind: str, how: str, joint: Callable[[str], JointData], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frozen_text, "KEPT_FROM", 1)
    data = joint(kind)
    for axis in (0, 1):
        assert np.diff(np.sort(data.cosines, axis=axis), axis=axis).min() > 1e-5, "no ties but for rounding"
    retriever = begun(data, settings(data.weights, how), tmp_path / "run")
    check_start(retriever, data)
    for depth in (2, PICTURES):
        found = score_two_stage(retriever.matcher, retriever.tokenizer, data.split, Depth(depth, depth)).scores["fused"]
        for axis in (0, 1):  # beyond the depth, candidates of the other side rank before pairs that are not scored
            best, own = ((-scores).argsort(axis).take(range(depth), axis) for scores in (found, data.cosines))
            assert np.array_equal(best, own)
    index = Index.build(tmp_path / "index", retriever, data.split, run=tmp_path / "run", settings={})
    for column, caption in enumerate(CAPTIONS):
        names = [result.id for result in index.search(caption, PICTURES)]
        assert names == [data.split.image_ids[row] for row in (-data.cosines[:, column]).argsort()]


@pytest.mark.parametrize("method", [name for name in METHODS if name != "tshsr"])
def test_every_method_starts_at_the_encoders_ranking(
    method: str, joint: Callable[[str], JointData], untrained: Callable[[str, str], Retriever]
) -> None:
    for how in ("adapter",) if method in EMBEDDING_KINDS else ("frozen", "adapter"):
        check_start(untrained(method, how), joint("clip"))


@pytest.mark.parametrize(
    ("how", "method"),
    # Frozen embeddings have nothing to train: test_wrong_settings_are_one_sentence.
    [
        (how, method)
        for how in ("frozen", "adapter")
        for method in METHODS
        if how != "frozen" or method not in EMBEDDING_KINDS
    ],
)
def test_training_changes_the_ranking_and_every_weight(
    how: str, method: str, joint: Callable[[str], JointData], untrained: Callable[[str, str], Retriever], tmp_path: Path
) -> None:
    data = joint("clip")
    config, before = settings(data.weights, how, method), untrained(method, how)
    config = replace(config, training=replace(config.training, evaluate_every=2, save_every_steps=0))
    run(config, (data.split, data.split), tmp_path / "run")
    after = Retriever.from_pretrained(tmp_path / "run", which="last")
    old, new = (dict(one.matcher.named_parameters()) for one in (before, after))
    still = {name for name in old if torch.equal(old[name], new[name])}
    expected = {name for name in old if "perceptron" in name or "region_encoder" in name or "word_encoder" in name}
    assert still <= (expected if method in EMBEDDING_KINDS else set()), still
    scores = score_split(after.matcher, after.tokenizer, data.split)
    assert np.abs(scores["fused"] - score_split(before.matcher, before.tokenizer, data.split)["fused"]).max() > 1e-4
    assert np.allclose(scores["pooled"], data.cosines, atol=1e-6) == (how == "frozen")


@pytest.mark.parametrize("how", ["added", "frozen", "adapter"])
def test_a_run_continues_bit_for_bit(how: str, joint: Callable[[str], JointData], tmp_path: Path) -> None:
    data = joint("siglip2")
    config = settings(data.weights, how)
    both = data.split, data.split
    run(config, both, tmp_path / "whole")
    with pytest.raises(StopError):
        run(config, both, tmp_path / "run", listen=stop_at(3))
    run(config, both, tmp_path / "run", resume=True)
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")


def test_a_sentence_vector_of_another_space_is_added(joint: Callable[[str], JointData], tmp_path: Path) -> None:
    """Pictures by CLIP, captions by BERT, frozen or tuned; searched and explained through an index."""
    data = joint("clip")
    bert = save_text("bert", tmp_path / "bert")
    for tuned in (0, 1):
        config = settings(bert, "added", text_tuned_layers=tuned)
        out = tmp_path / f"run{tuned}"
        run(config, (data.split, data.split), out)
        retriever = Retriever.from_pretrained(out)
        encoder = retriever.config.model.encoder
        assert (encoder.image_pooled_width, encoder.text_pooled_width) == (16, 32)
        index = Index.build(tmp_path / f"index{tuned}", retriever, data.split, run=out, settings={})
        name = index.search(CAPTIONS[1], 1)[0].id
        found = index.explain(CAPTIONS[1], name)
        expected = explain_pair(retriever, data.split.regions.read([data.split.image_ids.index(name)]), CAPTIONS[1])
        assert found.word_relevance == pytest.approx(expected.word_relevance, abs=0.01)
        for stream in expected.streams.values():
            assert abs(stream.whole) > 1e-3
            logit = sum(map(sum, stream.relevance)) + stream.whole + stream.bias
            assert stream.score == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-5)


def test_old_settings_are_items_and_have_no_widths(joint: Callable[[str], JointData]) -> None:
    data = joint("clip")
    config = settings(data.weights, "items")
    found = complete(config, make_tokenizer(config, data.split), data.split, data.split).model.encoder
    assert (found.text_pooled_width, found.image_pooled_width) == (0, 0)


def test_wrong_settings_are_one_sentence(joint: Callable[[str], JointData], tmp_path: Path) -> None:
    weights = joint("clip").weights
    untrained = with_loss(settings(weights, "frozen"), fused=0.0, streams=0.0, levels=0.0, contrastive=1.0)
    for wrong, message in (
        (
            settings(Path(), "added", text="gru", text_weights=""),
            r"is added, .* model\.encoder\.text is gru; set it to",
        ),
        (settings(Path(), "frozen", text="gru", text_weights=""), r"is frozen, .* or pooled_vectors to items"),
        (settings(weights, "frozen", "vse"), r"is frozen, .* of vse, .* nothing would be trained; set it to adapter"),
        (
            untrained,
            r"is frozen, so that loss\.pooled and loss\.contrastive train nothing, .* such as loss\.fused to 1",
        ),
        (settings(weights, "items", image_pooled_width=3), r"image_pooled_width is 3, which pooled_vectors items ign"),
    ):
        with pytest.raises(SettingsError, match=message):
            check_training(wrong)


def test_data_that_do_not_fit_are_one_sentence(joint: Callable[[str], JointData], tmp_path: Path) -> None:
    data = joint("clip")
    bare = replace(data.split, regions=replace(data.split.regions, pooled=None))
    config = settings(data.weights, "added")
    tokenizer = make_tokenizer(config, data.split)
    for pair in ((bare, bare), (data.split, bare)):
        with pytest.raises(DataError, match=r"split all has no vectors of whole pictures, .* items\.$"):
            complete(config, tokenizer, *pair)
    wide = settings(data.weights, "added", image_pooled_width=5)
    with pytest.raises(SettingsError, match=r"image_pooled_width is 5, the data has 16; leave it 0"):
        complete(wide, tokenizer, data.split, data.split)
    other = settings(save_text("bert", tmp_path / "bert"), "frozen")
    with pytest.raises(SettingsError, match=r"is frozen, .* are 16 and 32 wide; take both from one joint encoder"):
        run(other, (data.split, data.split), tmp_path / "run")
    assert not (tmp_path / "run").exists(), "before anything is written"


def test_vectors_of_two_encoders_are_refused_as_far_as_their_kinds_tell(
    joint: Callable[[str], JointData], tmp_path: Path
) -> None:
    data = joint("clip")
    config = settings(data.weights, "adapter")
    tokenizer, encoder = make_tokenizer(config, data.split), config.model.encoder
    assert data.split.extractor.startswith("grid-clip-6x6-")
    for fits in (data.split.extractor, "butd", "detector-owlv2-36-0.7-0123456789-clip-0123456789"):
        check_joint(encoder, tokenizer, fits)
    for other in (
        "grid-siglip-6x6-0123456789",
        "detector-grounding-dino-36-0.7-0123456789-siglip-0123456789",
        "efficientnet-lite2-416-0x0-crops-192-0123456789",
    ):
        with pytest.raises(SettingsError, match=rf"adapter, .* are of {other}, .* is of the kind clip; take both from"):
            check_joint(encoder, tokenizer, other)
        check_joint(replace(encoder, pooled_vectors="added"), tokenizer, other)
    bert = settings(save_text("bert", tmp_path / "bert"), "frozen")
    with pytest.raises(SettingsError, match=r"is frozen, .*bert has no space in common with pictures; take the text"):
        check_joint(bert.model.encoder, make_tokenizer(bert, data.split), data.split.extractor)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_from_pixels_too_the_ranking_starts_at_the_encoders(
    kind: str, joint: Callable[[str], JointData], tmp_path: Path
) -> None:
    data = joint(kind)
    config = settings(data.weights, "adapter")
    vision = VisionConfig(weights=str(data.weights), cells=2, tuned_blocks=2)
    encoder = replace(config.model.encoder, vision=vision)
    config = replace(config, model=replace(config.model, encoder=encoder), training=replace(config.training, workers=0))
    retriever = begun(data, config, tmp_path / "run")
    check_start(retriever, replace(data, split=retriever.readable(data.split)))
    run(config, (data.split, data.split), tmp_path / "run", resume=True)
    trained = load_tensors(tmp_path / "run" / "last" / "model.safetensors")
    changed = {name for name, value in retriever.matcher.state_dict().items() if not torch.equal(value, trained[name])}
    assert any("patch_embedding" in name for name in changed)
    assert ("vision.projection.weight" in changed) == (kind == "clip")
