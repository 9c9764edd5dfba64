"""Audit of evaluation logs of the VSE++, SCAN and SGRAF code bases: wrong printed figures, and the correct ones.

The five-fold summary of these code bases has wrong labels (docs/metrics.md), and copies of the code have further
errors. So labels are ignored: every aggregate is recomputed from the lines of the folds, or from the long lines of the
summary, within rounding; a wrong figure is compared with the aggregates that it may be instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import fsum, nan
from pathlib import Path
from typing import Any

from tshsr.errors import DataError

ANY_CASE = re.IGNORECASE | re.ASCII
NUMBER = r"[-+]?(?:\d++(?:\.\d*+)?(?:[eE][-+]?\d++)?|nan|inf)"
"""Possessive, here and below: a long line of other text costs time in proportion to its length."""
LONG = re.compile(
    rf"(image to text|text to image)\s*+(?:\([^)]{{0,100}}\))?\s*+:\s*+({NUMBER}(?:[\s,]++{NUMBER})*+)", ANY_CASE
)
TRIPLE = re.compile(rf"\brsum:\s*({NUMBER})\s+ar:\s*({NUMBER})\s+ari:\s*({NUMBER})", ANY_CASE)
RSUM = re.compile(rf"\br_?sum(?:\s+is\s+|\s*[:=]\s*)({NUMBER})", ANY_CASE)
AVERAGE = re.compile(rf"average\s+(i2t|t2i)\s+recall\s*:\s*({NUMBER})", ANY_CASE)
MEAN = re.compile(r"\bmean metrics\b", ANY_CASE)
SIDES = {"image to text": "i2t", "text to image": "t2i"}
FOLDS = 5
NOT_THE_MEAN = "not the mean of the folds above"
LABELS = {
    "rsum": "rsum",
    "ar": "Average i2t Recall",
    "ari": "Average t2i Recall",
    "i2t": "Image to text",
    "t2i": "Text to image",
}


@dataclass(frozen=True)
class Printed:
    """Figures of a line of a log.

    Attributes:
        line: Line number, from 1.
        kind: A key of `LABELS`, by the label of the line.
    """

    line: int
    kind: str
    words: tuple[str, ...]

    @property
    def values(self) -> tuple[float, ...]:
        """The numbers."""
        return tuple(map(float, self.words))

    @property
    def rounding(self) -> float:
        """Largest rounding error of the numbers."""
        return max(0.5 * 10.0 ** -len(word.partition(".")[2]) for word in self.words)


@dataclass(frozen=True)
class Finding:
    """A printed line, checked.

    Attributes:
        line: Line number, from 1.
        right: The correct figures; None where they cannot be computed.
        wrong: Whether a figure differs by more than rounding.
        note: The actual meaning of a wrong figure, if recognised, or the reason why the line cannot be checked.
        summary: Whether the line belongs to a mean over folds.
    """

    line: int
    label: str
    printed: tuple[float, ...]
    right: tuple[float, ...] | None
    wrong: bool
    note: str
    summary: bool


@dataclass
class Block:
    """The lines of one evaluation, of one fold, or of a mean over folds."""

    summary: bool = False
    lines: list[Printed] = field(default_factory=list)
    closed: bool = False

    def first(self, kind: str) -> Printed | None:
        """The first line of a kind."""
        return next((line for line in self.lines if line.kind == kind), None)

    def accepts(self, kind: str) -> bool:
        """Whether a line of this kind can still belong here."""
        if self.closed:
            return False
        if kind == "rsum":  # some copies print a second, correct rsum below the wrong one
            return not (self.first("i2t") or self.first("t2i")) or not (self.summary or self.first("rsum"))
        return self.first(kind) is None


@dataclass(frozen=True)
class Audit:
    """Findings of a log, one per line with figures, in order."""

    findings: tuple[Finding, ...]

    @property
    def wrong(self) -> tuple[Finding, ...]:
        """The wrong lines."""
        return tuple(finding for finding in self.findings if finding.wrong)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"wrong": len(self.wrong), "lines": [asdict(finding) for finding in self.findings]}


def read_log(path: Path) -> Audit:
    """Audit a log's file.

    Raises:
        DataError: Where the file cannot be read, or has no line of such an evaluation.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); expected the log of an evaluation.") from None
    found = audit(text)
    if not found.findings:
        raise DataError(
            f"{path} holds no figures of an evaluation as SCAN, SGRAF and VSE++ print it; expected lines such as "
            "'Image to text: 67.4 90.3 95.8 1.0 2.6' and 'rsum: 500.8'."
        )
    return found


def audit(text: str) -> Audit:
    """Check every figure of a log that can be computed from others."""
    findings: list[Finding] = []
    folds: list[Block] = []
    for block in blocks(text):
        if block.summary:
            findings += checked(block, folds[-FOLDS:])
            folds = []
        else:
            findings += checked(block, ())
            if block.first("i2t") and block.first("t2i"):
                folds.append(block)
    return Audit(tuple(findings))


def blocks(text: str) -> Iterator[Block]:
    """The evaluations of a log, in order."""
    block = Block()
    for number, line in enumerate(text.split("\n"), 1):
        if MEAN.search(line):
            yield block
            block = Block(summary=True)
        for printed in figures_of(number, line):
            if not block.accepts(printed.kind):
                yield block
                block = Block()
            block.lines.append(printed)
        if TRIPLE.search(line) or "current rsum" in line.lower():
            block.closed = True
    yield block


def figures_of(number: int, line: str) -> Iterator[Printed]:
    """The figures of one line."""
    for side, words in LONG.findall(line):
        yield Printed(number, SIDES[side.lower()], tuple(re.findall(NUMBER, words, ANY_CASE)))
    if triple := TRIPLE.search(line):
        yield from (Printed(number, kind, (word,)) for kind, word in zip(LABELS, triple.groups(), strict=False))
    elif rsum := RSUM.search(line):
        yield Printed(number, "rsum", (rsum[1],))
    if average := AVERAGE.search(line):
        yield Printed(number, "ar" if average[1].lower() == "i2t" else "ari", (average[2],))


def checked(block: Block, folds: Sequence[Block]) -> Iterator[Finding]:
    """Compare the lines of a block with figures computed from the folds, or from its long lines.

    Folds are used only if all are present, because the summary is the mean over all of them.
    """
    unchecked = missing_folds(len(folds)) if block.summary else ""
    folds = () if unchecked else folds
    sides = {side: long_line(side, block, folds) for side in SIDES.values()}
    known = aggregates(sides["i2t"][0], sides["t2i"][0])
    rounding = max(sides["i2t"][1], sides["t2i"][1])
    if all(fold.first("rsum") for fold in folds) and folds and "rsum" in known:
        exact = mean([line.values[0] for fold in folds if (line := fold.first("rsum"))])
        if abs(exact - known["rsum"]) <= 6 * rounding + 0.05:
            known["rsum"] = exact
    for line in block.lines:
        finding = compared(line, block, sides, known, rounding)
        compared_with_itself = unchecked and line.kind in sides and not finding.wrong
        yield replace(finding, right=None, note=unchecked) if compared_with_itself else finding


def missing_folds(folds: int) -> str:
    """The reason why the means of a summary cannot be checked; empty if all folds are present."""
    if folds == FOLDS:
        return ""
    return f"{f'only {folds}' if folds else 'none'} of {FOLDS} folds are in the log"


def compared(
    line: Printed,
    block: Block,
    sides: Mapping[str, tuple[tuple[float, ...], float]],
    known: Mapping[str, float],
    rounding: float,
) -> Finding:
    """Compare a line with the correct figures."""
    if line.kind in sides:
        right = sides[line.kind][0] or None
        if right is not None and len(right) != len(line.values):
            right = None
        allowed = line.rounding + sides[line.kind][1] + 1e-9
    else:
        right = (known[line.kind],) if line.kind in known else None
        allowed = line.rounding + rounding * (6 if line.kind == "rsum" else 1) + 1e-9
    wrong = right is not None and not all(
        abs(value - other) <= allowed for value, other in zip(line.values, right, strict=True)
    )
    note = "" if right is not None else "the lines that it follows from are missing"
    if wrong:
        note = resembles(line, known, sides, rounding)
    if line.kind in sides and (reason := impossible(line.values)) and note in ("", NOT_THE_MEAN):
        wrong, note, right = True, reason, right if wrong and block.summary else None
    return Finding(line.line, LABELS[line.kind], line.values, right, wrong, note, block.summary)


def long_line(side: str, block: Block, folds: Sequence[Block]) -> tuple[tuple[float, ...], float]:
    """The figures of one direction, from the folds or from the block's line, and their rounding error."""
    lines = [line for fold in folds if (line := fold.first(side))]
    if len(lines) < FOLDS or len({len(line.words) for line in lines}) > 1:
        line_of_block = block.first(side)
        lines = [] if line_of_block is None else [line_of_block]
    if not lines:
        return (), 0.0
    columns = zip(*(line.values for line in lines), strict=True)
    return tuple(mean(column) for column in columns), max(line.rounding for line in lines)


def total(values: Sequence[float]) -> float:
    """The sum; NaN for infinities of both signs."""
    try:
        return fsum(values)
    except (OverflowError, ValueError):
        return nan


def mean(values: Sequence[float]) -> float:
    """The mean of at least one value; NaN for infinities of both signs."""
    return total(values) / len(values)


def aggregates(i2t: Sequence[float], t2i: Sequence[float]) -> dict[str, float]:
    """Aggregates of the recalls, by kind of line."""
    found = {name: mean(side[:3]) for name, side in (("ar", i2t), ("ari", t2i)) if len(side) >= 3}
    if len(found) == 2:
        found["rsum"] = total([*i2t[:3], *t2i[:3]])
    return found


def resembles(
    line: Printed, known: Mapping[str, float], sides: Mapping[str, tuple[tuple[float, ...], float]], rounding: float
) -> str:
    """The actual meaning of a wrong figure, if recognised."""
    if line.kind in sides:
        other = sides["t2i" if line.kind == "i2t" else "i2t"][0]
        pairs = zip(line.values, sides[line.kind][0], strict=True)
        off = [place for place, (value, right) in enumerate(pairs) if not abs(value - right) <= 2 * rounding + 1e-9]
        same = all(place < len(other) and abs(line.values[place] - other[place]) <= 2 * rounding for place in off)
        return "figures of the other direction" if same else NOT_THE_MEAN
    meanings = {
        "the mean of the image-to-text recalls": (known.get("ar"), 1),
        "the mean of the text-to-image recalls": (known.get("ari"), 1),
        "the true rSum": (known.get("rsum"), 6),
        "six times the mean of the image-to-text recalls": (6 * known["ar"] if "ar" in known else None, 6),
        "six times the mean of the text-to-image recalls": (6 * known["ari"] if "ari" in known else None, 6),
        "the mean of all six recalls": (known["rsum"] / 6 if "rsum" in known else None, 1),
    }
    for meaning, (value, terms) in meanings.items():
        if value is not None and abs(line.values[0] - value) <= line.rounding + terms * rounding + 1e-9:
            return meaning
    return "not recognised"


def impossible(values: Sequence[float]) -> str:
    """The reason why figures of a direction are impossible; empty if they are possible."""
    recalls = values[:3]
    if not all(0 <= recall <= 100 for recall in recalls):
        return "a recall is no number between 0 and 100"
    if list(recalls) != sorted(recalls):
        return "R@1 <= R@5 <= R@10 does not hold"
    if len(values) >= 5 and values[-2] < 1:
        return "a median rank below 1"
    return ""
