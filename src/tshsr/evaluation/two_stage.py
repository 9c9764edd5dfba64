"""Reports on a two-stage search: what it found, how few pairs it reasoned about, what that lost against all pairs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from tshsr.data.dataset import Split
from tshsr.errors import SettingsError
from tshsr.evaluation.run import Scorer, choose_protocol, evaluate_scores, guard
from tshsr.metrics.recall import check_captioned, score_metrics
from tshsr.metrics.report import ProtocolName, Report, Rerank
from tshsr.scoring.candidates import Depth, ceiling, lost
from tshsr.scoring.depth import choose_depth
from tshsr.scoring.options import DEFAULT_OPTIONS, ScoringOptions
from tshsr.scoring.rerank import score_split_rescored, score_two_stage
from tshsr.system import Begin, Progress, no_progress


@dataclass(frozen=True)
class Chosen:
    """Both K, and where they were chosen.

    Attributes:
        depth: The K.
        split: The split whose pairs were all scored; None where the K were given.
        lost: Points that they lose there, as `candidates.lost` orders them.
    """

    depth: Depth
    split: str | None = None
    lost: tuple[float, ...] = ()


@dataclass(frozen=True)
class TwoStageSearch:
    """A model that reasons about the best candidates by v·t alone.

    Attributes:
        retriever: The model.
        options: How pairs are scored; the folder is for matrices of all pairs. Its progress is not called.
        protocol: See `choose_protocol`; none that cuts the images into folds.
    """

    retriever: Scorer
    options: ScoringOptions = DEFAULT_OPTIONS
    protocol: ProtocolName | Literal["auto"] = "auto"

    def check(self, split: Split) -> None:
        """Refuse what can't be searched, before hours of scoring.

        Raises:
            SettingsError: Where the network has no first stage of its own, or the protocol cuts the images into folds.
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
                f"{self.retriever.name} has no first stage beside its score ({', '.join(sorted(names))}): a two-stage "
                "search needs v·t and a network that reasons. Evaluate it without --rerank."
            )

    def choose(self, known: Split, wanted: Split, *, progress: Progress = no_progress) -> Chosen:
        """Score all pairs of a split, choose both K on it, and fit them to the size of another.

        Args:
            known: The split to choose on, whose answers may be used: dev.
            wanted: The split to search.
            progress: Called with (pairs done, pairs in all).

        Raises:
            InputError: Where a score is not finite, or an image has no caption.
        """
        check_captioned(len(known.regions), known.image_of_caption)
        scores = self._score_all(known, "choosing", progress)
        depth, points = choose_depth(scores["fused"], scores["pooled"], known.image_of_caption)
        sizes = [(len(split.regions), len(split.captions)) for split in (known, wanted)]
        return Chosen(depth.scaled(*sizes), known.name, points)

    def evaluate(
        self, split: Split, chosen: Chosen, *, progress: Progress = no_progress
    ) -> tuple[Report, Mapping[str, np.ndarray]]:
        """Search a split with every image and every caption, and report.

        Args:
            split: What to evaluate on.
            chosen: Candidates of a query.
            progress: Called with (pairs done, pairs to reason about).

        Returns:
            The report, and `fused` and `pooled`, images x captions.

        Raises:
            InputError: Where a score is not finite, or an image has no caption.
        """
        start = time.perf_counter()
        found = score_two_stage(
            self.retriever.matcher,
            self.retriever.tokenizer,
            split,
            chosen.depth,
            replace(self.options, progress=progress),
        )
        report = evaluate_scores(
            found.scores,
            split.image_of_caption,
            protocol=self.protocol,
            data=split.data,
            split=split.name,
            models=[self.retriever.name],
            seconds=time.perf_counter() - start,
        )
        highest = ceiling(found.reasoned, split.image_of_caption)
        stage = Rerank(
            k_images=chosen.depth.k_images,
            k_captions=chosen.depth.k_captions,
            reasoned_pairs=int(found.reasoned.sum()),
            all_pairs=found.reasoned.size,
            ceiling_image_to_text=highest[0],
            ceiling_text_to_image=highest[1],
            chosen_on=chosen.split,
            lost={} if chosen.split is None else {chosen.split: chosen.lost},
        )
        return replace(report, rerank=stage, captions_digest=split.captions_digest), found.scores

    def compare(self, split: Split, report: Report, *, progress: Progress = no_progress) -> Report:
        """The report with what the search lost on the same split, all of whose pairs are scored for that.

        Raises:
            SettingsError: Where the report is of no two-stage search.
        """
        if report.rerank is None:
            raise SettingsError("the report is of no two-stage search; evaluate one first.")
        start = time.perf_counter()
        full = score_metrics(self._score_all(split, "comparing", progress)["fused"], split.image_of_caption)
        points = {**report.rerank.lost, split.name: lost(full, report.scores["fused"])}
        seconds = time.perf_counter() - start
        return replace(report, rerank=replace(report.rerank, lost=points, all_pairs_seconds=seconds))

    def _score_all(self, split: Split, purpose: str, progress: Progress) -> Mapping[str, np.ndarray]:
        """All scores of all pairs, in a folder of their own where there is one."""
        folder = None if self.options.folder is None else self.options.folder / purpose
        if folder is not None:
            folder.mkdir(exist_ok=True)
        options = replace(self.options, folder=folder, progress=progress)
        return score_split_rescored(self.retriever.matcher, self.retriever.tokenizer, split, options)


def evaluate_two_stage(
    search: TwoStageSearch,
    split: Split,
    plan: Depth | Split,
    *,
    check: bool = False,
    begin: Begin = lambda *_: no_progress,
) -> tuple[Report, Mapping[str, np.ndarray]]:
    """Search a split, and report.

    Args:
        search: How. A lower precision is first measured on a sample, and used where it is faster and as good.
        split: What to evaluate on.
        plan: How many candidates, or the split (dev) to choose that on: see `candidates.choose_depth`.
        check: Whether to score all pairs too, and tell what was lost.
        begin: Told of each part of the work.

    Returns:
        The report, and `fused` and `pooled`, images x captions.

    Raises:
        SettingsError: Where the network has no first stage of its own.
        InputError: Where a score is not finite, or an image has no caption.
    """
    search.check(split)
    known = plan if isinstance(plan, Split) else None
    measured = None
    if search.options.dtype is not None:
        measured = guard(search.retriever, known or split, search.options)
        if not measured.used:
            search = replace(search, options=replace(search.options, dtype=None))
    if isinstance(plan, Split):
        chosen = search.choose(plan, split, progress=begin(f"choosing K on {plan.name}", "pairs"))
    else:
        chosen = Chosen(plan)
    report, scores = search.evaluate(split, chosen, progress=begin("reasoning", "pairs"))
    if check:
        report = search.compare(split, report, progress=begin("comparing with all", "pairs"))
    return replace(report, precision=None if measured is None else (measured,)), scores
