"""A campaign: inputs by number, each read in a forked process under limits, and what came of them.

Input `n` of a reader follows from the seed of the campaign, the reader's name and n alone, so that a failure is read
again by its number. A process that an input ends (a crash, a hang) is replaced, and the campaign goes on after it.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import mmap
import os
import shutil
import signal
import struct
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from typing import TextIO

from reliability.fuzzing.formats import mutated
from reliability.fuzzing.mutations import Mutation
from reliability.fuzzing.sandbox import BLOCKED_SECONDS, SECONDS, Sandbox, decoys, peak_memory
from tshsr import system
from tshsr.errors import TshsrError
from tshsr.files import remove

if sys.platform != "win32":
    import resource

MOST_CHARACTERS = 1500
"""Of a refusal; a longer one repeats what it was given."""
FORBIDDEN, CHANGED = "forbidden:", "a file outside was changed"
STATE = struct.Struct("<qqqqdd")
"""Shared with the parent: input, read, refused, failed, slowest seconds, growth of memory in bytes."""


class Refusal(Exception):  # noqa: N818 - it is an answer, not an error
    """A refusal by other means than an exception of the package, such as a status of HTTP; the text is its sentence."""


@dataclass(frozen=True)
class Seed:
    """A valid input: files in a folder, and what reads them.

    Attributes:
        files: Content by path in the folder.
        read: Reads the folder.
        targets: Files that are mutated; empty: all.
        mutations: By file, in place of the mutation of its suffix.
        shapes: Whether files are also missing, exchanged, folders or links.
        writes: Whether reading writes into the folder, which is then made anew for each input.
    """

    files: Mapping[str, bytes]
    read: Callable[[Path], object]
    targets: tuple[str, ...] = ()
    mutations: Mapping[str, Mutation] = field(default_factory=dict)
    shapes: bool = True
    writes: bool = False

    @classmethod
    def of(cls, folder: Path, read: Callable[[Path], object], **more: object) -> Seed:
        """The files of a folder, with those of its subfolders."""
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
        return cls(files, read, **more)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Reader:
    """A kind of input.

    Attributes:
        name: As in the table of results.
        inputs: Number in a whole campaign.
        make: Makes the seeds in an empty folder.
        run: Reads inputs in the child, in place of `read_inputs`; for inputs that another library makes.
    """

    name: str
    inputs: int
    make: Callable[[Path], Sequence[Seed]]
    run: Callable[[Campaign, Reader, range, Path, mmap.mmap], None] | None = None


@dataclass
class Outcome:
    """What came of a reader's inputs.

    Attributes:
        failures: What failed, with its number; the same cause is listed once, with a count.
        slowest: Seconds of the slowest input that ended.
        growth: Bytes that a process had more at its peak than before its first input.
        seconds: Processor time of the inputs and of making the seeds.
        outside: Failures that wrote outside of the folder, or started a program, a connection or a pickled class.
    """

    reader: str
    read: int = 0
    refused: int = 0
    failed: int = 0
    slowest: float = 0.0
    growth: int = 0
    seconds: float = 0.0
    outside: int = 0
    failures: list[dict[str, object]] = field(default_factory=list)

    @property
    def tried(self) -> int:
        """Number of inputs."""
        return self.read + self.refused + self.failed


@dataclass(frozen=True)
class Campaign:
    """Settings.

    Attributes:
        folder: Scratch folder; everything in it is removed.
        seed: Another seed gives other inputs.
    """

    folder: Path
    seed: int = 0

    def run(self, reader: Reader, inputs: int, first: int = 0) -> Outcome:
        """Read inputs `first` to `first + inputs - 1` of a reader."""
        outcome, number = Outcome(reader.name), first
        while number < first + inputs:
            number = self._process(reader, number, first + inputs, outcome)
        return outcome

    def _process(self, reader: Reader, start: int, stop: int, outcome: Outcome) -> int:
        """Read inputs in one process until all are read or one ends it; returns the next number."""
        top = self.folder / reader.name.replace(" ", "-")
        shutil.rmtree(top, ignore_errors=True)
        (top / "work").mkdir(parents=True)
        (top / "outside").mkdir()
        (top / "outside" / "decoy.txt").write_text("must stay")
        log = top / "failures.jsonl"
        with mmap.mmap(-1, STATE.size) as shared:
            STATE.pack_into(shared, 0, start, 0, 0, 0, 0.0, 0.0)
            sys.stdout.flush()
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            with warnings.catch_warnings(action="ignore"):  # threads of libraries do not matter to the child
                child = os.fork()
            if not child:
                self._child(reader, start, stop, top, shared)
            _, status = os.waitpid(child, 0)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            number, read, refused, failed, slowest, growth = STATE.unpack_from(shared, 0)
            number = int(number)
        outcome.read, outcome.refused, outcome.failed = (
            outcome.read + read,
            outcome.refused + refused,
            outcome.failed + failed,
        )
        outcome.slowest, outcome.growth = max(outcome.slowest, slowest), max(outcome.growth, int(growth))
        outcome.seconds += after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        for line in log.read_text().splitlines() if log.exists() else ():
            record(outcome, json.loads(line))
        if status:
            said = (top / "stderr.txt").read_text(errors="replace").strip()
            if not (top / "ready").exists():
                raise RuntimeError(f"the seeds of {reader.name} cannot be made or read: {said}")
            outcome.failed += 1
            record(outcome, {"number": number, "what": ended(status), "detail": said[-500:]})
            number += 1
        shutil.rmtree(top, ignore_errors=True)
        return number

    def _child(self, reader: Reader, start: int, stop: int, top: Path, shared: mmap.mmap) -> None:
        """The child's whole life; it never returns."""
        code = 1
        errors = (top / "stderr.txt").open("wb")
        os.dup2(errors.fileno(), 2)  # libraries in C complain there, too
        faulthandler.disable()
        try:
            (reader.run or read_inputs)(self, reader, range(start, stop), top, shared)
            code = 0
        except BaseException:  # noqa: BLE001 - the parent must not go on twice
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def ended(status: int) -> str:
    """How an input ended its process."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number == signal.SIGPROF:
            return f"took more than {SECONDS:g} s of a processor"
        if number == signal.SIGALRM:
            return f"did not end in {BLOCKED_SECONDS:g} s"
        return f"crash by {signal.Signals(number).name}"
    return f"the process ended with code {os.WEXITSTATUS(status)}"


def record(outcome: Outcome, failure: dict[str, object]) -> None:
    """Add a failure, or count it under an earlier one of the same cause."""
    outcome.outside += str(failure["what"]).startswith((FORBIDDEN, CHANGED))
    same = next((one for one in outcome.failures if one["what"] == failure["what"]), None)
    if same is None:
        outcome.failures.append({**failure, "times": 1})
    else:
        same["times"] = int(str(same["times"])) + 1


class Tally:
    """Counts of a process, kept where the parent sees them even after a crash.

    Args:
        shared: Memory of both processes, of `STATE`.
        log: Receives the failures, one JSON object a line.
        before: Largest memory before the first input.
    """

    def __init__(self, shared: mmap.mmap, log: TextIO, before: int) -> None:
        self.shared, self.log, self.before = shared, log, before
        self.read = self.refused = self.failed = 0
        self.slowest = 0.0

    def begin(self, number: int) -> None:
        """Record that this input is read next."""
        growth = float(peak_memory() - self.before)
        STATE.pack_into(self.shared, 0, number, self.read, self.refused, self.failed, self.slowest, growth)

    def add(self, number: int, what: str, detail: str, seconds: float) -> None:
        """Count an input: "read", "refused" or what failed."""
        self.slowest = max(self.slowest, seconds)
        if what == "read":
            self.read += 1
        elif what == "refused":
            self.refused += 1
        else:
            self.failed += 1
            self.log.write(json.dumps({"number": number, "what": what, "detail": detail}) + "\n")
            self.log.flush()


def read_inputs(campaign: Campaign, reader: Reader, numbers: range, top: Path, shared: mmap.mmap) -> None:
    """Make the seeds, then read the inputs, and write down what failed."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    system.commit_of = cache(system.commit_of)  # git is asked once, before the sandbox
    (top / "seeds").mkdir()
    seeds = reader.make(top / "seeds")
    sandbox = Sandbox(top / "work")
    bench = Bench(top, seeds)
    for seed in seeds:  # imports what is imported late, and shows that the seeds are valid
        bench.lay_out(seed)
        seed.read(bench.folder)
    before, outside = peak_memory(), decoys(top / "outside")
    sandbox.limit_memory()
    (top / "ready").touch()
    with (top / "failures.jsonl").open("a", encoding="utf-8") as log:
        tally = Tally(shared, log, before)
        for number in numbers:
            tally.begin(number)
            seed, changed = bench.prepare(Random(f"{campaign.seed}/{reader.name}/{number}"))  # noqa: S311 - no secret
            started = time.perf_counter()
            what, detail = tried(seed.read, bench.folder, sandbox)
            tally.add(number, what, f"{detail} ({changed})", time.perf_counter() - started)
        if decoys(top / "outside") != outside:
            tally.add(numbers.stop - 1, CHANGED, "", 0.0)
        tally.begin(numbers.stop)


def tried(read: Callable[[Path], object], folder: Path, sandbox: Sandbox) -> tuple[str, str]:
    """Read one input: "read", "refused" or what failed, and its detail."""
    what, detail = "read", ""
    try:
        with sandbox:
            read(folder)
    except (TshsrError, Refusal) as error:
        what, detail = refusal(str(error)), str(error)[:MOST_CHARACTERS]
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - that is what is counted
        what, detail = f"{type(error).__name__} {place_of(error)}", f"{error!r:.300}"
    if sandbox.violations:
        return f"{FORBIDDEN} {sandbox.violations[0].split()[0]}", "; ".join(sandbox.violations)[:500]
    return what, detail


def refusal(sentence: str) -> str:
    """Whether a message is a sentence that a person can be shown."""
    words = " ".join(sentence.split())
    if not words:
        return "a refusal without a word"
    if len(words) > MOST_CHARACTERS:
        return f"a refusal of more than {MOST_CHARACTERS} characters: {words[:60]}"
    if "Traceback" in words:
        return "a refusal with a traceback"
    return "refused"


def place_of(error: BaseException) -> str:
    """The last line of the package in a traceback, and the last line of all."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "/tshsr/" in frame.filename and "/reliability/" not in frame.filename]
    shown = [*own[-1:], *frames[-1:]]
    return " < ".join(dict.fromkeys(f"{Path(frame.filename).name}:{frame.lineno}" for frame in shown[::-1]))


class Bench:
    """The working folder of a process: a seed's files, of which some are changed for each input.

    Args:
        top: Holds `work` and `outside`.
        seeds: All seeds of the reader.
    """

    def __init__(self, top: Path, seeds: Sequence[Seed]) -> None:
        self.top, self.seeds = top, seeds
        self.folder = top / "work" / "data"
        self.current: Seed | None = None
        self.dirty: list[str] = []

    def prepare(self, dice: Random) -> tuple[Seed, str]:
        """Lay out one input; returns its seed and what was changed."""
        seed = self.seeds[dice.randrange(len(self.seeds))]
        if seed is not self.current or seed.writes:
            self.lay_out(seed)
        self._restore(seed)
        targets = seed.targets or tuple(seed.files)
        chosen = tuple(
            dict.fromkeys(dice.choices(targets, k=dice.choice((1, 1, 1, 1, 2, 3))))
        )  # more often: named twice
        for name in chosen:
            if seed.shapes and dice.random() < 0.04:
                self._reshape(seed, name, dice)
            else:
                mutation = seed.mutations.get(name)
                content = seed.files[name]
                self._write(name, mutation(content, dice) if mutation else mutated(name, content, dice))
        return seed, ", ".join(chosen)

    def lay_out(self, seed: Seed) -> None:
        """The files of a seed, and nothing else."""
        remove(self.folder)
        self.folder.mkdir(parents=True)
        for name, content in seed.files.items():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_bytes(content)
        self.current, self.dirty = seed, []

    def _restore(self, seed: Seed) -> None:
        for name in self.dirty:
            remove(self.folder / name)
            (self.folder / name).write_bytes(seed.files[name])
        self.dirty = []

    def _write(self, name: str, content: bytes) -> None:
        (self.folder / name).write_bytes(content)
        self.dirty.append(name)

    def _reshape(self, seed: Seed, name: str, dice: Random) -> None:
        """A file that is missing, another file, a folder, or a link: to a file outside, in a circle, to nothing."""
        path = self.folder / name
        path.unlink()
        self.dirty.append(name)
        match dice.randrange(7):
            case 0:
                path.mkdir()
            case 1:
                path.symlink_to(self.top / "outside" / "decoy.txt")
            case 2:
                path.symlink_to(path)
            case 3:
                path.symlink_to(self.top / "outside" / "nothing")
            case 4:
                path.symlink_to("..", target_is_directory=True)
            case 5:
                path.write_bytes(seed.files[dice.choice(list(seed.files))])
            case _:
                pass
