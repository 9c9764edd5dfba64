"""The mixture that tells right pairs from wrong ones, and the training that weighs captions by it."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from tests.support import oracles, tiny
from tshsr.config.run import LossConfig
from tshsr.training import objective as objective_module
from tshsr.training.losses import hinge
from tshsr.training.noisy_pairs import Mixture, fit_mixture, groups, responsibilities, standing, trust_of
from tshsr.training.objective import Objective

OWNERS = torch.tensor([2, 0, 0, 1, 2, 3])


def drawn(wrong: int, right: int, seed: int = 0) -> np.ndarray:
    """Standings of so many wrong and right pairs."""
    dice = np.random.default_rng(seed)
    return np.concatenate([dice.normal(0.3, 1.0, wrong), dice.normal(2.5, 0.7, right)])


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    """Random unit rows."""
    return normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


@pytest.mark.parametrize("seed", range(20))
def test_a_standing_is_the_formula(seed: int) -> None:
    images, captions = unit(4, 3, seed=seed), unit(6, 3, seed=100 + seed)
    expected = oracles.standings(images.tolist(), captions.tolist(), OWNERS.tolist())
    assert standing(images, captions, OWNERS).tolist() == pytest.approx(expected, rel=1e-9)


def test_random_pairs_stand_at_nought_and_right_ones_above() -> None:
    owners = torch.arange(100).repeat_interleave(5)
    images, noise = unit(100, 30), unit(500, 30, seed=1)
    assert abs(float(standing(images, noise, owners).mean())) < 0.1
    right = normalize(images[owners] + noise, dim=-1)
    assert float(standing(images, right, owners).min()) > 2
    mixed = torch.where(torch.arange(500)[:, None] % 5 < 2, noise, right)  # two of five captions are wrong
    stand = standing(images, mixed, owners).reshape(100, 5)
    assert abs(float(stand[:, :2].mean())) < 0.2
    assert float(stand[:, 2:].mean()) > 3


def test_the_siblings_tell_what_the_image_does_not() -> None:
    owners = torch.arange(100).repeat_interleave(5)
    topics = unit(100, 30, seed=2)
    captions = normalize(topics[owners] + unit(500, 30, seed=3), dim=-1)
    images = normalize(topics + 2 * unit(100, 30, seed=4), dim=-1)  # a poor view of the picture
    wrong = torch.arange(500) % 5 < 2
    captions = torch.where(wrong[:, None], unit(500, 30, seed=5), captions)
    apart = {}
    for name, who in (("both", owners), ("image", torch.arange(500))):
        stand = standing(images[owners] if name == "image" else images, captions, who)
        apart[name] = float((stand[~wrong].mean() - stand[wrong].mean()) / stand.std())
    assert apart["both"] > apart["image"] + 0.2


def test_a_single_caption_is_judged_by_its_image_alone() -> None:
    images, captions = unit(5, 4), unit(5, 4, seed=1)
    scores = images @ captions.T
    stand = standing(images, captions, torch.arange(5))
    first = [scores[0, 0], scores[1:, 0], scores[0, 1:]]
    expected = sum((first[0] - side.mean()) / side.std(correction=0) for side in first[1:]) / 2
    assert stand[0] == pytest.approx(expected.item())


def test_without_anything_to_compare_with_a_standing_is_nought() -> None:
    assert standing(unit(1, 3), unit(3, 3), torch.zeros(3, dtype=torch.int64)).tolist() == [0, 0, 0]
    same = torch.ones(4, 2) / math.sqrt(2)
    assert standing(same, same, torch.arange(4)).tolist() == [0, 0, 0, 0], "a network that has collapsed"


def test_groups_hold_whole_images_and_every_caption_once() -> None:
    owners = np.array([3, 0, 3, 5, 1, 0, 5, 8, 3])
    found = list(groups(owners, 3, seed=[0, 1]))
    assert sorted(np.concatenate(found).tolist()) == list(range(9))
    for group in found:
        assert np.isin(owners, owners[group]).sum() == len(group)
    assert len(found) == 3
    again, other = (list(groups(owners, 3, seed=[0, epoch])) for epoch in (1, 2))
    assert [part.tolist() for part in again] == [part.tolist() for part in found] != [part.tolist() for part in other]
    assert len(list(groups(owners, 20, seed=[0]))) == 5, "none of them is empty"


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


def test_clean_data_are_believed() -> None:
    mixture = fit_mixture(drawn(0, 20_000))
    assert mixture is not None
    assert mixture.means[0] <= mixture.means[1] / 2, "the hold: wrong pairs stand far below right ones"
    assert mixture.right(drawn(0, 20_000, seed=1)).mean() > 0.95


def test_trust_rises_with_the_standing_everywhere() -> None:
    for deviations in ((2.0, 0.5), (0.5, 2.0), (1.0, 1.0)):
        mixture, values = Mixture((0.5, 2.0), deviations, (0.4, 0.6)), np.linspace(-10, 10, 401)
        right = mixture.right(values)
        assert (np.diff(right) >= 0).all()
        assert right[0] < 0.3 < 0.8 < right[-1]
        inside = (values >= 0.5) & (values <= 2.0)
        assert right[inside].tolist() == responsibilities(values[inside], mixture)[1].tolist()


def test_a_network_that_ranks_no_pair_above_a_random_one_tells_nothing() -> None:
    assert fit_mixture(np.full(50, -0.3)) is None
    assert trust_of(torch.zeros(50)).tolist() == [1.0] * 50


def test_pairs_that_all_stand_alike_give_finite_weights() -> None:
    assert trust_of(torch.full((50,), 1.5)).isfinite().all()


def test_the_weighted_hinge_is_the_mean_by_weights() -> None:
    scores, trust = torch.rand(4, 6, dtype=torch.float64), torch.tensor([0.9, 0.5, 1.0, 0.0, 0.2, 1.0])
    alone = [
        hinge(scores, OWNERS, margin=0.2, hardest=True, weights=weight.double()).item()
        for weight in torch.eye(6, dtype=torch.float64)
    ]
    expected = sum(w * each for w, each in zip(trust.tolist(), alone, strict=True)) / float(trust.sum())
    assert hinge(scores, OWNERS, margin=0.2, hardest=True, weights=trust).item() == pytest.approx(expected)
    plain = hinge(scores, OWNERS, margin=0.2, hardest=True)
    torch.testing.assert_close(hinge(scores, OWNERS, margin=0.2, hardest=True, weights=torch.ones(6)), plain)


def test_a_batch_that_is_doubted_as_a_whole_counts_little() -> None:
    scores, few = torch.rand(4, 6), torch.full((6,), 0.01)
    whole = hinge(scores, OWNERS, margin=0.2, hardest=False)
    assert hinge(scores, OWNERS, margin=0.2, hardest=False, weights=few) == pytest.approx(0.06 * whole.item())


@pytest.mark.parametrize("hardest", [True, False])
def test_a_pair_of_weight_nought_has_no_gradient(hardest: bool) -> None:
    scores = torch.rand(4, 6, requires_grad=True)
    trust = torch.tensor([1.0, 1.0, 1.0, 0.0, 1.0, 1.0])
    hinge(scores, OWNERS, margin=0.5, hardest=hardest, weights=trust).backward()
    assert scores.grad is not None
    assert scores.grad[1, 3] == 0, "image 1 has caption 3 alone"
    assert scores.grad[OWNERS, torch.arange(6)].count_nonzero() == 5
    assert scores.grad[:, 3].any(), "it is still a negative of others"


def test_a_pair_below_a_negative_by_more_than_is_credible_teaches_nothing() -> None:
    scores = torch.tensor([[0.5, 0.9], [0.1, 0.45]], requires_grad=True)  # caption 1 stands higher beside image 0
    hinge(scores, torch.tensor([0, 1]), margin=0.2, hardest=True, most=0.3).backward()
    assert scores.grad is not None
    # Caption 0 costs 0 beside image 1 and 0.6 beside caption 1; caption 1 costs 0.65 and 0: all that costs is too much.
    assert scores.grad.count_nonzero() == 0
    scores.grad = None
    hinge(scores, torch.tensor([0, 1]), margin=0.2, hardest=True, most=0.62).backward()
    assert scores.grad.tolist() == [[-0.5, 0.5], [0.0, 0.0]]


def test_the_more_is_doubted_the_less_is_credible() -> None:
    gaps = [objective_module.credible_gap(torch.tensor(trust)).item() for trust in ([1.0, 1.0], [0.9, 0.7], [0.2, 0.0])]
    assert gaps[1:] == [pytest.approx(0.04 / 0.2), pytest.approx(0.04 / 0.9)]
    assert gaps[0] > 1000, "all are believed, whatever they cost"


@pytest.mark.parametrize("candidates", [0, 2])
@pytest.mark.parametrize("hardest", [True, False])
def test_the_objective_weighs_every_hinge(candidates: int, hardest: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    network, owners = tiny.network(), torch.tensor([0, 1, 2, 2])
    objective = Objective(network, LossConfig(), candidates)
    batch = (tiny.images(3), tiny.captions((4, 1, 6, 2)), owners)
    plain = objective(*batch, hardest=hardest, seed=3)
    monkeypatch.setattr(objective_module, "CREDIBLE_GAP", 2.0)  # no two scores differ by more
    believed = objective(*batch, hardest=hardest, seed=3, trust=torch.ones(4))
    assert "trust" not in plain
    assert float(believed.pop("trust")) == 1.0
    for name, value in plain.items():
        torch.testing.assert_close(believed[name], value)
    monkeypatch.setattr(objective_module, "CREDIBLE_GAP", -0.2)  # whoever costs anything is doubted, the hardest alone
    doubted = objective(*batch, hardest=hardest, seed=3, trust=torch.ones(4))
    assert (doubted["loss"].item() == 0) is hardest
    doubted = objective(*batch, hardest=hardest, seed=3, trust=torch.zeros(4))
    assert [doubted[name].item() for name in ("loss", "fused", "pooled")] == [0.0, 0.0, 0.0]


def test_a_weight_is_the_probability_that_the_pair_is_right() -> None:
    mixture = Mixture((0.0, 2.0), (1.0, 1.0), (0.5, 0.5))
    assert mixture.right(np.array([1.0, 0.0])) == pytest.approx([0.5, 1 / (1 + math.exp(2))])
    values = drawn(400, 600)
    fitted = fit_mixture(values)
    assert fitted is not None
    right = fitted.right(values)
    assert trust_of(torch.from_numpy(values)).numpy() == pytest.approx(right, abs=1e-6)
    assert 0 < (right <= 0.5).mean() < 1
