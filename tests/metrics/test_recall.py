"""Ranks and recalls: hand-made cases, an independent implementation, folds and size."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest

from tshsr.errors import InputError
from tshsr.metrics.recall import (
    RetrievalMetrics,
    ScoreMetrics,
    cut,
    image_to_text_ranks,
    mean_metrics,
    recall_at,
    retrieval_metrics,
    score_metrics,
    text_to_image_ranks,
)

# Three images with two, one and three captions, with columns in another order.
OWNERS = np.array([2, 0, 1, 2, 0, 2])
SCORES = np.array(
    [
        [0.9, 0.8, 0.1, 0.2, 0.7, 0.3],  # own: 1 and 4; ahead of 0.8: column 0
        [0.4, 0.5, 0.6, 0.1, 0.2, 0.3],  # own: 2; nothing ahead
        [0.1, 0.6, 0.5, 0.2, 0.4, 0.3],  # own: 0, 3 and 5; ahead of 0.3: 1, 2, 4
    ],
    dtype=np.float32,
)


def test_image_to_text_rank_is_that_of_the_best_own_caption():
    assert image_to_text_ranks(SCORES, OWNERS).tolist() == [2, 1, 4]


def test_text_to_image_rank_counts_images_ahead_or_equal():
    # Column 3 ties image 0 with its own image 2; column 5 ties all three.
    assert text_to_image_ranks(SCORES, OWNERS).tolist() == [3, 1, 1, 2, 1, 3]


@pytest.mark.parametrize(("ranks", "queries"), [(image_to_text_ranks, 3), (text_to_image_ranks, 6)])
def test_ranks_are_int64_and_one_a_query(ranks, queries):
    assert ranks(SCORES, OWNERS).dtype == np.int64
    assert ranks(SCORES, OWNERS).shape == (queries,)


def test_a_perfect_matrix_gets_everything():
    owners = np.repeat(np.arange(12), 3)
    metrics = score_metrics(np.eye(12)[:, owners], owners)
    perfect = RetrievalMetrics(100.0, 100.0, 100.0, medr=1.0, meanr=1.0)
    assert metrics == ScoreMetrics(perfect, perfect)
    assert metrics.rsum == 600.0


def test_several_right_answers_do_not_block_each_other():
    owners = np.zeros(20, dtype=np.int64)
    owners[-1] = 1
    scores = np.vstack([np.linspace(1.0, 2.0, 20), np.zeros(20)])
    scores[0, -1] = 1.9  # one wrong caption, behind the two best of the 19 own ones and ahead of the others
    scores[0, -2] = 2.0
    assert image_to_text_ranks(scores, owners)[0] == 1
    scores[0, -1] = 2.1
    assert image_to_text_ranks(scores, owners)[0] == 2


def test_equal_own_captions_do_not_count_against_each_other():
    assert image_to_text_ranks(np.array([[0.5, 0.5, 0.1], [0.0, 0.0, 1.0]]), np.array([0, 0, 1])).tolist() == [1, 1]


def test_a_wrong_caption_with_an_equal_score_goes_ahead():
    scores = np.array([[0.5, 0.5], [0.1, 0.9]])
    assert image_to_text_ranks(scores, np.array([0, 1])).tolist() == [2, 1]


def test_a_wrong_image_with_an_equal_score_goes_ahead():
    scores = np.array([[0.5, 0.1], [0.5, 0.9]])
    assert text_to_image_ranks(scores, np.array([0, 1])).tolist() == [2, 1]


@pytest.mark.parametrize("value", [0.0, 0.7, -3.0])
def test_a_model_with_equal_scores_gets_0(value):
    owners = np.repeat(np.arange(30), 5)
    scores = np.full((30, 150), value, dtype=np.float32)
    assert score_metrics(scores, owners).rsum == 0.0
    assert set(image_to_text_ranks(scores, owners)) == {146}  # behind all 145 wrong captions
    assert set(text_to_image_ranks(scores, owners)) == {30}


def test_float64_differences_below_float32_are_seen():
    scores = np.array([[0.5 + 1e-12, 0.5], [0.5, 0.5 + 1e-12]])
    assert image_to_text_ranks(scores, np.array([0, 1])).tolist() == [1, 1]
    assert image_to_text_ranks(scores.astype(np.float32), np.array([0, 1])).tolist() == [2, 2]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("ranks", [image_to_text_ranks, text_to_image_ranks])
def test_a_score_that_is_not_finite_is_refused_with_its_place(ranks, value, monkeypatch):
    monkeypatch.setattr("tshsr.metrics.recall.BLOCK", 6)  # one row a block: the place counts from the first block
    scores = SCORES.copy()
    scores[2, 4] = value
    with pytest.raises(InputError, match=rf"image 2 \(row\) and caption 4 \(column\).* is {value}; every score"):
        ranks(scores, OWNERS)


def test_nan_at_the_right_places_is_no_perfect_model():
    # argsort()[::-1], the field's shared evaluation code, puts NaN first and reads R@1 = 100 here.
    owners = np.arange(20)
    scores = np.where(np.eye(20, dtype=bool), np.nan, 0.5)
    with pytest.raises(InputError, match=r"image 0 \(row\) and caption 0 \(column\)"):
        score_metrics(scores, owners)


def test_an_image_without_captions_is_refused_as_a_query():
    with pytest.raises(InputError, match=r"image 1 has no caption \(2 of 4 images have none\)"):
        image_to_text_ranks(np.zeros((4, 3)), np.array([0, 0, 2]))


def test_an_image_without_captions_is_a_wrong_answer_to_text():
    assert text_to_image_ranks(np.array([[0.5], [0.9]]), np.array([0])).tolist() == [2]


@pytest.mark.parametrize(
    ("scores", "owners", "sentence"),
    [
        (np.zeros(3), np.zeros(3, int), r"scores are float64 of shape \(3,\); expected floats of shape images x capt"),
        (np.zeros((2, 0)), np.zeros(0, int), r"shape \(2, 0\); expected floats of shape images x captions, not empty"),
        (np.zeros((2, 2), int), np.arange(2), "scores are int64"),
        (np.zeros((6, 3)), np.arange(6) % 3, r"shape \(6,\); expected int64, one row number for each of the 3 columns"),
        (np.zeros((2, 2)), np.zeros(2), "image_of_caption is float64"),
        (np.zeros((2, 2)), np.array([0, 2]), "caption 1 belongs to image 2, but the scores have rows 0 to 1"),
        (np.zeros((2, 2)), np.array([-1, 1]), "caption 0 belongs to image -1"),
    ],
)
@pytest.mark.parametrize("ranks", [image_to_text_ranks, text_to_image_ranks])
def test_what_does_not_fit_is_refused(ranks, scores, owners, sentence):
    with pytest.raises(InputError, match=sentence):
        ranks(scores, owners)


def test_recall_counts_ranks_up_to_k_in_percent():
    ranks = np.array([1, 2, 5, 6, 10, 11, 11, 40])
    assert [recall_at(ranks, k) for k in (1, 5, 10, 40)] == [12.5, 37.5, 62.5, 100.0]


def test_median_and_mean_rank_are_those_of_the_ranks():
    metrics = retrieval_metrics(np.array([1, 2, 5, 40]))
    assert (metrics.medr, metrics.meanr) == (3.5, 12.0)


def test_ranks_that_start_at_0_are_refused():
    with pytest.raises(InputError, match="ranks that start at 1; the smallest is 0"):
        recall_at(np.array([0, 3]), 1)


def test_no_ranks_are_refused():
    with pytest.raises(InputError, match="at least one rank, and ranks that start at 1; the smallest is none"):
        retrieval_metrics(np.array([], dtype=np.int64))


def test_recall_at_0_is_refused():
    with pytest.raises(InputError, match="R@0 is undefined: ranks start at 1"):
        recall_at(np.array([1]), 0)


def test_rsum_adds_the_recalls_of_both_directions():
    metrics = ScoreMetrics(RetrievalMetrics(1, 2, 4, 99, 99), RetrievalMetrics(8, 16, 32, 99, 99))
    assert metrics.rsum == 63


def folded_case():
    """Two folds of two images, each with known ranks; the columns of the folds are interleaved."""
    owners = np.array([3, 0, 2, 1])
    scores = np.array(
        [  # captions of:   3    0    2    1
            [9.0, 0.8, 9.0, 0.1],  # fold 0: rank 1; the 9.0 are another fold's captions
            [0.0, 0.2, 0.0, 0.3],  # fold 0: rank 1
            [0.9, 0.0, 0.1, 0.0],  # fold 1: rank 2
            [0.8, 9.0, 0.7, 9.0],  # fold 1: rank 1
        ]
    )
    return scores, owners


def test_a_fold_is_consecutive_images_and_captions_follow_their_image():
    (one, first, owner), (two, second, other) = cut(*folded_case(), 2)
    assert (one.tolist(), owner.tolist(), first.tolist()) == ([1, 3], [0, 1], [[0.8, 0.1], [0.2, 0.3]])
    assert (two.tolist(), other.tolist(), second.tolist()) == ([0, 2], [1, 0], [[0.9, 0.1], [0.8, 0.7]])


def test_one_fold_is_the_matrix_itself():
    scores, owners = folded_case()
    ((columns, whole, owner),) = cut(scores, owners, 1)
    assert whole is scores
    assert owner is owners
    assert columns.tolist() == [0, 1, 2, 3]


def test_the_five_fold_mean_is_that_of_hand_made_folds():
    sides = [
        ((10, 20, 30, 4, 5), (1, 2, 3, 9, 10)),
        ((20, 30, 40, 5, 6), (2, 3, 4, 8, 9)),
        ((30, 40, 50, 6, 7), (3, 4, 5, 7, 8)),
        ((40, 50, 60, 7, 8), (4, 5, 6, 6, 7)),
        ((50, 60, 70, 8, 9), (5, 6, 7, 5, 6)),
    ]
    mean = mean_metrics([ScoreMetrics(RetrievalMetrics(*i2t), RetrievalMetrics(*t2i)) for i2t, t2i in sides])
    assert mean.image_to_text == RetrievalMetrics(30, 40, 50, 6, 7)
    assert mean.text_to_image == RetrievalMetrics(3, 4, 5, 7, 8)
    # The family's printed summary would say 6 x mean(30, 40, 50) = 240.
    assert mean.rsum == 132


@pytest.mark.parametrize("folds", [0, 3])
def test_images_that_are_no_multiple_of_the_folds_are_refused(folds):
    with pytest.raises(InputError, match=f"4 images cannot be cut into {folds} folds of equal size"):
        list(cut(*folded_case(), folds))


def test_the_mean_of_no_fold_is_refused():
    with pytest.raises(InputError, match="at least one fold"):
        mean_metrics([])


def test_folds_name_the_image_without_captions_by_its_row_in_the_whole():
    with pytest.raises(InputError, match=r"image 3 has no caption \(1 of 4"):
        list(cut(np.zeros((4, 3)), np.array([0, 1, 2]), 2))


def test_folds_refuse_nan_outside_the_pairs_they_rank():
    scores, owners = folded_case()
    scores[2, 1] = np.nan
    with pytest.raises(InputError, match=r"image 2 \(row\) and caption 1 \(column\)"):
        list(cut(scores, owners, 2))


def test_recalls_equal_those_of_ranx(monkeypatch):
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")  # ranx as plain Python: 3 s, against 50 s of compilation
    from ranx import Qrels, Run, evaluate

    random = np.random.default_rng(7)
    owners = random.permutation(np.concatenate([np.arange(40), random.integers(0, 40, size=90)]))
    scores = random.permutation(np.arange(5200.0)).reshape(40, 130)  # no ties: ranx breaks them as they come
    scores[owners, np.arange(130)] += 1000.5

    def ranx_metrics(relevant, run):
        names = ["hit_rate@1", "hit_rate@5", "hit_rate@10", "mrr"]
        return evaluate(Qrels.from_dict(relevant), Run.from_dict(run), names)

    images = {f"i{i}": {f"c{c}": 1 for c in np.flatnonzero(owners == i)} for i in range(40)}
    texts = {f"i{i}": {f"c{c}": float(score) for c, score in enumerate(row)} for i, row in enumerate(scores)}
    captions = {f"c{c}": {f"i{i}": 1} for c, i in enumerate(owners)}
    pictures = {f"c{c}": {f"i{i}": float(score) for i, score in enumerate(row)} for c, row in enumerate(scores.T)}
    for ranks, theirs in (
        (image_to_text_ranks(scores, owners), ranx_metrics(images, texts)),
        (text_to_image_ranks(scores, owners), ranx_metrics(captions, pictures)),
    ):
        ours = retrieval_metrics(ranks)
        assert 0 < ours.r1 < ours.r5 < ours.r10 < 100  # neither trivial nor saturated
        assert (ours.r1, ours.r5, ours.r10) == pytest.approx(
            tuple(100 * theirs[f"hit_rate@{k}"] for k in (1, 5, 10)), abs=1e-9
        )
        assert np.mean(1 / ranks) == pytest.approx(theirs["mrr"], abs=1e-9)


def test_coco_5k_takes_no_loop_over_queries_and_less_than_a_gibibyte(tmp_path):
    if not sys.platform.startswith("linux"):
        pytest.skip("peak memory is read from /proc, which only Linux has")
    script = """
        import sys
        from collections import Counter
        from pathlib import Path
        import numpy as np
        from tshsr.metrics.recall import score_metrics

        # Zeros, but the first caption of every other image: a sparse file of 500 MB.
        scores = np.lib.format.open_memmap(sys.argv[1], mode="w+", dtype=np.float32, shape=(5000, 25000))
        owners = np.repeat(np.arange(5000), 5)
        scores[np.arange(0, 5000, 2), np.arange(0, 25000, 10)] = 1
        events = Counter()
        sys.setprofile(lambda frame, event, arg: events.update((event,)))
        metrics = score_metrics(scores, owners)
        sys.setprofile(None)
        calls = events["call"] + events["c_call"]
        # Of this process alone: getrusage's figure begins with that of the process which started it.
        peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
        print(calls, peak, metrics.image_to_text.r1, metrics.text_to_image.r1)
    """
    path = tmp_path / "scores.npy"
    try:
        answer = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script), str(path)], capture_output=True, text=True, check=True
        )
    finally:
        path.unlink(missing_ok=True)
    calls, peak, image_r1, text_r1 = map(float, answer.stdout.split())
    assert (image_r1, text_r1) == (50.0, 10.0)
    assert calls < 5000  # 1,634 of whole arrays; there are 30,000 queries
    assert peak < 2**30  # the mapped file itself is 0.47 of it


def test_the_example_of_the_documentation_runs(request):
    text = (request.config.rootpath / "docs" / "metrics.md").read_text(encoding="utf-8")
    examples = [block.partition("```")[0] for block in text.split("```python\n")[1:]]
    assert examples
    for example in examples:
        exec(compile(example, "docs/metrics.md", "exec"), {})
