"""`tshsr compare`: which files and runs may be set against each other, and what they are called."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.command_line import refused, tshsr
from tests.support.compared import OWNERS, matrix, ranks
from tshsr.data.layouts import open_split
from tshsr.metrics.comparison import compare
from tshsr.metrics.comparison_tables import kinds, procedure
from tshsr.metrics.report import read_report


def test_reports_that_cannot_be_compared_are_refused_in_one_sentence(rivals: Path) -> None:
    values = json.loads((rivals / "b0.json").read_text())
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
        (rivals / f"{name}.json").write_text(json.dumps(kept))
    for name, said in (
        ("bare", "bare.json holds no ranks of the score 'fused' (it holds none), which the bootstrap resamples; write"),
        ("split", "split.json is of captions.txt, split dev, "),
        (
            "order",
            "the runs were not evaluated on the same captions: 200 of 40 images against 200 of 40, or in another",
        ),
        ("short", "its ranks do not fit: expected ranks of at least one image and one for each of the 200 captions"),
        ("text", "ranks.fused.text_to_image: Value error, expected a list of whole numbers; got ['1']"),
        ("none", "none.json cannot be read"),
    ):
        assert said in refused("compare", rivals / "a0.json", rivals / f"{name}.json")
    assert "a0.json has no score 'pooled'; it has fused. Name one of them with --score." in refused(
        "compare", rivals / "a0.json", rivals / "b0.json", "--score", "pooled"
    )


def test_other_mistakes_of_compare_are_one_sentence(rivals: Path) -> None:
    a, b = rivals / "a0.json", rivals / "b0.json"
    assert "A is 'x.json,x.json'; expected files with commas between them, each once" in refused(
        "compare", "x.json,x.json", b
    )
    assert "is a matrix of scores, which needs its captions: tshsr compare A.npy B.npy --captions FILE" in refused(
        "compare", rivals / "a0.npy", b
    )
    assert "none does not exist; expected a report (.json) or a matrix" in refused("compare", rivals / "none", b)
    assert f"{rivals} is a folder; expected a report (.json) or a matrix" in refused("compare", a, rivals)
    assert "B[,B...] is missing; for example: tshsr compare A.json B.json." in refused("compare", a)
    assert "100 resamples for an interval of 0.95; expected" in refused("compare", a, b, "--resamples", "100")
    assert "scores.csv: scores are read from .npy" in refused(
        "compare", a, "scores.csv", "--captions", rivals / "captions.txt"
    )


def test_the_same_data_is_known_by_its_captions_and_not_by_its_name(rivals: Path, scenes: Path, run: Path) -> None:
    split = open_split(str(scenes), "test")
    (rivals / "one.txt").write_text("\r\n".join(split.captions) + "\n")
    (rivals / "other").mkdir()
    (rivals / "other" / "one.txt").write_text("\n".join(reversed(split.captions)) + "\n")
    said = tshsr(
        "evaluate", run, "--data", scenes, "--device", "cpu", "--save-scores", rivals / "r.npy", "--json", rivals / "r"
    )
    assert said.code == 0, said.err
    (rivals / "r").rename(rivals / "r.json")
    for name, captions in (("file", rivals / "one.txt"), ("named", scenes), ("stranger", rivals / "other" / "one.txt")):
        said = tshsr("metrics", rivals / "r.npy", "--captions", captions, "--json", rivals / f"{name}.json")
        assert said.code == 0, said.err
    for name in ("file", "named"):
        said = tshsr("compare", rivals / "r.json", rivals / f"{name}.json")
        assert "A and B have the same rSum in every resample" in said.out, said.err
    refusal = "stranger.json (one.txt, split test) and "
    assert refusal in refused("compare", rivals / "file.json", rivals / "stranger.json")
    said = refused("compare", rivals / "r.npy", rivals / "stranger.json", "--captions", rivals / "one.txt")
    assert f"{refusal}{rivals / 'r.npy'} (one.txt, split test) are of different captions, or the captions of" in said


def test_without_a_digest_names_decide(rivals: Path) -> None:
    lines = [json.dumps({"image": int(row)}) for row in OWNERS]
    (rivals / "bare.jsonl").write_text("\n".join(lines))
    (rivals / "told.jsonl").write_text("\n".join(line[:-1] + ', "caption": "a caption"}' for line in lines))
    for name in ("bare", "told"):
        evaluated = (rivals / "a0.npy", "--captions", rivals / f"{name}.jsonl")
        assert tshsr("metrics", *evaluated, "--json", rivals / f"{name}.json").code == 0
    assert read_report(rivals / "bare.json").captions_digest is None
    said = refused("compare", rivals / "a0.json", rivals / "bare.json")
    assert "bare.json is of bare.jsonl, split test, " in said
    assert "a0.json of captions.txt, split test; evaluate both on the same data to compare." in said
    assert tshsr("compare", rivals / "a0.json", rivals / "told.json").code == 0


def test_a_protocol_is_for_matrices(rivals: Path) -> None:
    a, b = rivals / "a0.json", rivals / "b0.json"
    assert "--protocol flickr is for matrices, and reports were ranked by a protocol already; leave it out" in refused(
        "compare", a, b, "--protocol", "flickr"
    )
    mixed = ("compare", a, rivals / "b0.npy", "--captions", rivals / "captions.txt", "--protocol", "flickr")
    assert tshsr(*mixed).code == 0
    values = json.loads(b.read_text()) | {"protocol": "coco-5k"}
    b.write_text(json.dumps(values))
    assert "b0.json is by the protocol coco-5k, " in refused("compare", a, b)


@pytest.mark.parametrize(("option", "value"), [("--captions", "captions.txt"), ("--split", "dev"), ("--key", "fused")])
def test_what_is_about_matrices_is_refused_where_there_is_none(rivals: Path, option: str, value: str) -> None:
    a, b = rivals / "a0.json", rivals / "b0.json"
    assert (
        f"{option} {value} is for matrices, and A and B are reports, which record this already; leave it out, "
        "or name a matrix of scores (.npy, .npz, .pt)."
    ) in refused("compare", a, b, option, value)
    mixed = ("compare", a, rivals / "b0.npy", "--captions", rivals / "captions.txt")
    assert tshsr(*mixed, *((option, value) if option == "--split" else ())).code == 0


def test_an_ensemble_is_called_one_everywhere(rivals: Path) -> None:
    for name, members in (("e2", ("a0", "a1")), ("f2", ("b0", "b1"))):
        evaluated = (*(rivals / f"{each}.npy" for each in members), "--captions", rivals / "captions.txt")
        assert tshsr("metrics", *evaluated, "--json", rivals / f"{name}.json").code == 0
    mixed = ("compare", rivals / "e2.json", rivals / "b0.json")
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
    swapped = tshsr("compare", rivals / "b0.json", rivals / "e2.json", "--json", "-").json()
    assert swapped["verdict"].startswith("B (ensemble of 2) scores higher than A (single run): rSum ")
    both = tshsr("compare", rivals / "e2.json", rivals / "f2.json", "--json", "-").json()
    assert both["verdict"].endswith(
        "this is about an ensemble of 2 and an ensemble of 2, and not about other seeds of them."
    )
    assert "e2.json is of 2 models, " in refused("compare", f"{rivals}/a0.json,{rivals}/e2.json", rivals / "b0.json")


def test_several_ensembles_a_side_are_named_with_their_size(rivals: Path) -> None:
    found = replace(compare(ranks(rivals, "a0", "a1"), ranks(rivals, "b0"), resamples=400), models_a=3, models_b=3)
    assert kinds(found) == ("2 runs, each an ensemble of 3", "ensemble of 3")
    assert "over A (2 runs, each an ensemble of 3) and B (ensemble of 3), the deviation" in procedure(found)


def test_a_copied_report_is_no_second_seed(rivals: Path) -> None:
    (rivals / "copy.json").write_text((rivals / "a0.json").read_text())
    said = refused("compare", f"{rivals}/a0.json,{rivals}/copy.json", f"{rivals}/b0.json,{rivals}/b1.json")
    assert "runs 1 and 2 of A rank every query alike; expected other seeds, as a copy does not count as a run" in said


def test_a_matrix_by_another_name_is_found_by_it(rivals: Path) -> None:
    np.savez(rivals / "s.npz", sims=matrix(0, 2.6))
    more = ("metrics", rivals / "s.npz", "--captions", rivals / "captions.txt")
    assert "holds sims; expected the matrix under the name scores. Name another with --key." in refused(*more)
    values = tshsr(*more, "--key", "sims", "--json", "-").json()
    assert values["scores"] == json.loads((rivals / "a0.json").read_text())["scores"]
