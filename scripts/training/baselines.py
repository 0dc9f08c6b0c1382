"""Recommenders that need counting but no training: what a model has to beat, through the same `Scorer`.

Wherever a method has nothing to say about an item, popularity decides: without that, an honest order of ties would
punish the method for most of the catalogue. The share is too small to change any order the method does see.

Shapes: B batch, V catalogue (num_items + 1 columns, column 0 stays zero).
"""

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from app.ranking.ranker import ItemSequence
from scripts.training.evaluation import Scorer
from scripts.training.interactions import Interactions
from scripts.training.rules import largest_of_rows, shares_of_rows

TIE_BREAK = np.float32(1e-6)
ITEMS_PER_BLOCK = 1024
MS_PER_DAY = 86_400_000
PERSONAL_HALF_LIFE_DAYS = 90.0
"""Chosen on the validation part of a year of grocery baskets, of 30, 90 and 180."""


class Popularity:
    """Every history gets the same ranking: by number of events in the training data."""

    def __init__(self, train: Interactions, num_items: int) -> None:
        counts = train.item_counts(num_items)
        self.scores_V = (counts / max(1, counts.max())).astype(np.float32)

    def __call__(self, histories: Sequence[ItemSequence]) -> NDArray[np.float32]:
        return np.broadcast_to(self.scores_V, (len(histories), len(self.scores_V)))


class PersonalPopularity:
    """What the user has had most often, newer events counting more: one of `PERSONAL_HALF_LIFE_DAYS` before the newest
    counts half. Where times are only an order, all count alike.

    Where people come back to the same items, hardly anything that needs no training ranks better.
    """

    def __init__(self, popularity: Popularity) -> None:
        self._fallback_V = popularity.scores_V * TIE_BREAK

    def __call__(self, histories: Sequence[ItemSequence]) -> NDArray[np.float32]:
        scores_BV = np.repeat(self._fallback_V[None], len(histories), axis=0)
        for scores_V, history in zip(scores_BV, histories, strict=True):
            times = np.asarray(history.timestamps_ms, np.float64)
            age_days = (times.max(initial=0) - times) / MS_PER_DAY
            np.add.at(scores_V, np.asarray(history.items, np.int64), 0.5 ** (age_days / PERSONAL_HALF_LIFE_DAYS))
        return scores_BV


class HistoryRules:
    """Scores are sums of rows of an item-to-item matrix, over the newest items of the history.

    score(b) = Σ_j decay^j · matrix[a_j, b], where a_j is the item j places before the newest and j < length.
    """

    def __init__(self, matrix_VV: sp.csr_array, popularity: Popularity, *, length: int, decay: float) -> None:
        self.matrix_VV = matrix_VV
        self._fallback_V = popularity.scores_V * TIE_BREAK
        self._weights = (decay ** np.arange(length)).astype(np.float32)

    def __call__(self, histories: Sequence[ItemSequence]) -> NDArray[np.float32]:
        newest = [history.items[: -len(self._weights) - 1 : -1] for history in histories]
        lengths = [len(items) for items in newest]
        history_BV = sp.csr_array(
            (
                np.concatenate([self._weights[:length] for length in lengths]),
                np.concatenate([np.asarray(items, np.int32) for items in newest]),
                np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32),
            ),
            shape=(len(histories), self.matrix_VV.shape[0]),
        )
        scores_BV: NDArray[np.float32] = (history_BV @ self.matrix_VV).toarray()
        scores_BV += self._fallback_V
        return scores_BV


def markov(train: Interactions, num_items: int) -> HistoryRules:
    """First-order Markov chain: the share of the newest item's successors that are item b."""
    return HistoryRules(
        shares_of_rows(transitions(train, num_items, steps=1)), Popularity(train, num_items), length=1, decay=1.0
    )


def sequential_rules(
    train: Interactions, num_items: int, *, steps: int = 10, length: int = 10, decay: float = 0.7
) -> HistoryRules:
    """Sequential rules a → b: the sum of 1/k over all places where b comes k ≤ steps after a, over √n_a · ⁴√n_b.

    After Ludewig and Jannach, "Evaluation of session-based recommendation algorithms" (2018), summed over the newest
    `length` items, each counting `decay` of the one after it. The divisor lies between none (popular items win) and
    a share (rare items win); n are the events of an item. Exponents and decay were chosen on validation parts.
    """
    events_V = np.maximum(1, train.item_counts(num_items)).astype(np.float32)
    rules_VV = (
        sp.diags_array(events_V**-0.5) @ transitions(train, num_items, steps=steps) @ sp.diags_array(events_V**-0.25)
    )
    return HistoryRules(sp.csr_array(rules_VV), Popularity(train, num_items), length=length, decay=decay)


def item_knn(
    train: Interactions, num_items: int, *, neighbours: int = 100, length: int = 10, decay: float = 0.6
) -> HistoryRules:
    """Item-kNN: cosine of the sets of users who met items a and b, the nearest `neighbours` of each a.

    An item is its own nearest neighbour (cosine 1), which matters only where seen items are eligible.
    """
    return HistoryRules(
        cosine_neighbours(train, num_items, neighbours), Popularity(train, num_items), length=length, decay=decay
    )


def fit_baselines(train: Interactions, num_items: int, *, exclude_seen: bool) -> dict[str, Scorer]:
    """All baselines by name, with the settings that did well on all of our benchmark sets rather than best on one.
    Personal popularity says nothing where seen items are masked, and is left out there."""
    popularity = Popularity(train, num_items)
    personal: dict[str, Scorer] = {} if exclude_seen else {"personal_popularity": PersonalPopularity(popularity)}
    return {
        "popularity": popularity,
        **personal,
        "markov": markov(train, num_items),
        "item_knn": item_knn(train, num_items),
        "sequential_rules": sequential_rules(train, num_items),
    }


def transitions(train: Interactions, num_items: int, *, steps: int) -> sp.csr_array:
    """(V, V): entry [a, b] is the sum of 1/k over all places where b follows k ≤ steps events after a."""
    users = np.repeat(np.arange(train.num_users), train.lengths)

    def at_distance(step: int) -> sp.csr_array:
        together = users[step:] == users[:-step]
        places = (train.items[:-step][together], train.items[step:][together])
        weights = np.full(len(places[0]), 1 / step, np.float32)
        return sp.csr_array((weights, places), shape=(num_items + 1, num_items + 1))

    total = at_distance(1)
    # One step at a time: all steps at once would hold `steps` copies of the data before they are summed.
    for step in range(2, steps + 1):
        total = sp.csr_array(total + at_distance(step))
    return total


def cosine_neighbours(train: Interactions, num_items: int, neighbours: int) -> sp.csr_array:
    """(V, V): row a holds the cosines of the nearest items of a, at most `neighbours` besides a itself.

    Computed for a block of items at a time, so that memory grows with the catalogue, not with its square.
    """
    users = np.repeat(np.arange(train.num_users), train.lengths)
    met_UV = sp.csr_array(
        (np.ones(len(train), np.float32), (users, train.items)), shape=(train.num_users, num_items + 1)
    )
    met_UV.data[:] = 1
    norms_V = np.sqrt(np.maximum(1, np.bincount(met_UV.indices, minlength=num_items + 1))).astype(np.float32)
    unit_UV = sp.csr_array(met_UV @ sp.diags_array(1 / norms_V))
    unit_VU = sp.csr_array(unit_UV.T)
    blocks = []
    for start in range(0, num_items + 1, ITEMS_PER_BLOCK):
        block = sp.csr_array(unit_VU[start : start + ITEMS_PER_BLOCK] @ unit_UV)
        blocks.append(largest_of_rows(block, neighbours + 1))
    return sp.csr_array(sp.vstack(blocks, format="csr"))
