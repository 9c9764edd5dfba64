"""The quick forms of the reliability campaigns, the schema of their results, and the page made from them."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from reliability.page import PAGE, with_sections
from reliability.results import RESULTS, Figure, Row, summary, write_result
from tests.support.forked import answer_of
from tshsr.errors import DataError, InputError

ROOT = Path(__file__).resolve().parents[2]
needs_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="system calls are supervised on Linux")


def try_faults(most: int, seed: int) -> None:
    """Trials of every kind of file but the index, and one of every real condition; in a process of its own."""
    warnings.simplefilter("ignore")
    from reliability import conditions, faults, syscalls
    from reliability.writers import KINDS

    if not syscalls.is_supported():
        sys.stdout.write("unsupported\n")
        return
    kinds = [kind for kind in KINDS if kind.name != "index"]
    tallies = faults.campaign(kinds, most=most, seed=seed)
    with faults.scratch() as folder:
        rows, lost = conditions.campaign(random.Random(seed).sample(kinds, 2), folder, 1)
    rows += [tally.row() for tally in tallies]
    lost += [line for tally in tallies for line in tally.lost]
    sys.stdout.write("\n".join([*lost, summary(rows)]) + "\n")


def try_kills(names: tuple[str, ...], kills: int, seed: int) -> None:
    """Kills of some jobs; in a process of its own."""
    warnings.simplefilter("ignore")
    from reliability import syscalls
    from reliability.jobs import COLLECTIONS, TRAINING
    from reliability.kills import campaign

    if not syscalls.is_supported():
        sys.stdout.write("unsupported\n")
        return
    jobs = [job for job in (*TRAINING, *COLLECTIONS) if job.name in names]
    tallies = campaign([(job, kills) for job in jobs], seed)
    sys.stdout.write(
        "\n".join([*(line for tally in tallies for line in tally.lost), summary([t.row() for t in tallies])])
    )


def survived(answer: tuple[int | None, str, str]) -> int:
    """Number of trials, all of which survived."""
    code, said, errors = answer
    assert code == 0, errors
    if said.startswith("unsupported"):
        pytest.skip("this machine does not report system calls")
    words = said.splitlines()[-1].split()
    assert words[1] == words[3], said
    return int(words[1])


@pytest.mark.slow
@needs_linux
def test_faults_leave_the_old_or_the_new_content() -> None:
    assert survived(answer_of(try_faults, 2, random.SystemRandom().randrange(10**6))) >= 20


@pytest.mark.slow
@needs_linux
def test_killed_jobs_end_as_undisturbed_ones() -> None:
    seed = random.SystemRandom().randrange(10**6)
    assert survived(answer_of(try_kills, ("training", "features"), 2, seed)) == 4


@needs_linux
def test_calls_of_all_threads_are_reported_and_disturbed_where_they_do_not_pass_as_a_whole(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "tests.support.supervised_calls", str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    if done.stdout == "unsupported\n":
        pytest.skip("this machine does not report system calls")
    assert done.stdout.splitlines() == [
        "nothing: 0 undisturbed",
        "refused: 1 disturbed",
        "half of a folder: 0 undisturbed",
        "half of a write: 0 disturbed",
        "killed: -9 disturbed",
        "a thread: 0 made made/file made/file",
    ]


def test_counts_of_a_row_add_up() -> None:
    with pytest.raises(InputError, match=r"^kills: 3 tried, 1 survived and 1 lost; expected counts that add up\.$"):
        Row("kills", 3, 1, 1)


def test_a_row_in_which_nothing_was_tried_is_no_result(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^security: 0 tried of 'a threat', expected 1 or more; find out why, "):
        write_result("security", "Threats", "make security", [Row("a threat", 0, 0, 0)], folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_result_becomes_a_section(tmp_path: Path) -> None:
    rows = [Row("checkpoint", 1200, 1199, 1, "40 system calls"), Row("store", 10, 10, 0)]
    path = write_result("zeal", "A title", "make zeal", rows, [Figure("p95 of a search", 12.34567, "ms")], tmp_path)
    assert list(json.loads(path.read_text())) == ["name", "title", "command", "rows", "figures", "provenance"]
    write_result("faults", "Faults first", "make faults", [Row("config", 2, 2, 0)], folder=tmp_path)
    text = with_sections("before\n<!-- reliability -->\nold\n<!-- end -->\nafter\n", tmp_path)
    assert text.startswith("before\n<!-- reliability -->\nLost in all 2 campaigns: 1. They count trials, inputs, req")
    assert text.index("Faults first") < text.index("A title")
    assert "| checkpoint | 1,200 | 1,199 | 1 | 40 system calls |\n| store | 10 | 10 | 0 |  |\n" in text
    assert "| p95 of a search | 12.346 ms |" in text
    assert text.endswith("<!-- end -->\nafter\n")
    assert with_sections(text, tmp_path) == text


def test_the_page_is_that_of_the_results() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert with_sections(text) == text, "python -m reliability.page"


def test_results_follow_the_schema_and_lose_nothing() -> None:
    for path in RESULTS.glob("*.json"):
        values = json.loads(path.read_text(encoding="utf-8"))
        assert values["name"] == path.stem
        for row in (Row(**row) for row in values["rows"]):
            assert row.lost == 0, f"{path.name}: {row}"
        for figure in values["figures"]:
            Figure(**figure)
