"""Each loss against its definition, written out target by target in plain Python."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from scripts.training.losses import _softmax_of_scores, cross_entropy, gbce
from scripts.training.negatives import NegativeSampler, NegativeSource
from scripts.training.sampled_softmax import sampled_softmax

NUM_ITEMS, NUM_TARGETS = 7, 4


@pytest.fixture
def drawn() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(NUM_TARGETS, 3, generator=generator)
    items = torch.randn(NUM_ITEMS + 1, 3, generator=generator)
    targets = torch.tensor([1, 7, 3, 3])
    negatives = torch.tensor([3, 5, 5, 2])  # 3 is the target of two positions, 5 was drawn twice
    return states, targets, items, negatives


def scores_of(states: Tensor, items: Tensor, row: int, indices: list[int]) -> list[float]:
    return [float(sum(a * b for a, b in zip(states[row], items[index], strict=True))) for index in indices]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_cross_entropy_is_the_log_of_the_targets_share_of_the_catalogue(drawn: tuple[Tensor, ...]) -> None:
    states, targets, items, _ = drawn
    total = 0.0
    for row, target in enumerate(targets.tolist()):
        exponentials = [math.exp(score) for score in scores_of(states, items, row, list(range(1, NUM_ITEMS + 1)))]
        total -= math.log(exponentials[target - 1] / sum(exponentials))
    loss = cross_entropy(states, targets, items)
    assert float(loss) == pytest.approx(total / NUM_TARGETS, rel=1e-5)


@pytest.mark.parametrize("corrections", [[0.0] * 4, [0.5, -1.0, -1.0, 2.0]])
def test_sampled_softmax_is_the_log_of_the_targets_share_of_the_sample(
    drawn: tuple[Tensor, ...], corrections: list[float]
) -> None:
    """Each negative's score is corrected, the target's own is not."""
    states, targets, items, negatives = drawn
    total = 0.0
    for row, target in enumerate(targets.tolist()):
        others = [
            (index, added) for index, added in zip(negatives.tolist(), corrections, strict=True) if index != target
        ]
        scores = scores_of(states, items, row, [target, *(index for index, _ in others)])
        exponentials = [
            math.exp(score + added) for score, added in zip(scores, [0, *(a for _, a in others)], strict=True)
        ]
        total -= math.log(exponentials[0] / sum(exponentials))
    loss = sampled_softmax(states, targets, items, negatives, corrections_N=torch.tensor(corrections))
    assert float(loss) == pytest.approx(total / NUM_TARGETS, rel=1e-5)


def test_gradient_of_sampled_softmax_is_that_of_the_plain_formula() -> None:
    """By torch's own differentiation, over more targets than one chunk holds; every item is target and negative."""
    generator = torch.Generator().manual_seed(2)
    states = torch.randn(600, 5, generator=generator)
    items = torch.randn(40, 5, generator=generator)
    targets = torch.randint(1, 40, (600,), generator=generator)
    negatives = torch.randint(1, 40, (64,), generator=generator)
    corrections = torch.randn(64, generator=generator)
    leaves = [states.clone().requires_grad_(), items.clone().requires_grad_()]
    found = sampled_softmax(leaves[0], targets, leaves[1], negatives, corrections_N=corrections)
    (3 * found).backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated

    plain = [states.clone().requires_grad_(), items.clone().requires_grad_()]
    is_own = targets[:, None] == negatives
    scores = torch.cat(
        [
            (plain[0] * plain[1][targets]).sum(dim=1, keepdim=True),
            (plain[0] @ plain[1][negatives].T + corrections).masked_fill(is_own, -math.inf),
        ],
        dim=1,
    )
    expected = -scores.log_softmax(dim=1)[:, 0].mean()
    torch.testing.assert_close(found, expected)
    (3 * expected).backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    for mine, theirs in zip(leaves, plain, strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


@pytest.mark.parametrize("source", ["uniform", "popularity"])
def test_corrected_sum_over_the_sample_estimates_the_sum_over_the_catalogue(source: NegativeSource) -> None:
    """Over 40,000 draws the mean is off by less than 2 %."""
    events = torch.tensor([1, 1, 1, 1, 2, 2, 3, 4, 5, 6, 7])
    sampler = NegativeSampler(source, 40_000, NUM_ITEMS, events)
    weights = torch.tensor([0.0, 3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0])
    negatives = sampler.draw(torch.tensor([1]), torch.Generator().manual_seed(0))
    estimate = (weights[negatives] * sampler.corrections(negatives).exp()).sum()
    assert float(estimate) == pytest.approx(float(weights.sum()), rel=0.02)


def test_popular_items_are_drawn_more_often() -> None:
    events = torch.tensor([1] * 8 + [2] * 2, dtype=torch.int32)
    negatives = NegativeSampler("popularity", 10_000, NUM_ITEMS, events).draw(events, torch.Generator().manual_seed(0))
    assert torch.bincount(negatives, minlength=4).tolist() == pytest.approx([0, 8000, 2000, 0], abs=4 * 40)


def test_negatives_of_the_batch_are_its_own_targets() -> None:
    targets = torch.tensor([4, 4, 6])
    sampler = NegativeSampler("batch", 2, NUM_ITEMS, targets)
    assert set(sampler.draw(targets, torch.Generator().manual_seed(0)).tolist()) <= {4, 6}
    assert len(sampler.draw(targets, torch.Generator().manual_seed(0))) == 2
    everything = NegativeSampler("batch", 9, NUM_ITEMS, targets).draw(targets, torch.Generator().manual_seed(0))
    assert sorted(everything.tolist()) == [4, 4, 6]


@pytest.mark.parametrize("calibration", [0.0, 0.75, 1.0])
def test_gbce_raises_the_targets_probability_to_beta(drawn: tuple[Tensor, ...], calibration: float) -> None:
    states, targets, items, negatives = drawn
    rate = len(negatives) / (NUM_ITEMS - 1)
    beta = rate * (calibration * (1 - 1 / rate) + 1 / rate)
    total = 0.0
    for row, target in enumerate(targets.tolist()):
        others = [index for index in negatives.tolist() if index != target]
        scores = scores_of(states, items, row, [target, *others])
        positive, *rest = [sigmoid(score - math.log(len(negatives))) for score in scores]
        total -= math.log(positive**beta) + sum(math.log(1 - probability) for probability in rest)
    loss = gbce(states, targets, items, negatives, num_items=NUM_ITEMS, calibration=calibration)
    assert float(loss) == pytest.approx(total / NUM_TARGETS / (len(negatives) + 1), rel=1e-5)


def test_binary_cross_entropy_says_yes_to_the_target_and_no_to_each_negative(drawn: tuple[Tensor, ...]) -> None:
    states, targets, items, negatives = drawn
    total = 0.0
    for row, target in enumerate(targets.tolist()):
        others = [index for index in negatives.tolist() if index != target]
        scores = scores_of(states, items, row, [target, *others])
        positive, *rest = [sigmoid(score - math.log(len(negatives))) for score in scores]
        total -= math.log(positive) + sum(math.log(1 - probability) for probability in rest)
    loss = gbce(states, targets, items, negatives, num_items=NUM_ITEMS, calibration=0.0)
    assert float(loss) == pytest.approx(total / NUM_TARGETS / (len(negatives) + 1), rel=1e-5)


def test_negatives_that_are_all_targets_give_no_gradient_of_nan() -> None:
    states = torch.ones(2, 3, requires_grad=True)
    targets = torch.tensor([1, 1])
    loss = sampled_softmax(states, targets, torch.ones(2, 3), torch.tensor([1, 1]))
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    assert float(loss.detach()) == 0
    assert states.grad is not None
    assert torch.isfinite(states.grad).all()


def test_negatives_are_items_and_cover_the_catalogue() -> None:
    sampler = NegativeSampler("uniform", 1000, NUM_ITEMS, torch.tensor([3]))
    negatives = sampler.draw(torch.tensor([3]), torch.Generator().manual_seed(0))
    assert set(negatives.tolist()) == set(range(1, NUM_ITEMS + 1))


@pytest.mark.parametrize("denoise", [0.0, 0.5])
@pytest.mark.parametrize("loss", ["full", "full on a GPU", "sampled"])
def test_implausible_targets_count_by_a_power_of_their_probability(
    loss: str, denoise: float, drawn: tuple[Tensor, ...]
) -> None:
    """Loss and gradient of Σ wₜ lossₜ / Σ wₜ with wₜ = pₜ^denoise, a constant, by torch's own cross-entropy; p is of
    the catalogue or of the target beside its negatives."""
    states, targets, items, negatives = drawn
    results = []
    for ours in (True, False):
        leaves = [states.clone().requires_grad_(), items.clone().requires_grad_()]
        if not ours:
            scores = leaves[0] @ leaves[1].T
            if loss == "sampled":
                own = scores.gather(1, targets[:, None])
                others = scores[:, negatives].masked_fill(targets[:, None] == negatives, -math.inf)
                expected = [plain_losses(row[None]) for row in torch.cat([own, others], dim=1)]
                losses, share = (torch.cat(each) for each in zip(*expected, strict=True))
            else:
                losses = F.cross_entropy(scores[:, 1:], targets - 1, reduction="none")
                share = scores[:, 1:].softmax(dim=1).gather(1, targets[:, None] - 1)[:, 0]
            weights = share.detach() ** denoise
            value = (weights * losses).sum() / weights.sum()
        elif loss == "sampled":
            value = sampled_softmax(leaves[0], targets, leaves[1], negatives, denoise=denoise)
        elif loss == "full":
            value = cross_entropy(leaves[0], targets, leaves[1], denoise=denoise)
        else:
            scores = leaves[0] @ leaves[1][1:].T
            value = _softmax_of_scores(scores, targets - 1, denoise=denoise)
        (3 * value).backward()
        results.append([value.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)])
    for found, wanted in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted)


def plain_losses(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Of one target, whose score comes first, beside those that are not left out (−inf): its loss and probability."""
    eligible = scores[torch.isfinite(scores)][None]
    first = torch.zeros(1, dtype=torch.int64)
    loss = F.cross_entropy(eligible, first, reduction="none")
    return loss, eligible.softmax(dim=1)[:, 0]
