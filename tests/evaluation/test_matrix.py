"""Evaluation of score matrices of any program."""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

import tshsr
from tests.support.data_files import random_regions, write_precomp
from tests.support.forked import answer_of, program
from tests.support.score_matrix import OWNERS, matrix
from tshsr.data.generated import scenes_folder
from tshsr.errors import DataError, InputError, SettingsError
from tshsr.evaluation import matrix as matrix_module
from tshsr.evaluation import run as evaluation
from tshsr.evaluation.ground_truth import name_rows_and_columns, read_ground_truth
from tshsr.evaluation.matrix import Extras, evaluate_matrix, read_extras
from tshsr.metrics import coco
from tshsr.metrics.multi_positive import rankings
from tshsr.metrics.ranks import metrics_by_fold, query_ranks
from tshsr.metrics.recall import mean_metrics, score_metrics


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    (tmp_path / "captions.txt").write_text("a caption\n" * 30)
    return tmp_path / "captions.txt"


@pytest.mark.parametrize("ending", ["npy", "npz", "pt"])
def test_files_and_arrays_give_the_same_report(tmp_path: Path, captions: Path, ending: str) -> None:
    path = tmp_path / f"s.{ending}"
    if ending == "pt":
        torch.save({"scores": torch.tensor(matrix())}, path)
    else:
        (np.save if ending == "npy" else np.savez)(path, **{"arr" if ending == "npy" else "scores": matrix()})
    report, plain = evaluate_matrix(path, captions), tshsr.evaluate_matrix(matrix(), OWNERS)
    assert report.scores == plain.scores == {"fused": score_metrics(matrix(), OWNERS)}
    assert report.ranks == plain.ranks == {"fused": query_ranks(matrix(), OWNERS)}
    assert report.rankings == plain.rankings == {"fused": rankings(matrix(), OWNERS)}
    assert (report.data, report.models, report.protocol) == ("captions.txt", (path.name,), "flickr")
    assert report.seconds > 0


def test_several_files_are_an_ensemble(tmp_path: Path, captions: Path) -> None:
    paths = [tmp_path / f"{seed}.npy" for seed in range(2)]
    for seed, path in enumerate(paths):
        np.save(path, matrix(seed))
    report = evaluate_matrix(paths, captions)
    assert report.models == ("0.npy", "1.npy")
    mean = np.mean([matrix(0), matrix(1)], axis=0, dtype=np.float64).astype(np.float32)
    assert report.scores == {"fused": score_metrics(mean, OWNERS)}


def test_a_model_in_float64_with_itself_is_that_model(tmp_path: Path, captions: Path) -> None:
    paths = [tmp_path / name for name in ("fine.npy", "copy.npy")]
    for path in paths:
        np.save(path, 1e6 + 1e-4 * matrix().astype(np.float64))  # float32 would tie all of them
    one, two = (evaluate_matrix(paths[:count], captions) for count in (1, 2))
    assert one.ranks == two.ranks
    assert one.scores["fused"].rsum > 300


def test_recalls_and_rankings_use_the_same_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "FOLD", 5)
    report = evaluate_matrix(matrix(), OWNERS, protocol="coco-1k")
    assert report.scores["fused"] == mean_metrics(metrics_by_fold(query_ranks(matrix(), OWNERS, folds=2)))
    assert report.ranks is not None
    assert report.rankings is not None
    assert report.ranks["fused"].folds == 2
    assert report.rankings["fused"].image_to_text.r5 == pytest.approx(report.scores["fused"].image_to_text.r5)
    assert report.rankings["fused"].text_to_image.r1 == pytest.approx(report.scores["fused"].text_to_image.r1)


def test_ratings_are_found_by_row_and_column_or_by_names(tmp_path: Path, captions: Path) -> None:
    lines = [(image, column, (column * 7) % 4) for column, image in enumerate(OWNERS)]
    (tmp_path / "plain.csv").write_text("\n".join(f"{image},{column},{rating}" for image, column, rating in lines))
    (tmp_path / "named.csv").write_text(
        "\n".join(f"p{image}.jpg,p{image}.jpg#{column % 3},{rating}" for image, column, rating in lines)
    )
    (tmp_path / "ids.csv").write_text("\n".join(f"p{image}.jpg,c{column},{rating}" for image, column, rating in lines))
    (tmp_path / "named.jsonl").write_text("\n".join(json.dumps({"image": f"p{image}.jpg"}) for image in OWNERS))
    (tmp_path / "ids.jsonl").write_text(
        "\n".join(json.dumps({"image": f"p{image}.jpg", "id": f"c{column}"}) for column, image in enumerate(OWNERS))
    )
    pairs = (("plain.csv", captions), ("named.csv", tmp_path / "named.jsonl"), ("ids.csv", tmp_path / "ids.jsonl"))
    found = [evaluate_matrix(matrix(), truth, extras=Extras(judgements=tmp_path / name)) for name, truth in pairs]
    assert found[0].judgements is not None
    assert found[0].judgements.judgements == 30
    assert found[0].judgements == found[1].judgements == found[2].judgements


def test_an_id_that_names_two_captions_is_refused(tmp_path: Path) -> None:
    ids = ["one", "two", *map(str, range(26)), "two", "one"]
    (tmp_path / "ids.jsonl").write_text(
        "\n".join(json.dumps({"image": int(image), "id": name}) for image, name in zip(OWNERS, ids, strict=True))
    )
    with pytest.raises(DataError) as refusal:
        evaluate_matrix(matrix(), tmp_path / "ids.jsonl")
    assert str(refusal.value) == (
        f"{tmp_path / 'ids.jsonl'}: caption id 'one' occurs twice; give each caption its own id, or leave ids out "
        "(IMAGE#K then names it)."
    )


@pytest.mark.parametrize(
    ("name", "text", "error", "sentence"),
    [
        ("none.csv", None, DataError, "none.csv cannot be read (No such file or directory)"),
        ("bad.csv", "0,0,1\n1,3,good\n", DataError, "line 2: the rating is 'good'; expected a number"),
        ("alike.csv", "0,0,1\n1,3,1\n", InputError, "all judged ratings are alike, so there is nothing to correlate"),
        ("one.csv", "4,0,1\n4,3,2\n", InputError, "all judgements are of one image"),
    ],
)
def test_judgements_are_refused_before_the_scores_are_ranked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str | None, error: type[Exception], sentence: str
) -> None:
    monkeypatch.setattr(matrix_module, "rank_queries", not_yet)
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(error) as refusal:
        evaluate_matrix(matrix(), OWNERS, extras=Extras(judgements=tmp_path / name))
    assert sentence in str(refusal.value)


def not_yet(*_: object, **__: object) -> None:
    raise AssertionError("the scores were ranked first")


def test_denser_annotation_is_refused_before_the_scores_are_ranked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matrix_module, "rank_queries", not_yet)
    ids, original = tmp_path / "ids.txt", tmp_path / "original_caption_to_image.json"
    with pytest.raises(DataError, match=r"ids\.txt cannot be read"):
        evaluate_matrix(matrix(), OWNERS, extras=Extras(ids))
    ids.write_text("\n".join(map(str, range(30))))
    monkeypatch.setattr(coco, "PACKAGE", "none_of_that_name")
    with pytest.raises(SettingsError, match=r"pip install 'tshsr\[eccv\]'"):
        evaluate_matrix(matrix(), OWNERS, extras=Extras(ids))
    monkeypatch.setattr(coco, "annotation_folder", lambda: tmp_path)
    original.write_text(json.dumps({caption: [100 + (caption + 1) % 30 // 3] for caption in range(30)}))
    with pytest.raises(InputError, match="the ids are in another order than the columns"):
        evaluate_matrix(matrix(), OWNERS, extras=Extras(ids))
    original.write_text(json.dumps({caption: [100 + caption // 3] for caption in range(30)}))
    with pytest.raises(DataError, match=r"pm_image_to_caption\.json cannot be read"):
        evaluate_matrix(matrix(), OWNERS, extras=Extras(ids, tmp_path))
    (tmp_path / "pm_image_to_caption.json").write_text('{"100": [0, 1, 2]}')
    (tmp_path / "pm_caption_to_image.json").write_text('{"0": [7]}')
    with pytest.raises(DataError, match=r"pm_caption_to_image\.json has 1 of 1 right answers outside"):
        evaluate_matrix(matrix(), OWNERS, extras=Extras(ids, tmp_path))


def test_without_files_there_is_no_annotation() -> None:
    nothing = read_extras(Extras(), read_ground_truth(OWNERS, "test", 10, 30))
    assert (nothing.caption_ids, nothing.plausible, nothing.judgements) == (None, None, None)


def test_two_images_of_one_name_can_be_scored_and_not_be_rated(tmp_path: Path) -> None:
    write_precomp(tmp_path, "test", random_regions(3), each=1, ids=["dog.jpg", "dog.jpg", "cat.jpg"])
    scores = np.eye(3, dtype=np.float32)
    assert evaluate_matrix(scores, tmp_path).scores["fused"].rsum == 600
    _, columns = name_rows_and_columns(np.arange(3), 3, ["dog.jpg", "dog.jpg", "cat.jpg"])
    assert [columns[name] for name in ("dog.jpg#0", "dog.jpg#1", "cat.jpg#0")] == [0, 1, 2]
    with pytest.raises(DataError, match=r"has several images 'dog\.jpg'; give each image its own id"):
        evaluate_matrix(scores, tmp_path, extras=Extras(judgements=tmp_path / "ratings.csv"))


def test_images_and_captions_have_names() -> None:
    rows, columns = name_rows_and_columns(np.array([1, 0, 1]), 2, ["x", "y"])
    assert rows == {"x": 0, "y": 1}
    assert columns == {"0": 0, "1": 1, "2": 2, "y#0": 0, "x#0": 1, "y#1": 2}


def test_captions_of_other_scores_are_refused(captions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    few = scenes_folder(train=1, dev=0, test=2)
    monkeypatch.setattr("tshsr.data.generated.scenes_folder", lambda: few)  # the default is 4,000 scenes
    with pytest.raises(DataError, match="has 30 captions, the scores have 12 columns for 4 rows"):
        evaluate_matrix(np.zeros((4, 12)), captions)
    with pytest.raises(DataError, match=r"the scores are of 4 images and 12 captions; scenes-.*, split test has"):
        read_ground_truth("scenes", "test", 4, 12)


def test_a_nan_is_refused_with_its_place() -> None:
    scores = matrix()
    scores[7, 4] = np.nan
    with pytest.raises(InputError, match=r"image 7 \(row\) and caption 4 \(column\), counted from 0, is nan"):
        evaluate_matrix(scores, OWNERS)


@pytest.mark.slow
def test_coco_5k_takes_few_calls_a_caption_and_less_than_two_gibibytes(tmp_path: Path) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("peak memory is read from /proc, which only Linux has")
    script = """
        import sys
        from collections import Counter
        from pathlib import Path
        import numpy as np
        from tshsr import evaluate_matrix

        scores = np.lib.format.open_memmap(sys.argv[1], mode="w+", dtype=np.float32, shape=(5000, 25000))
        scores[np.arange(0, 5000, 2), np.arange(0, 25000, 10)] = 1
        events = Counter()
        sys.setprofile(lambda frame, event, arg: events.update((event,)))
        report = evaluate_matrix(sys.argv[1], np.repeat(np.arange(5000), 5))
        sys.setprofile(None)
        calls = events["call"] + events["c_call"]
        peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
        metrics = report.scores["fused"]
        print(calls, peak, metrics.image_to_text.r1, report.rankings["fused"].image_to_text.true_r5, report.protocol)
    """
    path = tmp_path / "scores.npy"
    try:
        ended, said, errors = answer_of(program, textwrap.dedent(script), str(path))
    finally:
        path.unlink(missing_ok=True)
    assert ended == 0, errors
    calls, peak, r1, true_r5, protocol = said.split()
    assert (float(r1), float(true_r5), protocol) == (50.0, 10.0, "coco-5k")
    assert int(calls) < 100 * 25_000  # 28 a caption; a loop over its 5,000 images would be far above
    assert int(peak) < 2**31
