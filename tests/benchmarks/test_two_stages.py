"""benchmarks.two_stages: losses of a two-stage search on known scores, and by the search itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import two_stages
from benchmarks.tables import table_of
from benchmarks.two_stages import TwoStages, depth_of, exact_scores, first_stage, results, searched
from tests.support.indexed import Small
from tshsr.errors import DataError
from tshsr.scoring.all_pairs import score_split
from tshsr.scoring.candidates import Depth
from tshsr.scoring.rerank import score_two_stage

OWNER = np.arange(4)
FUSED = np.array([[9, 1, 1, 1], [1, 9, 1, 1], [1, 1, 9, 1], [1, 1, 1, 9]], dtype=np.float32) / 10
"""Every caption has its own picture first."""


def test_all_pairs_lose_nothing_and_one_candidate_loses_what_v_t_misses() -> None:
    pooled = FUSED.copy()
    pooled[0, 1] = pooled[1, 0] = 2.0  # v·t has the first two pairs the wrong way round
    every = searched(FUSED, pooled, OWNER, Depth(4, 4))
    assert (every["pairs"], every["all_pairs"], every["times_fewer"]) == (16, 16, 1)
    assert every["lost"] == [0.0] * 6
    assert every["rsum"] == every["full_rsum"] == 600
    few = searched(FUSED, pooled, OWNER, Depth(1, 1))
    # K is a mean: pictures 0 and 1, whose best scores are low, have a second candidate, which is their own caption.
    assert few["pairs"] == 6
    assert few["times_fewer"] == pytest.approx(16 / 6)
    assert few["lost"] == [0.0] * 6


def test_what_the_candidates_miss_is_lost() -> None:
    pooled = FUSED.copy()
    pooled[0, 0] = -1.0  # v·t has the first picture's caption last, and all others first
    found = searched(FUSED, pooled, OWNER, Depth(1, 1))
    # Shares of 5/8 to 11/8: pictures 0 and 3, and captions 0 and 3, have a second candidate.
    assert found["pairs"] == 5 + 4
    assert found["lost"] == [25, 0, 0, 25, 0, 0], "one of four, in both directions, at R@1"
    assert found["ceiling_image_to_text"] == found["ceiling_text_to_image"] == 75


def test_the_search_is_that_of_the_package(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    split, retriever = small.split(), small.retriever()
    fused = score_split(retriever.matcher, retriever.tokenizer, split)["fused"]
    pooled, depth = first_stage(Path(small.run), split), Depth(2, 2)
    found = score_two_stage(retriever.matcher, retriever.tokenizer, split, depth)
    np.testing.assert_allclose(pooled, found.scores["pooled"], atol=1e-6)
    counted = searched(fused, pooled, split.image_of_caption, depth)
    assert counted["pairs"] == found.scored.sum()


def test_a_run_without_scores_of_dev_has_the_depth_of_the_first_that_has_them(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split, retriever = small.split(), small.retriever()
    monkeypatch.setattr(two_stages, "open_split", lambda _, name: replace(split, name=name))
    scores = score_split(retriever.matcher, retriever.tokenizer, split)
    for name in ("one", "two"):
        (tmp_path / name).symlink_to(Path(small.run).resolve())
        np.save(tmp_path / f"{name}.npy", scores["fused"])
    wanted = TwoStages("x", (tmp_path / "one", tmp_path / "two"), tmp_path / "dev")
    with pytest.raises(DataError, match="has no scores of dev of these runs; write them with tshsr evaluate RUN"):
        results(wanted)
    (tmp_path / "dev" / "two").mkdir(parents=True)
    for name in ("fused", "pooled"):
        np.save(tmp_path / "dev" / "two" / f"{name}.npy", scores[name])
    assert depth_of(tmp_path / "dev" / "one", split, split) is None
    values: dict[str, Any] = results(wanted)
    assert [row["chosen_by"] for row in values["two_stages"]] == ["two", "two"]
    assert all(row["lost"] == row["lost_on_dev"] == [0.0] * 6 for row in values["two_stages"])
    text = table_of(values)
    row = values["two_stages"][1]
    assert f"| two | {row['k_images']}, {row['k_captions']} | two | {row['times_fewer']:.1f} |" in text
    assert text.count("\n| ") == len(values["two_stages"]) + 1 + len(two_stages.LADDER)


def test_a_run_without_its_matrix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"one\.npy is missing; expected the scores of test"):
        exact_scores(tmp_path / "one")
