import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tshsr.training.log import EVERY, Journal, lines_until


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def write(journal: Journal, steps: range, *, per_epoch: int = 1000) -> None:
    for step in steps:
        journal.step(1, step, {"loss": float(step)}, epoch_ends=step % per_epoch == 0, seconds=0.5)


def test_a_line_averages_the_steps_since_the_last_one(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 0, {})
    write(journal, range(1, EVERY + 1))
    write(journal, range(EVERY + 1, EVERY + 4), per_epoch=EVERY + 3)
    journal.close()
    expected = [
        {"kind": "steps", "epoch": 1, "step": EVERY, "loss": (EVERY + 1) / 2, "seconds": 0.5},
        {"kind": "steps", "epoch": 1, "step": EVERY + 3, "loss": EVERY + 2.0, "seconds": 0.5},
    ]
    assert lines(tmp_path) == expected
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in board.Scalars("train/loss")] == [
        (EVERY, (EVERY + 1) / 2),
        (EVERY + 3, EVERY + 2.0),
    ]


@pytest.mark.parametrize("saved", [0, 10, EVERY, EVERY + 20])
def test_an_interrupted_log_ends_up_as_an_uninterrupted_one(tmp_path: Path, saved: int) -> None:
    whole = Journal(tmp_path / "whole", 0, {})
    write(whole, range(1, 2 * EVERY + 1))
    whole.close()
    killed = Journal(tmp_path / "killed", 0, {})
    write(killed, range(1, saved + 1))
    window = dict(killed.window)
    write(killed, range(saved + 1, 2 * EVERY))
    killed.close()
    with (tmp_path / "killed" / "log.jsonl").open("a") as file:
        file.write('{"kind": "steps", "epo')
    resumed = Journal(tmp_path / "killed", saved, window)
    write(resumed, range(saved + 1, 2 * EVERY + 1))
    resumed.close()
    assert lines(tmp_path / "killed") == lines(tmp_path / "whole")


def test_lines_after_the_step_and_cut_lines_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 5}\n{"step": 9}\n{"step": 6}')
    assert lines_until(path, 6) == ['{"step": 5}\n']
    assert lines_until(tmp_path / "none", 6) == []
