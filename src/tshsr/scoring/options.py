"""Options of scoring: memory, device, precision, storage of the matrices."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from tshsr.errors import SettingsError
from tshsr.scoring.processes import ALONE, Processes
from tshsr.system import Progress, no_progress

KernelName = Literal["eager", "triton", "auto"]
BYTE_BUDGET = 2**30
"""Default bound on a tile's temporaries, in bytes."""


@dataclass(frozen=True)
class ScoringOptions:
    """Options of scoring a split.

    Attributes:
        byte_budget: Bound on a tile's temporaries, and on cached caption encodings, in bytes each. Score matrices in
            memory are extra: 4 bytes per pair, score name and model.
        device: None: the device of the network.
        dtype: Precision of scoring; encoding keeps the network's. None: the network's.
        folder: Existing folder of the score matrices, NAME.npy; None: in memory.
        progress: Called with (pairs scored, pairs in total) after each block; of several processes those of this one.
        kernel: How all pairs are scored: by the modules of the network (eager); by fused kernels on a CUDA device, with
            an error where they do not apply (triton); by the kernels where they apply, else by the modules (auto).
        processes: Those that share the captions; they need a folder, on a disk that all of them have.

    Raises:
        SettingsError: Where there are several processes and no folder, or this one does not find it.
    """

    byte_budget: int = BYTE_BUDGET
    device: torch.device | str | None = None
    dtype: torch.dtype | None = None
    folder: Path | None = None
    progress: Progress = no_progress
    kernel: KernelName = "eager"
    processes: Processes = ALONE

    def __post_init__(self) -> None:
        if self.processes.count > 1 and (self.folder is None or not self.folder.is_dir()):
            raise SettingsError(
                f"process {self.processes.index} of {self.processes.count} finds no folder {self.folder}; several "
                "processes join their scores in one that all of them have: name it by --scores-folder."
            )


DEFAULT_OPTIONS = ScoringOptions()
"""Default budget, the network's device and precision, matrices in memory."""
