"""The processes of a job under torchrun or accelerate launch: shares of its work, and exchange between them.

Every operation is collective: all processes call it, in the same order.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from tshsr.errors import ProcessError, SettingsError

Value = TypeVar("Value")
CPU = torch.device("cpu")
WAIT_AT_MOST = timedelta(hours=12)
"""Longest time for which a process waits for the others."""
SIZE = "WORLD_SIZE"
"""Environment variable with the number of processes."""


@dataclass(frozen=True)
class Share:
    """The rows of a list that one process works on.

    Attributes:
        rows: The rows, consecutive.
        sizes: For each process the number of results that it contributes; their sum is the length of the list.
        divided: False where every process works on all rows (there are fewer rows than processes), and the first
            process contributes all results.
    """

    rows: slice
    sizes: tuple[int, ...]
    divided: bool


@dataclass(frozen=True)
class Processes:
    """The processes of a job, and which of them this one is.

    Attributes:
        index: Number of this process, 0-based; process 0 is the main one.
        device: Where tensors must be for an exchange.
    """

    index: int = 0
    count: int = 1
    device: torch.device = CPU

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes logs, checkpoints and reports."""
        return self.index == 0

    def share(self, total: int) -> Share:
        """This process's share of `total` rows; the sizes of two shares differ by one at most."""
        if total < self.count:
            return Share(slice(0, total), (total, *(0,) * (self.count - 1)), divided=False)
        least, more = divmod(total, self.count)
        sizes = tuple(least + (number < more) for number in range(self.count))
        start = sum(sizes[: self.index])
        return Share(slice(start, start + sizes[self.index]), sizes, divided=self.count > 1)

    def gather(self, own: Tensor, sizes: tuple[int, ...]) -> Tensor:
        """The rows of all processes, without a gradient, in the order of the processes.

        Args:
            own: This process's rows; the other axes are those of all processes.
            sizes: Number of rows of each process.

        Raises:
            ProcessError: Where another process was lost.
        """
        if self.count == 1:
            return own
        padded = own.new_zeros((max(sizes), *own.shape[1:]))
        if not padded.numel():
            return own
        padded[: len(own)] = own
        raw = padded.view(torch.uint8).flatten()  # bytes, so that every precision can be exchanged
        found = [torch.empty_like(raw) for _ in range(self.count)]
        with self._exchange():
            dist.all_gather(found, raw)
        parts = [each.view(own.dtype).view(padded.shape)[:size] for each, size in zip(found, sizes, strict=True)]
        return torch.cat(parts)

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, without a gradient.

        Raises:
            ProcessError: Where another process was lost.
        """
        return self._reduced(values, dist.ReduceOp.SUM)

    def largest(self, values: Tensor) -> Tensor:
        """The maximum over all processes, entry by entry.

        Raises:
            ProcessError: Where another process was lost.
        """
        return self._reduced(values, dist.ReduceOp.MAX)

    def _reduced(self, values: Tensor, operation: dist.ReduceOp.RedOpType) -> Tensor:
        if self.count == 1:
            return values
        result = values.detach().clone(memory_format=torch.contiguous_format)
        with self._exchange():
            dist.all_reduce(result, operation)
        return result

    def from_main(self, value: Value, *, of: int = 0) -> Value:
        """The value that the main process has, or process `of`; it must be picklable.

        Raises:
            ProcessError: Where another process was lost.
        """
        if self.count == 1:
            return value
        box = [value if self.index == of else None]
        with self._exchange():
            dist.broadcast_object_list(box, of, device=self.device)
        return box[0]  # type: ignore[return-value]  # that process put a value into it

    def wait(self) -> None:
        """Wait until every process has come here.

        Raises:
            ProcessError: Where another process was lost.
        """
        if self.count > 1:
            self.sum(torch.zeros(1, device=self.device))
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)

    @contextmanager
    def _exchange(self) -> Iterator[None]:
        """Translate errors of an exchange."""
        try:
            yield
        except RuntimeError as error:
            reason = " ".join(str(error).split()).partition(". ")[0]  # its next sentences are about other programs
            raise ProcessError(
                f"process {self.index} of {self.count} lost another one ({reason}); the messages of the others say "
                "why. Run this again; training continues with --resume."
            ) from error


ALONE = Processes()
"""A job of a single process."""


def launched() -> int:
    """The number of processes that torchrun or accelerate launch has started, from their environment variables.

    Raises:
        SettingsError: Where these are incomplete or no numbers.
    """
    if dist.is_initialized():
        return dist.get_world_size()
    size = os.environ.get(SIZE, "1")
    if not size.isdecimal() or int(size) < 1:
        raise SettingsError(
            f"{SIZE} is {size!r}; expected the number of processes, as torchrun sets it: start the command by "
            "torchrun, or unset it."
        )
    wrong = [name for name in ("RANK", "LOCAL_RANK") if not os.environ.get(name, "").isdecimal()]
    wrong += [name for name in ("MASTER_ADDR",) if not os.environ.get(name)]
    if int(size) > 1 and wrong:
        raise SettingsError(
            f"{SIZE} is {size}, but {', '.join(wrong)} are not as torchrun sets them; start the command by torchrun, "
            f"or unset {SIZE}."
        )
    return int(size)


@contextmanager
def launched_processes(device: str) -> Iterator[Processes]:
    """The processes of a command that torchrun or accelerate launch started; `ALONE` otherwise.

    Args:
        device: "cpu" or "cuda"; with CUDA each process of a machine has a GPU of its own.

    Raises:
        SettingsError: As `launched`.
    """
    if launched() == 1:
        yield ALONE
        return
    from accelerate import PartialState

    own = not dist.is_initialized()
    state = PartialState(cpu=device == "cpu", timeout=WAIT_AT_MOST)
    yield Processes(state.process_index, state.num_processes, state.device)
    if own:  # not after an error: the others are not there any more
        dist.destroy_process_group()
