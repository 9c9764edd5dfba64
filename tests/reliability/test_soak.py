"""The long run in its quick form, and its judgement of growth and of answers."""

from __future__ import annotations

import io
import os
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from reliability.soak import Counts, Watched, ask, soak, unsaved


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="no process gets SIGTERM on this system")
def test_training_an_index_and_a_server_run_side_by_side(tmp_path: Path) -> None:
    (searches, ends, growth), figures, lost = soak(0.04, tmp_path)
    assert (searches.lost, ends.lost) == (0, 0), lost
    assert searches.tried > 0
    assert (ends.tried, growth.tried) == (3, 3)  # the first seconds of a process are growth: not judged here
    named = {figure.what: figure.value for figure in figures}
    assert named["rounds of changes of the index"] > 0
    assert named["steps of training"] > 0
    assert named["server: memory at the end"] > 0


@pytest.mark.parametrize(("mebibytes", "handles", "grows"), [(0.0, 0.0, False), (0.5, 0.0, True), (0.0, 0.2, True)])
def test_growth_of_memory_or_handles_is_found(mebibytes: float, handles: float, grows: bool) -> None:
    """Between two samples."""
    one = Watched("server", psutil.Process())
    one.sample(0.0)
    assert one.samples[0][1] > 10
    one.samples = [(float(at), 300 + mebibytes * at, 20 + int(handles * at), 9) for at in range(180)]
    one.samples[100] = (100.0, 900.0, 90, 9)  # a peak
    assert one.grows() == grows


@pytest.mark.parametrize(("samples", "missed"), [(180, 1), (1, 0), (0, 180)])
def test_a_process_without_all_samples_is_lost(samples: int, missed: int) -> None:
    one = Watched("server", psutil.Process(), [(float(at), 300.0, 20, 9) for at in range(samples)])
    for _ in range(missed):
        one.process = Gone()  # type: ignore[assignment]
        one.sample(0.0)
    assert one.problem() == f"server has {samples} samples, and {missed} could not be taken"


class Gone:
    """A process that may not be measured."""

    def oneshot(self) -> None:
        raise psutil.AccessDenied(1)


def test_steps_that_were_not_saved_are_found(tmp_path: Path) -> None:
    state = tmp_path / "run" / "last" / "state.json"
    state.parent.mkdir(parents=True)
    state.write_text('{"step": 50}')
    (tmp_path / "steps").write_text("50")
    assert not unsaved(tmp_path)
    (tmp_path / "steps").write_text("57")
    assert unsaved(tmp_path) == "step 57 was made and step 50 saved"


def test_answers_of_another_size_and_errors_are_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([b'{"results": [%s]}' % b",".join([b"1"] * 12), b'{"results": [1]}', b"{"])
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: io.BytesIO(next(answers)))
    counts = Counts()
    for number in range(3):
        ask("http://nowhere/", number, counts)

    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError("refused")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    ask("http://nowhere/", 3, counts)
    assert counts.answered == 1
    assert [line.partition(":")[0] for line in counts.lost] == ["1 results", "JSONDecodeError", "URLError"]
