"""Runs with concepts: where their graph comes from and goes to, and training on few captions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.small_runs import StopError, run, small_config, small_split, stop_at, weights, with_loss
from tshsr.config.knowledge import KnowledgeConfig
from tshsr.config.models import ConceptsConfig, with_knowledge
from tshsr.config.recipes import recipe
from tshsr.config.run import RunConfig, read_config
from tshsr.data.dataset import Split
from tshsr.errors import CheckpointError, DataError, SettingsError
from tshsr.knowledge.build import GraphSettings, build_graph
from tshsr.retriever import Retriever
from tshsr.training.captions_share import with_captions_share
from tshsr.training.checks import check_training
from tshsr.training.graphs import check_knowledge

KNOWLEDGE = KnowledgeConfig(method="consistent", lexicon="rules", vectors="random", active=3)
ENCODER = small_config().model.encoder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Split, Split]:
    folder = tmp_path_factory.mktemp("data")
    return small_split(folder, "train"), small_split(folder, "dev", images=6)


def config(knowledge: KnowledgeConfig = KNOWLEDGE, **training: Any) -> RunConfig:
    base = small_config(**training)
    model = ConceptsConfig(encoder=ENCODER, similarity_dim=6, comparison_dim=0, knowledge=knowledge)
    return replace(base, model=model, loss=replace(base.loss, levels=0, relations=1.0))


def test_a_run_has_the_graph_of_its_training_captions(data: tuple[Split, Split], tmp_path: Path) -> None:
    run(config(), data, tmp_path / "run")
    graph = build_graph(data[0].captions, GraphSettings(lexicon="rules", vectors="random"), data="x")
    knowledge = read_config(tmp_path / "run" / "config.json").model.knowledge  # type: ignore[union-attr]
    assert (knowledge.concepts, knowledge.width, knowledge.edges) == (graph.words, graph.width, ("captions",))
    assert knowledge.fingerprint == graph.fingerprint
    retriever = Retriever.from_pretrained(tmp_path / "run")
    buffers = dict(retriever.matcher.named_buffers())
    torch.testing.assert_close(buffers["knowledge.concepts.vectors"], torch.from_numpy(graph.vectors))
    torch.testing.assert_close(buffers["knowledge.concepts.adjacency"], torch.from_numpy(graph.adjacency()))
    retriever.save_pretrained(tmp_path / "flat")
    again = Retriever.from_pretrained(tmp_path / "flat")
    torch.testing.assert_close(again.score(data[1], ["a red dog"]), retriever.score(data[1], ["a red dog"]))


def test_a_run_reads_the_graph_of_a_file_and_needs_it_no_more(data: tuple[Split, Split], tmp_path: Path) -> None:
    path = tmp_path / "graph.safetensors"
    build_graph(
        ("a dog", "a dog and a cat", "two cats"), GraphSettings(lexicon="rules", vectors="random"), data="x"
    ).save(path)
    wanted = config(replace(KNOWLEDGE, graph=str(path)))
    run(wanted, data, tmp_path / "whole")
    with pytest.raises(StopError):
        run(wanted, data, tmp_path / "cut", listen=stop_at(4))
    path.unlink()
    run(wanted, data, tmp_path / "cut", resume=True)
    assert weights(tmp_path / "whole") == weights(tmp_path / "cut")
    assert read_config(tmp_path / "cut" / "config.json").model.knowledge.concepts == ("cat", "dog")  # type: ignore[union-attr]
    with pytest.raises(DataError, match=r"graph\.safetensors is missing; expected a concept graph"):
        run(wanted, data, tmp_path / "new")


def test_settings_of_another_graph_are_refused(data: tuple[Split, Split], tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"model\.knowledge\.fingerprint is 'abc', that of the graph is '\w+'; leave"
    ):
        run(config(replace(KNOWLEDGE, fingerprint="abc")), data, tmp_path / "run")
    with pytest.raises(
        SettingsError, match=r"model\.knowledge\.vectors is encoder, which takes them from a frozen pre"
    ):
        run(config(replace(KNOWLEDGE, vectors="encoder")), data, tmp_path / "run")


def test_boxes_are_required_where_concepts_read_them(data: tuple[Split, Split], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no boxes, which model\.knowledge\.geometry requires; switch it off"):
        run(config(replace(KNOWLEDGE, method="progressive")), data, tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"count": 1}, r"model\.knowledge\.count is 1; expected 2 or more"),
        ({"active": 0}, r"model\.knowledge\.active is 0; expected 1 or more"),
        ({"steps": 0}, r"model\.knowledge\.steps is 0; expected 1 or more"),
        ({"consistency": -1.0}, r"model\.knowledge\.consistency is -1\.0; expected 0 or more"),
        ({"share": 1.0}, r"model\.knowledge\.share is 1\.0; expected above 0, below 1"),
        ({"inverse_temperature": 0.0}, r"model\.knowledge\.inverse_temperature is 0\.0; expected a number above 0"),
        ({"method": "none"}, r"model\.knowledge\.method is none, and this method is made of concepts"),
    ],
)
def test_settings_of_concepts_out_of_range_are_refused(changes: dict[str, Any], sentence: str) -> None:
    wanted = config()
    with pytest.raises(SettingsError, match=sentence):
        check_training(replace(wanted, model=with_knowledge(wanted.model, **changes)))


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        (
            "csrc",
            {"steps": 7},
            r"steps is 7, which has no effect with model\.knowledge\.method consistent; leave it at 2",
        ),
        (
            "csrc",
            {"geometry": False},
            r"geometry is False, .* with model\.knowledge\.method consistent; leave it at True",
        ),
        ("cvse", {"active": 3}, r"active is 3, .* with model\.knowledge\.method consensus; leave it at 16"),
        ("cvse", {"node": False}, r"node is False, .* with vse, which has no streams; leave it at True"),
        ("ekdm", {"vectors_width": 77}, r"vectors_width is 77, .* with model\.knowledge\.vectors random, .* it at 300"),
    ],
)
def test_settings_that_another_one_leaves_without_effect_are_refused(
    name: str, changes: dict[str, Any], sentence: str
) -> None:
    wanted = recipe(f"{name}-scenes")
    with pytest.raises(SettingsError, match=rf"^model\.knowledge\.{sentence}"):
        check_knowledge(replace(wanted, model=with_knowledge(wanted.model, **changes)))


def test_a_weight_of_the_divergence_needs_the_losses_of_concepts() -> None:
    wanted = recipe("ekdm-scenes")
    wanted = replace(wanted, model=with_knowledge(wanted.model, consistency=5.0))
    check_knowledge(wanted)
    with pytest.raises(SettingsError, match=r"consistency is 5\.0, which has no effect with loss\.relations 0; leave"):
        check_knowledge(with_loss(wanted, relations=0.0))
    off = with_loss(recipe("ekdm-scenes"), relations=0.0)
    check_knowledge(off)
    check_knowledge(replace(off, model=with_knowledge(off.model, vectors="v.txt", vectors_width=77)))


def test_losses_of_concepts_need_concepts() -> None:
    base = small_config()
    with pytest.raises(SettingsError, match=r"loss\.relations is 1, and tshsr has no relations among the pairs"):
        check_training(replace(base, loss=replace(base.loss, relations=1.0)))
    check_training(
        replace(base, model=with_knowledge(base.model, method="consistent"), loss=replace(base.loss, relations=1.0))
    )


@pytest.mark.parametrize(("share", "count"), [(1.0, 20), (0.5, 10), (0.1, 2), (0.01, 1)])
def test_a_share_of_the_captions_keeps_order_and_images(share: float, count: int, data: tuple[Split, Split]) -> None:
    train, training = data[0], small_config(captions_share=share).training
    few = with_captions_share(train, training)
    assert len(few.captions) == len(few.image_of_caption) == count
    pairs = list(zip(train.captions, train.image_of_caption.tolist(), strict=True))
    places = [pairs.index(pair) for pair in zip(few.captions, few.image_of_caption.tolist(), strict=True)]
    assert places == sorted(places)
    assert few.regions is train.regions
    assert with_captions_share(train, training).captions == few.captions
    other = with_captions_share(train, replace(training, seed=1))
    assert share in (1.0, 0.01) or other.captions != few.captions


def test_a_run_on_few_captions_is_resumed_with_its_share_alone(data: tuple[Split, Split], tmp_path: Path) -> None:
    result = run(small_config(captions_share=0.5, epochs=1), data, tmp_path / "run")
    assert result.steps == 2, "10 captions in batches of 8"
    with pytest.raises(CheckpointError, match=r"was begun with training\.captions_share = 0\.5, now it is 1\.0"):
        run(small_config(epochs=1), data, tmp_path / "run", resume=True)
    for share in (0.0, 1.5):
        with pytest.raises(SettingsError, match=rf"training\.captions_share is {share}; expected above 0, at most 1"):
            check_training(small_config(captions_share=share))
