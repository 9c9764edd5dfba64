import math
from itertools import permutations

import numpy as np
import pytest
import torch

from tshsr.config.run import LossConfig, OptimiserConfig
from tshsr.errors import CollapseError, DivergenceError
from tshsr.metrics.recall import score_metrics
from tshsr.training.stability import PATIENCE, CollapseWatch, chance_rsum, check_finite
from tshsr.training.trainer import checked_norm

FLAT_SPREAD = 1e-4


def watch(**loss: float) -> CollapseWatch:
    return CollapseWatch(LossConfig(**loss), OptimiserConfig(learning_rate=0.5))


def flat(watched: CollapseWatch, steps: int) -> list[str | None]:
    return [watched.step(FLAT_SPREAD, hardest=True) for _ in range(steps)]


def test_lasting_flatness_warns_once_with_what_to_do() -> None:
    warnings = flat(watch(), PATIENCE + 50)
    assert [number for number, warning in enumerate(warnings, 1) if warning] == [PATIENCE]
    assert warnings[PATIENCE - 1] == (
        "The network has given all pairs the same score for 100 steps (collapse: the loss stays at twice the margin). "
        "Raise loss.warmup_epochs (now 2) or lower optimiser.learning_rate (now 0.5), and train again."
    )


def test_a_collapse_under_infonce_names_no_margin_and_no_warm_up() -> None:
    watched = CollapseWatch(LossConfig(scores="contrastive"), OptimiserConfig(learning_rate=0.5))
    assert flat(watched, PATIENCE)[-1] == (
        "The network has given all pairs the same score for 100 steps (collapse: the loss stays at the logarithm of "
        "the number of pairs). Lower optimiser.learning_rate (now 0.5), and train again."
    )


def test_one_step_with_a_spread_ends_the_count() -> None:
    watched = watch()
    assert not any(flat(watched, PATIENCE - 1))
    assert watched.step(0.1, hardest=True) is None
    assert not any(flat(watched, PATIENCE - 1))


def test_the_warm_up_and_runs_without_reasoned_losses_are_not_watched() -> None:
    warming, pooled = watch(), watch(fused=0, streams=0, levels=0)
    for _ in range(PATIENCE + 1):
        assert warming.step(FLAT_SPREAD, hardest=False) is None
        assert pooled.step(FLAT_SPREAD, hardest=True) is None


def test_training_stops_after_a_flat_epoch_at_chance_only() -> None:
    watched = watch()
    flat(watched, PATIENCE + 9)
    watched.epoch(9.0, 9.6, steps_per_epoch=10)
    flat(watched, 1)
    watched.epoch(300.0, 9.6, steps_per_epoch=10)
    with pytest.raises(
        CollapseError, match=r"same score for 110 steps .* rSum on dev is 9\.0 \(chance is 9\.6\): training stops"
    ):
        watched.epoch(9.0, 9.6, steps_per_epoch=10)


def test_on_a_few_images_a_good_ranking_is_not_chance() -> None:
    watched = watch()
    flat(watched, PATIENCE + 10)
    watched.epoch(500.0, 400.0, steps_per_epoch=10)
    with pytest.raises(CollapseError):
        watched.epoch(410.0, 400.0, steps_per_epoch=10)


def test_chance_is_the_mean_over_all_rankings() -> None:
    image_of_caption = np.array([0, 0, 1])
    hits = [
        [any(image_of_caption[c] == image for c in ranking[:k]) for k in (1, 5, 10)]
        for image in (0, 1)
        for ranking in permutations(range(3))
    ]
    by_image = sum(sum(row) for row in hits) / len(hits)
    assert chance_rsum(image_of_caption, images=2) == pytest.approx(100 * (by_image + 0.5 + 1 + 1))


def test_random_scores_reach_chance() -> None:
    image_of_caption = np.repeat(np.arange(30), 5)
    dice = np.random.default_rng(0)
    rsums = [score_metrics(dice.random((30, 150), np.float32), image_of_caption).rsum for _ in range(200)]
    error = np.std(rsums) / math.sqrt(len(rsums))
    assert np.mean(rsums) == pytest.approx(chance_rsum(image_of_caption, images=30), abs=4 * error)


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (0.4, math.nan)])
def test_numbers_that_are_not_finite_stop_training(loss: float, norm: float) -> None:
    with pytest.raises(
        DivergenceError, match=r"epoch 3, step 7: the loss is .* must be finite, .*stops \(last is kept\)"
    ):
        check_finite(loss, norm, where="epoch 3, step 7", kept="last is kept", rate=0.1)


def test_finite_numbers_pass() -> None:
    check_finite(1e9, 0.0, where="", kept="", rate=0.1)


@pytest.mark.parametrize(("scale", "expected"), [(1024.0, 0.0), (1.0, 0.0), (0.5, math.inf)])
def test_an_infinite_gradient_in_fp16_is_expected_until_the_scale_explains_it_no_more(
    scale: float, expected: float
) -> None:
    infinite = torch.tensor(math.inf)
    assert float(checked_norm(infinite, torch.amp.GradScaler("cpu", init_scale=scale))) == expected
    assert float(checked_norm(infinite, None)) == math.inf
