"""`tshsr evaluate`: runs on a split, or score matrices without a model."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
from tyro.conf import Positional, arg

from tshsr.cli.choices import choose_device, load_retriever, read_bytes, read_depth
from tshsr.cli.explanations import add_explanations, check_explanations, with_pairs
from tshsr.cli.options import listed
from tshsr.cli.parsing import File, Flag, Folder, Name, OptionalPath, given, parse
from tshsr.cli.scores_folder import place_for_scores
from tshsr.cli.screen import Screen
from tshsr.cli.tables import show_audit, show_report
from tshsr.data.dataset import Split
from tshsr.data.layouts import find_data, open_split
from tshsr.data.truth import read_truth
from tshsr.errors import DataError, SettingsError, TshsrError
from tshsr.evaluation.compile import Shortcuts, quickened
from tshsr.evaluation.ground_truth import of_split
from tshsr.evaluation.matrix import Extras, add_details, check_once, evaluate_matrix, read_extras, read_matrices
from tshsr.evaluation.run import evaluate, score_bytes
from tshsr.evaluation.score_files import KEY, check_scores_name, save_scores
from tshsr.evaluation.two_stage import TwoStageSearch, evaluate_two_stage
from tshsr.explain.binding import add_pointing_and_binding
from tshsr.files import explained
from tshsr.metrics.report import Report
from tshsr.metrics.scan_logs import read_log
from tshsr.scoring.candidates import Depth
from tshsr.scoring.options import ScoringOptions

DTYPES = {"float32": None, "tf32": None, "bfloat16": torch.bfloat16}
"""Precisions of scoring; None is the network's own."""
NEEDS_A_RUN = ("rerank", "rerank_check", "dtype", "compile", "bytes", "scores_folder", "explanations", "device")
"""Options that say how pairs are scored."""
AUTO, DEV = "auto", "dev"
"""What --rerank is to choose K by itself, and the split on which it may look at the answers for that."""


@dataclass(frozen=True)
class Evaluate:
    """Recalls of a run on a split; several runs are an ensemble, whose scores are averaged.

    Score matrices of any program are evaluated without a model: tshsr evaluate --scores FILE.npy --captions FILE.
    """

    runs: Annotated[Positional[tuple[str, ...]], arg(metavar="[RUN ...]", help_behavior_hint="")] = ()
    """Folders of runs, or owner/name on the Hugging Face hub."""
    data: Folder = None
    """A folder of data, or the word scenes."""
    split: str = "test"
    """Which split of the data."""
    protocol: Literal["auto", "flickr", "coco-1k", "coco-5k"] = "auto"
    """flickr: rank among all images; coco-1k: mean of five folds; auto: coco-5k for 5,000 images, else flickr."""
    json: File = None
    """Write the report to this file; - writes it to stdout, in place of the table."""
    save_scores: OptionalPath = None
    """Keep the fused scores as .npy, images x captions: float32, or float64 where a matrix of --scores is."""
    scores: Annotated[tuple[Path, ...], arg(metavar="FILE ...", help_behavior_hint="")] = ()
    """Evaluate these matrices (images x captions: .npy, .npz, .pt); several are an ensemble."""
    captions: File = None
    """Whose image is which caption, for --scores: a file with a line a caption, JSON lines, or a folder of data."""
    key: str = KEY
    """Name of the matrix in an .npz, or in a dictionary of tensors."""
    coco_ids: OptionalPath = None
    """COCO's id of each caption, a line each: figures by ECCV Caption and CxC too (extra eccv)."""
    pmrp: OptionalPath = None
    """Folder with PMRP's annotation, beside --coco-ids."""
    judgements: OptionalPath = None
    """Ratings by people, lines of image, caption and rating: how the score agrees with them."""
    audit_log: OptionalPath = None
    """Evaluate nothing; read a log as SCAN, SGRAF and VSE++ print it, and say which of its figures are wrong."""
    rerank: Annotated[str | None, arg(metavar="K|auto", help_behavior_hint="")] = None
    """Reason only about the K best answers to a query by v·t, on average: more where the first score poorly; K,K for
    those of an image and of a caption; auto chooses both on dev, all of whose pairs it scores, so that no recall should
    lose more than 0.1 points."""
    rerank_check: Flag = False
    """With --rerank, score all pairs as well, and tell exactly what was lost."""
    dtype: Literal["float32", "bfloat16", "tf32"] = "float32"
    """Precision of scoring; any but float32 is measured on a sample first, and used where it is faster and as good."""
    compile: Flag = False
    """Compile the scoring, which takes minutes, measure it on a sample, and use it where it is faster and as good."""
    bytes: str = "1GiB"
    """Bound on the temporary memory of scoring."""
    scores_folder: OptionalPath = None
    """Keep the matrices of all scores in this folder; without it those above 1 GiB are in a temporary one."""
    explanations: Annotated[int | None, arg(metavar="[N]", help_behavior_hint="")] = None
    """Measure on N pairs (500) how true the run's explanations are: does the score fall without what they name?"""
    device: Name = None
    """cpu, cuda or mps; the best one here without it."""
    quiet: Flag = False
    """Show no progress, neither a bar nor lines."""


def main(arguments: Sequence[str], screen: Screen) -> None:
    """Evaluate."""
    wanted = parse(Evaluate, "tshsr evaluate", with_pairs(arguments))
    if wanted.audit_log is not None:
        audit_log(wanted.audit_log, wanted, screen)
        return
    if wanted.save_scores is not None:
        check_scores_name(wanted.save_scores)
        check_place(wanted.save_scores)
    if wanted.json is not None and wanted.json != "-":
        check_place(Path(wanted.json))
    report = from_files(wanted) if wanted.scores else from_runs(wanted, screen)
    if wanted.json != "-":
        show_report(screen, report)
    if wanted.json is not None:  # after the table, which is then not lost where the file cannot be written
        screen.json(report.to_json(), wanted.json)


def check_place(path: Path) -> None:
    """Refuse a file that cannot be written, before hours of scoring.

    Raises:
        DataError: Where a folder has that name, or where it should stand is no folder or is not to be written to.
    """
    path = path.absolute()
    with explained(path):
        above = next(each for each in path.parents if each.exists())
        wrong = {errno.EISDIR: path.is_dir(), errno.ENOTDIR: not above.is_dir()}
        wrong[errno.EACCES] = not os.access(above, os.W_OK)
        for code in (code for code, found in wrong.items() if found):
            raise OSError(code, os.strerror(code))


def from_runs(wanted: Evaluate, screen: Screen) -> Report:
    """Score a split with the runs.

    Raises:
        SettingsError: Where runs or data are not named, or options do not go together.
    """
    if not wanted.runs or wanted.data is None:
        raise SettingsError(
            "expected a run and its data, tshsr evaluate RUN --data DIR, or a matrix, "
            "tshsr evaluate --scores FILE.npy --captions FILE."
        )
    for name in given(wanted, ("captions", "key")):
        raise SettingsError(f"{name} is about a matrix of --scores, and a run takes all from --data; leave it out.")
    check_rerank(wanted)
    check_explanations(wanted.explanations, len(wanted.runs))
    check_once(wanted.runs)
    budget, device, dtype = read_bytes(wanted.bytes), choose_device(wanted.device), DTYPES[wanted.dtype]
    split = open_split(wanted.data, wanted.split)
    annotation, refusal = read_extras(extras_of(wanted), of_split(split)), None
    truth = read_truth(find_data(wanted.data), split.name) if len(wanted.runs) == 1 else None
    plan = None if wanted.rerank is None else read_depth(wanted.rerank) or open_dev(wanted.data)
    retrievers = [load_retriever(run, device) for run in wanted.runs]
    for retriever in retrievers:
        retriever.check_extractor(split.extractor)
    size = sum(score_bytes(retrievers, each) for each in scored_whole(plan, split, check=wanted.rerank_check))
    shortcuts = Shortcuts(tf32=wanted.dtype == "tf32", compiled=wanted.compile)
    options = ScoringOptions(byte_budget=budget, device=device, dtype=dtype)
    members, guards = quickened(retrievers, split, shortcuts, options)
    with place_for_scores(wanted.scores_folder, size) as folder, screen.progress(quiet=wanted.quiet) as begin:
        options = replace(options, folder=folder)
        if plan is None:
            options = replace(options, progress=begin("scoring", "pairs"))
            report, scores = evaluate(members, split, protocol=wanted.protocol, options=options)
        else:
            search = TwoStageSearch(members[0], options, wanted.protocol)
            report, scores = evaluate_two_stage(search, split, plan, check=wanted.rerank_check, begin=begin)
        report = replace(report, precision=(*guards, *(report.precision or ())) or None)
        if wanted.save_scores is not None:
            save_scores(wanted.save_scores, scores["fused"])
        try:
            report = add_details(report, scores["fused"], of_split(split), annotation)
        except TshsrError as error:
            refusal = error  # told when the matrices are in their folder
    if refusal is not None:
        raise refusal
    if len(retrievers) == 1:
        report = report if truth is None else add_pointing_and_binding(report, retrievers[0], split, truth)
        if wanted.explanations is not None:
            with screen.progress(quiet=wanted.quiet) as begin:
                told, place = begin("explaining", "pairs"), find_data(wanted.data)
                report = add_explanations(report, retrievers[0], split, place, truth, wanted.explanations, told)
    return report


def scored_whole(plan: Depth | Split | None, split: Split, *, check: bool) -> list[Split]:
    """The splits all of whose pairs are scored: dev, to plan a search on; what is searched, where that is checked."""
    return [*([plan] if isinstance(plan, Split) else []), *([split] if plan is None or check else [])]


def check_rerank(wanted: Evaluate) -> None:
    """Refuse options that do not go together.

    Raises:
        SettingsError: Names them.
    """
    if wanted.rerank is None:
        if wanted.rerank_check:
            raise SettingsError("--rerank-check tells what --rerank loses; give --rerank K or --rerank auto with it.")
    elif len(wanted.runs) > 1:
        raise SettingsError(
            f"--rerank searches with one run, {len(wanted.runs)} were named; evaluate them one by one, or the "
            "ensemble without --rerank."
        )
    elif wanted.protocol == "coco-1k":
        raise SettingsError(
            "--rerank takes its candidates from all images, coco-1k ranks 1000 at a time; use another protocol, or "
            "leave --rerank out."
        )
    elif wanted.judgements is not None:
        raise SettingsError(
            "--judgements asks for the score of every judged pair, and --rerank reasons about few; leave --rerank out."
        )
    elif wanted.scores_folder is not None and wanted.rerank != AUTO and not wanted.rerank_check:
        raise SettingsError(
            "--scores-folder keeps the scores of all pairs, and --rerank K scores few; keep them with --save-scores, "
            "or give --rerank-check too."
        )


def open_dev(data: str) -> Split:
    """The split on which --rerank auto chooses.

    Raises:
        DataError: Where there is none.
    """
    try:
        return open_split(data, DEV)
    except DataError as error:
        raise DataError(f"--rerank auto chooses K on dev: {error} Give K instead, as in --rerank 40.") from None


def from_files(wanted: Evaluate) -> Report:
    """Evaluate score matrices.

    Raises:
        SettingsError: Where runs are named too, the captions are not, or something is asked for that needs a run.
    """
    if wanted.runs or wanted.captions is None:
        raise SettingsError(
            "a matrix is evaluated without runs, and needs its captions: "
            "tshsr evaluate --scores FILE.npy --captions FILE (or a folder of data)."
        )
    if wanted.data is not None:
        raise SettingsError("--data is what a run is evaluated on, and a matrix has --captions; leave --data out.")
    for name in given(wanted, NEEDS_A_RUN):
        raise SettingsError(f"{name} is about how pairs are scored, and a matrix is scored already; leave it out.")
    report = evaluate_matrix(
        wanted.scores,
        wanted.captions,
        protocol=wanted.protocol,
        split=wanted.split,
        key=wanted.key,
        extras=extras_of(wanted),
    )
    if wanted.save_scores is not None:
        save_scores(wanted.save_scores, read_matrices(wanted.scores, wanted.key)[1])
    return report


def extras_of(wanted: Evaluate) -> Extras:
    """Further annotation.

    Raises:
        SettingsError: Where PMRP's is named without the ids.
    """
    if wanted.pmrp is not None and wanted.coco_ids is None:
        raise SettingsError("--pmrp finds captions by COCO's ids; give --coco-ids FILE with it.")
    return Extras(wanted.coco_ids, wanted.pmrp, wanted.judgements)


def audit_log(log: Path, wanted: Evaluate, screen: Screen) -> None:
    """Say which figures of a log are wrong.

    Raises:
        SettingsError: Where something is to be evaluated too.
    """
    others = [each.name for each in fields(wanted) if each.name not in ("audit_log", "json", "quiet")]
    if more := given(wanted, others):
        raise SettingsError(f"--audit-log reads a log and evaluates nothing; leave {listed(more, 'and')} out.")
    found = read_log(log)
    if wanted.json != "-":
        show_audit(screen, found)
    if wanted.json is not None:
        screen.json(json.dumps(found.to_json(), indent=2), wanted.json)
