"""Two-stream hierarchical similarity reasoning for image-text matching: train, evaluate, explain.

retriever = tshsr.load("runs/flickr30k")
retriever.score(features, ["a dog runs", "two people talk"])      # images x captions

Names are imported lazily, so that `import tshsr` is fast and loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from tshsr.config.recipes import RECIPES as RECIPES
    from tshsr.config.recipes import recipe as recipe
    from tshsr.config.run import RunConfig as RunConfig
    from tshsr.data.check import check_data as check_data
    from tshsr.data.convert import convert as convert
    from tshsr.data.generated import make_scenes as make_scenes
    from tshsr.data.layouts import open_split as open_split
    from tshsr.data.layouts import select_images as select_images
    from tshsr.data.layouts import splits_of as splits_of
    from tshsr.data.pictures import read_picture as read_picture
    from tshsr.errors import TshsrError as TshsrError
    from tshsr.evaluation.matrix import evaluate_matrix as evaluate_matrix
    from tshsr.evaluation.run import evaluate as evaluate
    from tshsr.explain.attribution import explain_pair as explain_pair
    from tshsr.features.catalog import open_extractor as open_extractor
    from tshsr.features.catalog import rebuild_extractor as rebuild_extractor
    from tshsr.index.collection import Index as Index
    from tshsr.metrics.comparison import compare_rsum as compare_rsum
    from tshsr.metrics.ranks import query_ranks as query_ranks
    from tshsr.metrics.recall import score_metrics as score_metrics
    from tshsr.metrics.report import Report as Report
    from tshsr.metrics.report import read_report as read_report
    from tshsr.pages.explanation import render_explanations as render_explanations
    from tshsr.reranking.reranker import Reranker as Reranker
    from tshsr.retriever import Retriever as Retriever
    from tshsr.scoring.options import ScoringOptions as ScoringOptions
    from tshsr.training.fit import fit as fit

    __version__: str

_MODULES = {
    "RECIPES": "tshsr.config.recipes",
    "Report": "tshsr.metrics.report",
    "Reranker": "tshsr.reranking.reranker",
    "Retriever": "tshsr.retriever",
    "RunConfig": "tshsr.config.run",
    "ScoringOptions": "tshsr.scoring.options",
    "TshsrError": "tshsr.errors",
    "check_data": "tshsr.data.check",
    "compare_rsum": "tshsr.metrics.comparison",
    "convert": "tshsr.data.convert",
    "evaluate": "tshsr.evaluation.run",
    "evaluate_matrix": "tshsr.evaluation.matrix",
    "explain_pair": "tshsr.explain.attribution",
    "fit": "tshsr.training.fit",
    "make_scenes": "tshsr.data.generated",
    "open_extractor": "tshsr.features.catalog",
    "open_split": "tshsr.data.layouts",
    "query_ranks": "tshsr.metrics.ranks",
    "read_picture": "tshsr.data.pictures",
    "read_report": "tshsr.metrics.report",
    "rebuild_extractor": "tshsr.features.catalog",
    "recipe": "tshsr.config.recipes",
    "render_explanations": "tshsr.pages.explanation",
    "score_metrics": "tshsr.metrics.recall",
    "select_images": "tshsr.data.layouts",
    "splits_of": "tshsr.data.layouts",
}

_EXTRAS = {"Index": "tshsr.index.collection"}
"""Names that require an extra, and are therefore excluded from `from tshsr import *`."""

__all__ = [  # noqa: PLE0604, RUF100, RUF022 - a test compares it with _MODULES
    "RECIPES",
    "Report",
    "Reranker",
    "Retriever",
    "RunConfig",
    "ScoringOptions",
    "TshsrError",
    "__version__",
    "check_data",
    "compare_rsum",
    "convert",
    "evaluate",
    "evaluate_matrix",
    "explain_pair",
    "fit",
    "load",
    "make_scenes",
    "open_extractor",
    "open_split",
    "query_ranks",
    "read_picture",
    "read_report",
    "rebuild_extractor",
    "recipe",
    "render_explanations",
    "score_metrics",
    "select_images",
    "splits_of",
]


def load(place: str | Path, **options: Any) -> Retriever:
    """Load a trained network: a run's folder, a folder of `save_pretrained`, or "owner/name" on the hub.

    Args:
        place: The folder, or the name on the hub.
        options: Keyword arguments of `Retriever.from_pretrained`, such as `which="last"`.

    Raises:
        CheckpointError: Where there is no such folder or model, or it is incomplete or damaged.
    """
    from tshsr.retriever import Retriever

    return Retriever.from_pretrained(place, **options)


def __getattr__(name: str) -> Any:
    """Import a public name at its first use."""
    if name == "__version__":
        from tshsr.system import package_version

        return package_version()
    module = _MODULES.get(name) or _EXTRAS.get(name)
    if module is None:
        raise AttributeError(f"module 'tshsr' has no attribute {name!r}")
    return getattr(import_module(module), name)


def __dir__() -> list[str]:
    """The public names."""
    return __all__
