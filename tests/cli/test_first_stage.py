"""`tshsr evaluate --first-stage`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.command_line import refused, tshsr


def test_rerankers_are_compared_in_one_table(start: tuple, tmp_path: Path) -> None:
    np.save(tmp_path / "theirs.npy", np.random.default_rng(0).random((10, 50)))
    said = tshsr(*start, "--first-stage", "--depths", "2", "5", "--other-scores", tmp_path / "theirs.npy", "--quiet")
    assert said.code == 0, said.err
    assert "scenes, split test: 10 images, 50 captions; model small; candidates by v·t" in said.out
    for name in ("v·t", "MaxSim", "fused", "theirs.npy", "gain over v·t", "ms a query", "10 pictures"):
        assert name in said.out


def test_the_table_is_written_as_json(start: tuple) -> None:
    values = tshsr(*start, "--first-stage", "--depths", "3", "--json", "-").json()
    rows = values["first_stage"]["rows"]
    assert [(row["score"], row["depth"]) for row in rows] == [
        ("v·t", None),
        ("MaxSim", 3),
        ("MaxSim", None),
        ("fused", 3),
        ("fused", None),
    ]
    assert values["commit"]
    assert values["pictures"] == 10


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--rerank", "5"), "--first-stage makes a table of its own and takes no --rerank; leave it out."),
        (
            ("--dtype", "bfloat16"),
            "--first-stage makes a table of its own and takes no --dtype bfloat16; leave it out.",
        ),
        (("--shard", "3"), "--first-stage makes a table of its own and takes no --shard; leave it out."),
        (("--engine", "ray"), "--first-stage makes a table of its own and takes no --engine ray; leave it out."),
        (("--depths", "0"), "--depths is 0; expected numbers of candidates such as 10 100."),
    ],
)
def test_options_that_do_not_fit_are_refused(start: tuple, more: tuple[str, ...], sentence: str) -> None:
    assert refused(*start, "--first-stage", *more) == f"tshsr: {sentence}"


def test_other_scores_need_the_first_stage_and_one_run(start: tuple, run: Path) -> None:
    assert refused(*start, "--other-scores", "a.npy") == (
        "tshsr: --other-scores compares with --first-stage; give that too, or use tshsr metrics."
    )
    assert refused(*start, "--depths", "5") == (
        "tshsr: --depths is for --first-stage; give that too, or --rerank with a number of candidates."
    )
    assert refused("evaluate", run, *start[1:], "--first-stage") == (
        "tshsr: --first-stage compares with one run, 2 were named; run it on each."
    )
