"""The load campaign in its quick form, and its judgement of answers."""

from __future__ import annotations

import asyncio
import json
import os
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from reliability.load import Options, Sample, Tally, answered, campaign, figures_of, growth, load, log_lines, rows_of
from reliability.load_checks import (
    Check,
    captions,
    explanation_of,
    holding,
    picture_file,
    pictures_for,
    ranking_of,
    wrong,
)
from reliability.load_clients import (
    ANSWERED,
    HANG_UP,
    LARGEST_ALLOWED,
    SHARES,
    Outcome,
    Request,
    World,
    png,
    problem_of,
    slow_reader,
)
from reliability.load_http import Answer
from reliability.load_update import updates
from tests.support.command_line import tshsr
from tests.support.forked import Forked, command, forked
from tests.support.small_runs import save_untrained
from tshsr.data.pictures import read_picture
from tshsr.errors import PictureError

QUICK = Options(run_seconds=3.0, clients=30, pause=0.5, time_limit=2.0, update_pause=0.2, sample_every=0.2)
WORLD = World(
    port=0, seconds=0.01, queries=["q"], ids=["a", "b", "c"], kept=2, picture=b"", large=1, random=random.Random(0)
)


def logged_command(log: str, *words: str) -> None:
    """`tshsr` in this process, its stderr in a file."""
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT, 0o600), 2)
    command(*words)


@contextmanager
def launch(words: Sequence[str], log: Path) -> Iterator[Forked]:
    with forked(logged_command, str(log), *words) as process:
        yield process


@contextmanager
def updating(index: Path, data: Path, pause: float) -> Iterator[Callable[[], dict[str, int]]]:
    """The index update in a thread of the test."""
    ended, counts = threading.Event(), {}
    thread = threading.Thread(target=lambda: counts.update(updates(str(index), str(data), "dev", pause, ended)))
    thread.start()

    def end() -> dict[str, int]:
        ended.set()
        thread.join(300)
        return counts

    try:
        yield end
    finally:
        end()


@pytest.mark.slow
def test_every_request_is_answered_or_refused_in_a_sentence(scenes: Path, tmp_path: Path) -> None:
    run, index = save_untrained(tmp_path / "run", scenes), tmp_path / "index"
    for split in ("test", "dev"):
        said = tshsr("index", run, "--data", scenes, "--split", split, "--out", index, "--device", "cpu")
        assert said.code == 0, said.err
    rows, figures = campaign(index, scenes, QUICK, tmp_path / "log", launch, updating)
    # In the first seconds, a kind has few requests, and memory grows with the first of each kind.
    *judged, _, _ = rows
    assert not (lost := [f"{row.what}: {row.note}" for row in judged if row.lost]), lost
    assert all(row.tried for row in judged)
    assert {row.what for row in rows} >= set(SHARES) - {HANG_UP}
    named = {figure.what: figure.value for figure in figures}
    assert named["clients at once"] == 30
    assert named[HANG_UP] > 0
    assert named["share answered by 200"] > 10  # a server that refused all by 503 would lose nothing
    assert named["highest memory"] >= named["memory in the last fifth"] > 0


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (Answer(200, {}, b"", 0), None),
        (Answer(422, {}, b'{"error":"expected a word."}', 0), None),
        (Answer(503, {"retry-after": "1"}, b'{"error":"busy."}', 0), None),
        (Answer(503, {}, b'{"error":"busy."}', 0), "status 503 without Retry-After"),
        (Answer(422, {}, b"Bad", 0), "status 422 without a sentence: b'Bad'"),
        (Answer(422, {}, b'{"error":"bad"}', 0), "status 422 with 'bad'"),
        (Answer(500, {}, b'{"error":"internal."}', 0), 'status 500: b\'{"error":"internal."}\''),
    ],
)
def test_an_answer_is_judged(answer: Answer, problem: str | None) -> None:
    assert answer.problem((200, 422, 503)) == problem


def test_growth_is_found_and_a_peak_is_none() -> None:
    options = Options(run_seconds=10.0)
    flat = [Sample(float(at), 100.0 + (500 if at == 5 else 0), 20, 9) for at in range(11)]
    assert growth(flat, options).survived == 3
    leaking = [Sample(float(at), 100.0 + 20 * at, 20 + 10 * at, 9) for at in range(11)]
    row = growth(leaking, options)
    assert (row.tried, row.survived, row.lost) == (3, 1, 2)
    assert row.note == "memory in MiB from 160 to 280"


def test_growth_is_not_judged_by_samples_that_ended_early() -> None:
    ended = [Sample(float(at), 500.0 + 10 * at, 15, 79) for at in range(0, 95, 5)]  # 90 s of 1,800
    row = growth(ended, Options())
    assert (row.tried, row.lost, row.note) == (3, 3, "no sample in the second fifth")


def test_an_error_of_the_sampling_ends_the_campaign(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> None:
        raise PermissionError("no samples")

    async def attempt(_: World) -> Outcome:
        return Outcome()

    monkeypatch.setattr("reliability.load.sample", broken)
    options = replace(QUICK, run_seconds=0.05, clients=1, kinds={"one": (1.0, attempt)})
    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(load(WORLD, 0, options))
    assert [str(error) for error in caught.value.exceptions] == ["no samples"]


def test_figures_have_percentiles_and_the_share_of_refusals() -> None:
    tally = Tally(samples=[Sample(0.0, 100.0, 20, 9)])
    for number in range(100):
        tally.add("searches", Outcome(answer=Answer(200, {}, b"", (number + 1) / 1000)))
    tally.add("searches", Outcome(answer=Answer(503, {"retry-after": "1"}, b"", 0.001)))
    named = {figure.what: figure.value for figure in figures_of(tally, Options(run_seconds=10.0))}
    assert (named["p50 of searches"], named["p95 of searches"], named["p99 of searches"]) == (50.5, 95.0, 99.0)
    assert named["requests a second"] == 10.1
    assert named["share refused by 503 with Retry-After"] == 1.0
    assert named["share answered by 200"] == 99.0


def test_lines_of_errors_are_found_in_a_log(tmp_path: Path) -> None:
    error = '{"level": "error", "message": "GET / failed", "traceback": "Traceback\\n  line\\nOSError: gone"}'
    native = ["thread 'lance-cpu' panicked at src/x.rs:1:2:", "Fatal Python error: Segmentation fault", "{x", "[1]"]
    lines = ["a note of the start", '{"level": "info"}', error, "", *native, "Stopped."]
    (tmp_path / "log").write_text("\n".join(lines))
    assert log_lines(tmp_path / "log") == (6, ["GET / failed: OSError: gone", *native])


ROWS = [{"id": "a", "score": 2.0}, {"id": "b", "score": 1.0}]
SENTENCES = [{"id": "a#0", "caption": "one", "score": 0.5}]
PAIR = {"caption": "q", "scores": {"fused": 0.1}, "words": ["q"], "word_relevance": [0.1]}
PNG = b"\x89PNG\r\n\x1a\n...IEND\xaeB`\x82"


@pytest.mark.parametrize(
    ("check", "right", "wrong_ones"),
    [
        (
            pictures_for("q", WORLD.ids, 2, 3),
            {"query": "q", "results": ROWS},
            [
                {"results": []},
                {"query": "p", "results": ROWS},
                {"query": "q", "results": ROWS[:1]},
                {"query": "q", "results": ROWS[::-1]},
                {"query": "q", "results": [*ROWS, ROWS[1]]},
                {"query": "q", "results": [*ROWS, {"id": "z", "score": 0.0}]},
                {"query": "q", "results": [{"id": "c", "score": None}, *ROWS]},
                [],
            ],
        ),
        (
            captions,
            {"captions": 1, "results": SENTENCES},
            [
                {"captions": 2, "results": SENTENCES},
                {"captions": 0, "results": []},
                {"captions": 1, "results": ROWS[:1]},
            ],
        ),
        (
            explanation_of("a", "q"),
            {"id": "a", "explanation": PAIR},
            [{"id": "b", "explanation": PAIR}, {"id": "a", "explanation": {**PAIR, "words": []}}, {"id": "a"}],
        ),
        (
            ranking_of(2),
            {"results": [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.1}]},
            [{"results": []}, {"results": [{"index": 1, "relevance_score": 0.9}] * 2}],
        ),
    ],
)
def test_an_answer_with_another_body_is_wrong(check: Check, right: object, wrong_ones: list[object]) -> None:
    def problem(body: bytes) -> str | None:
        return problem_of(Answer(200, {}, body, 0), Request(b"", frozenset({200}), check))

    assert problem(json.dumps(right).encode()) is None
    for body in (b"", b"{", *(json.dumps(one).encode() for one in wrong_ones)):
        assert str(problem(body)).startswith("status 200 with "), body


def test_a_picture_or_a_page_with_another_body_is_wrong() -> None:
    typed = {"content-type": "image/png"}
    assert wrong(picture_file, Answer(200, typed, PNG, 0)) is None
    for headers, body in ((typed, b""), (typed, PNG[:-1]), ({}, PNG), ({"content-type": "image/jpeg"}, PNG)):
        assert wrong(picture_file, Answer(200, headers, body, 0))
    assert wrong(holding(b"ready"), Answer(200, {}, b'{"status":"ready"}', 0)) is None
    assert wrong(holding(b"ready"), Answer(200, {}, b"", 0)) == "status 200 with b'': ValueError: no b'ready'"
    assert problem_of(Answer(200, {}, b"", 0), Request(b"", frozenset({200})))  # of what 200 never answers


def test_a_picture_that_no_update_removes_must_be_found() -> None:
    assert (WORLD.statuses(["a", "b"]), WORLD.statuses(["a", "c"])) == ({200}, {200, 404})


@pytest.mark.parametrize(("line", "problem"), [("200 OK", None), ("500 Gone", "answered b'HTTP/1.1 500'")])
def test_a_slow_reader_reads_the_status(line: str, problem: str | None) -> None:
    async def respond(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {line}\r\n\r\n".encode())
        writer.close()

    async def read() -> Outcome:
        async with await asyncio.start_server(respond, "127.0.0.1", 0) as server:
            return await slow_reader(replace(WORLD, port=server.sockets[0].getsockname()[1]))

    assert asyncio.run(read()).problem == problem


def test_clients_that_hang_up_are_no_trials_and_a_server_that_refuses_all_loses() -> None:
    tally, options = Tally(), Options()
    for kind in SHARES:
        for _ in range(10):
            tally.add(kind, Outcome(answer=Answer(503, {"retry-after": "1"}, b"", 0)))
    assert {row.what for row in rows_of(tally, options)} == set(SHARES) - {HANG_UP}
    row = answered(tally)
    assert (row.tried, row.lost, row.note) == (7, 7, "searches: 0 of 10")
    for kind in ANSWERED:
        tally.add(kind, Outcome(answer=Answer(200, {}, b"", 0)))
    assert answered(tally).lost == 0
    tally.add(HANG_UP, Outcome("ConnectionRefusedError"))
    assert (rows_of(tally, options)[-1].what, rows_of(tally, options)[-1].lost) == (HANG_UP, 1)


def test_the_pictures_of_the_campaign_are_what_they_claim() -> None:
    with pytest.raises(PictureError, match="3600000000 pixels"):
        read_picture(png(60_000, 60_000, b""))
    with pytest.raises(PictureError, match="7000 x 7000 pixels"):
        read_picture(png(7000, 7000, LARGEST_ALLOWED), max_pixels=48_999_999)
