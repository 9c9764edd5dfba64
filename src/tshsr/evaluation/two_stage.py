"""Evaluation of a two-stage search: recalls, number of scored pairs, loss of recall against scoring all pairs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from tshsr.data.dataset import Split
from tshsr.errors import SettingsError
from tshsr.evaluation.run import (
    Evaluation,
    Scorer,
    agreed_check,
    choose_protocol,
    rank_queries,
    subfolder,
    usable_options,
)
from tshsr.metrics.ranks import metrics_by_fold
from tshsr.metrics.recall import check_captioned, mean_metrics, score_metrics
from tshsr.metrics.report import PrecisionCheck, ProtocolName, Rerank
from tshsr.scoring.candidates import Depth, lost, recall_ceiling
from tshsr.scoring.depth import choose_depth
from tshsr.scoring.options import DEFAULT_OPTIONS, ScoringOptions
from tshsr.scoring.rerank import TwoStageScores, score_split_rescored, score_two_stage
from tshsr.system import Begin, Progress, begin_no_progress, no_progress


@dataclass(frozen=True)
class ChosenDepth:
    """A depth, and the validation split on which it was chosen.

    Attributes:
        depth: Candidates per query.
        split: Name of the validation split; None for a given depth.
        lost: Points lost there, in the order of `candidates.lost`.
    """

    depth: Depth
    split: str | None = None
    lost: tuple[float, ...] = ()


@dataclass(frozen=True)
class TwoStageSearch:
    """A model that scores only the best candidates by v·t.

    Attributes:
        options: `folder` is for matrices of all pairs, and for the exchange of several processes; `progress` is unused.
        protocol: See `choose_protocol`; `coco-1k` is rejected.
    """

    retriever: Scorer
    options: ScoringOptions = DEFAULT_OPTIONS
    protocol: ProtocolName | Literal["auto"] = "auto"

    def check(self, split: Split) -> None:
        """Reject networks and protocols without a two-stage search, before hours of scoring.

        Raises:
            SettingsError: Where the network has no separate first stage, or the protocol ranks folds of images.
            InputError: Where the protocol does not fit the split, or an image has no caption.
        """
        if choose_protocol(self.protocol, len(split.regions)) == "coco-1k":
            raise SettingsError(
                "a two-stage search takes its candidates from all images, coco-1k ranks 1000 at a time; use another "
                "protocol."
            )
        check_captioned(len(split.regions), split.image_of_caption)
        names = self.retriever.matcher.score_names
        if "pooled" not in names or names <= {"fused", "pooled"}:
            raise SettingsError(
                f"{self.retriever.name} has the scores {', '.join(sorted(names))}: a two-stage search needs v·t "
                "(pooled) for its first stage and another score for its second. Evaluate it without --rerank."
            )

    def choose(self, known: Split, wanted: Split, *, progress: Progress = no_progress) -> ChosenDepth:
        """Score all pairs of a validation split, choose the depth on it, and scale it to another split.

        Args:
            progress: Called with (pairs done, pairs in total).

        Raises:
            InputError: Where a score is not finite, or an image has no caption.
        """
        check_captioned(len(known.regions), known.image_of_caption)
        scores, processes = self.score_all(known, "choosing", progress), self.options.processes
        depth, points = processes.from_main(
            choose_depth(scores["fused"], scores["pooled"], known.image_of_caption)
            if processes.is_main
            else (Depth(1, 1), ())
        )
        sizes = [(len(split.regions), len(split.captions)) for split in (known, wanted)]
        return ChosenDepth(depth.scaled(*sizes), known.name, points)

    def search(self, split: Split, depth: Depth, *, progress: Progress = no_progress) -> TwoStageScores:
        """Search with every image and every caption of a split as the query."""
        options = replace(self.options, progress=progress)
        return score_two_stage(self.retriever.matcher, self.retriever.tokenizer, split, depth, options)

    def score_all(self, split: Split, purpose: str, progress: Progress) -> Mapping[str, np.ndarray]:
        """All scores of all pairs, in a subfolder of the folder if there is one."""
        folder = None if self.options.folder is None else subfolder(self.options.folder, purpose)
        options = replace(self.options, folder=folder, progress=progress)
        return score_split_rescored(self.retriever.matcher, self.retriever.tokenizer, split, options)


@dataclass(frozen=True)
class Searched:
    """Results of a two-stage search with every image and every caption of a split as the query.

    Attributes:
        checks: Measurement of a lower precision, where one was asked for.
        seconds: Duration of the search.
        full: All scores of all pairs, where the search is compared with them.
        full_seconds: Duration of computing these.
    """

    found: TwoStageScores
    chosen: ChosenDepth
    checks: tuple[PrecisionCheck, ...]
    seconds: float
    full: Mapping[str, np.ndarray] | None = None
    full_seconds: float | None = None


def search_split(
    search: TwoStageSearch, split: Split, plan: Depth | Split, *, check: bool = False, begin: Begin = begin_no_progress
) -> Searched:
    """Search a split; of several processes each scores its share. Arguments and errors as of `evaluate_two_stage`."""
    search.check(split)
    search = replace(search, options=usable_options(search.retriever.matcher, search.options))
    checks: tuple[PrecisionCheck, ...] = ()
    if search.options.dtype is not None:
        sample = plan if isinstance(plan, Split) else split
        checks = (agreed_check(search.retriever, sample, search.options),)
        if not checks[0].used:
            search = replace(search, options=replace(search.options, dtype=None))
    if isinstance(plan, Split):
        chosen = search.choose(plan, split, progress=begin(f"choosing K on {plan.name}", "pairs"))
    else:
        chosen = ChosenDepth(plan)
    start = time.perf_counter()
    found = search.search(split, chosen.depth, progress=begin("reasoning", "pairs"))
    seconds = time.perf_counter() - start
    if not check:
        return Searched(found, chosen, checks, seconds)
    start = time.perf_counter()
    full = search.score_all(split, "comparing", begin("comparing with all", "pairs"))
    return Searched(found, chosen, checks, seconds, full, time.perf_counter() - start)


def evaluate_two_stage(
    search: TwoStageSearch, split: Split, plan: Depth | Split, *, check: bool = False, begin: Begin = begin_no_progress
) -> Evaluation:
    """Search a split, and rank the queries.

    Of several processes the main one calls this, and the others call `search_split`.

    Args:
        search: The search. A lower precision is measured on a sample first, and used if faster without loss of recall.
        plan: Candidates per query, or the validation split (dev) that chooses them: see `depth.choose_depth`.
        check: Whether to score all pairs as well, and report the loss of recall.
        begin: Called at the start of each stage.

    Raises:
        SettingsError: Where the network has no separate first stage.
        InputError: Where a score is not finite, or an image has no caption.
        ProcessError: Where another process was lost.
    """
    result = search_split(search, split, plan, check=check, begin=begin)
    protocol = choose_protocol(search.protocol, len(split.regions))
    ranks = rank_queries(result.found.scores, split.image_of_caption, protocol)
    points = {} if result.chosen.split is None else {result.chosen.split: result.chosen.lost}
    if result.full is not None:
        full = score_metrics(result.full["fused"], split.image_of_caption)
        points[split.name] = lost(full, mean_metrics(metrics_by_fold(ranks["fused"])))
    return Evaluation(
        scores=result.found.scores,
        ranks=ranks,
        protocol=protocol,
        data=split.data,
        split=split.name,
        models=(search.retriever.name,),
        seconds=result.seconds,
        captions_digest=split.captions_digest,
        precision=result.checks,
        rerank=rerank_block(result.found.scored, split, result.chosen, points, result.full_seconds),
    )


def rerank_block(
    scored: np.ndarray,
    split: Split,
    chosen: ChosenDepth,
    points: Mapping[str, tuple[float, ...]],
    all_pairs_seconds: float | None,
) -> Rerank:
    """The part of the report on the search."""
    highest = recall_ceiling(scored, split.image_of_caption)
    return Rerank(
        k_images=chosen.depth.k_images,
        k_captions=chosen.depth.k_captions,
        reasoned_pairs=int(scored.sum()),
        all_pairs=scored.size,
        ceiling_image_to_text=highest[0],
        ceiling_text_to_image=highest[1],
        chosen_on=chosen.split,
        lost=points,
        all_pairs_seconds=all_pairs_seconds,
    )
