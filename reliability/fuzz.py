"""Mutated inputs for every reader, into `reliability/results/fuzz.json`.

    python -m reliability.fuzz                                   # the whole campaign, as `make fuzz` does
    python -m reliability.fuzz --share 0.01 --out /tmp           # a hundredth of it
    python -m reliability.fuzz --reader pictures --first 1234 --inputs 1     # one input again

Each input is a valid file, folder or request with one to four mutations, read in a forked process under limits of time,
memory and places to write (`reliability/fuzzing`). It survives where it is read, or refused by a sentence. POSIX only.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from reliability.fuzzing.campaign import Campaign, Outcome, Reader
from reliability.fuzzing.data_readers import READERS as DATA
from reliability.fuzzing.index_readers import READERS as INDEXES
from reliability.fuzzing.model_readers import READERS as MODELS
from reliability.fuzzing.score_readers import READERS as SCORES
from reliability.options import above_zero, existing_folder, from_least
from reliability.results import RESULTS, Figure, Row, summary, write_result

TITLE = "Mutated inputs"
COMMAND = "make fuzz"

READERS: tuple[Reader, ...] = (*DATA, *SCORES, *MODELS, *INDEXES)
LIMITED = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
WHOLE = 100_000
"""Inputs of a whole campaign, at least."""


def main(words: Sequence[str] | None = None) -> int:
    """Run a campaign; the exit code is 1 where an input failed."""
    options = parsed(words)
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", **dict.fromkeys(LIMITED, "1")}
    chosen = [one for one in READERS if not options.reader or one.name in options.reader]
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="tshsr-fuzz-", dir=options.scratch) as folder:
        campaign = Campaign(Path(folder), options.seed)
        for reader in chosen:
            inputs = options.inputs or max(options.least, round(reader.inputs * options.share))
            outcomes.append(campaign.run(reader, inputs, options.first))
            show(outcomes[-1])
    rows = [row_of(outcome) for outcome in outcomes]
    if options.out is not None or sum(row.tried for row in rows) >= WHOLE:
        results = RESULTS if options.out is None else options.out
        say(str(write_result("fuzz", TITLE, COMMAND, rows, figures_of(outcomes), results)))
    say(summary(rows))
    return int(any(row.lost for row in rows))


def parsed(words: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m reliability.fuzz", description=TITLE)
    parser.add_argument("--share", type=above_zero, default=1.0, help="share of the inputs of the whole campaign")
    parser.add_argument("--least", type=from_least(1), default=1, help="least number of inputs a reader")
    parser.add_argument("--inputs", type=from_least(1), help="number of inputs of each reader, in place of the share")
    parser.add_argument("--first", type=from_least(0), default=0, help="number of the first input")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other inputs")
    parser.add_argument("--reader", action="append", choices=[one.name for one in READERS], help="only this reader")
    parser.add_argument(
        "--scratch", type=existing_folder, help="folder of temporary files; a file system in memory is fastest"
    )
    parser.add_argument(
        "--out", type=existing_folder, help="folder of fuzz.json; by default, only a whole campaign is written"
    )
    return parser.parse_args(words)


def row_of(outcome: Outcome) -> Row:
    """The line of a reader in the results."""
    note = f"{outcome.read:,} read, {outcome.refused:,} refused"
    return Row(outcome.reader, outcome.tried, outcome.tried - outcome.failed, outcome.failed, note)


def figures_of(outcomes: Sequence[Outcome]) -> list[Figure]:
    """Figures of the whole campaign."""
    return [
        Figure("processor time of all inputs", round(sum(one.seconds for one in outcomes), 1), "s"),
        Figure("slowest input, by the clock", round(1000 * max(one.slowest for one in outcomes)), "ms"),
        Figure("largest growth of a process's memory", round(max(one.growth for one in outcomes) / 2**20), "MiB"),
        Figure("writes outside of the folder", sum(one.outside for one in outcomes), ""),
    ]


def show(outcome: Outcome) -> None:
    """Print a line, and the causes of failures."""
    rate = outcome.tried / max(outcome.seconds, 1e-9)
    say(
        f"{outcome.reader:<36} {outcome.tried:>7,} tried, {outcome.read:>7,} read, {outcome.refused:>7,} refused, "
        f"{outcome.failed:>5,} failed; {rate:>6,.0f} a second, slowest {1000 * outcome.slowest:,.0f} ms, "
        f"+{outcome.growth / 2**20:,.0f} MiB"
    )
    for failure in outcome.failures:
        say(f"    {failure['times']} x {failure['what']}, first input {failure['number']}: {failure['detail']}")


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
