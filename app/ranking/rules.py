"""Item-to-item rules that go on learning: what followed and preceded what since a model was exported.

The weight of a rule a → b is what `scripts.training.rules` defines, carried on with new events. A table that was
learnt from n_a events of item a holds evidence E = weight · (n_a + SHRINKAGE); an event of b that comes k events after
one of a adds k^−¾ · rare_b to E(a → b), and `backward` times as much to E(b → a).

Shapes: V catalogue with padding (row = item index), N rules an item.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np
from numpy.typing import NDArray

STEPS = 20
DISTANCE_EXPONENT = 0.75
SHRINKAGE = 30.0
"""Events that an item needs before half of what its rules say is counted from its own."""
BACKWARD = 0.5
RARITY_EVENTS = 100.0
RARITY_EXPONENT = 0.25

MAX_FOLLOWERS = 200
"""New rules that an item keeps: when it has twice as many, the lighter half goes."""
MAX_ITEMS = 50_000
"""Items with new rules: beyond, those whose last event is longest ago go."""


def backward(num_events: float) -> float:
    """How much what came before an item counts beside what came after it: the less, the more events it has."""
    return BACKWARD * SHRINKAGE / (num_events + SHRINKAGE)


def rarity(num_events: float) -> float:
    return float((1 + num_events / RARITY_EVENTS) ** -RARITY_EXPONENT)


Tables = tuple[NDArray[np.int32], NDArray[np.float32]]
"""What an item's rules name, (V, N), heaviest first, 0 where there are fewer; and their weights, 0 there."""


@dataclass(frozen=True, eq=False)
class KnownRules:
    """What a model has learnt, and the items that there are now.

    items_VN, weights_VN: its tables.
    counts_V: events per item that they were learnt from, int64.
    num_items: of the catalogue, the model's items first; the tables have no rows for those behind them.
    index_of: item index of an id, 1…num_items, or None for one that cannot be recommended.
    """

    items_VN: NDArray[np.int32]
    weights_VN: NDArray[np.float32]
    counts_V: NDArray[np.int64]
    num_items: int
    index_of: Callable[[str], int | None]

    def count_of(self, index: int) -> int:
        return self._counts[index] if index < len(self._counts) else 0

    @cached_property
    def _counts(self) -> list[int]:
        """An element of an array costs three times as much as one of a list."""
        counts: list[int] = self.counts_V.tolist()
        return counts

    def tables(self, since: Tables | None = None) -> Tables:
        """New tables for all items, with the rows of `since`; None: of those that the model has learnt."""
        kept_items_VN, kept_weights_VN = since or (self.items_VN, self.weights_VN)
        items_VN = np.zeros((self.num_items + 1, self.items_VN.shape[1]), dtype=np.int32)
        weights_VN = np.zeros(items_VN.shape, dtype=np.float32)
        items_VN[: len(kept_items_VN)], weights_VN[: len(kept_items_VN)] = kept_items_VN, kept_weights_VN
        return items_VN, weights_VN


class NewRules:
    """Counts by item id, whatever a model or a catalogue knows of it; bounded by `MAX_ITEMS` and `MAX_FOLLOWERS`."""

    def __init__(self) -> None:
        self._num_events: Counter[str] = Counter()
        self._after: dict[str, dict[str, float]] = {}
        self._before: dict[str, dict[str, float]] = {}
        self._changed: dict[str, None] = {}
        """Items whose rows are to be made, in the order in which they changed."""

    @property
    def num_waiting(self) -> int:
        """Rows that have changed and were not made since."""
        return len(self._changed)

    def add(self, item_id: str, earlier: Sequence[str]) -> None:
        """One event of an item, and the items of the same history before it, oldest first."""
        self._num_events[item_id] += 1
        _touch(self._after, item_id)
        self._changed[item_id] = None
        for step, other in enumerate(reversed(earlier[-STEPS:]), start=1):
            weight = step**-DISTANCE_EXPONENT
            _count(_touch(self._after, other), item_id, weight)
            _count(_touch(self._before, item_id), other, weight)
            self._changed[other] = None
        while len(self._after) > MAX_ITEMS:
            forgotten = next(iter(self._after))
            del self._after[forgotten]
            self._before.pop(forgotten, None)
            del self._num_events[forgotten]

    def over(self, known: KnownRules, since: Tables | None = None) -> Tables:
        """The model's tables with what was added.

        Args:
            known: what the model has learnt, and which items there are.
            since: what the last call gave, where items have the same indices as then: only rows that have changed since
                then are made anew. None: all rows.
        """
        if since is None:
            self.change_all()
        tables = known.tables(since)
        self.write(tables, known)
        return tables

    def change_all(self) -> None:
        """Every row waits to be made: for tables that hold none yet."""
        self._changed = dict.fromkeys(self._after)

    def write(self, tables: Tables, known: KnownRules, *, at_most: int | None = None) -> None:
        """Make rows that wait, the longest waiting first, in place; a row costs 50 to
        500 µs."""
        items_VN, weights_VN = tables
        for item_id in list(islice(self._changed, at_most)):
            del self._changed[item_id]
            index = known.index_of(item_id)
            if index is not None and item_id in self._after:
                followers, weights = self._row(known, item_id, index)
                items_VN[index], weights_VN[index] = 0, 0.0
                items_VN[index, : len(followers)], weights_VN[index, : len(followers)] = followers, weights

    def _row(self, known: KnownRules, item_id: str, index: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """What the rules of one item name, the heaviest first, and the weights."""
        num_known = known.count_of(index)
        num_events = num_known + self._num_events[item_id]
        evidence: dict[int, float] = {}
        if index < len(known.items_VN):
            learnt = zip(known.items_VN[index].tolist(), known.weights_VN[index].tolist(), strict=True)
            evidence = {follower: weight * (num_known + SHRINKAGE) for follower, weight in learnt}
        index_of, count_of, new_events = known.index_of, known.count_of, self._num_events
        parts = (self._after[item_id], 1.0), (self._before.get(item_id, {}), backward(num_events))
        for counts, factor in parts:
            for other, weight in counts.items():
                follower = index_of(other)
                if follower is not None:
                    rare = rarity(count_of(follower) + new_events[other])
                    evidence[follower] = evidence.get(follower, 0.0) + factor * weight * rare
        evidence.pop(0, None)
        # In numpy: sorting some hundred of them by a key of Python took more than half of the row's time.
        followers_X = np.fromiter(evidence.keys(), np.int64, len(evidence))
        weights_X = np.fromiter(evidence.values(), np.float64, len(evidence))
        best = np.lexsort((followers_X, -weights_X))[: known.items_VN.shape[1]]
        return followers_X[best], weights_X[best] / (num_events + SHRINKAGE)


def _touch(table: dict[str, dict[str, float]], item_id: str) -> dict[str, float]:
    """The item's counts, which are now the newest."""
    counts = table.pop(item_id, None) or {}
    table[item_id] = counts
    return counts


def _count(counts: dict[str, float], other: str, weight: float) -> None:
    counts[other] = counts.get(other, 0.0) + weight
    if len(counts) > 2 * MAX_FOLLOWERS:
        lightest = sorted(counts, key=lambda each: counts[each])[:MAX_FOLLOWERS]
        for each in lightest:
            del counts[each]
