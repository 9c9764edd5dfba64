"""ECCV Caption, CxC and PMRP: metrics equal to the authors' package, checks of ids."""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.command_line import tshsr
from tshsr.errors import DataError, InputError, SettingsError
from tshsr.metrics import coco
from tshsr.metrics.coco import (
    annotated_rankings,
    annotation_folder,
    images_of_ids,
    read_annotation,
    read_caption_ids,
    right_pairs,
    row_of,
)
from tshsr.metrics.report import read_report

IMAGES, EACH = 40, 5
IMAGE_IDS = 1000 + 7 * np.arange(IMAGES)
CAPTION_IDS = 50_000 - 3 * np.arange(IMAGES * EACH)
OWNERS = np.repeat(np.arange(IMAGES), EACH)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Annotation of 40 images in the package's layout: more relevant items, for some queries."""
    random = np.random.default_rng(0)
    write(
        tmp_path, "original", [(image, caption) for image, caption in zip(IMAGE_IDS[OWNERS], CAPTION_IDS, strict=True)]
    )
    for prefix, more in (("eccv", 300), ("cxc", 60), ("pm", 1500)):
        pairs = {(int(random.choice(IMAGE_IDS)), int(random.choice(CAPTION_IDS))) for _ in range(more)}
        if prefix != "pm":
            pairs |= {(int(image), int(caption)) for image, caption in zip(IMAGE_IDS[OWNERS], CAPTION_IDS, strict=True)}
        if prefix == "eccv":
            pairs.add((int(IMAGE_IDS[3]), 7))  # an unscored caption; the real annotation has two
        write(tmp_path, prefix, sorted(pairs))
    monkeypatch.setattr(coco, "annotation_folder", lambda: tmp_path)
    return tmp_path


def write(folder: Path, prefix: str, pairs: list[tuple[int, int]]) -> None:
    for name, here, there in (("image_to_caption", 0, 1), ("caption_to_image", 1, 0)):
        found: dict[str, list[int]] = {}
        for pair in pairs:
            if pair[here] != 7:
                found.setdefault(str(pair[here]), []).append(int(pair[there]))
        (folder / f"{prefix}_{name}.json").write_text(json.dumps(found))


def scores() -> np.ndarray:
    """Without ties, which the package orders arbitrarily."""
    random = np.random.default_rng(1)
    drawn = random.permutation(np.arange(float(IMAGES * IMAGES * EACH))).reshape(IMAGES, -1)
    drawn[OWNERS, np.arange(IMAGES * EACH)] += 3000.5
    return drawn


def theirs(folder: Path) -> Any:
    """The authors' metrics on the same files."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on missing ujson and tqdm
        package = pytest.importorskip("eccv_caption", reason="the extra eccv is not installed")
        metrics = package.Metrics()
    for name, prefix in (("eccv", "eccv"), ("cxc", "cxc"), ("pm", "pm")):
        paths = [str(folder / f"{prefix}_{side}.json") for side in coco.SIDES]
        getattr(metrics, f"set_{name}_gts")(*paths)
    return metrics


def test_the_figures_equal_those_of_the_authors_package(folder: Path) -> None:
    matrix, order = scores(), np.random.default_rng(2).permutation(IMAGES * EACH)
    ours = annotated_rankings(matrix[:, order], OWNERS[order], CAPTION_IDS[order], plausible=folder)
    metrics = theirs(folder)
    found = {
        "i2t": {int(i): CAPTION_IDS[np.argsort(-row)].tolist() for i, row in zip(IMAGE_IDS, matrix, strict=True)},
        "t2i": {int(c): IMAGE_IDS[np.argsort(-row)].tolist() for c, row in zip(CAPTION_IDS, matrix.T, strict=True)},
    }
    with contextlib.redirect_stderr(io.StringIO()):
        eccv = metrics.eccv_metrics(found, "all")
        cxc = {k: metrics.cxc_recalls(found, "all", K=k) for k in (1, 5, 10)}
        pmrp = metrics.pmrp(found, "all")
    for side, name in (("image_to_text", "i2t"), ("text_to_image", "t2i")):
        mine = getattr(ours["eccv"], side)
        assert 0 < mine.map_at_r < mine.r_precision < mine.r1 < 100
        assert mine.map_at_r == pytest.approx(100 * eccv["eccv_map_at_r"][name])
        assert mine.r_precision == pytest.approx(100 * eccv["eccv_rprecision"][name])
        assert mine.r1 == pytest.approx(100 * eccv["eccv_r1"][name])
        mine = getattr(ours["cxc"], side)
        assert [mine.r1, mine.r5, mine.r10] == pytest.approx([100 * cxc[k][name] for k in (1, 5, 10)])
        assert getattr(ours["pmrp"], side).r_precision == pytest.approx(100 * pmrp[name])


def test_without_a_folder_there_is_no_pmrp(folder: Path) -> None:
    assert set(annotated_rankings(scores(), OWNERS, CAPTION_IDS)) == {"eccv", "cxc"}


def test_the_real_annotation_is_of_the_5000_test_images() -> None:
    pytest.importorskip("eccv_caption", reason="the extra eccv is not installed")
    place = annotation_folder()
    ids = np.load(place / "coco_test_ids.npy")
    images = images_of_ids(place, np.repeat(np.arange(5000), 5), ids, 5000)
    assert len(set(images.tolist())) == 5000
    right = read_annotation(place / "original_image_to_caption.json")
    assert all(set(ids[5 * row : 5 * row + 5].tolist()) == set(right[int(image)]) for row, image in enumerate(images))
    rows = (row_of(images), row_of(ids))
    for prefix, sizes in (("eccv", (22550, 11279)), ("cxc", (35585, 35585))):
        for side, order, size in zip(coco.SIDES, (rows, rows[::-1]), sizes, strict=True):
            queries, answers = right_pairs(place / f"{prefix}_{side}.json", *order)
            assert len(queries) == len(answers) == size
            assert np.count_nonzero(answers < 0) == (2 if (prefix, side) == ("eccv", "image_to_caption") else 0)


def test_a_missing_package_is_reported_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coco, "PACKAGE", "no_such_package")
    with pytest.raises(SettingsError, match=r"not installed; pip install 'tshsr\[eccv\]'"):
        annotation_folder()


@pytest.mark.parametrize(
    ("place", "identity", "sentence"),
    [
        (3, 12, "id 12 of caption 3 .* is no caption of COCO's test images; give COCO's own caption ids"),
        (3, int(CAPTION_IDS[1]), r"id 49997 of caption 3 \(from 0\) occurs twice"),
    ],
)
def test_ids_that_are_not_those_of_the_captions_are_refused(
    folder: Path, place: int, identity: int, sentence: str
) -> None:
    ids = CAPTION_IDS.copy()
    ids[place] = identity
    with pytest.raises(InputError, match=sentence):
        annotated_rankings(scores(), OWNERS, ids)


def test_ids_in_another_order_than_the_columns_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="is COCO's of image 1007, and row 0 of the scores is image 1000 by its other"):
        annotated_rankings(scores(), OWNERS, np.roll(CAPTION_IDS, -1))


def test_the_ids_of_a_part_are_refused(folder: Path) -> None:
    with pytest.raises(
        InputError, match="of all 200 captions of COCO's 5,000 test images, five each; there are 100 ids"
    ):
        annotated_rankings(scores()[:20, :100], OWNERS[:100], CAPTION_IDS[:100])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("1 2 x", "does not hold COCO's caption ids, one per line"),
        ("1\n2\n", "holds 2 ids, the scores have 3 captions; expected one id each"),
        (None, "cannot be read .*; expected COCO's caption ids"),
    ],
)
def test_files_that_hold_no_ids_are_refused(tmp_path: Path, text: str | None, sentence: str) -> None:
    if text is not None:
        (tmp_path / "ids.txt").write_text(text)
    with pytest.raises(DataError, match=sentence):
        read_caption_ids(tmp_path / "ids.txt", 3)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "cannot be read .*; install or download the annotation again"),
        ("[]", "is no annotation"),
        ('{"a": [1]}', "is no annotation"),
        ('{"99": [50000]}', "names query 99 outside of COCO's 5,000 test images"),
        ('{"1000": [1, 50000]}', "has 1 of 2 right answers outside of COCO's"),
        ("{}", "has 0 of 0 right answers outside"),
    ],
)
def test_damaged_annotation_is_refused(folder: Path, text: str | None, sentence: str) -> None:
    path = folder / "eccv_image_to_caption.json"
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=sentence):
        annotated_rankings(scores(), OWNERS, CAPTION_IDS)


def test_the_command_reports_by_every_annotation(folder: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "scores.npy", scores())
    (tmp_path / "captions.txt").write_text("a caption\n" * IMAGES * EACH)
    (tmp_path / "ids.txt").write_text("\n".join(map(str, CAPTION_IDS)))
    page = tmp_path / "report.json"
    said = tshsr(
        *("metrics", tmp_path / "scores.npy", "--captions", tmp_path / "captions.txt"),
        *("--coco-ids", tmp_path / "ids.txt", "--pmrp", folder, "--json", page),
    )
    assert said.code == 0, said.err
    expected = annotated_rankings(scores(), OWNERS, CAPTION_IDS, plausible=folder)
    assert read_report(page).annotations == expected
    assert f"ECCV Caption, image to text: R@1 {expected['eccv'].image_to_text.r1:.1f}, R@5" in said.out
    assert f"PMRP, text to image: R@1 {expected['pmrp'].text_to_image.r1:.1f}, R@5" in said.out
