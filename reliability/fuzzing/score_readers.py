"""Readers of results: score files with their captions, judgements, logs to audit, reports, annotations of COCO."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from reliability.fuzzing.campaign import Reader, Seed
from reliability.fuzzing.data_readers import json_lines, lines, saved
from tshsr.evaluation.matrix import evaluate_matrix
from tshsr.evaluation.score_files import read_scores
from tshsr.metrics.coco import read_annotation, read_caption_ids
from tshsr.metrics.human import agreement, read_judgements
from tshsr.metrics.report import Report, read_report
from tshsr.metrics.scan_logs import read_log

IMAGES, EACH = 6, 2
CAPTIONS = IMAGES * EACH


def scores() -> np.ndarray:
    """A matrix, images x captions, in which most captions find their image."""
    right = np.repeat(np.eye(IMAGES, dtype=np.float32), EACH, axis=1)
    return right + np.random.default_rng(0).normal(scale=0.5, size=right.shape).astype(np.float32)


def records() -> list[dict[str, object]]:
    """The captions of the matrix."""
    return [
        {"id": f"c{number}", "image": f"i{number // EACH}", "caption": f"a dog {number}"} for number in range(CAPTIONS)
    ]


def score_seeds(folder: Path) -> list[Seed]:
    """A matrix in each format."""
    del folder
    packed, stored, tensors, named = (io.BytesIO() for _ in range(4))
    np.savez_compressed(packed, scores=scores())
    np.savez(stored, scores=scores(), other=np.arange(3))
    torch.save(torch.from_numpy(scores()), tensors)
    torch.save({"scores": torch.from_numpy(scores()).half(), "epoch": 3}, named)
    files = {
        "s.npy": saved(scores()),
        "f.npy": saved(np.asfortranarray(scores().astype(np.float64))),
        "packed.npz": packed.getvalue(),
        "stored.npz": stored.getvalue(),
        "s.pt": tensors.getvalue(),
        "named.pth": named.getvalue(),
    }
    return [Seed({name: content}, partial(summed, name=name)) for name, content in files.items()]


def summed(data: Path, name: str) -> object:
    """All of a matrix is read, but not one that does not fit the memory of a small machine."""
    matrix = read_scores(data / name)
    return float(np.asarray(matrix[:64, :64], np.float64).sum())


def matrix_seeds(folder: Path) -> list[Seed]:
    """A matrix and its captions in each format, evaluated."""
    del folder
    matrix = {"scores.npy": saved(scores())}
    files = (
        ("c.jsonl", json_lines(records())),
        ("c.json", json.dumps([{"image": number // EACH} for number in range(CAPTIONS)]).encode()),
        ("c.txt", lines([str(one["caption"]) for one in records()])),
    )
    return [
        Seed({**matrix, name: content}, partial(evaluated, name=name), (name, name, name, "scores.npy"))
        for name, content in files
    ]


def evaluated(data: Path, name: str) -> object:
    """A report of the matrix."""
    return evaluate_matrix(data / "scores.npy", data / name).to_json()


def judgement_seeds(folder: Path) -> list[Seed]:
    """Ratings by people."""
    del folder
    rows = [(f"i{number // EACH}", f"c{number}", number % 4 + 0.5) for number in range(CAPTIONS)]
    table = lines(["image,caption,rating", *(",".join(map(str, row)) for row in rows)])
    objects = [dict(zip(("image", "caption", "rating"), row, strict=True)) for row in rows]
    files = (("r.csv", table), ("r.tsv", table.replace(b",", b"\t")), ("r.jsonl", json_lines(objects)))
    return [Seed({name: content}, partial(correlated, name=name)) for name, content in files]


def correlated(data: Path, name: str) -> object:
    """The correlation with the matrix."""
    images = {f"i{number}": number for number in range(IMAGES)}
    captions = {f"c{number}": number for number in range(CAPTIONS)}
    return agreement(scores(), read_judgements(data / name, images, captions), resamples=5)


def log_seeds(folder: Path) -> list[Seed]:
    """Logs as SCAN, SGRAF and VSE++ print them."""
    del folder
    fold = (
        "Image to text: 67.4 90.3 95.8 1.0 2.6\nText to image: 48.6 77.7 85.2 2.0 9.1\nrsum: 465.0 ar: 84.5 ari: 70.5\n"
    )
    mean = "-----\nMean metrics: \nrsum: 465.0\nAverage i2t Recall: 84.5\n" + fold.replace(" ar: 84.5 ari: 70.5", "")
    text = "=> loading checkpoint\nImages: 5000, Captions: 25000\n" + 5 * fold + mean
    vse = "(dev) current rsum is 465.0\nAverage t2i Recall: 70.5\nimage to text: (val) 1.0, 2.0, 3.0\nr_sum=3e2\n"
    return [Seed({"log.txt": (text if number else text + vse).encode()}, audited) for number in range(2)]


def audited(data: Path) -> object:
    """Findings as the command prints them."""
    return json.dumps(read_log(data / "log.txt").to_json())


def report_seeds(folder: Path) -> list[Seed]:
    """A report with ranks."""
    del folder
    report = evaluate_matrix(scores(), np.repeat(np.arange(IMAGES), EACH))
    return [Seed({"r.json": report.to_json().encode()}, rewritten)]


def rewritten(data: Path) -> object:
    """A report, read, as a table and as JSON."""
    report: Report = read_report(data / "r.json")
    return report.table(), report.to_json()


def coco_seeds(folder: Path) -> list[Seed]:
    """An annotation of COCO and a list of ids."""
    del folder
    pairs = {str(1000 + number): [number, number + 1] for number in range(4)}
    ids = Seed({"ids.txt": lines(["17", "18", "19"])}, lambda data: read_caption_ids(data / "ids.txt", 3))
    return [Seed({"a.json": json.dumps(pairs).encode()}, lambda data: read_annotation(data / "a.json")), ids]


READERS: Sequence[Reader] = (
    Reader("score files", 6_000, score_seeds),
    Reader("captions of score files", 4_000, matrix_seeds),
    Reader("judgements", 4_500, judgement_seeds),
    Reader("logs to audit", 5_000, log_seeds),
    Reader("reports", 3_000, report_seeds),
    Reader("annotations of COCO", 1_500, coco_seeds),
)
