"""The rows of the quality table and of the ablation: a recipe with some settings changed, or a mean of other rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass, replace
from typing import Any, cast

from tshsr.config.recipes import recipe
from tshsr.config.run import RunConfig


@dataclass(frozen=True)
class Entry:
    """A row.

    Attributes:
        name: What the row, its runs and its files are called.
        title: What the table says.
        recipe: The recipe that is trained, without the name of the data; empty for an ensemble.
        changes: Settings that differ from the recipe's, by dotted name.
        members: Rows whose scores are averaged, seed by seed; empty for a single model.
        only: The data on which the changes are any; empty: all.
    """

    name: str
    title: str
    recipe: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)
    members: tuple[str, ...] = ()
    only: str = ""

    def fits(self, data: str) -> bool:
        """Whether the row says anything on this data."""
        return self.only in ("", data)

    def config(self, data: str, seed: int) -> RunConfig:
        """The run of a single model."""
        config = recipe(f"{self.recipe}-{data}")
        return changed(config, {**self.changes, "training.seed": seed})


OURS = "tshsr"
MODELS = (
    Entry("vse-mean", "VSE, mean pooling (VSE++)", "vse", {"model.pooling": "mean", "model.perceptron": False}),
    Entry("vse-attention", "VSE, attention pooling", "vse", {"model.pooling": "attention"}),
    Entry("vse", "VSE, generalised pooling (VSE∞)", "vse"),
    Entry("scan-word", "SCAN, word stream (t-i)", "scan"),
    Entry("scan-region", "SCAN, region stream (i-t)", "scan", {"model.streams": "region"}),
    Entry("saf", "SAF", "saf"),
    Entry("sgr", "SGR", "sgr"),
    Entry("two-stream-sgr", "SGR in two streams", "two-stream-sgr"),
    Entry(OURS, "**TSHSR**, our instantiation", "tshsr"),
    Entry("scan", "SCAN t-i + i-t, ensemble", members=("scan-word", "scan-region")),
    Entry("sgraf", "SGRAF = SGR + SAF, ensemble", members=("sgr", "saf")),
)
"""The race: single models, then ensembles of two."""

ABLATION = (
    Entry("levels-0", "no hierarchy: level 0 alone", "tshsr", {"model.reasoning.levels": 0}),
    Entry("levels-1", "one level of reasoning", "tshsr", {"model.reasoning.levels": 1}),
    Entry("levels-3", "three levels", "tshsr", {"model.reasoning.levels": 3, "model.reasoning.seeds": (8, 3, 2)}),
    Entry("seeds-half", "half the seeds (4, 2)", "tshsr", {"model.reasoning.seeds": (4, 2)}),
    Entry("seeds-double", "twice the seeds (16, 6)", "tshsr", {"model.reasoning.seeds": (16, 6)}),
    Entry("no-context", "an update sees no context nodes", "tshsr", {"model.reasoning.context": False}),
    Entry("no-local", "an update sees context nodes alone", "tshsr", {"model.reasoning.local": False}),
    Entry("no-gate", "no gate", "tshsr", {"model.reasoning.gate": False}),
    Entry("word-stream", "word stream alone", "tshsr", {"model.streams": "word"}),
    Entry("region-stream", "region stream alone", "tshsr", {"model.streams": "region"}),
    Entry("learned-fusion", "learned fusion", "tshsr", {"model.fusion": "learned"}),
    Entry("global-node", "with a global node", "tshsr", {"model.global_node": True}),
    Entry("no-pooled-term", "`v·t` not in the logit", "tshsr", {"model.pooled_term": False}),
    Entry("wide-comparison", "comparison in the joint space, as SGRAF", "tshsr", {"model.comparison_dim": 0}),
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
)
"""The ablation: each row changes one thing in TSHSR; the last ones give its comparison to the others."""

ENTRIES = {entry.name: entry for entry in (*MODELS, *ABLATION)}


def changed(config: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    """A run with some settings replaced, by dotted name.

    Raises:
        TypeError: Where there is no such setting.
    """
    for name, value in changes.items():
        config = cast(RunConfig, replaced(config, name.split("."), value))
    return config


def replaced(settings: Any, path: list[str], value: Any) -> Any:
    """One value replaced."""
    first, *rest = path
    if not is_dataclass(settings) or isinstance(settings, type) or not hasattr(settings, first):
        raise TypeError(f"{type(settings).__name__} has no setting {first!r}")
    return replace(settings, **{first: replaced(getattr(settings, first), rest, value) if rest else value})
