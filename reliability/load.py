"""The server under load: hundreds of clients of every kind beside an index update, and what became of each request.

    python -m reliability.load                    500 clients for 30 minutes, into results/load.json
    python -m reliability.load --minutes 1        a shorter one; prints, and writes nothing

The server is `tshsr serve` in a process of its own over generated scenes, the clients are one process with one thread.
A request survives where it is answered: as it should be, or by 503 with Retry-After, and every refusal is a sentence.
What an answer by 200 must hold is in `load_checks`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Protocol

import numpy as np
import psutil

from reliability.load_clients import ANSWERED, HANG_UP, SHARES, Kind, Outcome, Request, World, problem_of, search
from reliability.load_http import Connection
from reliability.options import above_zero, from_least
from reliability.results import Figure, Row, summary, write_result
from tshsr.data.layouts import open_split
from tshsr.errors import DataError

QUERIES = (
    "a red circle left of a blue square",
    "two green triangles",
    "a large yellow star above a small purple circle",
    "a small blue ring",
    "an orange cross",
)
FULL = "make load"
LEAST_ANSWERED = 0.05
"""Share of a kind of requests that 200 must answer; 500 clients send about three times what a server can answer."""
NOTES = ("Stopped.",)
"""Lines of `tshsr serve` for people, among those of its log."""
PARTS = ("first", "second", "third", "fourth", "last")
"""Fifths of the duration."""
SPLITS = ("test", "dev")
"""Splits of the index; the update removes and adds the second one."""
TOLERANCE_MIB, TOLERANCE_HANDLES, TOLERANCE_THREADS = 32.0, 8.0, 40.0
"""Differences of two medians that count as no growth: the allocator keeps freed memory, files come and go, and so do up
to 40 threads of AnyIO, which read uploads."""


@dataclass(frozen=True)
class Options:
    """Extent of a campaign.

    Attributes:
        run_seconds: Duration of the load.
        pause: Mean seconds between two requests of a client.
        time_limit: `tshsr serve --seconds`.
        update_pause: Seconds between two updates of the index.
        sample_every: Seconds between two samples of memory and handles.
        kinds: Kinds of clients and their shares.
    """

    run_seconds: float = 1800.0
    clients: int = 500
    pause: float = 5.0
    time_limit: float = 20.0
    update_pause: float = 10.0
    sample_every: float = 5.0
    seed: int = 0
    kinds: dict[str, tuple[float, Kind]] = field(default_factory=lambda: SHARES)


class Launched(Protocol):
    """A process, with names of `subprocess.Popen`."""

    pid: int
    stdout: IO[str] | None

    def send_signal(self, number: int, /) -> None:
        """Send it a signal."""

    def wait(self, timeout: float) -> int | None:
        """Its exit code, after its end."""


Launch = Callable[[Sequence[str], Path], AbstractContextManager[Launched]]
"""Starts `tshsr` with words and its stderr in a file."""
Update = Callable[[Path, Path, float], AbstractContextManager[Callable[[], dict[str, int]]]]
"""Updates an index from data with a pause between two updates; the given function ends it and returns its counts."""


@dataclass(frozen=True)
class Sample:
    """Resources of the server at a moment, in seconds since the start: memory in MiB, handles without connections."""

    at: float
    memory: float
    handles: int
    threads: int


@dataclass
class Tally:
    """What became of the attempts of all clients, by kind."""

    tried: Counter[str] = field(default_factory=Counter)
    problems: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    refused: list[float] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)

    def add(self, kind: str, outcome: Outcome) -> None:
        """Count an attempt."""
        self.tried[kind] += 1
        if outcome.problem is not None:
            self.problems[kind].append(outcome.problem)
        elif outcome.answer is not None and outcome.answer.status == 503:
            self.refused.append(outcome.answer.seconds)
        elif outcome.answer is not None and outcome.answer.status == 200:
            self.seconds[kind].append(outcome.answer.seconds)


@contextmanager
def subprocesses(words: Sequence[str], log: Path) -> Iterator[Launched]:
    """`tshsr` in a new interpreter; killed afterwards, if it still runs."""
    command = [sys.executable, "-m", "tshsr", *words]
    with log.open("w") as errors:
        started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)  # noqa: S603
    with started:
        try:
            yield started
        finally:
            started.kill()


@contextmanager
def updating(index: Path, data: Path, pause: float) -> Iterator[Callable[[], dict[str, int]]]:
    """The index update in a process of its own."""
    words = (str(index), str(data), SPLITS[1], str(pause))
    command = [sys.executable, "-m", "reliability.load_update", *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603

        def ended() -> dict[str, int]:
            counts: dict[str, int] = json.loads(process.communicate(timeout=300)[0])
            return counts

        try:
            if process.stdout:
                process.stdout.readline()  # it has opened the index
            yield ended
        finally:
            process.kill()


def campaign(
    index: Path, data: Path, options: Options, log: Path, launch: Launch = subprocesses, update: Update = updating
) -> tuple[list[Row], list[Figure]]:
    """Serve an index, load it, stop it under load; returns counts and figures.

    Args:
        index: Holds the pictures of `SPLITS` of the data.
        log: File for the log of the server.

    Raises:
        DataError: Where the server does not start.
    """
    words = ("serve", str(index), "--port", "0", "--device", "cpu", "--log", "json")
    with launch((*words, "--seconds", str(options.time_limit)), log) as server:
        line = server.stdout.readline() if server.stdout else ""
        found = re.search(r":(\d+)/", line)
        if found is None:
            raise DataError(f"the server did not start: {line}{log.read_text()}")
        world = world_of(int(found[1]), data, options)
        with update(index, data, options.update_pause) as end_update:
            tally = asyncio.run(load(world, server.pid, options))
            updated = end_update()
        unanswered, code = asyncio.run(stopped_under_load(world, server))
    rows = rows_of(tally, options)
    tried, survived = updated["tried"], updated["survived"]
    rows.append(Row("index updates beside the requests", tried, survived, tried - survived))
    rows.append(row_of("requests in progress at SIGTERM", STOPPING, unanswered))
    rows.append(row_of("exit at SIGTERM with code 0", 1, [] if code == 0 else [f"exit code {code}"]))
    rows.append(row_of("lines of the log without an internal error", *log_lines(log)))
    rows += [answered(tally), growth(tally.samples, options)]
    return rows, figures_of(tally, options)


def world_of(port: int, data: Path, options: Options) -> World:
    """What the clients know of the server."""
    splits = [open_split(str(data), name) for name in SPLITS]
    pictures = sorted(data.rglob("*.png"))
    return World(
        port=port,
        seconds=options.time_limit,
        queries=QUERIES,
        ids=[name for split in splits for name in split.image_ids],
        kept=len(splits[0].image_ids),
        picture=pictures[0].read_bytes(),
        large=20 * 2**20,
        random=random.Random(options.seed),  # noqa: S311 - no secret
    )


async def load(world: World, server: int, options: Options) -> Tally:
    """All clients at once, until the time is over and each has its last answer."""
    tally = Tally()
    counts = {kind: max(1, round(share * options.clients)) for kind, (share, _) in options.kinds.items()}
    start = time.monotonic()
    clients = [
        asyncio.ensure_future(client(kind, options.kinds[kind][1], world, tally, start, options))
        for kind, count in counts.items()
        for _ in range(count)
    ]
    async with asyncio.TaskGroup() as tasks:  # an error of the sampling ends the campaign at once
        sampling = tasks.create_task(sample(server, tally, start, options))
        await asyncio.gather(*clients)
        sampling.cancel()
    return tally


async def client(kind: str, attempt: Kind, world: World, tally: Tally, start: float, options: Options) -> None:
    """Attempts of one client; it pauses as long as the server asks."""
    while time.monotonic() < start + options.run_seconds:
        try:
            outcome = await attempt(world)
        except TimeoutError:
            outcome = Outcome(f"no answer in {world.patience:g} s")
        except (OSError, asyncio.LimitOverrunError, ValueError, LookupError) as error:
            outcome = Outcome(f"{type(error).__name__}: {error}")
        tally.add(kind, outcome)
        asked = outcome.answer.retry_after if outcome.answer is not None else 0.0
        left = max(start + options.run_seconds - time.monotonic(), 0.0)
        await asyncio.sleep(min(asked + world.random.expovariate(1 / options.pause), left))


async def sample(server: int, tally: Tally, start: float, options: Options) -> None:
    """Record memory, handles and threads of the server."""
    process = psutil.Process(server)
    while True:
        handles = process.num_fds() if hasattr(process, "num_fds") else process.num_handles()
        handles -= len(process.net_connections("tcp"))
        memory = process.memory_info().rss / 2**20
        tally.samples.append(Sample(time.monotonic() - start, memory, handles, process.num_threads()))
        await asyncio.sleep(options.sample_every)


STOPPING = 12
"""Requests that are in progress when the server is stopped; the queue holds more."""


async def stopped_under_load(world: World, server: Launched) -> tuple[list[str], int | None]:
    """Stop the server while requests are in progress: those that were not answered, and the exit code."""
    async with asyncio.TaskGroup() as tasks:
        opened = [await Connection(world.port, world.patience).__aenter__() for _ in range(STOPPING)]
        answers = [tasks.create_task(last_answer(connection, search(world))) for connection in opened]
        await asyncio.sleep(0.05)
        server.send_signal(signal.SIGTERM)
    code = await asyncio.to_thread(server.wait, 2 * world.seconds + 30)
    return [problem for answer in answers if (problem := answer.result())], code


async def last_answer(connection: Connection, wanted: Request) -> str | None:
    """What is wrong with the answer of a server that stops; None: nothing."""
    try:
        return problem_of(await connection.ask(wanted.content), wanted)
    except OSError as error:
        return f"{type(error).__name__}: {error}"
    finally:
        connection.writer.transport.abort()


def row_of(what: str, tried: int, problems: Sequence[str]) -> Row:
    """The line of a kind; its note has the first problem."""
    return Row(what, tried, tried - len(problems), len(problems), problems[0][:160] if problems else "")


def rows_of(tally: Tally, options: Options) -> list[Row]:
    """A line of every kind of client; clients that hang up have one only where they could not connect."""
    rows = [row_of(kind, tally.tried[kind], tally.problems[kind]) for kind in options.kinds if kind != HANG_UP]
    if problems := tally.problems[HANG_UP]:
        rows.append(row_of(HANG_UP, len(problems), problems))
    return rows


def answered(tally: Tally) -> Row:
    """Kinds of requests that were not all refused: a server that answers all by 503 would lose nothing else."""
    refused = [
        f"{kind}: {len(tally.seconds[kind])} of {tally.tried[kind]}"
        for kind in ANSWERED
        if len(tally.seconds[kind]) <= LEAST_ANSWERED * tally.tried[kind]
    ]
    what = f"kinds of requests of which 200 answers more than {100 * LEAST_ANSWERED:g} %"
    return row_of(what, len(ANSWERED), refused)


def log_lines(log: Path) -> tuple[int, list[str]]:
    """Number of log lines, and those that tell of an internal error, in short, or are no JSON.

    Lines before the first JSON are notes of the start. Native code, an interpreter that dies and `print` know no JSON.
    """
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip() and line not in NOTES]
    lines = lines[next((at for at, line in enumerate(lines) if line.startswith("{")), len(lines)) :]
    wrong = []
    for line in lines:
        try:
            record = json.loads(line)
            if record["level"] in ("error", "critical"):
                cause = record.get("traceback", "").splitlines()[-1:]
                wrong.append(": ".join((record["message"], *cause)))
        except (ValueError, LookupError, TypeError):
            wrong.append(line)
    return len(lines), wrong


def growth(samples: Sequence[Sample], options: Options) -> Row:
    """Whether medians of the last fifth of the duration are above those of the second one; lost without samples."""
    what = "memory, handles and threads without growth"
    early, late = (fifth(samples, options, number) for number in (1, 4))
    if early is None or late is None:
        return row_of(what, 3, [f"no sample in the {PARTS[1 if early is None else 4]} fifth"] * 3)
    grown = [
        f"{name} from {before:.0f} to {after:.0f}"
        for name, before, after, tolerance in zip(
            ("memory in MiB", "handles", "threads"),
            early,
            late,
            (TOLERANCE_MIB, TOLERANCE_HANDLES, TOLERANCE_THREADS),
            strict=True,
        )
        if after > before + tolerance
    ]
    return row_of(what, 3, grown)


def fifth(samples: Sequence[Sample], options: Options, number: int) -> tuple[float, float, float] | None:
    """Medians of memory, handles and threads in a fifth of the duration, from 0; None without a sample in it."""
    length = options.run_seconds / 5
    chosen = [one for one in samples if number * length <= one.at <= (number + 1) * length]
    if not chosen:
        return None
    return (
        statistics.median(one.memory for one in chosen),
        statistics.median(one.handles for one in chosen),
        statistics.median(one.threads for one in chosen),
    )


def figures_of(tally: Tally, options: Options) -> list[Figure]:
    """Latencies by kind, rates, clients that hung up, and resources over time."""
    figures = [Figure("clients at once", options.clients, ""), Figure("duration", options.run_seconds, "s")]
    total = sum(tally.tried.values())
    figures.append(Figure("requests a second", round(total / options.run_seconds, 1), ""))
    figures.append(
        Figure("share refused by 503 with Retry-After", round(100 * len(tally.refused) / max(total, 1), 1), "%")
    )
    served = sum(map(len, tally.seconds.values()))
    figures.append(Figure("share answered by 200", round(100 * served / max(total, 1), 1), "%"))
    figures.append(Figure(HANG_UP, tally.tried[HANG_UP], ""))
    for kind, seconds in (*tally.seconds.items(), ("refusals by 503", tally.refused)):
        if len(seconds) >= 20:  # fewer have no 95th percentile
            for percent in (50, 95, 99):
                value = round(1000 * float(np.percentile(seconds, percent)), 1)
                figures.append(Figure(f"p{percent} of {kind}", value, "ms"))
    for number, name in enumerate(PARTS):
        medians = fifth(tally.samples, options, number)
        if medians is None:
            continue
        memory, handles, threads = medians
        part = f"in the {name} fifth"
        figures.append(Figure(f"memory {part}", round(memory, 1), "MiB"))
        figures.append(Figure(f"handles without connections {part}", handles, ""))
        figures.append(Figure(f"threads {part}", threads, ""))
    figures.append(Figure("highest memory", round(max(one.memory for one in tally.samples), 1), "MiB"))
    return figures


def make_world(folder: Path, launch: Launch) -> tuple[Path, Path]:
    """An index of generated scenes under a briefly trained network, and the scenes.

    Raises:
        DataError: Where a command fails.
    """
    from tshsr.data.generated import make_scenes

    data = make_scenes(folder / "scenes", train=64, dev=20, test=200, processes=1)
    small = ("--model.encoder.dim", "32", "--model.similarity-dim", "16", "--training.epochs", "1", "--device", "cpu")
    add = ("index", str(folder / "run"), "--data", str(data), "--out", str(folder / "index"), "--device", "cpu")
    for number, words in enumerate(
        (
            ("train", "tshsr-scenes", "--data", str(data), "--out", str(folder / "run"), *small),
            *((*add, "--split", split) for split in SPLITS),
        )
    ):
        log = folder / f"{number}.log"
        with launch(words, log) as started:
            if started.stdout:
                started.stdout.read()
            if started.wait(600) != 0:
                raise DataError(f"tshsr {words[0]} failed: {log.read_text()}")
    return folder / "index", data


def main() -> None:
    """Run the campaign; a full one is written to the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=above_zero, default=30.0)
    parser.add_argument("--clients", type=from_least(1), default=500)
    parser.add_argument("--log", type=Path, help="keep the log of the server in this file")
    wanted = parser.parse_args()
    if wanted.log is not None and not wanted.log.parent.is_dir():
        parser.error(f"argument --log: {str(wanted.log.parent)!r} is no folder; make it, or name another one")
    options = replace(Options(), run_seconds=60 * wanted.minutes, clients=wanted.clients)
    with tempfile.TemporaryDirectory() as folder:
        index, data = make_world(Path(folder), subprocesses)
        rows, figures = campaign(index, data, options, wanted.log or Path(folder) / "server.log")
    for row in rows:
        print(f"{row.what}: {row.survived:,} of {row.tried:,} {row.note}")  # noqa: T201
    for figure in figures:
        print(f"{figure.what}: {figure.value:,} {figure.unit}")  # noqa: T201
    print(summary(rows))  # noqa: T201
    if options == Options():
        print(write_result("load", "The server under load", FULL, rows, figures))  # noqa: T201
    if any(row.lost for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
