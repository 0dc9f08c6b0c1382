"""More of the long tail for a stated price: what popularity adds to an item's score is taken off again.

How much is chosen on validation: the largest discount whose hit rate stays within a budget of what it is without. It
acts on the finished score, so it needs no training and the service applies it as it applies boosts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.ranking.ranker import ItemSequence
from app.ranking.rerank import popularity_discount
from scripts.training.evaluation import Scorer
from scripts.training.interactions import Cases, PreparedData
from scripts.training.scorer import evaluate_at_10

STRENGTHS = tuple(round(0.05 * step, 2) for step in range(21))


@dataclass(frozen=True)
class Trade:
    """What a discount of this strength reaches on validation; `tail_hit_rate` is over targets of the tail alone (see
    `evaluation.popularity_groups`), all at 10."""

    strength: float
    hit_rate: float
    ndcg: float
    coverage: float
    tail_hit_rate: float


class Discounted:
    """`evaluation.Scorer`: the scores of another one less what popularity adds to them."""

    def __init__(self, scorer: Scorer, item_counts: NDArray[np.int64], strength: float) -> None:
        self._scorer = scorer
        self._discount_V = popularity_discount(item_counts, strength)

    def __call__(self, histories: Sequence[ItemSequence]) -> NDArray[np.float32]:
        return self._scorer(histories) + self._discount_V


def choose_discount(scorer: Scorer, data: PreparedData, cases: Cases, budget: float) -> list[Trade]:
    """The trades from no discount up to the last one before the hit rate falls below (1 − budget) of what it is without
    any: that one is chosen.

    `scorer` has learnt from `data.train` alone; `cases` are validation cases.
    """
    trades: list[Trade] = []
    for strength in STRENGTHS:
        trade = _trade(scorer, data, cases, strength)
        if trades and trade.hit_rate < (1 - budget) * trades[0].hit_rate:
            break
        trades.append(trade)
    return trades


def _trade(scorer: Scorer, data: PreparedData, cases: Cases, strength: float) -> Trade:
    item_counts = data.train.item_counts(data.num_items)
    result = evaluate_at_10(Discounted(scorer, item_counts, strength), data, cases)
    tail = next(group for group in result.by_popularity if group.name == "tail")
    return Trade(
        strength,
        hit_rate=result.metrics["hit_rate@10"],
        ndcg=result.metrics["ndcg@10"],
        coverage=result.metrics["coverage@10"],
        tail_hit_rate=tail.metrics.get("hit_rate@10", 0.0),
    )
