"""Each loss against its definition, written out target by target in plain Python."""

import math

import pytest
import torch
from torch import Tensor

from scripts.training.losses import (
    attribute_softmax,
    binary_cross_entropy,
    cross_entropy,
    gbce,
    sample_negatives,
    sampled_softmax,
)

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
    assert float(cross_entropy(states, targets, items)) == pytest.approx(total / NUM_TARGETS, rel=1e-5)


def test_sampled_softmax_is_the_log_of_the_targets_share_of_the_sample(drawn: tuple[Tensor, ...]) -> None:
    states, targets, items, negatives = drawn
    total = 0.0
    for row, target in enumerate(targets.tolist()):
        others = [index for index in negatives.tolist() if index != target]
        exponentials = [math.exp(score) for score in scores_of(states, items, row, [target, *others])]
        total -= math.log(exponentials[0] / sum(exponentials))
    assert float(sampled_softmax(states, targets, items, negatives)) == pytest.approx(total / NUM_TARGETS, rel=1e-5)


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
    loss = binary_cross_entropy(states, targets, items, negatives, num_items=NUM_ITEMS)
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
    negatives = sample_negatives(NUM_ITEMS, 1000, torch.Generator().manual_seed(0))
    assert set(negatives.tolist()) == set(range(1, NUM_ITEMS + 1))


def test_attribute_softmax_wants_each_value_of_the_next_item_alike() -> None:
    """The first target has values 0 and 2, the second none and counts for nothing, the third value 1."""
    generator = torch.Generator().manual_seed(1)
    states, vectors = torch.randn(3, 4, generator=generator), torch.randn(5, 4, generator=generator)
    values = [[0, 2], [], [1]]
    shares = torch.stack([sum((vectors[value] for value in row), torch.zeros(4)) for row in values])
    roots = torch.tensor([math.sqrt(2), 0.0, 1.0])
    shares[0] /= math.sqrt(2)
    total = 0.0
    for row, wanted in enumerate(values):
        exponentials = [math.exp(score) for score in scores_of(states, vectors, row, list(range(5)))]
        total -= sum(math.log(exponentials[value] / sum(exponentials)) / len(wanted) for value in wanted)
    assert float(attribute_softmax(states, shares, roots, vectors)) == pytest.approx(total / 2, rel=1e-5)


def test_targets_without_attributes_alone_lose_nothing() -> None:
    loss = attribute_softmax(torch.ones(2, 3), torch.zeros(2, 3), torch.zeros(2), torch.ones(4, 3))
    assert float(loss) == 0
