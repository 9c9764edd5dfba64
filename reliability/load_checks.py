"""What an answer by 200 must hold, by kind of request; a check raises what is wrong, `wrong` makes it a sentence."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Sequence
from itertools import pairwise

from reliability.load_http import Answer

Check = Callable[[Answer], None]
CAPTIONS = 10
"""Captions of an answer to an uploaded picture, by default."""
PICTURES = {"image/png": (b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"), "image/jpeg": (b"\xff\xd8\xff", b"\xff\xd9")}
"""First and last bytes of a picture, by type."""
PAGES = {
    "/": b"<title>Search pictures</title>",
    "/app.js": b'from "/dialog.js"',
    "/app.css": b"[hidden]",
    "/healthz": b'"status"',
    "/livez": b'"alive"',
    "/readyz": b'"ready"',
    "/metrics": b"tshsr_requests_total{",
    "/api/about": b'"examples"',
    "/docs": b"swagger-ui",
}
"""Paths of the page, of probes and of metrics, and what their files contain."""


def wrong(check: Check, answer: Answer) -> str | None:
    """What is wrong with the body of an answer; None: nothing."""
    try:
        check(answer)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        return f"status {answer.status} with {answer.body[:60]!r}: {type(error).__name__}: {error}"
    return None


def expect(holds: bool, otherwise: str) -> None:
    """Check a condition.

    Raises:
        ValueError: Where it does not hold, with the given text.
    """
    if not holds:
        raise ValueError(otherwise)


def falling(values: Sequence[float]) -> bool:
    """Whether numbers are finite and in descending order."""
    return all(map(math.isfinite, values)) and all(first >= second for first, second in pairwise(values))


def refused(answer: Answer) -> None:
    """Of a request that 200 never answers.

    Raises:
        ValueError: Always.
    """
    raise ValueError(f"expected a refusal, got {answer.status}")


def pictures_for(query: str, ids: Collection[str], least: int, most: int) -> Check:
    """From `least` to `most` different pictures of these ids for a sentence, best first."""

    def check(answer: Answer) -> None:
        values = json.loads(answer.body)
        found = [one["id"] for one in values["results"]]
        expect(values["query"] == query, f"an answer to {values['query']!r}")
        expect(least <= len(found) <= most, f"{len(found)} results; expected {least} to {most}")
        expect(len(set(found)) == len(found) and set(found) <= set(ids), f"repeated or unknown pictures: {found}")
        expect(falling([one["score"] for one in values["results"]]), "scores in another order")

    return check


def captions(answer: Answer) -> None:
    """Different captions for a picture, best first: ten, or all."""
    values = json.loads(answer.body)
    found, most = [one["id"] for one in values["results"]], min(CAPTIONS, values["captions"])
    expect(0 < len(found) == most, f"{len(found)} captions; expected {most}")
    expect(len(set(found)) == len(found), f"repeated captions: {found}")
    expect(all(one["caption"] for one in values["results"]), "captions without words")
    expect(falling([one["score"] for one in values["results"]]), "scores in another order")


def explanation_of(chosen: str, query: str) -> Check:
    """Scores of a pair, and a relevance of every word."""

    def check(answer: Answer) -> None:
        values = json.loads(answer.body)
        found = values["explanation"]
        expect(values["id"] == chosen, f"the explanation of {values['id']!r}")
        expect(found["caption"] == query, f"the explanation of {found['caption']!r}")
        expect(math.isfinite(found["scores"]["fused"]), "a score that is not finite")
        expect(0 < len(found["words"]) == len(found["word_relevance"]), "words without relevance")

    return check


def ranking_of(documents: int) -> Check:
    """Every document once, best first."""

    def check(answer: Answer) -> None:
        results = json.loads(answer.body)["results"]
        found = sorted(one["index"] for one in results)
        expect(found == list(range(documents)), f"documents {found} of {documents}")
        expect(falling([one["relevance_score"] for one in results]), "scores in another order")

    return check


def picture_file(answer: Answer) -> None:
    """A whole PNG or JPEG, as its type says."""
    first, last = PICTURES[answer.headers["content-type"]]
    expect(answer.body.startswith(first) and answer.body.endswith(last), "no whole picture")


def holding(part: bytes) -> Check:
    """A body that holds bytes."""
    return lambda answer: expect(part in answer.body, f"no {part!r}")
