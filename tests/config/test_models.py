"""Settings of each method: reading back, refusals, and changes on the command line."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support import tiny
from tests.support.methods import GRAPH
from tshsr.cli.train import read_arguments
from tshsr.config.knowledge import KnowledgeConfig
from tshsr.config.models import (
    KINDS,
    ConceptsConfig,
    DsgslConfig,
    HardAlignmentConfig,
    HremConfig,
    ImramConfig,
    ModelConfig,
    RcarConfig,
    ScanConfig,
    SgrafConfig,
    ShanConfig,
    TshsrConfig,
    TwoStreamSgrConfig,
    VseConfig,
)
from tshsr.config.recipes import RECIPES, recipe
from tshsr.config.run import LossConfig, RunConfig, read_config, write_config
from tshsr.errors import SettingsError
from tshsr.models.build import build_matcher
from tshsr.models.concept_streams import ConceptMatcher
from tshsr.models.dsgsl import Dsgsl
from tshsr.models.hard_alignment import HardAlignment
from tshsr.models.hrem import Hrem
from tshsr.models.imram import Imram
from tshsr.models.rcar import Rcar
from tshsr.models.scan import Scan
from tshsr.models.sgraf import Sgraf, TwoStreamSgr
from tshsr.models.shan import Shan
from tshsr.models.tshsr import Tshsr
from tshsr.models.vse import Vse
from tshsr.training.checks import check_training

METHODS: dict[str, tuple[ModelConfig, type]] = {
    "tshsr": (TshsrConfig(encoder=tiny.ENCODER), Tshsr),
    "vse": (VseConfig(encoder=tiny.ENCODER, pooling="mean"), Vse),
    "scan": (ScanConfig(encoder=tiny.ENCODER, aggregation="max"), Scan),
    "sgraf": (SgrafConfig(encoder=tiny.ENCODER, reasoning="saf"), Sgraf),
    "two_stream_sgr": (TwoStreamSgrConfig(encoder=tiny.ENCODER, steps=2), TwoStreamSgr),
    "rcar": (RcarConfig(encoder=tiny.ENCODER, streams="both"), Rcar),
    "hard_alignment": (HardAlignmentConfig(encoder=tiny.ENCODER, aggregation="sum"), HardAlignment),
    "hrem": (HremConfig(encoder=tiny.ENCODER, heads=3), Hrem),
    "dsgsl": (DsgslConfig(encoder=tiny.ENCODER, neighbours=3), Dsgsl),
    "imram": (ImramConfig(encoder=tiny.ENCODER, steps=2), Imram),
    "shan": (ShanConfig(encoder=tiny.ENCODER, last_alignment="global_local"), Shan),
    "concepts": (ConceptsConfig(encoder=tiny.ENCODER, knowledge=replace(GRAPH, method="consistent")), ConceptMatcher),
}
DATA_SETS = ("flickr30k", "coco", "flickr8k", "flickr8k-photos", "scenes")
KNOWLEDGE = ("ekdm", "csrc", "cvse")
"""Methods with concepts of a graph, which have no published settings here."""
BASELINES = ("vse", "scan", "sgr", "saf", "two-stream-sgr", "rcar", "chan", "late-interaction", "hrem", "esa")
RELATED = ("dsgsl", "imram", "shan")
"""Related methods: without recipes at full size."""
EMBEDDINGS = ("vse", "hrem", "esa", "cvse")
"""Baselines whose score is v·t."""


def test_every_kind_has_its_settings_here() -> None:
    assert tuple(METHODS) == KINDS


@pytest.mark.parametrize("kind", METHODS)
def test_settings_are_read_back_and_built_by_kind(kind: str, tmp_path: Path) -> None:
    config, method = METHODS[kind]
    path = tmp_path / "config.json"
    path.write_text(write_config(RunConfig(model=config)))
    again = read_config(path).model
    assert again == config
    assert type(build_matcher(again)) is method


@pytest.mark.parametrize(("perceptron", "projection"), [(True, "residual"), (False, "linear")])
def test_the_perceptron_of_earlier_runs_is_the_residual_projection(
    perceptron: bool, projection: str, tmp_path: Path
) -> None:
    values = json.loads(write_config(RunConfig(model=VseConfig(encoder=tiny.ENCODER))))
    del values["model"]["encoder"]["region_projection"]
    values["model"]["perceptron"] = perceptron
    (tmp_path / "config.json").write_text(json.dumps(values))
    read = read_config(tmp_path / "config.json")
    assert read.model == VseConfig(encoder=replace(tiny.ENCODER, region_projection=projection))
    weights = build_matcher(read.model).state_dict()
    assert ("perceptron.second.weight" in weights) == perceptron, "the name in earlier checkpoints"
    assert not any(name.startswith("region_encoder.perceptron") for name in weights)


def test_earlier_settings_whose_encoder_is_none_are_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model": {"kind": "vse", "perceptron": True, "encoder": "x"}}))
    with pytest.raises(SettingsError, match=r"setting 'model\.encoder': .*; got 'x'\."):
        read_config(path)


def test_a_projection_is_as_published_at_full_size_and_else_that_of_tshsr_but_for_embeddings() -> None:
    for data in DATA_SETS:
        if data == "flickr8k-photos":  # every method has the same encoders
            continue
        for method in ("tshsr", *BASELINES):
            projection = recipe(f"{method}-{data}").model.encoder.region_projection
            full_size = data in ("flickr30k", "coco") and method in ("rcar", "chan", "late-interaction")
            assert projection == ("residual" if method in EMBEDDINGS or full_size else "linear")
    assert VseConfig().encoder.region_projection == "residual"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"kind": "clip"},
            r"setting 'model.kind' is 'clip'; expected one of tshsr, vse, scan, sgraf, two_stream_sgr, rcar, "
            r"hard_alignment, hrem, dsgsl, imram, shan, concepts\.",
        ),
        ({"kind": None}, r"setting 'model.kind' is 'missing'; expected one of tshsr"),
        ({"reasoning": "sum"}, r"setting 'model.reasoning': Input should be 'sgr' or 'saf'; got 'sum'\."),
        ({"pooling": "gpo"}, r"setting 'model.pooling': Unexpected keyword argument; got 'gpo'\."),
        ({"encoder": {"dims": 3}}, r"setting 'model.encoder.dims': Unexpected keyword argument; got 3\."),
    ],
)
def test_settings_of_another_kind_are_one_sentence(change: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    values = json.loads(write_config(RunConfig(model=SgrafConfig())))
    values["model"] = {name: value for name, value in (values["model"] | change).items() if value is not None}
    path.write_text(json.dumps(values))
    with pytest.raises(SettingsError, match=sentence):
        read_config(path)


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (SgrafConfig(steps=0), r"model.steps is 0; expected 1 or more"),
        (SgrafConfig(similarity_dim=0), r"model.similarity_dim is 0; expected 1 or more"),
        (TwoStreamSgrConfig(region_slots=-1), r"model.region_slots is -1; expected 0 or more"),
        (SgrafConfig(pooling_dropout=1.0), r"model.pooling_dropout is 1.0; expected 0 or more, below 1"),
        (VseConfig(size_augmentation=-0.1), r"model.size_augmentation is -0.1; expected 0 or more, below 1"),
        (ScanConfig(word_logsumexp_factor=0), r"model.word_logsumexp_factor is 0; expected a number above 0"),
        (RcarConfig(steps=0), r"model.steps is 0; expected 1 or more"),
        (RcarConfig(word_inverse_temperature=0), r"model.word_inverse_temperature is 0; expected a number above 0"),
        (HardAlignmentConfig(temperature=0), r"model.temperature is 0; expected a number above 0"),
        (HremConfig(connected=1.0), r"model.connected is 1.0; expected 0 or more, below 1"),
        (HremConfig(best_matches=0), r"model.best_matches is 0; expected 1 or more"),
        (ImramConfig(steps=0), r"model.steps is 0; expected 1 or more"),
        (ShanConfig(inverse_temperature=0), r"model.inverse_temperature is 0; expected a number above 0"),
        (DsgslConfig(graph_steps=-1), r"model.graph_steps is -1; expected 0 or more"),
        (DsgslConfig(neighbours=-1), r"model.neighbours is -1; expected 0 or more"),
        (HremConfig(heads=5), r"model.heads is 5 and vectors are 1024 wide; expected a number of heads that divides"),
        (
            VseConfig(encoder=replace(tiny.ENCODER, word_dropout=1.5)),
            r"model.encoder.word_dropout is 1.5; expected 0 or more, below 1",
        ),
        (
            VseConfig(encoder=replace(tiny.ENCODER, region_dropout=1.0)),
            r"model.encoder.region_dropout is 1.0; expected 0 or more, below 1",
        ),
    ],
)
def test_numbers_out_of_range_are_refused(model: ModelConfig, sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        check_training(RunConfig(model=model))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_complete_and_has_its_name(name: str) -> None:
    config = recipe(name)
    assert config.recipe == name
    # The number of layers is checked with the weights, which are on a hub: tests/config/test_full_size_recipes.py.
    encoder = replace(config.model.encoder, text_tuned_layers=0)
    check_training(replace(config, model=replace(config.model, encoder=encoder)))


@pytest.mark.parametrize("method", BASELINES)
@pytest.mark.parametrize("data", DATA_SETS)
def test_every_baseline_has_a_recipe_for_every_data_set(method: str, data: str) -> None:
    assert f"{method}-{data}" in RECIPES


@pytest.mark.parametrize("method", [*BASELINES, *RELATED, *KNOWLEDGE])
@pytest.mark.parametrize("data", ["flickr8k", "flickr8k-photos", "scenes"])
def test_small_recipes_share_the_budget_of_tshsr(method: str, data: str) -> None:
    ours, theirs = recipe(f"tshsr-{data}"), recipe(f"{method}-{data}")
    assert replace(theirs.model.encoder, region_projection=ours.model.encoder.region_projection) == ours.model.encoder
    assert theirs.optimiser == ours.optimiser
    assert theirs.loss.warmup_epochs == ours.loss.warmup_epochs
    if method in EMBEDDINGS:  # all pairs cost less than mining candidates
        assert theirs.training == replace(ours.training, candidates=0)
    else:
        assert theirs.training == ours.training
        assert theirs.loss.pooled == theirs.loss.fused == 1, "v·t selects the candidates"
    assert isinstance(ours.model, TshsrConfig)
    if isinstance(theirs.model, SgrafConfig | TwoStreamSgrConfig | RcarConfig | DsgslConfig | ConceptsConfig):
        assert theirs.model.similarity_dim == ours.model.similarity_dim
    if isinstance(theirs.model, TwoStreamSgrConfig | DsgslConfig | ConceptsConfig):
        assert theirs.model.word_inverse_temperature == ours.model.word_inverse_temperature
        assert theirs.model.region_inverse_temperature == ours.model.region_inverse_temperature


@pytest.mark.parametrize("data", ["flickr8k", "flickr8k-photos", "scenes"])
def test_concepts_are_all_that_a_recipe_adds_to_tshsr(data: str) -> None:
    ours, theirs = recipe(f"tshsr-{data}"), recipe(f"tshsr-knowledge-{data}")
    assert isinstance(theirs.model, TshsrConfig)
    assert theirs.model.knowledge.method == "progressive"
    assert replace(theirs.model, knowledge=KnowledgeConfig()) == ours.model
    assert replace(theirs.loss, relations=0.0, relations_warmup_epochs=0.0) == ours.loss
    assert (theirs.optimiser, theirs.training) == (ours.optimiser, ours.training)
    epochs = ours.training.epochs / 4
    assert all(recipe(f"{each}-{data}").loss.relations_warmup_epochs == epochs for each in KNOWLEDGE)


AS_PUBLISHED = {
    # name: (learning rate, epochs, epoch of the decay, epochs on all negatives)
    "vse-flickr30k": (5e-4, 25, 15, 1),
    "vse-coco": (5e-4, 25, 15, 1),
    "scan-flickr30k": (2e-4, 30, 15, 0),
    "scan-coco": (5e-4, 20, 10, 0),
    "sgr-flickr30k": (2e-4, 40, 30, 0),
    "sgr-coco": (2e-4, 20, 10, 0),
    "saf-flickr30k": (2e-4, 30, 20, 0),
    "saf-coco": (2e-4, 20, 10, 0),
    "two-stream-sgr-flickr30k": (5e-4, 40, 30, 3),
    "two-stream-sgr-coco": (5e-4, 25, 15, 5),
    "rcar-flickr30k": (5e-4, 40, 30, 3),
    "rcar-coco": (5e-4, 25, 15, 5),
    "chan-flickr30k": (5e-4, 25, 15, 1),
    "chan-coco": (5e-4, 25, 15, 1),
    "hrem-flickr30k": (5e-4, 30, 15, 1),
    "hrem-coco": (5e-4, 30, 15, 1),
    "esa-flickr30k": (5e-4, 25, 15, 1),
    "esa-coco": (5e-4, 25, 15, 1),
    "late-interaction-flickr30k": (5e-4, 25, 15, 1),
    "late-interaction-coco": (5e-4, 25, 15, 1),
}
"""From the authors' scripts and their defaults; late interaction has those of VSE-infinity."""
WEIGHT_DECAY = {"vse": 1e-4, "rcar": 1e-2, "chan": 1e-2, "hrem": 1e-4, "esa": 1e-4, "late-interaction": 1e-4}
"""Of methods trained with AdamW."""


@pytest.mark.parametrize("name", AS_PUBLISHED)
def test_full_size_recipes_train_as_published(name: str) -> None:
    config = recipe(name)
    optimiser, training, loss = config.optimiser, config.training, config.loss
    found = (optimiser.learning_rate, training.epochs, optimiser.decay_epoch, loss.warmup_epochs)
    assert found == AS_PUBLISHED[name]
    assert (training.batch, training.candidates, config.model.encoder.dim) == (128, 0, 1024)
    assert (optimiser.schedule, optimiser.decay, optimiser.clip, optimiser.warmup_steps) == ("step", 0.1, 2.0, 0)
    method = name.rpartition("-")[0]
    decay = WEIGHT_DECAY.get(method)
    assert (optimiser.name, optimiser.weight_decay) == (("adamw", decay) if decay else ("adam", 0))
    streams = 1 if "two-stream" in name else 0
    relations = {"hrem-flickr30k": 7.0, "hrem-coco": 1.8}.get(name)  # 8,000 steps
    assert loss == LossConfig(
        margin=0.05 if method == "chan" else 0.2,
        streams=streams,
        levels=0,
        pooled=0,
        warmup_epochs=loss.warmup_epochs,
        relations=1 if relations else 0,
        relations_warmup_epochs=relations or 0,
    )


def test_a_baselines_settings_are_changed_on_the_command_line() -> None:
    place = ["--data", "scenes", "--out", "run"]
    _, config = read_arguments(["sgr-flickr8k", *place, "--model.reasoning", "saf", "--model.encoder.dim", "64"])
    expected = recipe("sgr-flickr8k")
    encoder = replace(expected.model.encoder, dim=64)
    assert config == replace(expected, model=replace(expected.model, reasoning="saf", encoder=encoder))
    _, config = read_arguments(["shan-flickr8k", *place, "--model.last-alignment", "global_local"])
    assert config.model == replace(recipe("shan-flickr8k").model, last_alignment="global_local")
    with pytest.raises(SettingsError, match=r"no option --model.agregation; did you mean --model.aggregation\?"):
        read_arguments(["scan-coco", *place, "--model.agregation", "max"])


@pytest.mark.parametrize("name", ["vse-coco", "two-stream-sgr-scenes"])
def test_help_is_of_the_recipes_own_method(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read_arguments([name, "--help"])
    text = capsys.readouterr().out
    assert ("--model.size-augmentation" in text) == (name == "vse-coco")
    assert ("--model.steps" in text) == (name != "vse-coco")
    assert "saf-flickr30k: SGRAF's attention filtration" in text
