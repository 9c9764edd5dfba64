"""Kill tests: jobs are killed (SIGKILL) at random moments and continued, until they end as an undisturbed job.

`python -m reliability.kills` writes `results/kills.json`. Half of the kills are at random moments, the others before a
random system call on the job's files, or inside a write; a kill under torchrun ends all processes, or one of them. No
kill takes progress away: what is found after it is at least what was found after the kill before.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from reliability.jobs import COLLECTIONS, TRAINING, Job
from reliability.options import existing_folder, from_least, named
from reliability.results import RESULTS, Row, summary, write_result
from reliability.syscalls import WRITES, Action, Call, Ended, in_child, is_supported, supervised
from reliability.trials import preload

KILLS_OF_TRAINING, KILLS_OF_COLLECTIONS = 200, 100
TORCHRUN = 20
"""Kills under torchrun, of those of training: its processes take seconds to start."""
MOST_OF_A_LIFE = 8
"""Kills of one job, before it is left to end."""


@dataclass
class Tally:
    """Kills of one job.

    Attributes:
        at_calls: Kills at a system call on the job's files.
        lost: Kills after which the job lost progress or did not end as an undisturbed one, with the reason of each.
    """

    name: str
    kills: int = 0
    at_calls: int = 0
    lost: list[str] = field(default_factory=list)
    lost_kills: int = 0

    def row(self) -> Row:
        """As a row of the results."""
        note = f"{self.at_calls} of them at a system call on its files"
        return Row(self.name, self.kills, self.kills - self.lost_kills, self.lost_kills, note)


@dataclass(frozen=True)
class Undisturbed:
    """A job that nobody killed.

    Attributes:
        end: What it leaves.
        calls: Its calls on files.
        seconds: Its duration from the first of them.
    """

    end: str
    calls: tuple[Call, ...]
    seconds: float


def undisturbed(job: Job, folder: Path) -> Undisturbed:
    """Run a job to its end, twice: the first time with imports.

    Raises:
        RuntimeError: Where it fails, or its progress cannot be seen.
    """
    for attempt in range(2):
        place, firsts = folder / f"undisturbed-{attempt}", list[float]()
        in_child(partial(_void, job.begin, place)).well()
        ended = supervised(partial(_modules, job, place), place, partial(_timed, firsts))
        seconds = time.monotonic() - firsts[0]
        preload(ended.well())
        end = in_child(partial(job.end, place)).well()
    if not int(in_child(partial(_progress, job, place)).well()):
        raise RuntimeError(f"{job.name}: no progress at its end")
    return Undisturbed(end, ended.calls, seconds)


def _timed(firsts: list[float], _: Call) -> Action:
    firsts.append(time.monotonic())
    return "go"


def _void(run: Callable[[Path], None], folder: Path) -> str:
    run(folder)
    return ""


def _progress(job: Job, folder: Path) -> str:
    return str(job.progress(folder))


def _modules(job: Job, folder: Path) -> str:
    job.run(folder)
    return " ".join(sys.modules)


def one_life(job: Job, model: Undisturbed, folder: Path, dice: random.Random, most: int, tally: Tally) -> None:
    """Start a job, kill it up to `most` times, let it end, and compare."""
    in_child(lambda: _void(job.begin, folder)).well()
    kills, attempts = 0, 0
    progress, wrong = kept_progress(job, folder, 0)
    while kills < most and not wrong and attempts < 4 * MOST_OF_A_LIFE:
        attempts += 1
        ended, at_call = killed_once(job, model, folder, dice)
        if ended.code == 0:
            break
        killed = ended.code == -9 or (ended.code == 1 and "torchrun" in job.name)  # one of two processes was lost
        if killed and ended.disturbed:
            kills += 1
            tally.at_calls += at_call
            progress, wrong = kept_progress(job, folder, progress)
        else:
            wrong = f"ended with code {ended.code}: {ended.said[-1500:]}"
    if not wrong:
        wrong = wrong_end(job, model, folder) or kept_progress(job, folder, progress)[1]
    if wrong:
        tally.lost.append(f"{job.name}, after {kills} kills: {wrong}")
        kills = max(1, kills)  # a job that fails before the first kill is lost, too
        tally.lost_kills += kills
    tally.kills += kills


def kept_progress(job: Job, folder: Path, before: int) -> tuple[int, str]:
    """The progress of a job, and what is wrong where it cannot be read or is less than before."""
    read = in_child(lambda: _progress(job, folder))
    if read.code != 0:
        return before, f"the progress cannot be read: {read.said[-1500:]}"
    return int(read.said), f"the progress falls from {before} to {read.said}" if int(read.said) < before else ""


def wrong_end(job: Job, model: Undisturbed, folder: Path) -> str:
    """Let a job end; what is wrong with its end, empty where it is that of an undisturbed one."""
    last = in_child(lambda: _void(job.run, folder))
    ended = in_child(lambda: job.end(folder))
    if last.code != 0 or ended.code != 0:
        return f"the job does not go on: {(last.said or ended.said)[-1500:]}"
    return "" if ended.said == model.end else "the end is another one"


def killed_once(job: Job, model: Undisturbed, folder: Path, dice: random.Random) -> tuple[Ended, bool]:
    """Run until a kill at a random moment, or at a random call; how it ended, and whether it was killed at a call."""
    if dice.random() < 0.5:
        ended = supervised(
            lambda: _void(job.run, folder), folder, lambda _: "go", kill_after=dice.uniform(0, model.seconds)
        )
        return ended, False
    number, inside = dice.randint(1, max(1, len(model.calls))), dice.random() < 0.5

    def decide(call: Call) -> Action:
        if call.number != number:
            return "go"
        return "kill half" if inside and call.name in WRITES and call.size > 1 else "kill"

    one = "torchrun" in job.name and dice.random() < 0.5
    ended = supervised(lambda: _void(job.run, folder), folder, decide, only_caller=one)
    return ended, ended.disturbed


def kill_job(job: Job, kills: int, folder: Path, dice: random.Random) -> Tally:
    """Kill a job as often as wanted, over several lives."""
    model, tally, number = undisturbed(job, folder), Tally(job.name), 0
    while tally.kills < kills and not tally.lost:
        place = folder / f"life-{number}"
        one_life(job, model, place, dice, min(MOST_OF_A_LIFE, kills - tally.kills), tally)
        shutil.rmtree(place, ignore_errors=True)
        number += 1
    return tally


def campaign(wanted: Sequence[tuple[Job, int]], seed: int) -> list[Tally]:
    """Kill several jobs.

    Args:
        wanted: Jobs and how often each is killed.
        seed: Of moments and calls.
    """
    dice = random.Random(seed)  # noqa: S311 - no secret
    with tempfile.TemporaryDirectory(prefix="tshsr-kills-") as folder:
        return [kill_job(job, kills, Path(folder) / str(number), dice) for number, (job, kills) in enumerate(wanted)]


def shares(jobs: Sequence[Job], kills: int) -> list[tuple[Job, int]]:
    """Kills of each job, about equal; fewer under torchrun."""
    slow = sum(TORCHRUN for job in jobs if "torchrun" in job.name)
    others = [job for job in jobs if "torchrun" not in job.name]
    each, more = divmod(kills - slow, len(others))
    found = [(job, each + (number < more)) for number, job in enumerate(others)]
    return found + [(job, TORCHRUN) for job in jobs if "torchrun" in job.name]


def main() -> None:
    """Run the campaign."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", type=from_least(1), metavar="N", help="N kills of each job; no result is written")
    parser.add_argument("--seed", type=int, default=None, help="by default another one each time")
    parser.add_argument("--job", action="append", help="only jobs whose name holds this word")
    parser.add_argument("--out", type=existing_folder, default=RESULTS)
    wanted = parser.parse_args()
    names = named(parser, "--job", wanted.job, [job.name for job in (*TRAINING, *COLLECTIONS)])
    if not is_supported():
        raise SystemExit("this machine cannot supervise system calls: Linux 5.9 or newer with seccomp is needed")
    seed = random.SystemRandom().randrange(10**6) if wanted.seed is None else wanted.seed
    jobs = [*shares(TRAINING, KILLS_OF_TRAINING), *shares(COLLECTIONS, KILLS_OF_COLLECTIONS)]
    chosen = [(job, kills if wanted.quick is None else wanted.quick) for job, kills in jobs if job.name in names]
    tallies = campaign(chosen, seed)
    report = [tally.row() for tally in tallies]
    lines = [line for tally in tallies for line in tally.lost]
    lines += [f"{row.what}: {summary([row])}, {row.note}" for row in report]
    print("\n".join([*lines, f"seed {seed}: {summary(report)}"]))  # noqa: T201
    if wanted.quick is None and not wanted.job:
        write_result("kills", "Kill -9 at random moments", "make kills", report, folder=wanted.out)
    if any(tally.lost for tally in tallies):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
