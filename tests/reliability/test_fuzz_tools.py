"""The tools of `reliability.fuzz`: mutations repeat by their number, and what an input may not do is seen."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from random import Random

import numpy as np
import pytest

from reliability.fuzzing import sandbox
from reliability.fuzzing.campaign import Campaign, Outcome, Reader, Refusal, Seed
from reliability.fuzzing.data_readers import pictures, saved
from reliability.fuzzing.formats import mutated
from tshsr.errors import MOST_CHARACTERS, DataError

pytestmark = pytest.mark.skipif(os.name != "posix", reason="limits of processes are those of POSIX")


def campaign(folder: Path, read: object, inputs: int = 4) -> Outcome:
    seed = Seed({"a.txt": b"one 2\nthree\n"}, read, shapes=False)  # type: ignore[arg-type]
    return Campaign(folder).run(Reader("texts", 0, lambda _: [seed]), inputs)


def ready(data: Path) -> bool:
    """Whether this is an input, and not the valid seed, which is read first."""
    return (data / "a.txt").read_bytes() != b"one 2\nthree\n"


def whats(outcome: Outcome) -> list[str]:
    return [str(failure["what"]) for failure in outcome.failures]


@pytest.mark.parametrize("name", ["a.npy", "a.json", "a.jsonl", "a.txt", "a.png", "a.unknown"])
def test_a_mutation_repeats_by_its_number_and_most_change_something(name: str) -> None:
    content = {
        "a.npy": saved(np.ones((2, 3), np.float32)),
        "a.json": json.dumps({"a": [1, 2.5, None], "b": {"c": "text"}}).encode(),
        "a.jsonl": b'{"a": 1}\n{"a": 2}\n',
        "a.png": pictures()["a.png"],
    }.get(name, b"one 2\nthree\n")
    made = [mutated(name, content, Random(number)) for number in range(60)]
    assert made == [mutated(name, content, Random(number)) for number in range(60)]
    assert sum(one != content for one in made) > 50
    assert len(set(made)) > 30


def test_inputs_are_read_or_refused_and_counted(tmp_path: Path) -> None:
    def read(data: Path) -> object:
        text = (data / "a.txt").read_bytes()
        if ready(data) and len(text) % 2:
            raise DataError("odd lengths are not read; add a letter.")
        if ready(data) and len(text) % 3 == 0:
            raise Refusal("nor are multiples of three; add a letter.")
        return text

    outcome = campaign(tmp_path, read, 40)
    assert (outcome.tried, outcome.failed) == (40, 0)
    assert outcome.read
    assert outcome.refused
    again = campaign(tmp_path, read, 40)
    assert (again.read, again.refused) == (outcome.read, outcome.refused)


def test_a_failure_is_listed_once_with_its_place_and_number(tmp_path: Path) -> None:
    def read(data: Path) -> object:
        return [][len(data.name)] if ready(data) else None

    outcome = campaign(tmp_path, read)
    assert outcome.failed >= 3
    assert whats(outcome)[0].startswith("IndexError test_fuzz_tools.py:")
    assert outcome.failures[0]["number"] == 0
    assert len(outcome.failures) == 1


def test_a_crash_ends_one_input_and_the_campaign_goes_on(tmp_path: Path) -> None:
    def read(data: Path) -> object:
        return os.abort() if ready(data) and len((data / "a.txt").read_bytes()) % 2 else None

    outcome = campaign(tmp_path, read, 8)
    assert outcome.tried == 8
    assert outcome.read
    assert whats(outcome) == ["crash by SIGABRT"]


def test_an_input_that_takes_long_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "SECONDS", 0.1)

    def spin(data: Path) -> object:
        while ready(data):
            pass
        return None

    assert "of a processor" in whats(campaign(tmp_path, spin, 1))[0]
    monkeypatch.setattr(sandbox, "BLOCKED_SECONDS", 0.2)
    assert "did not end" in whats(campaign(tmp_path, lambda data: ready(data) and time.sleep(60), 1))[0]


def test_memory_is_limited(tmp_path: Path) -> None:
    outcome = campaign(tmp_path, lambda data: ready(data) and bytearray(2 * sandbox.MEMORY), 1)
    assert whats(outcome)[0].startswith("MemoryError")


def test_writes_outside_programs_and_pickles_are_seen(tmp_path: Path) -> None:
    def write(data: Path) -> object:
        return ready(data) and (tmp_path / "mark.txt").write_text("here")

    def start(data: Path) -> object:
        return ready(data) and subprocess.run(["true"], check=False)

    def follow(data: Path) -> object:
        if ready(data):
            (data / "link").symlink_to(data.parent.parent / "outside" / "decoy.txt")
            (data / "link").write_text("through a link")
        return None

    for read, event in ((write, "open"), (start, "subprocess.Popen"), (follow, "open")):
        outcome = campaign(tmp_path, read, 1)
        assert whats(outcome)[0] == f"forbidden: {event}"
        assert outcome.outside


def test_writes_in_the_folder_are_allowed(tmp_path: Path) -> None:
    outcome = campaign(tmp_path, lambda data: (data / "more.txt").write_text("here"))
    assert (outcome.read, outcome.failed) == (4, 0)


def test_a_refusal_is_one_sentence_of_a_bounded_length(tmp_path: Path) -> None:
    def read(data: Path) -> object:
        if ready(data):
            raise Refusal("x" * 10_000)
        return None

    assert whats(campaign(tmp_path, read, 1))[0].startswith("a refusal of more than")
    assert len(str(DataError("x" * 10_000))) <= MOST_CHARACTERS
    long = str(DataError(f"{'x' * 5000}; copy the file again."))
    assert " ... " in long
    assert long.endswith("; copy the file again.")


def test_seeds_that_are_not_valid_stop_the_campaign(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="the seeds of texts cannot be made or read"):
        campaign(tmp_path, lambda data: data.missing)  # type: ignore[attr-defined]
