"""`tshsr compare`, and what `tshsr evaluate` says beside recalls: audits of logs, judgements, denser annotation."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.command_line import refused, tshsr
from tests.unit import test_audit
from tshsr.data.layouts import open_split
from tshsr.evaluator.comparison_report import comparison_rows, escaped, kinds, latex_table, verdict, what_was_done
from tshsr.evaluator.figures import FIGURES, SEVERAL, SEVERAL_RIGHT
from tshsr.evaluator.ranks import query_ranks
from tshsr.evaluator.significance import compare
from tshsr.reports import read_report

OWNERS = np.repeat(np.arange(40), 5)
CONTRACT = {"metric", "difference", "low", "high", "p", "unit", "resamples"}


def matrix(seed: int, skill: float) -> np.ndarray:
    """Scores of one run: a base that all runs share, and noise of its own."""
    base = np.random.default_rng(99).normal(size=(40, 200))
    base[OWNERS, np.arange(200)] += skill
    return (base + 0.5 * np.random.default_rng(seed).normal(size=base.shape)).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two runs of a better and two of a worse method, as matrices and as reports."""
    (tmp_path / "captions.txt").write_text("a caption\n" * 200)
    for name, seed, skill in (("a0", 0, 2.6), ("a1", 1, 2.6), ("b0", 2, 2.0), ("b1", 3, 2.0)):
        np.save(tmp_path / f"{name}.npy", matrix(seed, skill))
        said = tshsr("evaluate", *scored(tmp_path, name), "--json", tmp_path / f"{name}.json")
        assert said.code == 0, said.err
    return tmp_path


def scored(folder: Path, name: str) -> tuple[str | Path, ...]:
    return ("--scores", folder / f"{name}.npy", "--captions", folder / "captions.txt")


def ranks(folder: Path, *names: str) -> list:
    return [query_ranks(np.load(folder / f"{name}.npy"), OWNERS) for name in names]


def test_two_reports_are_compared_as_the_contract_promises(folder: Path) -> None:
    values = tshsr("compare", folder / "a0.json", folder / "b0.json", "--json", "-").json()
    assert set(values) >= CONTRACT
    assert (values["metric"], values["unit"], values["resamples"]) == ("rsum", "images", 10_000)
    found = compare(ranks(folder, "a0"), ranks(folder, "b0"))
    assert (values["difference"], values["low"], values["high"]) == (found.rsum.mean, found.rsum.low, found.rsum.high)
    assert values["difference"] > values["low"] > 0
    assert values["different"] is True
    assert values["verdict"].startswith("Run A scores higher than run B: rSum ")
    assert list(values["figures"]) == [figure.name for figure in FIGURES]
    reports = [json.loads((folder / f"{name}.json").read_text())["scores"]["fused"] for name in ("a0", "b0")]
    assert values["difference"] == pytest.approx(reports[0]["rsum"] - reports[1]["rsum"])
    assert values["figures"]["text_to_image_r5"]["b"]["mean"] == pytest.approx(reports[1]["text_to_image"]["r5"])


def test_every_figure_of_a_report_is_compared(folder: Path) -> None:
    values = tshsr("compare", folder / "a0.json", folder / "b0.json", "--json", "-").json()["figures"]
    for side, name in (("a", "a0"), ("b", "b0")):
        report = json.loads((folder / f"{name}.json").read_text())
        for direction in ("image_to_text", "text_to_image"):
            figures = report["rankings"]["fused"][direction] | report["scores"]["fused"][direction]
            for figure, value in figures.items():
                if direction == "text_to_image" and figure in SEVERAL:
                    continue  # with one right answer it is a recall
                estimate = values[f"{direction}_{figure}"][side]
                assert estimate["mean"] == pytest.approx(value)
                assert estimate["low"] <= estimate["mean"] <= estimate["high"]
    lower = {name for name, figure in values.items() if not figure["higher_is_better"]}
    assert lower == {f"{side}_{name}" for side in ("image_to_text", "text_to_image") for name in ("medr", "meanr")}
    assert {name for name, figure in values.items() if figure["difference"]["p"] is None} == {
        "image_to_text_medr",
        "text_to_image_medr",
    }


def test_reports_without_places_of_captions_are_compared_by_all_other_figures(folder: Path) -> None:
    values = json.loads((folder / "b0.json").read_text())
    del values["ranks"]["fused"]["caption_places"]
    (folder / "older.json").write_text(json.dumps(values))
    whole = tshsr("compare", folder / "a0.json", folder / "b0.json", "--json", "-").json()["figures"]
    said = tshsr("compare", folder / "a0.json", folder / "older.json", "--json", "-")
    assert said.json()["figures"] == {
        name: figure for name, figure in whole.items() if name not in {each.name for each in SEVERAL_RIGHT}
    }
    assert (
        "older.json keeps the rank of every query but not the place of every caption, so mAP@R, R-Precision, true "
        "recall and all found are left out; write it again with tshsr evaluate ... --json FILE to compare them."
    ) in said.err
    assert tshsr("compare", folder / "a0.json", folder / "b0.json").err == ""


def test_matrices_and_reports_give_the_same_answer(folder: Path) -> None:
    reports = tshsr("compare", folder / "a0.json", folder / "b0.json", "--json", "-").json()
    more = ("--captions", folder / "captions.txt", "--json", "-")
    matrices = tshsr("compare", folder / "a0.npy", folder / "b0.npy", *more).json()
    mixed = tshsr("compare", folder / "a0.npy", folder / "b0.json", *more).json()
    names = CONTRACT | {"figures", "verdict"}
    assert {name: reports[name] for name in names} == {name: matrices[name] for name in names}
    assert mixed["figures"] == reports["figures"]


def test_several_runs_a_side_are_resampled_over_seeds_too(folder: Path) -> None:
    a, b = (f"{folder}/{side}0.json,{folder}/{side}1.json" for side in "ab")
    said = tshsr("compare", a, b, "--json", folder / "out.json")
    values = json.loads((folder / "out.json").read_text())
    assert (len(values["a"]), len(values["b"])) == (2, 2)
    assert values["seed_deviation"] >= 0
    assert values["difference"] == pytest.approx(
        compare(ranks(folder, "a0", "a1"), ranks(folder, "b0", "b1")).rsum.mean
    )
    assert "over 2 and 2 runs, the deviation between seeds" in said.out
    one = tshsr("compare", folder / "a0.json", folder / "b0.json")
    assert "A and B are one run each, so this says nothing about other seeds of them." in one.out


def test_a_difference_of_two_single_runs_is_called_one_of_runs(folder: Path) -> None:
    clause = "; this is about two single runs, and not about other seeds of them."
    single = tshsr("compare", folder / "a0.json", folder / "b0.json", "--json", "-").json()
    assert single["different"]
    assert single["verdict"].endswith(clause)
    several = compare(ranks(folder, "a0", "a1"), ranks(folder, "b0"), resamples=400)
    sure = replace(several.rsum, low=several.rsum.mean - 1, high=several.rsum.mean + 1, p=0.001)
    several = replace(several, differences={**several.differences, "rsum": sure})
    assert several.different()
    assert verdict(several).startswith("A is better than B: rSum")
    assert "single runs" not in verdict(several)


def test_an_interval_is_named_with_all_its_decimals(folder: Path) -> None:
    said = tshsr("compare", folder / "a0.json", folder / "b0.json", "--confidence", "0.995", "--table", "markdown")
    assert "A - B [99.5% interval]" in said.out
    assert "(99.5% interval)" in said.err


def test_reports_are_compared_by_any_score_that_they_have(
    scenes: Path, run: Path, folder: Path, tmp_path: Path
) -> None:
    page = tmp_path / "run.json"
    said = tshsr("evaluate", run, "--data", scenes, "--device", "cpu", "--json", page)
    assert said.code == 0, said.err
    report = read_report(page)
    assert report.ranks is not None
    assert set(report.ranks) == set(report.scores) >= {"fused", "pooled", "level_0"}
    values = tshsr("compare", page, page, "--score", "pooled", "--json", "-").json()
    assert values["figures"]["rsum"]["a"]["mean"] == pytest.approx(report.scores["pooled"].rsum)
    assert report.scores["pooled"].rsum != report.scores["fused"].rsum
    assert f"{page} has no score 'best'; it has {', '.join(report.scores)}. Name one of them with --score." in refused(
        "compare", page, page, "--score", "best"
    )


def test_a_file_that_cannot_be_written_does_not_cost_the_table(folder: Path) -> None:
    said = tshsr("compare", folder / "a0.json", folder / "b0.json", "--json", folder)
    assert said.code == 2
    assert "Run A scores higher than run B: rSum" in said.out
    (folder / "log.txt").write_text(test_audit.SCAN)
    said = tshsr("evaluate", "--audit-log", folder / "log.txt", "--json", folder)
    assert said.code == 2
    assert "lines with figures that can be checked are wrong." in said.out


def test_the_screen_shows_every_figure_and_a_verdict(folder: Path) -> None:
    said = tshsr("compare", folder / "a0.json", folder / "b0.json")
    assert said.code == 0
    for name in ("image to text R@1", "text to image R@10", "rSum", "  median rank", "  MRR", "  true recall@10"):
        assert f"{name} " in said.out
    lines = [line.rstrip() for line in said.out.splitlines()]
    assert lines.index("image to text") < lines.index("text to image"), "two groups under rSum"
    assert "Of median and mean ranks the lower ones are better; a median has no p." in lines
    assert "Run A scores higher than run B: rSum" in said.out
    assert "40 images, each with its captions, were resampled 10,000 times, the same ones for A and B" in said.out
    said = tshsr("compare", folder / "b0.json", folder / "a0.json")
    assert "Run B scores higher than run A: rSum" in said.out


def test_what_is_not_shown_comes_with_the_power_to_show_it(folder: Path) -> None:
    said = tshsr("compare", folder / "a0.json", folder / "a1.json")
    assert "No difference between A and B is shown: rSum" in said.out
    assert " points would be found in 80 % of such comparisons, one of 1 point in " in said.out
    said = tshsr("compare", folder / "a0.json", folder / "a0.npy", "--captions", folder / "captions.txt")
    assert "A and B answer every query alike: rSum" in said.out


def test_tables_for_papers(folder: Path) -> None:
    said = tshsr("compare", folder / "a0.json", folder / "b0.json", "--table", "markdown")
    lines = said.out.splitlines()
    assert lines[0] == "|  | A | B | A - B [95% interval] | p |"
    assert len(lines) == 2 + len(FIGURES)
    assert all(line.count("|") == 6 for line in lines)
    assert "Run A scores higher than run B" in said.err
    said = tshsr("compare", folder / "a0.json", folder / "b0.json", "--table", "latex")
    assert said.out.splitlines()[1:3] == [r"\begin{tabular}{lrrrr}", r"\toprule"]
    assert r"[95\% interval]" in said.out
    found = compare(ranks(folder, "a0"), ranks(folder, "b0"))
    assert comparison_rows(found)[6][0] == "rSum"
    lines = latex_table(found, "a_0", "b").splitlines()
    assert sum(line.endswith(r"\\") for line in lines) == 1 + len(FIGURES)
    assert [number for number, line in enumerate(lines) if line == r"\midrule"] == [4, 12], "under header and rSum"
    assert lines[13].startswith("image to text median rank (lower is better) & $1.0 [1.0, 1.0]$ & ")
    assert lines[13].endswith(r"$ &  \\"), "a median has no p, and LaTeX no empty formula"
    assert what_was_done(found) in latex_table(found, "a_0", "b").splitlines()[0]
    assert escaped("a_0 & 5 % \\") == r"a\_0 \& 5 \% \textbackslash{}"


def test_the_same_seed_gives_the_same_json(folder: Path) -> None:
    calls = [
        tshsr(
            "compare", folder / "a0.json", folder / "b0.json", "--seed", seed, "--resamples", "500", "--json", "-"
        ).out
        for seed in ("1", "1", "2")
    ]
    assert calls[0] == calls[1] != calls[2]


def test_reports_that_cannot_be_compared_are_refused_in_one_sentence(folder: Path) -> None:
    values = json.loads((folder / "b0.json").read_text())
    places = values["ranks"]["fused"]["caption_places"]
    other = {"image_of_caption": OWNERS[::-1].tolist(), "caption_places": places[::-1]}
    for name, changes in (
        ("bare", {"ranks": None}),
        ("split", {"split": "dev", "captions_digest": None}),
        ("order", {"ranks": {"fused": values["ranks"]["fused"] | other}}),
        ("short", {"ranks": {"fused": values["ranks"]["fused"] | {"text_to_image": [1, 2]}}}),
        ("text", {"ranks": {"fused": values["ranks"]["fused"] | {"text_to_image": ["1"]}}}),
    ):
        kept = {key: value for key, value in (values | changes).items() if value is not None}
        (folder / f"{name}.json").write_text(json.dumps(kept))
    for name, said in (
        (
            "bare",
            "bare.json holds no ranks of the score 'fused' (it holds none), and they are what is resampled; write",
        ),
        ("split", "split.json is of captions.txt, split dev, "),
        (
            "order",
            "the runs were not evaluated on the same captions: 200 of 40 images against 200 of 40, or in another",
        ),
        ("short", "its ranks do not fit: expected ranks of at least one image and one for each of the 200 captions"),
        ("text", "ranks.fused.text_to_image: Value error, expected a list of whole numbers; got ['1']"),
        ("none", "none.json cannot be read"),
    ):
        assert said in refused("compare", folder / "a0.json", folder / f"{name}.json")
    assert "a0.json has no score 'pooled'; it has fused. Name one of them with --score." in refused(
        "compare", folder / "a0.json", folder / "b0.json", "--score", "pooled"
    )


def test_other_mistakes_of_compare_are_one_sentence(folder: Path) -> None:
    a, b = folder / "a0.json", folder / "b0.json"
    assert "A is 'x.json,x.json'; expected files with commas between them, each once" in refused(
        "compare", "x.json,x.json", b
    )
    assert "is a matrix of scores, which needs its captions: tshsr compare A.npy B.npy --captions FILE" in refused(
        "compare", folder / "a0.npy", b
    )
    assert "B[,B...] is missing; for example: tshsr compare A.json B.json." in refused("compare", a)
    assert "100 resamples for an interval of 0.95; expected" in refused("compare", a, b, "--resamples", "100")
    assert "scores.csv: scores are read from .npy" in refused(
        "compare", a, "scores.csv", "--captions", folder / "captions.txt"
    )


def test_a_report_keeps_its_ranks_and_rankings(folder: Path) -> None:
    report = read_report(folder / "a0.json")
    assert report.ranks == {"fused": ranks(folder, "a0")[0]}
    (folder / "again.json").write_text(report.to_json())
    assert read_report(folder / "again.json") == report
    said = tshsr("evaluate", *scored(folder, "a0"))
    fused = report.scores["fused"]
    assert f"fused, image to text: median rank {fused.image_to_text.medr:.1f}, mean rank " in said.out
    assert f"{fused.image_to_text.meanr:.1f}; text to image: median rank {fused.text_to_image.medr:.1f}" in said.out
    assert "fused, image to text: of an image's captions " in said.out
    assert f"MRR {report.rankings['fused'].image_to_text.mrr:.3f}" in said.out


def test_a_run_can_be_compared_by_its_reports(scenes: Path, run: Path, tmp_path: Path) -> None:
    page = tmp_path / "run.json"
    said = tshsr(
        "evaluate", run, "--data", scenes, "--device", "cpu", "--json", page, "--save-scores", tmp_path / "r.npy"
    )
    assert said.code == 0, said.err
    values = tshsr("compare", page, tmp_path / "r.npy", "--captions", scenes, "--json", "-").json()
    assert (values["difference"], values["images"], values["captions"]) == (0, 10, 50)


def test_a_log_is_audited(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text(test_audit.SCAN)
    said = tshsr("evaluate", "--audit-log", tmp_path / "log.txt")
    assert said.code == 0
    assert "six times the mean of the image-to-text recalls" in said.out
    assert "3 of 30 lines with figures that can be checked are wrong." in said.out
    values = tshsr("evaluate", "--audit-log", tmp_path / "log.txt", "--json", "-").json()
    assert values["wrong"] == 3
    (tmp_path / "log.txt").write_text("\n".join(test_audit.SCAN.splitlines()[9:]))  # the log's head is lost
    said = tshsr("evaluate", "--audit-log", tmp_path / "log.txt")
    assert "Image to text: cannot be checked, only 3 of 5 folds are in the log" in said.err
    assert "3 of 18 lines with figures that can be checked are wrong." in said.out
    (tmp_path / "log.txt").write_text("rsum: 500.0")
    said = tshsr("evaluate", "--audit-log", tmp_path / "log.txt")
    assert "line 1, rsum: cannot be checked, the lines that it follows from are missing" in said.err


def test_judgements_are_correlated_for_matrices_and_runs(folder: Path, scenes: Path, run: Path) -> None:
    lines = [f"{image},{column},{(3 * column + image) % 4 + (OWNERS[column] == image)}" for image in range(40)
             for column in range(0, 200, 17)]  # fmt: skip
    (folder / "ratings.csv").write_text("\n".join(["image,caption,rating", *lines]))
    said = tshsr("evaluate", *scored(folder, "a0"), "--judgements", folder / "ratings.csv", "--json", folder / "r.json")
    assert said.code == 0, said.err
    found = read_report(folder / "r.json").judgements
    assert found is not None
    assert (found.judgements, found.images) == (480, 40)
    assert found.tau_c.low is not None
    assert found.tau_c.high is not None
    assert found.tau_c.low < found.tau_c.value < found.tau_c.high
    assert f"480 judgements of 40 images: Kendall tau-c {found.tau_c.value:.3f} [" in said.out
    (folder / "few.csv").write_text("\n".join(f"{image},{column},{column % 3}" for image, column in names(scenes)))
    said = tshsr("evaluate", run, "--data", scenes, "--device", "cpu", "--judgements", folder / "few.csv")
    assert "50 judgements of 10 images" in said.out
    assert "(no interval: too few images, at least 20 must be rated)" in said.out
    few = ("--judgements", folder / "two.csv", "--json", folder / "two.json")
    (folder / "two.csv").write_text("\n".join(f"{image},0,{int(image < 2)}" for image in range(40)))
    assert (
        "no interval: in too many resamples of images all scores or all ratings are alike"
        in tshsr("evaluate", *scored(folder, "a0"), *few).out
    )
    found = read_report(folder / "two.json").judgements
    assert found is not None
    assert (found.tau_c.low, found.tau_c.high) == (None, None)
    assert "is not among the 40 that are scored" in refused(
        "evaluate", *scored(folder, "a0"), "--judgements", folder / "few.csv"
    )


def names(scenes: Path) -> list[tuple[str, int]]:
    """Each caption of the test split with the name of its image."""
    split = open_split(str(scenes), "test")
    return [(split.image_ids[row], column) for column, row in enumerate(split.image_of_caption)]


def test_denser_annotation_needs_cocos_ids_and_images(folder: Path) -> None:
    assert "--pmrp finds captions by COCO's ids; give --coco-ids FILE with it." in refused(
        "evaluate", *scored(folder, "a0"), "--pmrp", folder
    )
    pytest.importorskip("eccv_caption", reason="the extra eccv is not installed")
    (folder / "ids.txt").write_text("\n".join(map(str, range(200))))
    said = refused("evaluate", *scored(folder, "a0"), "--coco-ids", folder / "ids.txt")
    assert "the annotation is of all 25000 captions of COCO's 5,000 test images, five each; there are 200 ids" in said


def test_a_matrix_by_another_name_is_found_by_it(folder: Path) -> None:
    np.savez(folder / "s.npz", sims=matrix(0, 2.6))
    more = ("evaluate", "--scores", folder / "s.npz", "--captions", folder / "captions.txt")
    assert "holds sims; expected the matrix under the name scores. Name another with --key." in refused(*more)
    values = tshsr(*more, "--key", "sims", "--json", "-").json()
    assert values["scores"] == json.loads((folder / "a0.json").read_text())["scores"]


def test_the_same_data_is_known_by_its_captions_and_not_by_its_name(folder: Path, scenes: Path, run: Path) -> None:
    split = open_split(str(scenes), "test")
    (folder / "one.txt").write_text("\r\n".join(split.captions) + "\n")
    (folder / "other").mkdir()
    (folder / "other" / "one.txt").write_text("\n".join(reversed(split.captions)) + "\n")
    said = tshsr(
        "evaluate", run, "--data", scenes, "--device", "cpu", "--save-scores", folder / "r.npy", "--json", folder / "r"
    )
    assert said.code == 0, said.err
    (folder / "r").rename(folder / "r.json")
    for name, captions in (("file", folder / "one.txt"), ("named", scenes), ("stranger", folder / "other" / "one.txt")):
        said = tshsr(
            "evaluate", "--scores", folder / "r.npy", "--captions", captions, "--json", folder / f"{name}.json"
        )
        assert said.code == 0, said.err
    for name in ("file", "named"):
        said = tshsr("compare", folder / "r.json", folder / f"{name}.json")
        assert "A and B answer every query alike" in said.out, said.err
    refusal = "stranger.json (one.txt, split test) and "
    assert refusal in refused("compare", folder / "file.json", folder / "stranger.json")
    said = refused("compare", folder / "r.npy", folder / "stranger.json", "--captions", folder / "one.txt")
    assert f"{refusal}{folder / 'r.npy'} (one.txt, split test) are of different captions, or the captions of" in said


def test_without_a_digest_names_decide(folder: Path) -> None:
    lines = [json.dumps({"image": int(row)}) for row in OWNERS]
    (folder / "bare.jsonl").write_text("\n".join(lines))
    (folder / "told.jsonl").write_text("\n".join(line[:-1] + ', "caption": "a caption"}' for line in lines))
    for name in ("bare", "told"):
        evaluated = ("--scores", folder / "a0.npy", "--captions", folder / f"{name}.jsonl")
        assert tshsr("evaluate", *evaluated, "--json", folder / f"{name}.json").code == 0
    assert read_report(folder / "bare.json").captions_digest is None
    said = refused("compare", folder / "a0.json", folder / "bare.json")
    assert "bare.json is of bare.jsonl, split test, " in said
    assert "a0.json of captions.txt, split test; evaluate both on the same data to compare." in said
    assert tshsr("compare", folder / "a0.json", folder / "told.json").code == 0


def test_a_protocol_is_for_matrices(folder: Path) -> None:
    a, b = folder / "a0.json", folder / "b0.json"
    assert "--protocol flickr is for matrices, and reports were ranked by a protocol already; leave it out" in refused(
        "compare", a, b, "--protocol", "flickr"
    )
    mixed = ("compare", a, folder / "b0.npy", "--captions", folder / "captions.txt", "--protocol", "flickr")
    assert tshsr(*mixed).code == 0
    values = json.loads(b.read_text()) | {"protocol": "coco-5k"}
    b.write_text(json.dumps(values))
    assert "b0.json is by the protocol coco-5k, " in refused("compare", a, b)


@pytest.mark.parametrize(("option", "value"), [("--captions", "captions.txt"), ("--split", "dev"), ("--key", "fused")])
def test_what_is_about_matrices_is_refused_where_there_is_none(folder: Path, option: str, value: str) -> None:
    a, b = folder / "a0.json", folder / "b0.json"
    assert (
        f"{option} {value} is for matrices, and A and B are reports, which say already what they are of; leave it out, "
        "or name a matrix of scores (.npy, .npz, .pt)."
    ) in refused("compare", a, b, option, value)
    mixed = ("compare", a, folder / "b0.npy", "--captions", folder / "captions.txt")
    assert tshsr(*mixed, *((option, value) if option != "--captions" else ())).code == 0


def test_an_ensemble_is_called_one_everywhere(folder: Path) -> None:
    for name, members in (("e2", ("a0", "a1")), ("f2", ("b0", "b1"))):
        evaluated = ("--scores", *(folder / f"{each}.npy" for each in members), "--captions", folder / "captions.txt")
        assert tshsr("evaluate", *evaluated, "--json", folder / f"{name}.json").code == 0
    mixed = ("compare", folder / "e2.json", folder / "b0.json")
    values = tshsr(*mixed, "--json", "-").json()
    assert values["kinds"] == {"a": "ensemble of 2", "b": "single run"}
    assert values["verdict"].startswith("A (ensemble of 2) scores higher than B (single run): rSum ")
    assert values["verdict"].endswith(
        "; this is about an ensemble of 2 and a single run, and not about other seeds of them."
    )
    for table in ("markdown", "latex", "plain"):
        said = tshsr(*mixed, "--table", table)
        assert "A (ensemble of 2)" in said.out
        assert "B (single run)" in said.out
    assert "; A is one ensemble of 2, B one single run, so this says nothing about other seeds of them." in said.out
    swapped = tshsr("compare", folder / "b0.json", folder / "e2.json", "--json", "-").json()
    assert swapped["verdict"].startswith("B (ensemble of 2) scores higher than A (single run): rSum ")
    both = tshsr("compare", folder / "e2.json", folder / "f2.json", "--json", "-").json()
    assert both["verdict"].endswith(
        "this is about an ensemble of 2 and an ensemble of 2, and not about other seeds of them."
    )
    assert "e2.json is of 2 models, " in refused("compare", f"{folder}/a0.json,{folder}/e2.json", folder / "b0.json")


def test_several_ensembles_a_side_are_named_with_their_size(folder: Path) -> None:
    found = replace(compare(ranks(folder, "a0", "a1"), ranks(folder, "b0"), resamples=400), models_a=3, models_b=3)
    assert kinds(found) == ("2 runs, each an ensemble of 3", "ensemble of 3")
    assert "over A (2 runs, each an ensemble of 3) and B (ensemble of 3), the deviation" in what_was_done(found)


def test_a_copied_report_is_no_second_seed(folder: Path) -> None:
    (folder / "copy.json").write_text((folder / "a0.json").read_text())
    said = refused("compare", f"{folder}/a0.json,{folder}/copy.json", f"{folder}/b0.json,{folder}/b1.json")
    assert "runs 1 and 2 of A rank every query alike; expected other seeds, for a copy does not count as a run" in said
