"""benchmarks.contributions: hand-counted values of tiny score matrices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import tables
from benchmarks.contrasts import contrast_pairs, slice_figures
from benchmarks.contributions import Contributions, Network, cases, contributions, examples, overlap, results, rsum
from benchmarks.slices import Slice
from tests.support.small_runs import small_split
from tshsr.data.dataset import Split
from tshsr.errors import DataError
from tshsr.metrics.ranks import query_ranks

OWNER = np.array([0, 0, 1, 1, 2, 2])
RIGHT = np.array([[9, 9, 1, 1, 1, 1], [1, 1, 9, 9, 1, 1], [1, 1, 1, 1, 9, 9]], dtype=np.float32)
"""Every query ranks its own item first."""


def wrong(scores: np.ndarray, **places: int) -> np.ndarray:
    """The scores with captions (c0, c1, ...) that rank another image first."""
    changed = scores.copy()
    for caption, image in places.items():
        changed[image, int(caption[1:])] = 20 + image
    return changed


def network(name: str, *matrices: np.ndarray, first: int = 100) -> Network:
    """A row with a run for each matrix."""
    runs = dict(enumerate(matrices, first))
    ranks = {seed: query_ranks(each, OWNER) for seed, each in runs.items()}
    return Network(name, ranks, {seed: each.argmax(axis=0) for seed, each in runs.items()}, 10.0, 1000, ("c" * 40,))


WHOLE = network("tshsr", wrong(RIGHT, c5=0), wrong(RIGHT, c5=1))
LEVEL = (wrong(RIGHT, c0=1, c2=0), wrong(RIGHT, c0=2, c3=0))
"""Caption 0 is wrong with both seeds, captions 2 and 3 with one each; caption 5 is right."""


@pytest.fixture
def split(tmp_path: Path) -> Split:
    """Three pictures with two captions each."""
    small = small_split(tmp_path, "test", 3)
    return replace(small, captions=tuple(f"caption {number}" for number in range(6)))


def test_cases_are_by_the_verdict_of_most_common_seeds() -> None:
    two = network("levels-0", *LEVEL)  # a picture that half of the seeds rank first is wrong
    assert cases(WHOLE, two) == {"seeds": [100, 101], "whole_only": 3, "part_only": 1, "both": 2, "neither": 0}
    whole = network("tshsr", wrong(RIGHT, c5=0), wrong(RIGHT, c5=1), wrong(RIGHT, c4=0))
    three = network("levels-0", *LEVEL, wrong(RIGHT, c5=0))
    assert cases(whole, three) == {"seeds": [100, 101, 102], "whole_only": 1, "part_only": 1, "both": 4, "neither": 0}
    one = network("levels-0", LEVEL[0])
    assert cases(WHOLE, one) == {"seeds": [100], "whole_only": 2, "part_only": 1, "both": 3, "neither": 0}
    assert cases(WHOLE, network("levels-0", LEVEL[0], first=7)) == {"seeds": []}


def test_examples_are_those_of_most_seeds_and_then_of_the_lowest_rank(split: Split) -> None:
    deep = wrong(RIGHT, c0=1, c2=0)
    deep[2, 2] = 15  # caption 2: rank 3, caption 0: rank 2
    part = network("levels-0", deep)
    found = examples(WHOLE, part, split)
    assert [(each["caption"], each["rank"]) for each in found] == [("caption 2", 3.0), ("caption 0", 2.0)]
    assert [each["image"] for each in found] == [split.image_ids[1], split.image_ids[0]]
    assert [each["ranked_first"] for each in found] == [split.image_ids[0], split.image_ids[1]]
    assert [each["its_caption"] for each in found] == ["caption 0", "caption 2"]
    assert examples(WHOLE, replace(part, first_images={}), split) == []
    both = network("levels-0", *LEVEL)  # captions 2 and 3 are wrong with one seed each
    for stored in ({100, 101}, {101}):
        some = replace(both, first_images={seed: both.first_images[seed] for seed in stored})
        first, *others = examples(WHOLE, some, split)
        assert (first["caption"], first["ranked_first"]) == ("caption 0", split.image_ids[1 if 100 in stored else 2])
        assert [each["caption"] for each in others] == ["caption 2", "caption 3"]


def test_overlap_counts_captions_by_the_streams_that_are_right_alone() -> None:
    word, region = (network(name, *LEVEL[:1]) for name in ("word-stream", "region-stream"))
    region = network("region-stream", wrong(RIGHT, c0=1, c4=0))
    found = overlap({"tshsr": WHOLE, "word-stream": word, "region-stream": region})
    assert found == {
        "seeds": [100],
        "both": {"captions": 3.0, "whole_right": 2.0},  # 1, 3, 5: the whole network is wrong for 5
        "word": {"captions": 1.0, "whole_right": 1.0},  # 4
        "region": {"captions": 1.0, "whole_right": 1.0},  # 2
        "neither": {"captions": 1.0, "whole_right": 1.0},  # 0
    }
    assert overlap({"tshsr": WHOLE, "word-stream": word}) is None


def test_differences_on_slices_are_those_of_their_captions() -> None:
    chosen = [
        Slice("first", "yes", np.array([1, 0, 0, 0, 0, 0], bool)),
        Slice("length", "short", np.array([1, 1, 1, 0, 0, 0], bool)),
        Slice("length", "long", np.array([0, 0, 0, 1, 1, 1], bool)),
    ]
    whole, part = ([network("x", matrix).ranks[100]] for matrix in (wrong(RIGHT, c5=0), LEVEL[0]))
    rows, contrasts = slice_figures(whole, part, chosen, resamples=400)
    # Three images: a wrong caption loses R@1 alone.
    assert [row["whole"] for row in rows] == pytest.approx([300, 300, 300 - 100 / 3])
    assert [row["mean"] for row in rows] == pytest.approx([100, 200 / 3, -100 / 3])
    assert [row["captions"] for row in rows] == [1, 3, 3]
    assert contrast_pairs(chosen) == [(1, 2)]
    assert [(one["group"], one["first"], one["last"]) for one in contrasts] == [("length", "short", "long")]
    assert contrasts[0]["mean"] == pytest.approx(-100)
    assert all(row["low"] <= row["mean"] <= row["high"] for row in (*rows, *contrasts))
    assert (rows[0]["low"], rows[0]["high"]) == (0, 100), "resamples without the one image show no difference"


def test_equal_sides_differ_nowhere() -> None:
    chosen = [Slice("all", "yes", np.ones(6, bool))]
    ranks = list(WHOLE.ranks.values())
    rows, contrasts = slice_figures(ranks, ranks, chosen, resamples=400)
    assert rows[0]["mean"] == 0
    assert rows[0]["low"] <= 0 <= rows[0]["high"]
    assert not contrasts


def test_a_file_has_the_rows_that_are_there_and_the_sum_of_the_streams_apart(split: Split) -> None:
    word, region = wrong(RIGHT, c0=1), wrong(RIGHT, c2=0)
    networks = {
        "tshsr": WHOLE,
        "word-stream": network("word-stream", word),
        "region-stream": network("region-stream", region),
        "streams-apart": network("streams-apart", (word + region) / 2),
    }
    macs = {"tshsr": 5e5, "word-stream": 2e5, "region-stream": 3e5}
    found = contributions(networks, split, macs, 400)
    assert [part["model"] for part in found["parts"]] == ["word-stream", "region-stream"]
    assert [part["adds"] for part in found["parts"]] == ["the region stream", "the word stream"]
    assert found["apart"]["macs_per_pair"] == 5e5
    assert found["apart"]["train_minutes"] == 20
    assert found["apart"]["rsum_mean"] == pytest.approx(500), "captions 0 and 2, images 0 and 1"
    assert found["whole"]["rsum_mean"] == pytest.approx(rsum(WHOLE.ranks[100]))
    difference = found["parts"][0]["differences"]["text_to_image_r1"]
    assert difference["mean"] == pytest.approx(0)
    values = {"contributions": found, **MADE}
    text = tables.table_of(values)
    assert "| word stream alone | " in text
    assert "- **The hierarchy**" not in text
    assert text.index("(the better one)") < text.index("(the worse one)")
    apart = "both streams trained apart, scores averaged"
    assert f"; region stream alone 100; {apart} 100. a machine" in text
    assert f"{apart} 100." not in tables.table_of(values, "where"), "not a column of it"
    cost = tables.table_of(values, "cost")
    assert f"| {apart} | 500.0 | 500 k (1.00) | " in cost
    assert " | 20.0 min (2.0) | 1 |" in cost
    assert "caption" in tables.table_of(values, "cases")
    assert tables.table_of({"contributions": {**found, "parts": [], "apart": None}, **MADE}).startswith("No network")


def test_five_equal_seeds_are_paired(split: Split) -> None:
    whole = network("tshsr", *(wrong(RIGHT, **{f"c{number}": (number // 2 + 1) % 3}) for number in range(5)))
    ones = [wrong(wrong(RIGHT, **{f"c{number}": (number // 2 + 1) % 3}), c5=0) for number in range(5)]
    four = contributions({"tshsr": whole, "levels-0": network("levels-0", *ones[:4])}, split, {}, 400)["parts"][0]
    assert not four["paired"]
    assert four["differences"]["rsum"] == four["unpaired"]
    found = contributions({"tshsr": whole, "levels-0": network("levels-0", *ones)}, split, {}, 400)
    (part,) = found["parts"]
    assert part["paired"]
    assert list(part["by_seed"]) == ["100", "101", "102", "103", "104"]
    assert np.mean(list(part["by_seed"].values())) == pytest.approx(part["differences"]["rsum"]["mean"])
    text = tables.table_of({"contributions": found, **MADE})
    assert "runs of equal seeds paired. Seeds: " in text
    assert "(100)" in text
    assert "With the seeds unpaired: +" in text
    mixed = {**found, "parts": [part, {**part, "title": "another", "paired": False}]}
    assert " paired (not those of another). Seeds: " in tables.table_of({"contributions": mixed, **MADE})


MADE: dict[str, Any] = {"hardware": "a machine", "versions": {"torch": "2"}, "commit": "0" * 40, "command": "do it"}


@pytest.mark.parametrize(
    ("low", "mean", "high", "text"),
    [
        (0.5, 6.0, 9.0, "adds +6.0 [+0.5, +9.0]; the aim of +5 with an interval above zero is reached"),
        (0.5, 4.0, 9.0, "adds +4.0 [+0.5, +9.0]; the aim of +5 with an interval above zero is missed"),
        (-0.5, 6.0, 9.0, "has no effect that is shown: +6.0 [-0.5, +9.0]; the aim of +5 with an interval above zero"),
        (-9.0, -6.0, -1.0, "costs -6.0 [-9.0, -1.0]; the aim of +5 with an interval above zero is missed"),
    ],
)
def test_a_verdict_follows_from_the_interval(low: float, mean: float, high: float, text: str) -> None:
    from benchmarks.contribution_tables import verdict

    assert text in verdict({"differences": {"rsum": {"low": low, "mean": mean, "high": high}}})


def test_without_a_run_of_the_whole_network_there_is_nothing_to_compare(
    split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.contributions.open_split", lambda *_: split)
    monkeypatch.setattr("benchmarks.contributions.read_results", lambda _: [])
    with pytest.raises(DataError, match="no finished run of tshsr on flickr8k-photos; train it first"):
        results(Contributions("x", "flickr8k-photos"))
