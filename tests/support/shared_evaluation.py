"""Evaluations by the command, in one process or in each of a group."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.support.command_line import tshsr
from tests.support.small_runs import small_config, small_split
from tshsr.data.text import Tokenizer
from tshsr.evaluation import run
from tshsr.metrics.report import PrecisionCheck
from tshsr.models.build import build_matcher
from tshsr.scoring import all_pairs, rerank
from tshsr.scoring.all_pairs import CaptionBlocks, score_split
from tshsr.scoring.options import ScoringOptions
from tshsr.scoring.processes import Processes, launched_processes
from tshsr.scoring.storage import MatricesInParts
from tshsr.training.completion import complete

BLOCK = 8
"""Captions and images of a block: the 50 captions of the data are several blocks."""
CHECK = PrecisionCheck("bfloat16", True, 10, 20, 0.01, 99.0, 0.0, 1.5)
"""The measurement of bfloat16: the time that it takes on a small sample is left to chance."""
COMMANDS = {
    "all pairs": (),
    "ensemble": ("--scores-folder", "all scores"),
    "two stages": ("--rerank", "4,2", "--rerank-check"),
    "chosen candidates": ("--rerank", "auto", "--scores-folder", "scores of dev"),
    "lower precision": ("--dtype", "bfloat16", "--scores-folder", "rescored scores"),
    "two stages, lower precision": ("--rerank", "4,2", "--dtype", "bfloat16"),
}
"""Options by the sentence that a test says of them; a word with a space is a folder for results."""
ALONE = {
    "all pairs, not joined": ("all pairs", MatricesInParts, "_join"),
    "two stages, not exchanged": ("two stages", rerank, "exchange"),
}
"""What has to make a difference: the command, and what of the joining is taken out."""
MEASURED = ("seconds", "all_pairs_seconds", "time", "hardware")
"""Entries of a report that differ from one evaluation to the next."""


def evaluate_all(start: tuple[str, ...], folder: Path) -> None:
    """Run every command; reports and matrices go to the folder, with what was said."""
    torch.set_num_threads(1)
    folder.mkdir(exist_ok=True)
    said = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(all_pairs, "ENCODE_BLOCK", BLOCK)
        patch.setattr(rerank, "RESCORED_PER_QUERY", 2)
        patch.setattr(run, "check_precision", lambda *_, **__: CHECK)
        patch.setattr(run, "usable_dtype", lambda dtype, _: dtype)
        for name, options in COMMANDS.items():
            more = [folder / each if " " in each else each for each in options]
            if name == "ensemble":
                more = [start[1] + "-again", *more]
            saved = ("--json", folder / f"{name}.json", "--save-scores", folder / f"{name}.npy")
            result = tshsr(*start[:2], *more, *start[2:], *saved, "--quiet")
            assert result.code == 0, result.err  # the process ends, and so does the other one
            said[name] = [result.out, result.err]
        with launched_processes("cpu") as processes:
            score_pictures(folder, processes)
        for name, (command, place, part) in ALONE.items():
            with pytest.MonkeyPatch.context() as without:
                without.setattr(
                    place, part, {"_join": join_own(MatricesInParts._join), "exchange": forget_others}[part]
                )
                tshsr(*start, *COMMANDS[command], "--save-scores", folder / f"{name}.npy", "--quiet")
    (folder / f"said-{os.environ.get('RANK', '0')}.json").write_text(json.dumps(said))


def join_own(join: Callable[..., None]) -> Callable[..., None]:
    """Joining of a matrix from the part of its process alone."""
    return lambda matrices, name, parts: join(matrices, name, [parts[matrices.processes.index]])


def forget_others(matrix: np.ndarray, name: str, captions: CaptionBlocks, options: ScoringOptions) -> None:
    """In place of `exchange`: the captions of other processes have no score by v·t."""
    if name == "pooled" and options.processes.count > 1:
        matrix[:, np.setdiff1d(np.arange(matrix.shape[1]), captions.own_columns())] = 0


def score_pictures(folder: Path, processes: Processes) -> None:
    """Score a split with a network whose pictures are shared, as where each is decoded."""
    split = small_split(folder / f"data-{os.getpid()}", "test", images=20)
    tokenizer = Tokenizer.build(split.captions, minimum_count=1)
    torch.manual_seed(4)
    matcher = build_matcher(complete(small_config(), tokenizer, split, split).model)
    matcher.vision = nn.Identity()  # type: ignore[assignment]
    place = folder / "pictures"
    place.mkdir(exist_ok=True)
    read: list[int] = []
    real = type(split.regions).read

    def counted(regions: Any, images: Any) -> Any:
        read.extend(np.asarray(images).tolist())
        return real(regions, images)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(split.regions), "read", counted)
        score_split(matcher, tokenizer, split, ScoringOptions(folder=place, processes=processes))
    (folder / f"read-{processes.index}.json").write_text(json.dumps(sorted(read)))


def report_of(file: Path) -> Any:
    """A report without what differs from one evaluation to the next."""
    return without(json.loads(file.read_text()))


def without(value: Any) -> Any:
    """A JSON value without measured entries."""
    if isinstance(value, dict):
        return {name: without(each) for name, each in value.items() if name not in MEASURED}
    return [without(each) for each in value] if isinstance(value, list) else value
