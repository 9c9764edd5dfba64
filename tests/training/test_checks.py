from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.small_runs import small_config, small_split, with_loss, with_optimiser
from tshsr.config.models import ReasoningConfig, ScanConfig, SgrafConfig, VisionConfig, VseConfig
from tshsr.config.run import AugmentationConfig
from tshsr.data.text import Tokenizer
from tshsr.errors import CheckpointError, DataError, SettingsError
from tshsr.models.reasoning import HierarchicalReasoning
from tshsr.training.checks import captions_checksum, check_losses, check_training, check_unchanged
from tshsr.training.completion import complete, make_tokenizer
from tshsr.training.fit import fit


@pytest.mark.parametrize(
    ("name", "value", "least"),
    [("epochs", 0, 1), ("batch", 1, 2), ("accumulate", 0, 1), ("seed", -1, 0), ("evaluate_every", 0, 1)],
)
def test_numbers_that_make_no_sense_are_refused(name: str, value: int, least: int) -> None:
    with pytest.raises(SettingsError, match=rf"training\.{name} is {value}; expected {least} or more"):
        check_training(small_config(**{name: value}))


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_a_setting_that_must_be_positive_is_refused_where_it_is_not(value: float) -> None:
    sharp = small_config()
    sharp = replace(sharp, model=replace(sharp.model, region_inverse_temperature=value))
    for config, name in (
        (with_optimiser(small_config(), learning_rate=value), "optimiser.learning_rate"),
        (with_optimiser(small_config(), clip=value), "optimiser.clip"),
        (with_optimiser(small_config(), decay=value), "optimiser.decay"),
        (with_loss(small_config(), margin=value), "loss.margin"),
        (sharp, "model.region_inverse_temperature"),
    ):
        with pytest.raises(SettingsError, match=rf"{name} is {value}; expected a number above 0"):
            check_training(config)


@pytest.mark.parametrize("value", [-1.0, float("nan")])
def test_a_sharpness_of_context_nodes_below_zero_is_refused(value: float) -> None:
    with pytest.raises(SettingsError, match=r"reasoning\.context_inverse_temperature is .*; expected 0 or more"):
        HierarchicalReasoning(4, ReasoningConfig(context_inverse_temperature=value))


def test_a_dropout_of_similarity_vectors_above_one_is_refused() -> None:
    config = small_config()
    with pytest.raises(SettingsError, match=r"model\.similarity_dropout is 1.0; expected 0 or more, below 1"):
        check_training(replace(config, model=replace(config.model, similarity_dropout=1.0)))


def test_settings_of_pixels_without_them_are_refused() -> None:
    config = small_config(augmentation=AugmentationConfig(mirror=0.9))
    with pytest.raises(SettingsError, match=r"augmentation\.mirror is 0\.9, which training on stored features ignores"):
        check_training(config)
    encoder = replace(small_config().model.encoder, vision=VisionConfig(tuned_blocks=5))
    config = replace(small_config(), model=replace(small_config().model, encoder=encoder))
    with pytest.raises(
        SettingsError, match=r"vision\.tuned_blocks is 5, which training on stored features ignores; set"
    ):
        check_training(config)
    with pytest.raises(SettingsError, match=r"vision_factor is 0\.5, and no block of a vision network is tuned; set"):
        check_training(with_optimiser(small_config(), vision_factor=0.5))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_late_term_is_of_finite_numbers(value: float) -> None:
    config = small_config()
    for name, expected in (
        ("late_weight", "0 or more"),
        ("late_mean", "0 or more"),
        ("late_centre", "a finite number"),
    ):
        changed = replace(config.model, **{"late_weight": 9.0, name: value})
        with pytest.raises(SettingsError, match=rf"^model\.{name} is {value}; expected {expected}"):
            check_training(replace(config, model=changed))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"late_centre": 0.1}, r"model\.late_centre is 0\.1, and model\.late_weight is 0.*; set a late_weight"),
        (
            {"streams": "word", "fusion": "learned"},
            r"model\.fusion is learned, and model\.streams is word.*; set strea",
        ),
    ],
)
def test_settings_of_terms_that_a_network_lacks_are_refused(settings: dict[str, Any], sentence: str) -> None:
    config = small_config()
    with pytest.raises(SettingsError, match=sentence):
        check_training(replace(config, model=replace(config.model, **settings)))


def test_late_interaction_of_pooled_vectors_is_refused() -> None:
    config = replace(with_loss(small_config(), late_interaction=1.0), model=VseConfig(pooling="mean"))
    with pytest.raises(SettingsError, match=r"loss\.late_interaction is 1, and vse compares pooled vectors alone"):
        check_losses(config)


def test_late_interaction_alone_is_a_loss() -> None:
    check_losses(with_loss(small_config(), fused=0.0, streams=0.0, levels=0.0, pooled=0.0, late_interaction=1.0))


def test_weight_decay_needs_adamw() -> None:
    with pytest.raises(SettingsError, match=r"weight_decay is 0\.1, which adam ignores; set optimiser\.name to adamw"):
        check_training(with_optimiser(small_config(), weight_decay=0.1))
    check_training(with_optimiser(small_config(), weight_decay=0.1, name="adamw"))


def test_a_fall_of_the_rate_before_the_first_epoch_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"optimiser\.decay_epoch is -5; expected 0 or more"):
        check_training(with_optimiser(small_config(), decay_epoch=-5))


def test_settings_that_can_not_be_trained_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    train, dev, config = small_split(tmp_path, "train"), small_split(tmp_path, "dev"), small_config()
    slots = SgrafConfig(encoder=config.model.encoder, region_slots=2)
    nothing = with_loss(config, fused=0.0, streams=0.0, levels=0.0, pooled=0.0)
    nothing_here = with_loss(replace(config, model=VseConfig()), fused=0.0, streams=1.0, levels=1.0, pooled=0.0)
    few = replace(config, model=replace(config.model, reasoning=ReasoningConfig(levels=2, seeds=(8,))))
    scan = ScanConfig(encoder=config.model.encoder)
    heads = replace(config.model.encoder, text="transformer", transformer_heads=7)
    for wrong, message in (
        (few, r"reasoning has 2 levels and seeds \(8,\); expected one number of seeds, at least 1, for each level"),
        (replace(config, model=replace(config.model, encoder=heads)), r"is no multiple of transformer_heads 7"),
        (
            replace(config, model=slots),
            r"model\.region-slots is 2, and small, split train has images of 3 regions; set it to 3 or more, or to 0",
        ),
        (with_loss(replace(config, model=scan), scores="contrastive"), "needs scores that are probabilities"),
        (
            with_loss(replace(config, model=replace(config.model, late_weight=9.0)), pooled=0.0),
            r"model\.late-weight trains v·t apart from the streams, and no loss does so",
        ),
        (nothing, r"weighs 0 \(loss\.fused, loss\.streams, .*, loss\.contrastive, loss\.late_interaction\); set one"),
        (nothing_here, r"every loss of this method weighs 0 \(loss\.fused, loss\.pooled, loss\.contrastive\)"),
    ):
        with pytest.raises(SettingsError, match=message):
            fit(wrong, train=train, dev=dev, out=tmp_path / "run")
        assert not (tmp_path / "run").exists(), "the next try must not find a run there"


def test_what_the_data_decides_is_filled_in(tmp_path: Path) -> None:
    train, dev = small_split(tmp_path, "train"), small_split(tmp_path, "dev")
    tokenizer = make_tokenizer(small_config(), train)
    config = complete(small_config(), tokenizer, train, dev)
    assert config.model.encoder.feature_dim == 6
    assert config.model.encoder.vocabulary == len(tokenizer)
    assert config.extractor == "small"
    assert complete(config, tokenizer, train, dev) == config


def test_settings_that_contradict_the_data_are_refused(tmp_path: Path) -> None:
    train, dev = small_split(tmp_path, "train"), small_split(tmp_path, "dev")
    config, tokenizer = small_config(), Tokenizer.build(train.captions, 1)

    def encoder(**changes: Any) -> Any:
        return replace(config, model=replace(config.model, encoder=replace(config.model.encoder, **changes)))

    with pytest.raises(SettingsError, match=r"model\.encoder\.feature_dim is 2048, the data has 6; leave it 0"):
        complete(encoder(feature_dim=2048), tokenizer, train, dev)
    with pytest.raises(SettingsError, match=r"model\.encoder\.vocabulary is 3, the data has 1\d; leave it 0"):
        complete(encoder(vocabulary=3), tokenizer, train, dev)
    with pytest.raises(DataError, match=r"small, split train has no boxes, which model\.encoder\.boxes requires"):
        complete(encoder(boxes=True), tokenizer, train, dev)
    placed = encoder(boxes=True)
    placed = replace(placed, model=replace(placed.model, place_term=True))
    with pytest.raises(DataError, match=r"switch model\.encoder\.boxes and model\.place-term off"):
        complete(placed, tokenizer, train, dev)
    with pytest.raises(DataError, match="the settings are for features of butd; small has features of small"):
        complete(replace(config, extractor="butd"), tokenizer, train, dev)


def test_splits_of_two_extractors_are_refused(tmp_path: Path) -> None:
    train, dev = small_split(tmp_path, "train"), small_split(tmp_path, "dev", extractor="other")
    with pytest.raises(DataError, match=r"train and dev differ in the extractor of their features \(small and other\)"):
        complete(small_config(), Tokenizer.build(train.captions, 1), train, dev)


def test_training_without_captions_is_refused(tmp_path: Path) -> None:
    train = small_split(tmp_path, "train")
    empty = replace(train, captions=(), image_of_caption=train.image_of_caption[:0])
    with pytest.raises(DataError, match="small, split train has no captions; training needs captioned images"):
        complete(small_config(), Tokenizer.build(train.captions, 1), empty, train)


def test_a_named_vocabulary_is_read(tmp_path: Path) -> None:
    train = small_split(tmp_path, "train")
    Tokenizer.build(["a red dog"], 1).save(tmp_path / "words.json")
    assert len(make_tokenizer(small_config(vocabulary=str(tmp_path / "words.json")), train)) == 5
    with pytest.raises(DataError, match=r"Cannot read the vocabulary .*nowhere\.json"):
        make_tokenizer(small_config(vocabulary=str(tmp_path / "nowhere.json")), train)


def test_the_first_setting_that_differs_is_named(tmp_path: Path) -> None:
    saved = small_config()
    for wanted, name in (
        (with_loss(saved, margin=0.3), r"loss\.margin = 0\.2, now it is 0\.3"),
        (with_optimiser(saved, name="adamw"), r"optimiser\.name = 'adam', now it is 'adamw'"),
        (small_config(batch=9, seed=3), r"training\.batch = 8, now it is 9"),
        (replace(saved, model=replace(saved.model, streams="word")), r"model\.streams = 'both', now it is 'word'"),
    ):
        with pytest.raises(CheckpointError, match=rf"was begun with {name}; resume with the same settings"):
            check_unchanged(tmp_path, saved, wanted)


def test_settings_that_change_no_weight_may_differ(tmp_path: Path) -> None:
    check_unchanged(tmp_path, small_config(), replace(small_config(save_every_steps=0), recipe="renamed"))


def test_epochs_may_be_raised_but_not_lowered_nor_under_the_cosine(tmp_path: Path) -> None:
    check_unchanged(tmp_path, small_config(epochs=2), small_config(epochs=3))
    with pytest.raises(CheckpointError, match=r"training\.epochs = 2, now it is 1; on resuming it may only be raised"):
        check_unchanged(tmp_path, small_config(epochs=2), small_config(epochs=1))
    two, three = (with_optimiser(small_config(epochs=epochs), schedule="cosine") for epochs in (2, 3))
    with pytest.raises(CheckpointError, match="and not under the cosine schedule"):
        check_unchanged(tmp_path, two, three)


def test_the_checksum_covers_captions_and_their_images(tmp_path: Path) -> None:
    train = small_split(tmp_path, "train")
    moved = train.image_of_caption.copy()
    moved[[0, 19]] = moved[[19, 0]]
    prints = {
        captions_checksum(train),
        captions_checksum(replace(train, captions=("another", *train.captions[1:]))),
        captions_checksum(replace(train, image_of_caption=moved)),
    }
    assert len(prints) == 3
    assert captions_checksum(train) == captions_checksum(small_split(tmp_path / "again", "train"))
