"""Match z-scores, the mixture over them, and the losses weighted by it."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from tests.support import oracles, tiny
from tests.support.small_runs import small_config, small_split, with_loss
from tshsr.config.run import LossConfig
from tshsr.scoring.processes import ALONE
from tshsr.training import noisy_pairs
from tshsr.training import objective as objective_module
from tshsr.training.batching import Reader, TrainingBatch
from tshsr.training.completion import make_tokenizer
from tshsr.training.losses import hinge
from tshsr.training.noisy_pairs import (
    Mixture,
    NoisyPairWeights,
    clean_probabilities,
    fit_mixture,
    image_groups,
    match_zscore,
    responsibilities,
)
from tshsr.training.objective import Objective

IMAGE_OF_CAPTION = torch.tensor([2, 0, 0, 1, 2, 3])


def drawn(wrong: int, right: int, seed: int = 0) -> np.ndarray:
    """Random z-scores of wrong pairs, then of right pairs."""
    generator = np.random.default_rng(seed)
    return np.concatenate([generator.normal(0.3, 1.0, wrong), generator.normal(2.5, 0.7, right)])


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    """Random unit rows."""
    return normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


@pytest.mark.parametrize("seed", range(20))
def test_a_match_zscore_is_the_formula(seed: int) -> None:
    images, captions = unit(4, 3, seed=seed), unit(6, 3, seed=100 + seed)
    expected = oracles.match_zscores(images.tolist(), captions.tolist(), IMAGE_OF_CAPTION.tolist())
    assert match_zscore(images, captions, IMAGE_OF_CAPTION).tolist() == pytest.approx(expected, rel=1e-9)


def test_random_pairs_have_mean_zscore_zero_and_right_ones_above() -> None:
    image_of_caption = torch.arange(100).repeat_interleave(5)
    images, noise = unit(100, 30), unit(500, 30, seed=1)
    assert abs(float(match_zscore(images, noise, image_of_caption).mean())) < 0.1
    right = normalize(images[image_of_caption] + noise, dim=-1)
    assert float(match_zscore(images, right, image_of_caption).min()) > 2
    mixed = torch.where(torch.arange(500)[:, None] % 5 < 2, noise, right)  # two of five captions are wrong
    zscores = match_zscore(images, mixed, image_of_caption).reshape(100, 5)
    assert abs(float(zscores[:, :2].mean())) < 0.2
    assert float(zscores[:, 2:].mean()) > 3


def test_sibling_captions_separate_pairs_that_the_image_does_not() -> None:
    image_of_caption = torch.arange(100).repeat_interleave(5)
    topics = unit(100, 30, seed=2)
    captions = normalize(topics[image_of_caption] + unit(500, 30, seed=3), dim=-1)
    images = normalize(topics + 2 * unit(100, 30, seed=4), dim=-1)  # a poor view of the picture
    wrong = torch.arange(500) % 5 < 2
    captions = torch.where(wrong[:, None], unit(500, 30, seed=5), captions)
    apart = {}
    for name, who in (("both", image_of_caption), ("image", torch.arange(500))):
        zscores = match_zscore(images[image_of_caption] if name == "image" else images, captions, who)
        apart[name] = float((zscores[~wrong].mean() - zscores[wrong].mean()) / zscores.std())
    assert apart["both"] > apart["image"] + 0.2


def test_a_single_caption_has_the_zscore_by_its_image() -> None:
    images, captions = unit(5, 4), unit(5, 4, seed=1)
    scores = images @ captions.T
    zscores = match_zscore(images, captions, torch.arange(5))
    first = [scores[0, 0], scores[1:, 0], scores[0, 1:]]
    expected = sum((first[0] - side.mean()) / side.std(correction=0) for side in first[1:]) / 2
    assert zscores[0] == pytest.approx(expected.item())


def test_without_negatives_a_match_zscore_is_zero() -> None:
    assert match_zscore(unit(1, 3), unit(3, 3), torch.zeros(3, dtype=torch.int64)).tolist() == [0, 0, 0]
    same = torch.ones(4, 2) / math.sqrt(2)
    assert match_zscore(same, same, torch.arange(4)).tolist() == [0, 0, 0, 0], "a network that has collapsed"


def test_groups_hold_whole_images_and_every_caption_once() -> None:
    image_of_caption = np.array([3, 0, 3, 5, 1, 0, 5, 8, 3])
    found = list(image_groups(image_of_caption, 3, seed=[0, 1]))
    assert sorted(np.concatenate(found).tolist()) == list(range(9))
    for group in found:
        assert np.isin(image_of_caption, image_of_caption[group]).sum() == len(group)
    assert len(found) == 3
    again, other = (list(image_groups(image_of_caption, 3, seed=[0, epoch])) for epoch in (1, 2))
    assert [part.tolist() for part in again] == [part.tolist() for part in found] != [part.tolist() for part in other]
    assert len(list(image_groups(image_of_caption, 20, seed=[0]))) == 5, "no empty group"


def test_responsibilities_are_those_of_the_plain_formula() -> None:
    mixture = Mixture((0.2, 2.0), (0.9, 0.5), (0.3, 0.7))
    values = np.linspace(-3, 4, 15)
    for value, (wrong, right) in zip(values, responsibilities(values, mixture).T, strict=True):
        expected = oracles.responsibilities(value, mixture.means, mixture.deviations, mixture.shares)
        assert (wrong, right) == pytest.approx(expected, rel=1e-12)


def test_the_fit_is_that_of_the_plain_one() -> None:
    values = drawn(60, 90)
    mixture = fit_mixture(values)
    assert mixture is not None
    means, deviations, shares = oracles.mixture(values.tolist(), rounds=200)
    assert mixture.means == pytest.approx(means, abs=1e-9)
    assert mixture.deviations == pytest.approx(deviations, abs=1e-9)
    assert mixture.shares == pytest.approx(shares, abs=1e-9)


@pytest.mark.parametrize("share", [0.2, 0.4, 0.6, 0.8])
def test_the_fit_finds_both_kinds_of_pairs(share: float) -> None:
    wrong = int(20_000 * share)
    mixture = fit_mixture(drawn(wrong, 20_000 - wrong))
    assert mixture is not None
    assert mixture.means == pytest.approx((0.3, 2.5), abs=0.15)  # few right ones are the hardest to place
    assert mixture.deviations == pytest.approx((1.0, 0.7), abs=0.1)
    assert mixture.shares[0] == pytest.approx(share, abs=0.05)


def test_clean_data_keep_their_weight() -> None:
    mixture = fit_mixture(drawn(0, 20_000))
    assert mixture is not None
    assert mixture.means[0] <= mixture.means[1] / 2, "the bound on the mean of wrong pairs"
    assert mixture.clean_probability(drawn(0, 20_000, seed=1)).mean() > 0.95


def test_the_clean_probability_never_falls_with_the_zscore() -> None:
    for deviations in ((2.0, 0.5), (0.5, 2.0), (1.0, 1.0)):
        mixture, values = Mixture((0.5, 2.0), deviations, (0.4, 0.6)), np.linspace(-10, 10, 401)
        right = mixture.clean_probability(values)
        assert (np.diff(right) >= 0).all()
        assert right[0] < 0.3 < 0.8 < right[-1]
        inside = (values >= 0.5) & (values <= 2.0)
        assert right[inside].tolist() == responsibilities(values[inside], mixture)[1].tolist()


def test_an_untrained_network_leaves_all_weights_one() -> None:
    assert fit_mixture(np.full(50, -0.3)) is None
    assert clean_probabilities(torch.zeros(50)).tolist() == [1.0] * 50


def test_equal_zscores_give_finite_weights() -> None:
    assert clean_probabilities(torch.full((50,), 1.5)).isfinite().all()


def test_the_weighted_hinge_is_the_mean_by_weights() -> None:
    scores, weights = torch.rand(4, 6, dtype=torch.float64), torch.tensor([0.9, 0.5, 1.0, 0.0, 0.2, 1.0])
    alone = [
        hinge(scores, IMAGE_OF_CAPTION, margin=0.2, hardest=True, weights=weight.double()).item()
        for weight in torch.eye(6, dtype=torch.float64)
    ]
    expected = sum(w * each for w, each in zip(weights.tolist(), alone, strict=True)) / float(weights.sum())
    assert hinge(scores, IMAGE_OF_CAPTION, margin=0.2, hardest=True, weights=weights).item() == pytest.approx(expected)
    plain = hinge(scores, IMAGE_OF_CAPTION, margin=0.2, hardest=True)
    torch.testing.assert_close(hinge(scores, IMAGE_OF_CAPTION, margin=0.2, hardest=True, weights=torch.ones(6)), plain)


def test_a_batch_of_low_weights_has_a_low_loss() -> None:
    scores, few = torch.rand(4, 6), torch.full((6,), 0.01)
    whole = hinge(scores, IMAGE_OF_CAPTION, margin=0.2, hardest=False)
    assert hinge(scores, IMAGE_OF_CAPTION, margin=0.2, hardest=False, weights=few) == pytest.approx(0.06 * whole.item())


@pytest.mark.parametrize("hardest", [True, False])
def test_a_pair_of_weight_zero_has_no_gradient(hardest: bool) -> None:
    scores = torch.rand(4, 6, requires_grad=True)
    weights = torch.tensor([1.0, 1.0, 1.0, 0.0, 1.0, 1.0])
    hinge(scores, IMAGE_OF_CAPTION, margin=0.5, hardest=hardest, weights=weights).backward()
    assert scores.grad is not None
    assert scores.grad[1, 3] == 0, "image 1 has caption 3 alone"
    assert scores.grad[IMAGE_OF_CAPTION, torch.arange(6)].count_nonzero() == 5
    assert scores.grad[:, 3].any(), "it is still a negative of others"


def test_a_cost_above_the_bound_has_no_gradient() -> None:
    scores = torch.tensor([[0.5, 0.9], [0.1, 0.45]], requires_grad=True)  # caption 1 scores higher with image 0
    hinge(scores, torch.tensor([0, 1]), margin=0.2, hardest=True, max_cost=0.3).backward()
    assert scores.grad is not None
    # Caption 0 costs 0 against image 1 and 0.6 against caption 1; caption 1 costs 0.65 and 0: above the bound, or 0.
    assert scores.grad.count_nonzero() == 0
    scores.grad = None
    hinge(scores, torch.tensor([0, 1]), margin=0.2, hardest=True, max_cost=0.62).backward()
    assert scores.grad.tolist() == [[-0.5, 0.5], [0.0, 0.0]]


def test_the_bound_falls_with_the_mean_weight() -> None:
    gaps = [objective_module.max_gap(torch.tensor(weights)).item() for weights in ([1.0, 1.0], [0.9, 0.7], [0.2, 0.0])]
    assert gaps[1:] == [pytest.approx(0.04 / 0.2), pytest.approx(0.04 / 0.9)]
    assert gaps[0] > 1000, "no bound where all weights are 1"


@pytest.mark.parametrize("candidates", [0, 2])
@pytest.mark.parametrize("hardest", [True, False])
def test_the_objective_weighs_every_hinge(candidates: int, hardest: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    network, image_of_caption = tiny.network(), torch.tensor([0, 1, 2, 2])
    objective = Objective(network, LossConfig(), candidates)
    batch = (tiny.images(3), tiny.captions((4, 1, 6, 2)), image_of_caption)
    plain = objective(*batch, hardest=hardest, seed=3)
    monkeypatch.setattr(objective_module, "MAX_GAP", 2.0)  # no two scores differ by more
    trusted = objective(*batch, hardest=hardest, seed=3, weights=torch.ones(4))
    assert "trust" not in plain
    assert float(trusted.pop("trust")) == 1.0
    for name, value in plain.items():
        torch.testing.assert_close(trusted[name], value)
    monkeypatch.setattr(
        objective_module, "MAX_GAP", -0.2
    )  # every cost above 0 is above the bound, which applies to hardest negatives alone
    rejected = objective(*batch, hardest=hardest, seed=3, weights=torch.ones(4))
    assert (rejected["loss"].item() == 0) is hardest
    rejected = objective(*batch, hardest=hardest, seed=3, weights=torch.zeros(4))
    assert [rejected[name].item() for name in ("loss", "fused", "pooled")] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(("hardest", "bound"), [(True, 0.3 + 0.04 / 0.2), (False, math.inf)])
def test_the_bound_of_a_cost_is_that_of_the_gap_and_the_margin(
    hardest: bool, bound: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds = []

    def recorded(scores: torch.Tensor, **given: Any) -> torch.Tensor:
        bounds.append(float(given["max_cost"]))
        return hinge(scores, **given)

    monkeypatch.setattr(objective_module, "hinge", recorded)
    objective = Objective(tiny.network(), LossConfig(margin=0.3, streams=0.0, levels=0.0, pooled=1.0))
    batch = (tiny.images(3), tiny.captions((4, 1, 6, 2)), torch.tensor([0, 1, 2, 2]))
    objective(*batch, hardest=hardest, seed=3, weights=torch.tensor([1.0, 0.9, 0.8, 0.5]))
    assert bounds == pytest.approx([bound] * 2), "of the fused score, and of v·t"


def test_a_weight_is_the_probability_that_the_pair_is_right() -> None:
    mixture = Mixture((0.0, 2.0), (1.0, 1.0), (0.5, 0.5))
    assert mixture.clean_probability(np.array([1.0, 0.0])) == pytest.approx([0.5, 1 / (1 + math.exp(2))])
    values = drawn(400, 600)
    fitted = fit_mixture(values)
    assert fitted is not None
    right = fitted.clean_probability(values)
    assert clean_probabilities(torch.from_numpy(values)).numpy() == pytest.approx(right, abs=1e-6)
    assert 0 < (right <= 0.5).mean() < 1


def test_zscores_are_a_running_mean_over_the_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, config = small_split(tmp_path, "train"), with_loss(small_config(), robust="mixture", warmup_epochs=1)
    pair_weights = NoisyPairWeights(config, Reader(train, make_tokenizer(config, train)))
    found = []
    for epoch, zscore in enumerate((8.0, 4.0, 1.0, 3.0)):

        def constant(_: object, batch: TrainingBatch, zscore: float = zscore) -> torch.Tensor:
            return torch.full((len(batch.numbers),), zscore)

        monkeypatch.setattr(noisy_pairs, "batch_zscores", constant)
        pair_weights.update(tiny.network(), ALONE, epoch)
        found.append(None if pair_weights.zscores is None else pair_weights.zscores.unique().tolist())
    assert found == [None, [4.0], [2.5], [2.75]], "none in the warm-up, then half of the former mean"
