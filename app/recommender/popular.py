"""What many users choose, for those of whom nothing is known: the store's newest counts over the artifact's.

Shapes: V catalogue with padding, C counted items that the catalogue knows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from app.artifacts.registry import LiveModel
from app.ranking.ranker import Ranking
from app.ranking.rerank import top_k
from app.recommender.plan import Plan
from app.recommender.requests import Popular
from app.state.catalogue import CatalogueView

PRIOR_EVENTS = 100.0
"""All of the artifact's counts together weigh as much as so many events of this moment: they rank while the store has
seen little, and order what it has not seen."""


@dataclass(frozen=True, slots=True)
class Counters:
    """The store's own: item ids with weights, by falling weight; see `app.state.popularity`.

    is_known: False where the store does not answer and never did.
    """

    popular: Sequence[tuple[str, float]] = ()
    trending: Sequence[tuple[str, float]] = ()
    is_known: bool = True

    def are(self, others: "Counters") -> bool:
        """Whether nothing was read anew: the lists themselves are compared, and not what they hold."""
        return self.popular is others.popular and self.trending is others.trending


def weigh(strategy: Popular, counters: Counters, prior_of: Callable[[str], float]) -> tuple[dict[str, float], float]:
    """The weights of all counted items, and by what the prior of any other item is multiplied.

    `popular`: the events of late, decayed, and the prior. `trending`: how surprising the newest events of the items are
    that trend, always above 1 (`app.state.popularity.trend`); behind them stands every other item with its share of all
    popularity.
    """
    weights = {item_id: weight + prior_of(item_id) for item_id, weight in counters.popular}
    if strategy == "popular":
        return weights, 1.0
    total = PRIOR_EVENTS + sum(weight for _, weight in counters.popular)
    shares = {item_id: weight / total for item_id, weight in weights.items()}
    return shares | dict(counters.trending), 1.0 / total


class Weights:
    """Of every item of a catalogue, without a number for each: those that the store has counted, and a factor for the
    artifact's count of any other. What was added live and is not counted has none.

    is_known: False where the store's part is missing.
    """

    def __init__(self, strategy: Popular, counters: Counters, live: LiveModel, view: CatalogueView) -> None:
        self.is_known = counters.is_known
        self._counts_V = live.popularity
        self._popular_items = live.popular_items
        per_count = PRIOR_EVENTS / max(1, int(self._counts_V.sum()))

        def prior_of(item_id: str) -> float:
            index = view.index_of(item_id)
            return 0.0 if index is None or index >= len(self._counts_V) else float(self._counts_V[index]) * per_count

        by_id, factor = weigh(strategy, counters, prior_of)
        self._factor = per_count * factor
        self._counted = {index: by_id[item_id] for item_id in by_id if (index := view.index_of(item_id)) is not None}
        self._indices_C = np.array(list(self._counted), dtype=np.int64)
        self._weights_C = np.array(list(self._counted.values()), dtype=np.float64)

    def of(self, index: int) -> float:
        if index in self._counted:
            return self._counted[index]
        return float(self._counts_V[index]) * self._factor if index < len(self._counts_V) else 0.0

    def of_all(self, num_items: int) -> NDArray[np.float64]:
        """float64 (num_items + 1,), column = item index."""
        weights_V = np.zeros(num_items + 1, dtype=np.float64)
        weights_V[: len(self._counts_V)] = self._counts_V * self._factor
        weights_V[self._indices_C] = self._weights_C
        return weights_V

    def best(self, size: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Item indices and weights of at least the `size` best of the artifact's items and of the counted ones."""
        others = self._popular_items[: size + len(self._indices_C)]
        others = others[~np.isin(others, self._indices_C)]
        indices = np.concatenate([self._indices_C, others])
        weights = np.concatenate([self._weights_C, self._counts_V[others] * self._factor])
        order = np.lexsort((indices, -weights))
        return indices[order], weights[order]


def rank_by_weights(plan: Plan, weights_V: NDArray[np.floating[Any]]) -> Ranking:
    """The best `plan.num_ranked` by weight times the factors of the boosts; ties by item index.

    Args:
        plan: what may come.
        weights_V: at least 0, or −inf for what must not come; column = item index, at most one for each item.
    """
    ranked_V = np.full(plan.view.num_items + 1, -np.inf)
    ranked_V[: len(weights_V)] = weights_V[: len(ranked_V)]
    if plan.adjust_V is not None:
        np.multiply(ranked_V, np.exp(plan.adjust_V), out=ranked_V, where=ranked_V != -np.inf)
        ranked_V[plan.adjust_V == -np.inf] = -np.inf
    ranked_V[[0, *plan.hidden]] = -np.inf
    indices = top_k(ranked_V, plan.num_ranked)
    return Ranking(indices, ranked_V[indices].astype(np.float32))


def rank_popular(plan: Plan, weights: Weights) -> Ranking:
    """What `rank_by_weights` gives, without a number for each item where the request restricts and boosts none."""
    if plan.adjust_V is None:
        indices, values = weights.best(plan.num_ranked + len(plan.hidden))
        may_come = ~np.isin(indices, np.fromiter(plan.hidden, dtype=np.int64))
        indices, values = indices[may_come][: plan.num_ranked], values[may_come][: plan.num_ranked]
        if len(indices) == plan.num_ranked or plan.view.num_items == plan.view.num_model_items:
            return Ranking(indices, values.astype(np.float32))
    return rank_by_weights(plan, weights.of_all(plan.view.num_items))


class KeptWeights:
    """The weights of each state of the catalogue, until the store's counters are read again: for seconds."""

    def __init__(self) -> None:
        self._kept: WeakKeyDictionary[CatalogueView, dict[str, tuple[Counters, Weights]]] = WeakKeyDictionary()

    def of(self, strategy: Popular, counters: Counters, live: LiveModel, view: CatalogueView) -> Weights:
        kept = self._kept.setdefault(view, {})
        last = kept.get(strategy)
        if last is None or not last[0].are(counters):
            last = kept[strategy] = counters, Weights(strategy, counters, live, view)
        return last[1]
