"""Reports as text and tables."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

from tshsr.cli.screen import Screen, duration
from tshsr.explain.curves import LEAST_PAIRS
from tshsr.metrics.human import LEAST_IMAGES, Agreement, Correlation
from tshsr.metrics.labels import reading_order
from tshsr.metrics.multi_positive import RankingMetrics, Rankings
from tshsr.metrics.recall import ScoreMetrics
from tshsr.metrics.report import HEADER, AreaDifference, ExplanationFigures, PrecisionCheck, Report, Rerank

ANNOTATIONS = {"eccv": "ECCV Caption", "cxc": "CxC", "pmrp": "PMRP"}
NAMES = {"leave_one_out": "leave one out", "pooled": "v·t"}
"""Display names of entries of a report, where they differ."""


def show_report(screen: Screen, report: Report) -> None:
    """The figures of a report and the data they were measured on."""
    what = f"{report.data}, split {report.split}: {report.images:,} images, {report.captions:,} captions"
    screen.say(f"{what}; protocol {report.protocol}; {members(report)}; {duration(report.seconds)}")
    header = [name.replace(" text", "\ntext").replace(" image", "\nimage").replace(" R@", "\nR@") for name in HEADER]
    screen.table(header, report.table())
    if "fused" in report.scores:
        screen.say(f"fused, {rank_figures(report.scores['fused'])}")
    for name, rankings in (report.rankings or {}).items():
        for line in ranking_lines(rankings):
            screen.say(f"{name}, {line}")
    for name, rankings in (report.annotations or {}).items():
        for side, metrics in (("image to text", rankings.image_to_text), ("text to image", rankings.text_to_image)):
            screen.say(f"{ANNOTATIONS[name]}, {side}: {annotation_figures(metrics)}")
    if report.judgements is not None:
        screen.say(agreement_line(report.judgements))
    shown = (("pointing", "words whose heaviest region is right"), ("binding", "true captions above their foils"))
    for name, meaning in shown:
        shares = getattr(report, name)
        if shares:
            figures = ", ".join(f"{score} {100 * shares[score]:.1f} %" for score in sorted(shares, key=reading_order))
            screen.say(f"{name} ({meaning}): {figures}")
    if report.binding_by_kind:
        kinds = ", ".join(f"{kind} {100 * share:.1f} %" for kind, share in report.binding_by_kind.items())
        screen.say(f"binding by what is swapped (fused): {kinds}")
    for model, guard in zip(itertools.cycle(report.models), report.precision or (), strict=False):
        screen.say(precision_line(model, guard))
    for line in rerank_lines(report.rerank) if report.rerank is not None else ():
        screen.say(line)
    if report.explanations is not None:
        show_explanations(screen, report.explanations)


def rank_figures(metrics: ScoreMetrics) -> str:
    """Median and mean rank of both directions."""
    one, other = metrics.image_to_text, metrics.text_to_image
    return (
        f"image to text: median rank {one.medr:.1f}, mean rank {one.meanr:.1f}; "
        f"text to image: median rank {other.medr:.1f}, mean rank {other.meanr:.1f}"
    )


def ranking_lines(rankings: Rankings) -> Iterator[str]:
    """Figures for several right answers; text to image has one, so only its reciprocal rank adds to the recalls."""
    one = rankings.image_to_text
    yield (
        f"image to text: of an image's captions {one.true_r1:.1f} / {one.true_r5:.1f} / {one.true_r10:.1f} % are found "
        f"among the first 1 / 5 / 10 (all of them for {one.all_r5:.1f} / {one.all_r10:.1f} % of the images at 5 / 10); "
        f"mAP@R {one.map_at_r:.1f}, R-Precision {one.r_precision:.1f}, MRR {one.mrr:.3f}"
    )
    yield f"text to image: MRR {rankings.text_to_image.mrr:.3f}"


def annotation_figures(metrics: RankingMetrics) -> str:
    """One direction by denser annotation."""
    return (
        f"R@1 {metrics.r1:.1f}, R@5 {metrics.r5:.1f}, R@10 {metrics.r10:.1f}, mAP@R {metrics.map_at_r:.1f}, "
        f"R-Precision {metrics.r_precision:.1f}"
    )


def agreement_line(agreement: Agreement) -> str:
    """Rank correlation of a score with human ratings."""

    def shown(name: str, value: Correlation) -> str:
        if value.low is None or value.high is None:
            return f"{name} {value.value:.3f}"
        return f"{name} {value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"

    if agreement.images < LEAST_IMAGES:
        intervals = f"no interval: too few images, at least {LEAST_IMAGES} must be rated"
    elif None in (agreement.tau_c.low, agreement.spearman.low):
        intervals = "no interval: in too many resamples of images all scores or all ratings are alike"
    else:
        intervals = "95 % intervals over images"
    return (
        f"{agreement.judgements:,} judgements of {agreement.images:,} images: "
        f"{shown('Kendall tau-c', agreement.tau_c)}, {shown('Spearman', agreement.spearman)} ({intervals})"
    )


def members(report: Report) -> str:
    """The model, or the ensemble with its members."""
    names = ", ".join(report.models)
    return f"ensemble of {len(report.models)} models ({names})" if len(report.models) > 1 else f"model {names}"


def precision_line(model: str, guard: PrecisionCheck) -> str:
    """Effect of a lower precision on a sample, and whether it was used."""
    if guard.used:
        verdict = "used"
    else:
        verdict = "not used, it is no faster here" if guard.speedup <= 1 else "not used, recalls change too much"
    return (
        f"{guard.dtype} ({model}): {verdict}. On {guard.images:,} images and {guard.captions:,} captions it is "
        f"{guard.speedup:.2f} times as fast as float32, changes scores by up to {guard.max_difference:.1g} and recalls "
        f"by up to {guard.recall_change:.2f} points; {guard.rank_agreement:.1f} % of the best answers agree."
    )


def rerank_lines(rerank: Rerank) -> Iterator[str]:
    """Candidates of a two-stage search, the highest possible recall, and the recall lost."""
    chosen = "" if rerank.chosen_on is None else f" (chosen on {rerank.chosen_on})"
    yield (
        f"two stages{chosen}: v·t finds {rerank.k_images:,} captions for an image and {rerank.k_captions:,} images "
        f"for a caption on average; {rerank.reasoned_pairs:,} of {rerank.all_pairs:,} pairs were scored by the "
        f"network, {rerank.all_pairs / rerank.reasoned_pairs:.1f} times fewer."
    )
    yield (
        f"a right answer is among the candidates for {rerank.ceiling_image_to_text:.1f} % of the images and "
        f"{rerank.ceiling_text_to_image:.1f} % of the captions: no recall can be higher."
    )
    for split, points in rerank.lost.items():
        yield f"recall lost against all pairs of {split}: {lost_points(points)}."
    if rerank.all_pairs_seconds is not None:
        yield f"scoring all pairs took {duration(rerank.all_pairs_seconds)}."


def lost_points(points: Sequence[float]) -> str:
    """R@1, R@5 and R@10 of both directions."""
    shown = [round(point, 2) + 0.0 for point in points]  # + 0.0 makes -0.0 a plain 0
    parts = [
        f"{direction} " + ", ".join(f"R@{k} {point:.2f}" for k, point in zip((1, 5, 10), side, strict=True))
        for direction, side in (("image to text", shown[:3]), ("text to image", shown[3:]))
    ]
    return "; ".join(parts) + (" points (below 0: gained)" if min(shown) < 0 else " points")


def show_explanations(screen: Screen, figures: ExplanationFigures) -> None:
    """Areas under the curves by ranking, differences with intervals, agreement and pointing."""
    screen.say(
        f"explanations of {figures.pairs:,} pairs ({figures.score}, {figures.full_score:.3f} on average; "
        f"{duration(figures.seconds)}). Area under the curve; 1 is the full score throughout:"
    )
    curves = {
        f"{side}\n{name}": getattr(getattr(figures, side), name)
        for side in ("regions", "words")
        for name in ("deletion", "insertion")
    }
    rankings = dict.fromkeys(name for curve in curves.values() for name in curve.areas)
    rows = [
        (
            NAMES.get(name, name),
            *(f"{curve.areas[name].mean:.3f}" if name in curve.areas else "" for curve in curves.values()),
        )
        for name in rankings
    ]
    screen.table(("ranking", *curves), rows)
    differences = {side: getattr(figures, side).deletion.differences for side in ("regions", "words")}
    screen.table(("deletion, 95 % interval", *differences), list(difference_rows(differences)))
    if figures.pairs < LEAST_PAIRS:
        screen.say(f"no intervals: {figures.pairs} pairs are too few; measure at least {LEAST_PAIRS}.")
    for line in explanation_lines(figures):
        screen.say(line)


def difference_rows(differences: Mapping[str, Sequence[AreaDifference]]) -> Iterator[tuple[str, ...]]:
    """Differences between the first ranking and the others: a row each, a column for each side."""
    cells = {
        side: {f"{each.a} less {NAMES.get(each.b, each.b)}": interval(each) for each in rows}
        for side, rows in differences.items()
    }
    for name in dict.fromkeys(name for column in cells.values() for name in column):
        yield (NAMES.get(name, name).replace("_", " "), *(column.get(name, "") for column in cells.values()))


def interval(difference: AreaDifference) -> str:
    """A difference with its interval, where it has one."""
    if difference.low is None or difference.high is None:
        return f"{difference.mean:+.3f}"
    return f"{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"


def explanation_lines(figures: ExplanationFigures) -> Iterator[str]:
    """Shares of levels, agreement and pointing, each in a line."""
    for stream, levels in figures.level_shares.items():
        shares = ", ".join(f"{NAMES.get(name, name)} {100 * share:.1f} %" for name, share in levels.items())
        yield f"share in the logit, {stream}: {shares}"
    if figures.agreement is not None and figures.agreement_by_chance is not None:
        by_chance = f"{100 * figures.agreement_by_chance:.1f} % where regions are shuffled"
        yield f"agreement of the streams' maps: {100 * figures.agreement:.1f} %; {by_chance}"
    maps = (("pointing", figures.pointing), ("pointing by attention alone", figures.pointing_by_attention))
    for name, accuracy in maps:
        if accuracy is not None:
            streams = sorted(accuracy, key=reading_order)
            shares = ", ".join(f"{stream} {100 * accuracy[stream]:.1f} %" for stream in streams)
            yield f"{name}, {figures.pointing_words:,} words of these pairs: {shares}"
    if figures.pointing_by_chance is not None:
        yield f"pointing by random guesses: {100 * figures.pointing_by_chance:.1f} %"
