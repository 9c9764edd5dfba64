"""Memory that runs out in training, as a sentence that names the settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tshsr.config.run import TrainingConfig
from tshsr.errors import SettingsError
from tshsr.scoring.all_pairs import is_out_of_memory


@contextmanager
def memory_explained(work: str, less: str, kept: str) -> Iterator[None]:
    """Translate failed allocations of training.

    Args:
        work: What the block does, as the subject of the message.
        less: What to do for it to need less memory, with the settings that decide on it.
        kept: The saved state, for the message.

    Raises:
        SettingsError: Where an allocation fails in the block; other errors pass.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise SettingsError(
            f"{work} needs more memory than there is ({type(error).__name__}); {less}, and train again into another "
            f"--out ({kept})."
        ) from error


def smaller_steps(training: TrainingConfig) -> str:
    """What to do for a step of training to need less memory."""
    less = f"lower training.batch (now {training.batch})"
    if not training.candidates:
        less += " or set training.candidates (now 0, which scores all pairs of a batch)"
    return less
