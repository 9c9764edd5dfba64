"""`tshsr knowledge`: a graph is built, shown and drawn, and trains a network; errors are one sentence."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.support.command_line import refused, tshsr
from tshsr.cli.train import read_arguments
from tshsr.knowledge.graph import ConceptGraph
from tshsr.training.checks import check_training

RULES = ("--lexicon", "rules", "--vectors", "random")


@pytest.fixture(scope="module")
def graph(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The graph of small scenes."""
    path = tmp_path_factory.mktemp("knowledge") / "the graph.safetensors"
    said = tshsr("knowledge", "build", scenes, "--out", path, "--count", "20", *RULES)
    assert said.code == 0, said.err
    assert "word classes by rules; vectors of 50 values by random" in said.out
    then = shlex.split(said.out.splitlines()[-1].removeprefix("Next: tshsr "))
    assert then == [
        *("train", "ekdm-scenes", "--data", str(scenes), "--out", "runs/concepts"),
        *("--model.knowledge.graph", str(path)),
    ]
    wanted, config = read_arguments(then[1:])
    check_training(config)
    assert wanted.model == config.model
    return path


def test_a_graph_of_scenes_has_shapes_and_colours(graph: Path) -> None:
    found = ConceptGraph.load(graph)
    assert len(found) == 20
    classes = dict(zip(found.words, found.classes, strict=True))
    assert classes["red"] == "adj"
    assert classes["circle"] == "noun"
    assert found.data.endswith(", split train")


def test_a_graph_is_shown_and_drawn(graph: Path, tmp_path: Path) -> None:
    said = tshsr("knowledge", "show", graph, "--picture", tmp_path / "graph.svg", "--shown", "5")
    assert said.code == 0, said.err
    assert "20 concepts of " in said.out
    assert "captions" in said.out
    assert (tmp_path / "graph.svg").read_text().startswith("<svg ")


def test_wrong_uses_are_one_sentence(graph: Path, scenes: Path, tmp_path: Path) -> None:
    assert "tshsr knowledge expects build or show, got 'biuld'; did you mean build?" in refused("knowledge", "biuld")
    assert "expects build or show, got nothing." in refused("knowledge")
    out = tmp_path / "graph"
    assert "--count is 1; expected 2 concepts or more." in refused(
        "knowledge", "build", scenes, "--out", out, "--count", "1"
    )
    assert "--shown is 0; expected 2 concepts or more." in refused("knowledge", "show", graph, "--shown", "0")
    assert "there is no file none.txt of word vectors" in refused(
        "knowledge", "build", scenes, "--out", out, "--lexicon", "rules", "--vectors", "none.txt"
    )
    assert not out.exists()


def test_settings_of_a_graph_without_effect_are_refused(graph: Path) -> None:
    start = ("train", "ekdm-scenes", "--data", "x", "--out", "y", "--model.knowledge.graph", graph)
    assert refused(*start, "--model.knowledge.vectors-width", "9") == (
        "tshsr: --model.knowledge.vectors-width 9 is for a graph that is built, and --model.knowledge.graph names one; "
        "leave one of them out."
    )
    assert "model.knowledge.graph is 'g', which tshsr without concepts ignores; set model.knowledge.method" in refused(
        "train", "tshsr-scenes", "--data", "x", "--out", "y", "--model.knowledge.graph", "g"
    )
