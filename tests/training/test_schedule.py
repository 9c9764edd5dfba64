import math

import pytest

from tshsr.config.run import LossConfig, OptimiserConfig
from tshsr.training.trainer import learning_rate, uses_hardest


def rates(config: OptimiserConfig, steps: list[int], *, steps_per_epoch: int = 10, epochs: int = 4) -> list[float]:
    return [learning_rate(config, step, steps_per_epoch=steps_per_epoch, epochs=epochs) for step in steps]


def test_the_step_schedule_multiplies_from_its_epoch_on() -> None:
    config = OptimiserConfig(learning_rate=2e-4, schedule="step", decay=0.1, decay_epoch=2)
    assert rates(config, [0, 19, 20, 39]) == pytest.approx([2e-4, 2e-4, 2e-5, 2e-5])


def test_the_step_may_lie_within_an_epoch() -> None:
    config = OptimiserConfig(learning_rate=1.0, schedule="step", decay=0.5, decay_epoch=1.5)
    assert rates(config, [14, 15]) == [1.0, 0.5]


def test_the_cosine_falls_from_the_rate_to_zero_over_all_epochs() -> None:
    config = OptimiserConfig(learning_rate=2.0, schedule="cosine")
    assert rates(config, [0, 10, 20, 30]) == pytest.approx([2.0, 1 + math.sqrt(0.5), 1.0, 1 - math.sqrt(0.5)])
    assert 0 < rates(config, [39])[0] < 0.01


def test_the_constant_schedule_is_constant() -> None:
    assert rates(OptimiserConfig(learning_rate=0.3, schedule="constant"), [0, 7, 39]) == [0.3] * 3


def test_the_warm_up_rises_linearly_and_never_stands_at_zero() -> None:
    config = OptimiserConfig(learning_rate=1.0, schedule="constant", warmup_steps=4)
    assert rates(config, [0, 1, 2, 3, 4]) == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_the_warm_up_multiplies_the_schedule() -> None:
    config = OptimiserConfig(learning_rate=1.0, schedule="step", decay=0.1, decay_epoch=0, warmup_steps=2)
    assert rates(config, [0, 1]) == pytest.approx([0.05, 0.1])


def test_hardest_negatives_count_after_the_warm_up_epochs() -> None:
    config = LossConfig(warmup_epochs=1.5)
    assert [uses_hardest(config, step, steps_per_epoch=10) for step in (0, 14, 15, 99)] == [False, False, True, True]
    assert uses_hardest(LossConfig(warmup_epochs=0), 0, steps_per_epoch=10)
