"""The quick forms of the reliability campaigns, the schema of their results, and the page made from them."""

from __future__ import annotations

import json
import os
import random
import stat
import subprocess
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path

import pytest

from reliability import conditions, faults, kills, trials
from reliability.jobs import Job
from reliability.page import PAGE, with_sections
from reliability.results import RESULTS, Figure, Row, summary, write_result
from reliability.syscalls import Call, Ended, is_supported
from reliability.trials import Prepared
from reliability.writers import Kind
from tests.support.forked import answer_of
from tshsr.errors import DataError, InputError

ROOT = Path(__file__).resolve().parents[2]
needs_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="system calls are supervised on Linux")


def try_faults(most: int, seed: int) -> None:
    """Trials of every kind of file but the index, and one of every real condition; in a process of its own."""
    warnings.simplefilter("ignore")
    from reliability.writers import KINDS

    if not is_supported():
        sys.stdout.write("unsupported\n")
        return
    kinds = [kind for kind in KINDS if kind.name != "index"]
    tallies = faults.campaign(kinds, most=most, seed=seed)
    with faults.scratch() as folder:
        rows, lost = conditions.campaign(random.Random(seed).sample(kinds, 2), folder, 1)
    rows += [tally.row() for tally in tallies]
    lost += [line for tally in tallies for line in tally.lost]
    sys.stdout.write("\n".join([*lost, summary(rows)]) + "\n")


def try_kills(names: tuple[str, ...], most: int, seed: int) -> None:
    """Kills of some jobs; in a process of its own."""
    warnings.simplefilter("ignore")
    from reliability.jobs import COLLECTIONS, TRAINING

    if not is_supported():
        sys.stdout.write("unsupported\n")
        return
    jobs = [job for job in (*TRAINING, *COLLECTIONS) if job.name in names]
    tallies = kills.campaign([(job, most) for job in jobs], seed)
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


def prepared(folder: Path, *, whole: bool = True, old: str = "old", new: str = "new") -> Prepared:
    """A kind of file that is never written."""
    folder.mkdir(exist_ok=True)
    kind = Kind("a kind", lambda *_: None, lambda _: old, whole=whole)
    return Prepared(kind, folder, old, new, (Call(1, "write", "file", 10),), 1000)


OLD = '{"0.jpg": 0.5, "0.jpg#0": ["0.jpg", "a red dog"]}'
NEW = '{"0.jpg": 0.5, "0.jpg#0": ["0.jpg", "a red dog"], "1.jpg": 0.25, "2.jpg": 0.75}'


@pytest.mark.parametrize(
    ("found", "survives"),
    [
        (OLD, True),
        (NEW, True),
        ('{"0.jpg": 0.5, "0.jpg#0": ["0.jpg", "a red dog"], "2.jpg": 0.75}', True),
        ('{"0.jpg#0": ["0.jpg", "a red dog"]}', False),
        ('{"0.jpg": 0.5, "1.jpg": 0.25, "2.jpg": 0.75}', False),
        ('{"0.jpg": 0.4, "0.jpg#0": ["0.jpg", "a red dog"]}', False),
        ('{"0.jpg": 0.5, "0.jpg#0": ["0.jpg", "a red dog"], "1.jpg": 0.75}', False),
        ("torn: 3 ids in 4 of 4 rows", False),
        ("nothing: there is no index.", False),
    ],
)
def test_an_index_keeps_old_rows_and_gets_only_new_ones(tmp_path: Path, found: str, survives: bool) -> None:
    """The next run adds again what is lost, so that its end tells nothing."""
    index = prepared(tmp_path, whole=False, old=OLD, new=NEW)
    lost = trials.judge(index, {"end": "killed", "text": ""}, {"first": found, "second": NEW})
    assert lost == ("" if survives else f"a reader finds {found}, neither the old nor the new content")


@pytest.mark.parametrize(("disturbed", "attempts"), [((True,), 1), ((False, False, True), 3), ((False,) * 9, 3)])
def test_a_trial_in_which_nothing_fails_is_repeated_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disturbed: tuple[bool, ...], attempts: int
) -> None:
    ends = [Ended(0, '{"end": "done", "text": ""}', (), one) for one in disturbed]
    monkeypatch.setattr(trials, "supervised", lambda *_: ends.pop(0))
    monkeypatch.setattr(trials, "next_run", lambda *_: "")
    found = trials.trial(prepared(tmp_path / "old"), tmp_path / "trial", lambda _: "go")
    assert found == ("" if any(disturbed) else None)
    assert len(ends) == len(disturbed) - attempts


def test_trials_that_are_left_out_are_not_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = prepared(tmp_path).kind
    outcomes = [None, "", None, "torn"]
    monkeypatch.setattr(faults, "prepare", lambda *_: prepared(tmp_path))
    monkeypatch.setattr(faults, "trial", lambda *_: outcomes.pop())
    row = faults.run_kind(kind, tmp_path, random.Random(0), 4).row()
    assert row == Row("a kind", 2, 1, 1, "1 system calls, 2 left out")


def test_conditions_in_which_nothing_failed_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = {0: "", 30: "torn", 90: None}
    monkeypatch.setattr(conditions, "prepare", lambda *_: prepared(tmp_path))
    monkeypatch.setattr(
        conditions, "conditions", lambda _: {"a limit": (lambda _, __, value: outcomes[value], (0, 30, 90))}
    )
    rows, lost = conditions.campaign([prepared(tmp_path).kind], tmp_path)
    assert rows == [Row("a limit", 2, 1, 1, "1 kinds of files, 1 left out")]
    assert lost == ["a limit (30), a kind: torn"]


@needs_linux
@pytest.mark.parametrize(("end", "wanted"), [("done", None), ("refused", ""), ("stopped", None)])
def test_private_folders_above_a_trial_without_rights_stay_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, wanted: str | None
) -> None:
    """Another user must pass them, but only where there is another user, and only for the trial."""
    home, modes = tmp_path / "home", list[int]()
    home.mkdir(mode=0o700)

    def attempted(*_: object) -> dict[str, str]:
        modes.append(stat.S_IMODE(home.stat().st_mode))
        if end == "stopped":
            raise KeyboardInterrupt
        return {"end": end, "text": ""}

    monkeypatch.setattr(conditions, "_attempted", attempted)
    monkeypatch.setattr(conditions, "next_run", lambda *_: "")
    with pytest.raises(KeyboardInterrupt) if end == "stopped" else nullcontext():
        assert conditions.without_rights(prepared(tmp_path / "old"), home / "trial", 0) == wanted
    assert modes == [0o700 if os.geteuid() else 0o711]
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


KILLED, FAILED = Ended(-9, "", (), disturbed=True), Ended(1, "a traceback", ())


@pytest.mark.parametrize(
    ("name", "lives", "lost"),
    [
        ("training", [(2, KILLED), (5, KILLED)], ""),
        ("training", [(5, KILLED), (2, KILLED)], "the progress falls from 5 to 2"),
        ("training", [(9, KILLED)], "the progress falls from 9 to 7"),
        ("training", [(2, Ended(-9, "", ()))], "ended with code -9: "),
        ("training (torchrun)", [(2, Ended(1, "", (), disturbed=True))], ""),
        ("training (torchrun)", [(2, FAILED)], "ended with code 1: a traceback"),
        ("training", [(2, Ended(1, "a traceback", (), disturbed=True))], "ended with code 1: a traceback"),
    ],
)
def test_a_kill_takes_no_progress_and_is_no_excuse_for_another_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, lives: list[tuple[int, Ended]], lost: str
) -> None:
    """Jobs are deterministic: one that began again from nothing would end as an undisturbed one, too."""
    steps, left = [0], [*lives]

    def killed_once(*_: object) -> tuple[Ended, bool]:
        if not left:
            return Ended(0, "", ()), False
        steps[0], ended = left.pop(0)
        return ended, True

    def run(_: Path) -> None:
        steps[0] = 7

    monkeypatch.setattr(kills, "in_child", lambda run: Ended(0, run(), ()))
    monkeypatch.setattr(kills, "killed_once", killed_once)
    job = Job(name, lambda _: None, run, lambda _: "end", lambda _: steps[0])
    tally = kills.Tally(name)
    kills.one_life(job, kills.Undisturbed("end", (), 1.0), tmp_path, random.Random(0), 8, tally)
    assert [line.partition(": ")[2] for line in tally.lost] == [lost] * bool(lost)
    assert (tally.row().survived == len(lives)) == (not lost)


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
