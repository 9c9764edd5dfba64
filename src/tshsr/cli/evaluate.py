"""`tshsr evaluate`: recalls of runs on a split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tshsr.cli.first_stage import StagesOptions, compare_stages
from tshsr.cli.options import (
    Argument,
    EngineName,
    Flag,
    Name,
    OptionalPath,
    Output,
    Shard,
    Workers,
    check_place,
    check_tf32,
    choose_device,
    chosen_engine,
    load_retriever,
    normal,
    parse,
    read_bytes,
    read_depth,
)
from tshsr.cli.scores_folder import shared_place
from tshsr.cli.screen import Screen
from tshsr.errors import DataError, SettingsError, TshsrError

if TYPE_CHECKING:
    import torch

    from tshsr.data.dataset import Split
    from tshsr.evaluation.matrix import Extras
    from tshsr.metrics.report import Report
    from tshsr.retriever import Retriever
    from tshsr.scoring.candidates import Depth
    from tshsr.scoring.processes import Processes

EXAMPLE = "tshsr evaluate runs/first --data DIR"
DEPTHS = (10, 50, 100, 500)
"""Candidates in the table of --first-stage, besides all pairs."""
MOVED = {
    "--scores": "tshsr metrics SCORES.npy --captions FILE",
    "--audit-log": "tshsr audit-log LOG",
    "--explanations": "tshsr faithfulness RUN --data DIR",
}
"""Options that became commands."""
AUTO, DEV = "auto", "dev"
"""The value of --rerank that chooses K, and the split on which it does."""


@dataclass(frozen=True)
class Evaluate:
    """Recalls of a run on a split; several runs are an ensemble, whose scores are averaged."""

    runs: Annotated[tuple[str, ...], Argument("RUN", positional=True)]
    """Folders of runs, or owner/name on the Hugging Face hub."""
    data: Annotated[str, Argument("DIR")]
    """A folder of data, or the word scenes."""
    split: str = "test"
    """Which split of the data."""
    protocol: Literal["auto", "flickr", "coco-1k", "coco-5k"] = "auto"
    """flickr: rank among all images; coco-1k: mean of five folds; auto: coco-5k for 5,000 images, else flickr."""
    json: Output = None
    """Write the report to this file; - writes it to stdout, in place of the table."""
    save_scores: OptionalPath = None
    """Write the fused scores as .npy, images x captions, float32."""
    coco_ids: OptionalPath = None
    """File with COCO's id of each caption, one per line; adds ECCV Caption and CxC (extra eccv)."""
    pmrp: OptionalPath = None
    """Folder with PMRP's annotation; needs --coco-ids."""
    judgements: OptionalPath = None
    """Human ratings, lines of image, caption and rating: their rank correlation with the score."""
    rerank: Annotated[str | None, Argument("K|auto")] = None
    """Two-stage search: score only K candidates per query, the best by v·t; K is a mean, and queries whose first
    candidates score poorly get more; K,K: per image and per caption; auto chooses both by scoring all pairs of dev, so
    that no recall should lose more than 0.1 points."""
    rerank_check: Flag = False
    """With --rerank, score all pairs as well, and report the recall lost."""
    first_stage: Flag = False
    """Compare rerankers on the candidates of v·t in one table: v·t, MaxSim over the same tokens, the run, others."""
    depths: tuple[int, ...] = DEPTHS
    """With --first-stage, candidates a query."""
    other_scores: tuple[Path, ...] = ()
    """With --first-stage, matrices of other rerankers, images x captions: .npy, .npz, .pt."""
    dtype: Literal["float32", "bfloat16", "tf32"] = "float32"
    """Precision of scoring; any but float32 is measured on a sample first, and used where it is faster and as good."""
    compile: Flag = False
    """Compile the scoring, which takes minutes, measure it on a sample, and use it where it is faster and as good."""
    kernel: Literal["eager", "triton", "auto"] = "eager"
    """Scoring of all pairs: by the network's modules (eager), by fused kernels on a CUDA device (triton), or by these
    where they apply and a check of some pairs of each size finds them as exact (auto)."""
    bytes: str = "1GiB"
    """Bound on the temporary memory of scoring."""
    scores_folder: OptionalPath = None
    """Keep the matrices of all scores in this folder; without it those above 1 GiB are in a temporary one."""
    engine: EngineName = "none"
    """ray: score in shards by workers, on the cluster at RAY_ADDRESS or on this machine; a worker that dies is
    replaced, and its shard repeated."""
    engine_workers: Workers = None
    """With --engine ray: number of workers; by default one for each GPU, or as many as the cores allow."""
    shard: Shard = None
    """With --engine ray: captions of a shard, each scored with every image; default 256."""
    device: Name = None
    """cpu, cuda or mps; by default the best one of this machine."""
    quiet: Flag = False
    """Show no progress, neither a bar nor lines."""


def main(arguments: Sequence[str], screen: Screen) -> None:
    """Evaluate."""
    check_moved(arguments)
    wanted = parse(Evaluate, "tshsr evaluate", arguments, example=EXAMPLE)
    check_first_stage(wanted)
    check_rerank(wanted)
    check_kernel(wanted)
    check_engine(wanted)
    check_scores_file(wanted.save_scores)
    device = choose_device(wanted.device)
    if wanted.dtype == "tf32":
        check_tf32("--dtype tf32", device)
    from tshsr.scoring.processes import launched_processes

    with launched_processes(device) as processes:
        check_processes(wanted, processes)
        if wanted.first_stage:
            names = [each.name for each in fields(StagesOptions) if each.name != "run"]
            compare_stages(StagesOptions(wanted.runs[0], **{name: getattr(wanted, name) for name in names}), screen)
            return
        report = from_runs(wanted, screen, processes)
    if report is not None:
        show_result(report, wanted.json, screen)


def check_moved(arguments: Sequence[str]) -> None:
    """Refuse options that have become commands.

    Raises:
        SettingsError: Where there is one; the message names the command.
    """
    for name in (normal(word).partition("=")[0] for word in arguments):
        if name in MOVED:
            raise SettingsError(f"evaluate has no option {name} any more; it is a command: {MOVED[name]}.")


def check_scores_file(scores: Path | None) -> None:
    """Refuse a file of --save-scores that cannot be written, before hours of scoring.

    Raises:
        DataError: Where it cannot be written.
        SettingsError: Where it has another suffix than .npy.
    """
    from tshsr.evaluation.score_files import check_scores_name

    if scores is not None:
        check_scores_name(scores)
        check_place(scores)


def show_result(report: Report, file: str | None, screen: Screen) -> None:
    """Show the table and write the JSON; the table comes first, so that it is there if the file cannot be written."""
    from tshsr.cli.tables import show_report

    if file != "-":
        show_report(screen, report)
    if file is not None:
        screen.json(report.to_json(), file)


def from_runs(wanted: Evaluate, screen: Screen, processes: Processes) -> Report | None:
    """Score a split with the runs.

    Returns:
        The report; None in a process that only scores its share.

    Raises:
        TshsrError: Where annotation does not fit the scores; raised after the matrices have reached their folder.
    """
    from tshsr.data.layouts import find_data, open_split
    from tshsr.data.truth import read_truth
    from tshsr.evaluation import matrix, run, two_stage
    from tshsr.evaluation.compile import CompileOptions, compile_members
    from tshsr.evaluation.ground_truth import split_ground_truth
    from tshsr.evaluation.score_files import save_scores
    from tshsr.explain.binding import pointing_and_binding
    from tshsr.scoring.options import ScoringOptions

    matrix.check_distinct(wanted.runs)
    device = "cpu" if wanted.engine == "ray" else choose_device(wanted.device)
    budget, dtype = read_bytes(wanted.bytes), precision(wanted.dtype)
    split = open_split(wanted.data, wanted.split)
    extras, refusal = extras_of(wanted.coco_ids, wanted.pmrp, wanted.judgements), None
    annotation = matrix.read_extras(extras, split_ground_truth(split))
    truth = read_truth(find_data(wanted.data), split.name) if len(wanted.runs) == 1 else None
    depth = None if wanted.rerank is None else read_depth(wanted.rerank)
    dev = open_dev(wanted.data) if wanted.rerank is not None and depth is None else None
    retrievers = [load_retriever(name, device) for name in wanted.runs]
    split, plan = readable(retrievers, split), depth if dev is None else readable(retrievers, dev)
    exhaustive = exhaustively_scored(plan, split, check=wanted.rerank_check)
    size = sum(run.score_bytes(retrievers, each) for each in exhaustive)
    compile_options = CompileOptions(tf32=wanted.dtype == "tf32", compiled=wanted.compile)
    place = shared_place(wanted.scores_folder, size, processes)
    chosen = chosen_engine(wanted.engine, wanted.engine_workers, wanted.shard, device=wanted.device)
    with place as folder, chosen as engine, screen.progress(quiet=wanted.quiet) as begin:
        options = ScoringOptions(budget, device, dtype, folder, kernel=wanted.kernel, processes=processes)
        members, guards = compile_members(retrievers, split, compile_options, options)
        if plan is None:
            options = replace(options, progress=begin("scoring", "pairs"))
            if not processes.is_main:
                run.score_models(members, split, protocol=wanted.protocol, options=options)
                return None
            found = run.evaluate_models(members, split, protocol=wanted.protocol, options=options, engine=engine)
        else:
            search = two_stage.TwoStageSearch(members[0], options, wanted.protocol)
            if not processes.is_main:
                two_stage.search_split(search, split, plan, check=wanted.rerank_check)
                return None
            found = two_stage.evaluate_two_stage(search, split, plan, check=wanted.rerank_check, begin=begin)
        if wanted.save_scores is not None:
            save_scores(wanted.save_scores, found.scores["fused"])
        try:
            folds = run.folds_of(found.protocol, len(split.regions))
            details = matrix.measure_details(found.scores["fused"], split_ground_truth(split), annotation, folds=folds)
        except TshsrError as error:
            refusal = error
    if refusal is not None:
        raise refusal
    known = None if truth is None else pointing_and_binding(retrievers[0], split, truth)
    return replace(found, precision=(*guards, *found.precision)).report(details=details, known_truth=known)


def readable(retrievers: Sequence[Retriever], split: Split) -> Split:
    """The split with features that the network reads; of several networks those with a vision network make their own.

    Raises:
        DataError: Where the features are of another extractor, or pictures are missing.
    """
    read = [retriever.readable(split) for retriever in retrievers]
    return read[0] if len(read) == 1 else split


def precision(name: str) -> torch.dtype | None:
    """The dtype of scoring; None is the network's own."""
    import torch

    return torch.bfloat16 if name == "bfloat16" else None


def exhaustively_scored(plan: Depth | Split | None, split: Split, *, check: bool) -> list[Split]:
    """The splits that are scored exhaustively: dev for --rerank auto; the split itself without --rerank or to check.

    Args:
        plan: The number of candidates, or the split that chooses it; None without --rerank.
        split: The split to evaluate on.
        check: Whether the recall lost is measured.
    """
    from tshsr.data.dataset import Split as SplitType

    return [*([plan] if isinstance(plan, SplitType) else []), *([split] if plan is None or check else [])]


def check_rerank(wanted: Evaluate) -> None:
    """Refuse options that exclude each other.

    Raises:
        SettingsError: Where two are given; the message names them.
    """
    if wanted.rerank is None:
        if wanted.rerank_check:
            raise SettingsError(
                "--rerank-check measures what --rerank loses; give --rerank K or --rerank auto with it."
            )
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
            "--judgements needs the score of every rated pair, and --rerank scores few; leave --rerank out."
        )
    elif wanted.scores_folder is not None and wanted.rerank != AUTO and not wanted.rerank_check:
        raise SettingsError(
            "--scores-folder keeps the scores of all pairs, and --rerank K scores few; keep them with --save-scores, "
            "or give --rerank-check too."
        )


def check_kernel(wanted: Evaluate) -> None:
    """Refuse options with which the kernels of --kernel triton would not run.

    Raises:
        SettingsError: Where one is given; the message names it.
    """
    few = wanted.rerank is not None and wanted.rerank != AUTO and not wanted.rerank_check
    given = {f"--rerank {wanted.rerank}": few, "--compile": wanted.compile, "--dtype tf32": wanted.dtype == "tf32"}
    for option in (option for option, there in given.items() if there and wanted.kernel == "triton"):
        raise SettingsError(
            f"--kernel triton scores all pairs by kernels, {option} by the network's modules; leave one of them out."
        )


def check_engine(wanted: Evaluate) -> None:
    """Refuse options that an engine does not have.

    Raises:
        SettingsError: Where one is given; the message names it.
    """
    given = {
        "--rerank": wanted.rerank is not None,
        f"--dtype {wanted.dtype}": wanted.dtype != "float32",
        "--compile": wanted.compile,
        f"--kernel {wanted.kernel}": wanted.kernel != "eager",
    }
    if wanted.engine != "none" and any(given.values()):
        option = next(name for name, there in given.items() if there)
        raise SettingsError(f"--engine {wanted.engine} scores all pairs in float32; leave {option} out.")


def check_processes(wanted: Evaluate, processes: Processes) -> None:
    """Refuse options that several processes of torchrun can't share.

    Raises:
        SettingsError: Where one is given; the message names it.
    """
    given = {f"--engine {wanted.engine}": wanted.engine != "none", "--first-stage": wanted.first_stage}
    if processes.count > 1 and any(given.values()):
        option = next(name for name, there in given.items() if there)
        raise SettingsError(
            f"{option} runs in one process, and torchrun started {processes.count}; leave one of them out."
        )


def check_first_stage(wanted: Evaluate) -> None:
    """Refuse options that do not fit.

    Raises:
        SettingsError: Names the first one.
    """
    if not wanted.first_stage:
        if wanted.other_scores:
            raise SettingsError("--other-scores compares with --first-stage; give that too, or use tshsr metrics.")
        if wanted.depths != DEPTHS:
            raise SettingsError(
                "--depths is for --first-stage; give that too, or --rerank with a number of candidates."
            )
        return
    if len(wanted.runs) > 1:
        raise SettingsError(f"--first-stage compares with one run, {len(wanted.runs)} were named; run it on each.")
    refused = {
        "--rerank": wanted.rerank is not None,
        "--rerank-check": wanted.rerank_check,
        "--protocol coco-1k": wanted.protocol == "coco-1k",
        "--save-scores": wanted.save_scores is not None,
        "--scores-folder": wanted.scores_folder is not None,
        "--judgements": wanted.judgements is not None,
        "--pmrp": wanted.pmrp is not None,
        "--compile": wanted.compile,
        f"--dtype {wanted.dtype}": wanted.dtype != "float32",
        f"--kernel {wanted.kernel}": wanted.kernel != "eager",
        f"--engine {wanted.engine}": wanted.engine != "none",
        "--engine-workers": wanted.engine_workers is not None,
        "--shard": wanted.shard is not None,
    }
    for name in (name for name, given in refused.items() if given):
        raise SettingsError(f"--first-stage makes a table of its own and takes no {name}; leave it out.")


def open_dev(data: str) -> Split:
    """The split on which --rerank auto chooses K.

    Raises:
        DataError: Where there is none.
    """
    from tshsr.data.layouts import open_split

    try:
        return open_split(data, DEV)
    except DataError as error:
        raise DataError(f"--rerank auto chooses K on dev: {error} Give K instead, as in --rerank 40.") from None


def extras_of(coco_ids: Path | None, pmrp: Path | None, judgements: Path | None) -> Extras:
    """The files of further annotation.

    Raises:
        SettingsError: Where PMRP's is named without the ids.
    """
    from tshsr.evaluation.matrix import Extras

    if pmrp is not None and coco_ids is None:
        raise SettingsError("--pmrp finds captions by COCO's ids; give --coco-ids FILE with it.")
    return Extras(coco_ids, pmrp, judgements)
