"""Rows of the race and of its ablation: recipes, the settings that differ, ensembles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass, replace
from typing import Any, cast

from tshsr.config.recipes import recipe
from tshsr.config.run import RunConfig


@dataclass(frozen=True)
class Entry:
    """A row: a recipe with some settings changed, or an ensemble of other rows.

    Attributes:
        name: Name of the row, its runs and its files.
        title: Title in the tables.
        recipe: Name of the recipe without that of the data; empty for an ensemble.
        changes: Settings that differ from the recipe's, by dotted name.
        members: Rows whose scores are averaged for each seed; empty for a single model.
        late_weight: Of an ensemble of a network and a dual encoder: the weight of the latter's cosine beside the
            former's logit, in place of the average.
        only: Name of the data where the row differs from the recipe; empty: all data.
        against: Row of the ablation to which this one is compared; empty: the full network.
        regions: Options of `tshsr features` for the store that this row is trained on (`--data`); empty: its defaults.
        late: Whether only terms that join the score after training differ, so that the weights of a seed are those of
            the full network.
    """

    name: str
    title: str
    recipe: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)
    members: tuple[str, ...] = ()
    late_weight: float = 0.0
    only: str = ""
    regions: str = ""
    against: str = ""
    late: bool = False

    def applies_to(self, data: str) -> bool:
        """Whether the row differs from its recipe on this data."""
        return self.only in ("", data)

    def config(self, data: str, seed: int) -> RunConfig:
        """Settings of the run of a single model."""
        config = recipe(f"{self.recipe}-{data}")
        return with_settings(config, {**self.changes, "training.seed": seed})


OURS = "tshsr"
STREAMS = ("word-stream", "region-stream")
"""Networks of one stream each."""
APART = "streams-apart"
"""Their ensemble: what two networks give without a common training."""
PHOTOS = "flickr8k-photos"
FORMER = {"model.pooling": "attention", "model.late_weight": 0.0, "model.late_centre": 0.6, "model.late_mean": 0.0}
"""The former recipe tshsr-flickr8k-photos, with which the rows of other encoders were trained."""
FEW = {"training.captions_share": 0.1, "training.epochs": 24, "training.evaluate_every": 6}
"""A tenth of the training captions, three times as often: with as few steps nothing would be learned."""
FEW_WITH_CONCEPTS = {**FEW, "loss.relations_warmup_epochs": 6.0}
"""FEW, with the losses of concepts after the same share of the epochs."""
MODELS = (
    Entry(
        "vse-mean",
        "VSE, mean pooling (VSE++)",
        "vse",
        {"model.pooling": "mean", "model.encoder.region_projection": "linear"},
    ),
    Entry("vse-attention", "VSE, attention pooling", "vse", {"model.pooling": "attention"}),
    Entry("vse", "VSE, generalised pooling (VSE∞)", "vse"),
    Entry("esa", "ESA's pooling", "esa"),
    Entry("hrem", "HREM, relations of a batch in training", "hrem"),
    Entry("maxsim-word", "late interaction (MaxSim), word stream", "late-interaction", {"model.streams": "word"}),
    Entry("maxsim-region", "late interaction (MaxSim), region stream", "late-interaction", {"model.streams": "region"}),
    Entry("maxsim", "late interaction (MaxSim), mean of both streams", "late-interaction"),
    Entry("chan", "CHAN, hard alignment", "chan"),
    Entry("scan-word", "SCAN, word stream (t-i)", "scan"),
    Entry("scan-region", "SCAN, region stream (i-t)", "scan", {"model.streams": "region"}),
    Entry("saf", "SAF", "saf"),
    Entry("sgr", "SGR", "sgr"),
    Entry("two-stream-sgr", "SGR in two streams", "two-stream-sgr"),
    Entry("rcar-word", "RCAR, word stream (t-i)", "rcar"),
    Entry("rcar-region", "RCAR, region stream (i-t)", "rcar", {"model.streams": "region"}),
    Entry("imram", "IMRAM, three steps, both streams", "imram"),
    Entry("shan", "SHAN, three alignments", "shan"),
    Entry("dsgsl", "DSGSL, our instantiation", "dsgsl"),
    Entry("cvse", "CVSE, consensus of concepts, our instantiation", "cvse"),
    Entry("csrc", "CSRC, consistent concepts, our instantiation", "csrc"),
    Entry("ekdm", "EKDM, progressive concepts, our instantiation", "ekdm"),
    Entry(OURS, "**TSHSR**, our instantiation", "tshsr"),
    Entry("scan", "SCAN t-i + i-t, ensemble", members=("scan-word", "scan-region")),
    Entry("sgraf", "SGRAF = SGR + SAF, ensemble", members=("sgr", "saf")),
    Entry("rcar", "RCAR = t-i + i-t, ensemble", members=("rcar-word", "rcar-region")),
    Entry(
        "two-stream-sgr-esa",
        "SGR in two streams + ESA's pooling, joined as `v·t` in TSHSR, ensemble",
        members=("two-stream-sgr", "esa"),
        late_weight=30.0,
        only=PHOTOS,
    ),
)
"""The methods: single models, then ensembles of two."""
BATCH_GRAPH = {"model.neighbours": 8, "loss.relations": 1.0, "loss.relations_warmup_epochs": 1.0}
"""DSGSL's batch graph in TSHSR; its losses begin after the first epoch."""
ABLATION = (
    Entry("levels-0", "no hierarchy: level 0 alone", "tshsr", {"model.reasoning.levels": 0}),
    Entry("levels-1", "one level of reasoning", "tshsr", {"model.reasoning.levels": 1}),
    Entry("levels-3", "three levels", "tshsr", {"model.reasoning.levels": 3, "model.reasoning.seeds": (8, 3, 2)}),
    Entry("seeds-half", "half the context nodes (4, 2)", "tshsr", {"model.reasoning.seeds": (4, 2)}),
    Entry("seeds-double", "twice the context nodes (16, 6)", "tshsr", {"model.reasoning.seeds": (16, 6)}),
    Entry("no-context", "an update sees no context nodes", "tshsr", {"model.reasoning.context": False}),
    Entry("no-local", "an update sees context nodes alone", "tshsr", {"model.reasoning.local": False}),
    Entry("no-gate", "no gate", "tshsr", {"model.reasoning.gate": False}),
    Entry("word-stream", "word stream alone", "tshsr", {"model.streams": "word"}),
    Entry("region-stream", "region stream alone", "tshsr", {"model.streams": "region"}),
    Entry(APART, "both streams trained apart, scores averaged", members=STREAMS),
    Entry("learned-fusion", "learned fusion", "tshsr", {"model.fusion": "learned"}),
    Entry("global-node", "with a global node", "tshsr", {"model.global_node": True}),
    Entry("no-pooled-term", "`v·t` not in the logit", "tshsr", {"model.pooled_term": False}),
    Entry("wide-comparison", "comparison in the joint space, as SGRAF", "tshsr", {"model.comparison_dim": 0}),
    Entry("dsgsl-gate", "queries gated before comparison (DSGSL)", "tshsr", {"model.gated_queries": True}),
    Entry(
        "dsgsl-graphs",
        "with a global node and graphs of local and global nodes (DSGSL)",
        "tshsr",
        {"model.global_node": True, "model.dual_graph": True},
    ),
    Entry("dsgsl-batch", "v, t rebuilt from their neighbours in a batch, in training (DSGSL)", "tshsr", BATCH_GRAPH),
    Entry(
        "dsgsl-all",
        "all three parts of DSGSL",
        "tshsr",
        {"model.gated_queries": True, "model.global_node": True, "model.dual_graph": True, **BATCH_GRAPH},
    ),
    Entry(
        "equal-losses",
        "every loss with the weight 1",
        "tshsr",
        {"loss.streams": 1.0, "loss.levels": 1.0, "loss.pooled": 1.0},
        only="flickr8k",
    ),
    Entry("no-stream-loss", "no loss on the streams", "tshsr", {"loss.streams": 0.0}),
    Entry("no-level-loss", "no loss on the levels", "tshsr", {"loss.levels": 0.0}),
    Entry("no-pooled-loss", "no loss on `v·t`", "tshsr", {"loss.pooled": 0.0}),
    Entry("no-places", "no place term", "tshsr", {"model.place_term": False}, only="scenes"),
    Entry("no-swaps", "no swapped captions", "tshsr", {"loss.swapped": 0.0}, only="scenes"),
    Entry("boxes", "box geometry", "tshsr", {"model.encoder.boxes": True}, only="flickr8k"),
    Entry(
        "places",
        "box geometry and the place term",
        "tshsr",
        {"model.encoder.boxes": True, "model.place_term": True},
        only="flickr8k",
    ),
    Entry(
        "swaps", "swapped captions, at half the weight of the others", "tshsr", {"loss.swapped": 0.5}, only="flickr8k"
    ),
    Entry("saf-narrow", "SAF, compared as here", "saf", {"model.comparison_dim": 64}, only="flickr8k"),
    Entry("sgr-narrow", "SGR, compared as here", "sgr", {"model.comparison_dim": 64}, only="flickr8k"),
    Entry(
        "two-stream-sgr-narrow",
        "SGR in two streams, compared as here",
        "two-stream-sgr",
        {"model.comparison_dim": 64},
        only="flickr8k",
    ),
    Entry(
        "pooled-context",
        "context nodes pool similarity vectors alone",
        "tshsr",
        {"model.reasoning.context_inverse_temperature": 0.0},
        only=PHOTOS,
    ),
    Entry(
        "no-mean",
        "the mean similarity not subtracted, weight of `v·t` 30",
        "tshsr",
        {"model.late_weight": 30.0, "model.late_centre": 0.6, "model.late_mean": 0.0},
        only=PHOTOS,
        late=True,
    ),
    Entry("former", "the former recipe", "tshsr", FORMER, only=PHOTOS),
    Entry("no-products", "squared differences alone", "tshsr", {"model.products": False}, only=PHOTOS),
    Entry("hinge", "hinge in place of InfoNCE on the scores", "tshsr", {"loss.scores": "hinge"}, only=PHOTOS),
    Entry("no-late-interaction", "no loss on late interaction", "tshsr", {"loss.late_interaction": 0.0}, only=PHOTOS),
    Entry(
        "no-similarity-dropout",
        "no dropout on similarity vectors",
        "tshsr",
        {"model.similarity_dropout": 0.0},
        only=PHOTOS,
    ),
    Entry("no-region-dropout", "no region dropout", "tshsr", {"model.encoder.region_dropout": 0.0}, only=PHOTOS),
    Entry("text-last-layer", "words by MiniLM's last layer", "tshsr", {"model.encoder.text_layers": ()}, only=PHOTOS),
    Entry(
        "text-gru",
        "words by a GRU from scratch",
        "tshsr",
        {**FORMER, "model.encoder.text": "gru", "model.encoder.text_weights": "", "model.encoder.text_layers": ()},
        only=PHOTOS,
        against="former",
    ),
    Entry(
        "text-glove",
        "words by a GRU over GloVe",
        "tshsr",
        {
            **FORMER,
            "model.encoder.text": "gru",
            "model.encoder.text_weights": "",
            "model.encoder.text_layers": (),
            "model.encoder.word_vectors": "glove-50d",
            "model.encoder.word_dim": 50,
        },
        only=PHOTOS,
        against="former",
    ),
    Entry(
        "text-tuned",
        "the last two layers of MiniLM tuned",
        "tshsr",
        {**FORMER, "model.encoder.text_tuned_layers": 2},
        only=PHOTOS,
        against="former",
    ),
    Entry("knowledge-progressive", "with the concepts of EKDM", "tshsr-knowledge"),
    Entry(
        "knowledge-consistent",
        "with the concepts of CSRC",
        "tshsr-knowledge",
        {"model.knowledge.method": "consistent", "model.knowledge.node": False},
    ),
    Entry(
        "knowledge-term",
        "with the concepts of EKDM, without their node and losses",
        "tshsr-knowledge",
        {"model.knowledge.node": False, "loss.relations": 0.0},
    ),
    Entry(
        "knowledge-no-wordnet",
        "with the concepts of EKDM, without WordNet",
        "tshsr-knowledge",
        {"model.knowledge.lexicon": "rules"},
        only=PHOTOS,
    ),
    Entry("few-captions", "a tenth of the training captions", "tshsr", FEW, only=PHOTOS),
    Entry(
        "few-captions-progressive",
        "a tenth of the training captions, with the concepts of EKDM",
        "tshsr-knowledge",
        FEW_WITH_CONCEPTS,
        only=PHOTOS,
        against="few-captions",
    ),
    Entry(
        "few-captions-consistent",
        "a tenth of the training captions, with the concepts of CSRC",
        "tshsr-knowledge",
        {**FEW_WITH_CONCEPTS, "model.knowledge.method": "consistent", "model.knowledge.node": False},
        only=PHOTOS,
        against="few-captions",
    ),
    Entry("few-captions-vse", "a tenth of the training captions, VSE∞", "vse", FEW, only=PHOTOS),
    Entry(
        "few-captions-cvse",
        "a tenth of the training captions, CVSE",
        "cvse",
        FEW_WITH_CONCEPTS,
        only=PHOTOS,
        against="few-captions-vse",
    ),
    *(
        Entry(f"regions-{name}", title, "tshsr", FORMER, only=PHOTOS, regions=options, against="former")
        for name, title, options in (
            ("whole", "whole picture alone", "--windows none"),
            ("grid", "whole picture and grid of one pass", "--windows none --cells 6"),
            ("pooled", "whole picture, grid and windows of one pass", "--windows pooled --cells 6"),
        )
    ),
)
"""The ablation: each row changes one thing in TSHSR; the last ones give its comparison to the other methods."""
BY_DEFAULT = {
    PHOTOS: (
        *("levels-0", "levels-1", "pooled-context", "no-context", "no-gate"),
        *("word-stream", "region-stream", APART),
        *("no-mean", "no-products", "no-late-interaction", "no-level-loss", "no-stream-loss"),
        *("knowledge-progressive", "knowledge-consistent", "dsgsl-all"),
        *(
            "few-captions",
            "few-captions-progressive",
            "few-captions-consistent",
            "few-captions-vse",
            "few-captions-cvse",
        ),
    )
}
"""Rows of the ablation that `--ablation` runs on data where all of them, with three seeds, would take days."""
ENTRIES = {entry.name: entry for entry in (*MODELS, *ABLATION)}


def with_settings(config: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    """The settings with some replaced, by dotted name.

    Raises:
        TypeError: Where there is no such setting.
    """
    for name, value in changes.items():
        config = cast(RunConfig, with_setting(config, name.split("."), value))
    return config


def with_setting(settings: Any, path: list[str], value: Any) -> Any:
    """Replace the value at a path of attribute names."""
    first, *rest = path
    if not is_dataclass(settings) or isinstance(settings, type) or not hasattr(settings, first):
        raise TypeError(f"{type(settings).__name__} has no setting {first!r}")
    return replace(settings, **{first: with_setting(getattr(settings, first), rest, value) if rest else value})
