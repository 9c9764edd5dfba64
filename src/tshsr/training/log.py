"""Log of a run: `log.jsonl`, one JSON object per line, and the same figures as TensorBoard events.

A line of kind `steps` has means over the steps since the previous one; a line of kind `epoch` has the figures on dev.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from tshsr.errors import parse_json
from tshsr.files import explained, write_text
from tshsr.metrics.report import Report, metrics_to_json

LOG = "log.jsonl"
TENSORBOARD = "tensorboard"
EVERY = 50
"""Steps per line."""


class Journal:
    """Writes the log of a run; on resuming, lines after the resumed step are dropped.

    Args:
        window: Sums of values over the steps since the last line, from the saved state.
    """

    def __init__(self, folder: Path, step: int, window: Mapping[str, float]) -> None:
        self.path = folder / LOG
        self.window = dict(window)
        write_text(self.path, "".join(lines_until(self.path, step)))
        with explained(self.path):
            self.board = SummaryWriter(str(folder / TENSORBOARD), purge_step=step + 1 if step else None)

    def step(self, epoch: int, step: int, values: Mapping[str, float], *, epoch_ends: bool, seconds: float) -> None:
        """Add one step; write a line every EVERY steps and at the end of an epoch.

        Args:
            epoch: 1-based.
            values: Losses and learning rate of the step.
            epoch_ends: Whether this is the last step of the epoch.
        """
        for name, value in {**values, "steps": 1.0}.items():
            self.window[name] = self.window.get(name, 0.0) + value
        if not epoch_ends and step % EVERY:
            return
        steps = self.window.pop("steps")
        means = {name: total / steps for name, total in self.window.items()}
        self.window = {}
        self._line({"kind": "steps", "epoch": epoch, "step": step, **means, "seconds": seconds})
        for name, value in means.items():
            self.board.add_scalar(f"train/{name}", value, step)

    def epoch(self, epoch: int, step: int, report: Report, *, best: bool, seconds: float) -> None:
        """Write the figures on dev after an epoch."""
        scores = {name: metrics_to_json(metrics) for name, metrics in report.scores.items()}
        values = {"kind": "epoch", "epoch": epoch, "step": step, "best": best, "scores": scores, "seconds": seconds}
        self._line(values)
        for name, metrics in report.scores.items():
            self.board.add_scalar(f"dev/{name}", metrics.rsum, step)

    def close(self) -> None:
        """Flush and close the TensorBoard writer."""
        self.board.close()

    def _line(self, values: dict[str, Any]) -> None:
        with explained(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")
            file.flush()
            os.fsync(file.fileno())  # a saved state must never be ahead of the log


def lines_until(path: Path, step: int) -> list[str]:
    """Complete lines of a log up to a step; drops those that a killed process wrote after its last save."""
    if not path.is_file():
        return []
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        try:
            values = parse_json(line)
        except ValueError:
            continue  # incomplete: the process was killed
        done = values.get("step") if isinstance(values, dict) else None
        if line.endswith("\n") and isinstance(done, int) and done <= step:
            kept.append(line)
    return kept
