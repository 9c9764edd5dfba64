"""The load campaign in its quick form, and its judgement of answers."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from reliability.load import Options, Sample, Tally, campaign, figures_of, growth, load, log_lines
from reliability.load_clients import LARGEST_ALLOWED, SHARES, Outcome, World, png
from reliability.load_http import Answer
from reliability.load_update import updates
from tests.support.command_line import tshsr
from tests.support.forked import Forked, command, forked
from tests.support.small_runs import save_untrained
from tshsr.data.pictures import read_picture
from tshsr.errors import PictureError

QUICK = Options(run_seconds=3.0, clients=30, pause=0.5, time_limit=2.0, update_pause=0.2, sample_every=0.2)
WORLD = World(
    port=0, seconds=2.0, queries=["a blue ring"], ids=["a", "b", "c"], picture=b"", large=1, random=random.Random(0)
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
    *judged, _ = rows  # memory in the first seconds grows with the first requests of each kind
    assert not (lost := [f"{row.what}: {row.note}" for row in judged if row.lost]), lost
    assert all(row.tried for row in judged)
    assert {row.what for row in rows} >= set(SHARES)
    named = {figure.what: figure.value for figure in figures}
    assert named["clients at once"] == 30
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
    (tmp_path / "log").write_text(f'a note\n{{"level": "info"}}\n{error}\nTraceback (most recent call last):\n{{x\n')
    assert log_lines(tmp_path / "log") == (
        4,
        ["GET / failed: OSError: gone", "Traceback (most recent call last):", "{x"],
    )


def test_the_pictures_of_the_campaign_are_what_they_claim() -> None:
    with pytest.raises(PictureError, match="3600000000 pixels"):
        read_picture(png(60_000, 60_000, b""))
    with pytest.raises(PictureError, match="7000 x 7000 pixels"):
        read_picture(png(7000, 7000, LARGEST_ALLOWED), max_pixels=48_999_999)
