"""Long runs: training, an index that changes and the server over it, side by side; nothing grows, nothing is lost.

`python -m reliability.soak` runs for 30 minutes and writes `results/soak.json`.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import tempfile
import time
import urllib.parse
import urllib.request
import warnings
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from reliability.options import above_zero, existing_folder
from reliability.results import RESULTS, Figure, Row, summary, write_result
from tests.support.forked import Forked, forked
from tests.support.indexed import Small, built, make_small
from tests.support.served import serving
from tests.support.small_runs import small_config, small_split
from tshsr.training.events import Event, StepDone
from tshsr.training.fit import fit

WARM_UP = 0.3
"""Share of the time in which caches fill; growth is measured after it."""
MOST_GROWTH = 0.05, 16.0
"""Allowed growth of memory: of its size at the start, and MiB."""
LEAST_SAMPLES = 10
"""Samples of a process from which its growth can be told."""
QUERIES = ("a red dog", "one blue boat", "the white tree", "a green ball here")
PAUSE = 0.1
"""Seconds between two requests."""


@dataclass
class Watched:
    """A process and its size over time: seconds, MiB, open handles, threads."""

    name: str
    process: psutil.Process
    samples: list[tuple[float, float, int, int]] = field(default_factory=list)
    missed: int = 0
    """Samples that could not be taken."""

    def sample(self, seconds: float) -> None:
        """Measure now; an ended process has no sample, which is counted."""
        try:
            with self.process.oneshot():
                size = self.process.memory_info().rss / 2**20
                handles = self.process.num_fds() if hasattr(self.process, "num_fds") else self.process.num_handles()
                self.samples.append((seconds, size, handles, self.process.num_threads()))
        except psutil.Error:
            self.missed += 1

    def growth(self, column: int) -> tuple[float, float]:
        """Medians of a column in the third after the warm-up and in the last third."""
        after = [one[column] for one in self.samples[int(WARM_UP * len(self.samples)) :]]
        third = max(1, len(after) // 3)
        return statistics.median(after[:third]), statistics.median(after[-third:])

    def problem(self) -> str | None:
        """Why it counts as lost: it grows, or cannot be told to be free of growth; None: neither."""
        if self.missed or len(self.samples) < LEAST_SAMPLES:
            return f"{self.name} has {len(self.samples)} samples, and {self.missed} could not be taken"
        return f"{self.name} grows" if self.grows() else None

    def grows(self) -> bool:
        """Whether its memory or its handles have grown."""
        before, after = self.growth(1)
        share, mebibytes = MOST_GROWTH
        handles = self.growth(2)
        return after > before * (1 + share) + mebibytes or handles[1] > handles[0] + 8


@dataclass
class Counts:
    """Answers of the server, and changes of the index."""

    answered: int = 0
    lost: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def train_for_ever(folder: Path) -> None:
    """Training until SIGTERM, which saves; the number of steps that were made is in `folder/steps`.

    An epoch has 15 steps and is saved at its end only, so that a run which SIGTERM just ends has most often lost some.
    """
    warnings.simplefilter("error")
    folder.mkdir(parents=True, exist_ok=True)

    def count(event: Event) -> None:
        if isinstance(event, StepDone):
            (folder / "steps").write_text(str(event.step))

    train, dev = (small_split(folder.parent / "data", name, images) for name, images in (("train", 60), ("dev", 6)))
    config = small_config(epochs=10**6, save_every_steps=0, evaluate_every=10)
    fit(config, train=train, dev=dev, out=folder / "run", device="cpu", listen=count)


def saved_step(folder: Path) -> int:
    """The last step that a training has saved."""
    state = (folder / "run" / "last" / "state.json").read_text(encoding="utf-8")
    return int(json.loads(state)["step"])


def unsaved(folder: Path) -> str:
    """What a training had not saved at its end; empty: nothing."""
    saved, made = saved_step(folder), (folder / "steps").read_text()
    return "" if str(saved) == made else f"step {made} was made and step {saved} saved"


def change_for_ever(small: Small, folder: Path) -> None:
    """Encode pictures of the index again, remove them, and add them again, until SIGTERM."""
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    from tshsr.index.collection import Index

    index, rounds = Index(folder, small.retriever()), 0
    while not stopped:
        index.replace(small.split("test"))
        index.delete(["p8", "p9"])
        index.add(small.split("test"))
        rounds += 1
        (folder.parent / "rounds").write_text(str(rounds))
        time.sleep(0.2)


def ask(address: str, number: int, counts: Counts) -> None:
    """One search; an answer has 12 pictures, or 10 while two of them are being added again."""
    query = urllib.parse.urlencode({"q": QUERIES[number % len(QUERIES)], "k": 20})
    started = time.perf_counter()
    try:
        with urllib.request.urlopen(f"{address}api/search?{query}", timeout=60) as answer:  # noqa: S310 - http
            results = json.load(answer)["results"]
    except (OSError, ValueError, KeyError) as error:
        counts.lost.append(f"{type(error).__name__}: {error}")
        return
    counts.seconds.append(time.perf_counter() - started)
    if len(results) in (10, 12):
        counts.answered += 1
    else:
        counts.lost.append(f"{len(results)} results")


def soak(minutes: float, folder: Path) -> tuple[list[Row], list[Figure], list[str]]:
    """All three beside each other; rows, figures and descriptions of what was lost."""
    small = make_small(folder / "small")
    index = built(small, folder / "index")
    counts = Counts()
    with ExitStack() as stack:
        running = stack.enter_context(serving(index.folder))
        server = running.process
        trainer = stack.enter_context(forked(train_for_ever, folder / "training"))
        writer = stack.enter_context(forked(change_for_ever, small, index.folder))
        processes = {"server": server, "training": trainer, "index": writer}
        watched = [Watched(name, psutil.Process(one.pid)) for name, one in processes.items()]
        wait_for([folder / "rounds", folder / "training" / "steps"], [trainer, writer])
        ask_until(time.monotonic() + 60 * minutes, running.address, counts, watched)
        alive = {name: one.poll() is None for name, one in processes.items()}
        for one in processes.values():
            if one.poll() is None:
                one.send_signal(signal.SIGTERM if one is not server else signal.SIGINT)
        codes = {name: one.wait() for name, one in processes.items()}
        said = {name: one.stderr.read()[-500:] for name, one in processes.items()}
    unkept = unsaved(folder / "training")
    rounds = int((folder / "rounds").read_text())
    expected = {"server": (0,), "training": (-signal.SIGTERM,), "index": (0,)}  # the library passes SIGTERM on
    ends = {name: alive[name] and codes[name] in expected[name] for name in processes}
    growing = [problem for one in watched if (problem := one.problem())]
    lost = [*counts.lost[:5], *growing]
    lost += [f"{name} ended with {codes[name]}: {said[name]}" for name, well in ends.items() if not well]
    if unkept:
        ends["training"] = False
        lost.append(f"training: {unkept}")
    rows = [
        Row("searches during training and changes of the index", counts.answered + len(counts.lost), counts.answered,
            len(counts.lost), f"{minutes:g} minutes"),
        Row("processes that run to the end and end by a signal", len(ends), sum(ends.values()),
            len(ends) - sum(ends.values())),
        Row("processes without growth of memory and handles", len(watched), len(watched) - len(growing), len(growing)),
    ]  # fmt: skip
    return rows, figures_of(watched, counts, rounds, saved_step(folder / "training")), lost


def wait_for(paths: list[Path], processes: list[Forked]) -> None:
    """Wait until files are there.

    Raises:
        RuntimeError: Where a process ends before.
    """
    while not all(path.exists() for path in paths):
        for one in processes:
            if one.poll() is not None:
                raise RuntimeError(f"a process ended with {one.returncode}: {one.stderr.read()[-2000:]}")
        time.sleep(PAUSE)


def ask_until(end: float, address: str, counts: Counts, watched: list[Watched]) -> None:
    """Ask the server until a time; measure in between."""
    begun = due = time.monotonic()
    number, every = 0, max(0.2, (end - begun) / 180)
    while time.monotonic() < end:
        ask(address, number, counts)
        number += 1
        if time.monotonic() >= due:
            due += every
            for one in watched:
                one.sample(time.monotonic() - begun)
        time.sleep(PAUSE)


def figures_of(watched: list[Watched], counts: Counts, rounds: int, steps: int) -> list[Figure]:
    """Sizes over time, times of answers, and how much was done."""
    found = [
        Figure(f"{one.name}: {what} {when}", round(value, 1), unit)
        for one in watched
        if one.samples
        for column, what, unit in ((1, "memory", "MiB"), (2, "open handles", ""))
        for when, value in zip(("after warm-up", "at the end"), one.growth(column), strict=True)
    ]
    cuts = statistics.quantiles(counts.seconds, n=100) if len(counts.seconds) > 1 else [0.0] * 99
    found += [Figure(f"p{share} of a search", round(1000 * cuts[share - 1], 1), "ms") for share in (50, 95, 99)]
    return [*found, Figure("rounds of changes of the index", rounds, ""), Figure("steps of training", steps, "")]


def main() -> None:
    """Run the campaign."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=above_zero, default=30.0, help="less than 30 writes no result")
    parser.add_argument("--out", type=existing_folder, default=RESULTS)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tshsr-soak-") as folder:
        rows, figures, lost = soak(wanted.minutes, Path(folder))
    lines = [*lost, *(f"{one.what}: {one.value} {one.unit}" for one in figures)]
    print("\n".join([*lines, *(f"{row.what}: {summary([row])}" for row in rows), summary(rows)]))  # noqa: T201
    if wanted.minutes >= 30:
        write_result("soak", "Training, index and server beside each other", "make soak", rows, figures, wanted.out)
    if lost:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
