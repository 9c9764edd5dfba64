"""Memory that runs out in training, as a sentence that names the settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tshsr.config.run import TrainingConfig
from tshsr.errors import SettingsError
from tshsr.scoring.all_pairs import is_out_of_memory


@contextmanager
def memory_explained(training: TrainingConfig, kept: str) -> Iterator[None]:
    """Translate failed allocations of the steps of training.

    Args:
        training: Its settings that decide on the memory of a step are named.
        kept: The saved state, for the message.

    Raises:
        SettingsError: Where an allocation fails in the block; other errors pass.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        less = f"lower training.batch (now {training.batch})"
        if not training.candidates:
            less += " or set training.candidates (now 0, which scores all pairs of a batch)"
        raise SettingsError(
            f"a step of training needs more memory than there is ({type(error).__name__}); {less}, and train again "
            f"into another --out ({kept})."
        ) from error
