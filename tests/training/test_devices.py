from collections.abc import Iterator

import pytest
import torch

from tests.support.small_runs import small_config
from tshsr.errors import SettingsError
from tshsr.scoring.processes import launched_processes
from tshsr.training.fit import make_accelerator, reproducible


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_gradients_of_a_gather_do_not_depend_on_the_timing_of_threads() -> None:
    # Outside of `reproducible`, ten of these gave ten different sums on the machine where this was written.
    rows, gradient = torch.randint(0, 3, (100_000,)), torch.randn(100_000, 32)
    sums = set()
    with reproducible(torch.device("cpu")):
        for _ in range(5):
            table = torch.zeros(3, 32, requires_grad=True)
            table[rows].backward(gradient)
            assert table.grad is not None
            sums.add(table.grad.numpy().tobytes())
    assert len(sums) == 1


def test_the_callers_generator_and_mode_come_back_after_an_error() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with pytest.raises(ZeroDivisionError), reproducible(torch.device("cpu")):
        torch.manual_seed(1 // 0)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_deterministic_debug_mode() == 0


def test_precisions_may_alternate_in_one_program() -> None:
    for precision in ("bf16", "no", "bf16"):
        assert make_accelerator(small_config(precision=precision), "cpu").mixed_precision == precision


def test_a_precision_or_device_that_is_not_here_is_refused() -> None:
    with pytest.raises(
        SettingsError, match=r"training\.precision 'fp16' needs a GPU, and this is a CPU; choose no or bf16"
    ):
        make_accelerator(small_config(precision="fp16"), "cpu")
    with pytest.raises(SettingsError, match=r"device 'tpu' is not available here, but '(cpu|cuda|mps)' is; choose it"):
        make_accelerator(small_config(), "tpu")


def test_the_environment_does_not_change_the_batches_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    assert make_accelerator(small_config(accumulate=2), "cpu").gradient_accumulation_steps == 2


@pytest.mark.parametrize(
    ("size", "rank", "message"),
    [
        ("2", None, "WORLD_SIZE is 2, but RANK, LOCAL_RANK, MASTER_ADDR are not as torchrun sets them; start the"),
        ("2", "one", "WORLD_SIZE is 2, but RANK, LOCAL_RANK, MASTER_ADDR are not"),
        ("", None, "WORLD_SIZE is ''; expected the number of processes, as torchrun sets it: start the"),
        ("0", None, "WORLD_SIZE is '0'; expected"),
    ],
)
def test_an_incomplete_environment_of_torchrun_is_named(
    monkeypatch: pytest.MonkeyPatch, size: str, rank: str | None, message: str
) -> None:
    for name, value in (("WORLD_SIZE", size), ("RANK", rank), ("LOCAL_RANK", None), ("MASTER_ADDR", None)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=message):
        make_accelerator(small_config(), "cpu")
    with pytest.raises(SettingsError, match=message), launched_processes("cpu"):
        pass
