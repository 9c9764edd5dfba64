"""The concept graph of a run."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from tshsr.config.knowledge import KnowledgeConfig
from tshsr.config.models import ModelConfig, knowledge_of, with_knowledge
from tshsr.config.run import RunConfig
from tshsr.data.dataset import Split
from tshsr.data.tokens import CaptionTokenizer
from tshsr.errors import SettingsError
from tshsr.knowledge.build import RANDOM, GraphSettings, build_graph
from tshsr.knowledge.graph import ConceptGraph
from tshsr.pretrained.frozen_text import FrozenText
from tshsr.pretrained.word_vectors import GLOVE_50D

ENCODER = "encoder"
"""Concept vectors by the frozen text encoder of the run."""
FROM_GRAPH = ("concepts", "width", "edges", "fingerprint")
"""Settings that are taken from the graph."""
READ_BY = {"active": ("progressive", "consistent"), "steps": ("progressive",), "geometry": ("progressive",)}
"""Settings that not every method of concepts reads, and the methods that do."""


def with_graph(
    config: RunConfig, train: Split, tokenizer: CaptionTokenizer, begun: RunConfig | None
) -> tuple[RunConfig, ConceptGraph | None]:
    """The settings completed from the concept graph, and the graph that a new run starts from; None without concepts.

    Args:
        train: Its captions make a graph where the settings name no file.
        begun: The settings of the run that is resumed, whose weights have its graph.

    Raises:
        SettingsError: Where settings are of another graph, a package is missing, or there is no encoder for vectors.
        DataError: Where a file can't be used, or captions have too few concepts.
    """
    knowledge = knowledge_of(config.model)
    if knowledge is None:
        return config, None
    saved = None if begun is None else knowledge_of(begun.model)
    graph = None
    if saved is None:
        graph = make_graph(knowledge, train, tokenizer)
        found = settings_of(graph)
    else:
        found = {name: getattr(saved, name) for name in FROM_GRAPH}
    for name in FROM_GRAPH:
        given = getattr(knowledge, name)
        if given and given != found[name]:
            raise SettingsError(
                f"model.knowledge.{name} is {given!r}, that of the graph is {found[name]!r}; leave it empty to take "
                "the latter, or name the file of the former in model.knowledge.graph."
            )
    return replace(config, model=with_knowledge(config.model, **found)), graph


def settings_of(graph: ConceptGraph) -> dict[str, object]:
    """Settings that are taken from a graph."""
    return {"concepts": graph.words, "width": graph.width, "edges": graph.kinds, "fingerprint": graph.fingerprint}


def make_graph(knowledge: KnowledgeConfig, train: Split, tokenizer: CaptionTokenizer) -> ConceptGraph:
    """The graph of a file, or that of the training captions.

    Raises:
        SettingsError: Where vectors of an encoder are wanted and the tokenizer is none that is frozen.
    """
    if knowledge.graph:
        return ConceptGraph.load(Path(knowledge.graph))
    encoder = None
    if knowledge.vectors == ENCODER:
        if not isinstance(tokenizer, FrozenText):
            raise SettingsError(
                f"model.knowledge.vectors is {ENCODER}, which takes them from a frozen pretrained word encoder, and "
                "this run has none; set it to glove-50d, random or a file, or model.encoder.text to pretrained."
            )
        encoder = tokenizer
    settings = GraphSettings(knowledge.count, knowledge.lexicon, knowledge.vectors, knowledge.vectors_width)
    return build_graph(train.captions, settings, data=f"{train.data}, split {train.name}", encoder=encoder)


def check_knowledge(config: RunConfig) -> None:
    """Reject settings of concepts that are out of range or without effect, and a method of concepts without any.

    Settings of a graph that is built give way to the file of one, as recipes have them.

    Raises:
        SettingsError: Names the first one.
    """
    knowledge = knowledge_of(config.model)
    if knowledge is None:
        if config.model.kind == "concepts":
            raise SettingsError("model.knowledge.method is none, and this method is made of concepts; set it.")
        without = getattr(config.model, "knowledge", KnowledgeConfig())
        for name, value in vars(KnowledgeConfig()).items():
            if getattr(without, name) != value:
                raise SettingsError(
                    f"model.knowledge.{name} is {getattr(without, name)!r}, which {config.model.kind} without concepts "
                    "ignores; set model.knowledge.method, or train a recipe with concepts such as ekdm-flickr8k."
                )
        return
    for name, least in (("count", 2), ("active", 1), ("steps", 1), ("vectors_width", 1), ("consistency", 0)):
        value = getattr(knowledge, name)
        if not least <= value < math.inf:
            raise SettingsError(f"model.knowledge.{name} is {value}; expected {least} or more.")
    if not 0 < knowledge.share < 1:
        raise SettingsError(f"model.knowledge.share is {knowledge.share}; expected above 0, below 1.")
    if not 0 < knowledge.inverse_temperature < math.inf:
        raise SettingsError(
            f"model.knowledge.inverse_temperature is {knowledge.inverse_temperature}; expected a number above 0."
        )
    check_effects(config, knowledge)


def check_effects(config: RunConfig, knowledge: KnowledgeConfig) -> None:
    """Reject settings of concepts that another one leaves without effect.

    Raises:
        SettingsError: Names the first one.
    """
    method = f"model.knowledge.method {knowledge.method}"
    ignored = {name: method for name, methods in READ_BY.items() if knowledge.method not in methods}
    if config.model.kind == "vse":
        ignored["node"] = "vse, which has no streams"
    if knowledge.vectors in (GLOVE_50D, RANDOM, ENCODER):
        ignored["vectors_width"] = f"model.knowledge.vectors {knowledge.vectors}, which has a width of its own"
    if not config.loss.relations:
        ignored["consistency"] = "loss.relations 0"
    for name, cause in ignored.items():
        value, default = getattr(knowledge, name), getattr(KnowledgeConfig(), name)
        if value != default:
            raise SettingsError(
                f"model.knowledge.{name} is {value}, which has no effect with {cause}; leave it at {default}."
            )


def with_placeholders(model: ModelConfig) -> ModelConfig:
    """Settings with the sizes of a small graph where those of a graph are missing, to build a network for checks."""
    knowledge = knowledge_of(model)
    if knowledge is None or knowledge.concepts:
        return model
    return with_knowledge(model, concepts=("a", "b"), width=1, edges=("captions",))
