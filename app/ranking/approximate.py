"""Approximate ranking: an index finds candidates, and the exact graph ranks those.

The graph reads its catalogue from tables and does not know how large it is. A run over a small catalogue that holds the
items of the history, whatever rules name after them, and what the index finds gives these items the scores that a run
over all items gives them: attention reads and scores row by row, rules name rows, and the normaliser of a fused model
sums the best 128, which the index finds. So there is one formula of a score, and only the choice of candidates is
approximate: an item that neither the rules name nor the index finds is missing.

Shapes: V catalogue with padding, N rules an item, C candidates, W rows of the small catalogue, rising by item index.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from app.ranking.exact import ExactRanker, Tables
from app.ranking.index import ItemIndex
from app.ranking.ranker import ItemSequence, Ranking

RankingChoice = Literal["auto", "exact", "approximate"]
MIN_FOUND = 160
"""The index is asked for at least so many items: the 128 of the normaliser and some to spare."""
FOUND_PER_K = 2
MAX_GATHERED = 40_000
"""Where a filter leaves at most so many items, all of them are candidates; where it leaves more, copying their vectors
would cost more than scoring the whole catalogue, which is done instead. Either is exact."""
THOROUGH = 4
"""Where the candidates are given, the index serves the normaliser alone, and a search reads so many times the lists."""


class ApproximateRanker:
    """A `Ranker` over an `ExactRanker` whose graph is of format 2 and reads items from its tables alone."""

    def __init__(self, exact: ExactRanker, index: ItemIndex, *, probes: int | None = None) -> None:
        """probes: lists that a search of the index reads; as many as it has make it exact. None leaves it to the index.

        Raises:
            ValueError: the graph holds its item vectors itself (format 1), or the index has more items than the tables.
        """
        vectors_VD = exact.item_vectors
        if vectors_VD is None:
            raise ValueError("the graph holds its item vectors itself (format 1); export the version again")
        if index.num_items > exact.num_items:
            raise ValueError(f"the index holds {index.num_items} items, the tables {exact.num_items}")
        self._exact = exact
        self._index = index
        self._probes = probes or index.probes
        self._vectors_VD = vectors_VD
        self._rule_items_VN = exact.tables.get("rule_items")
        # What a re-ranker reorders are as many of the best again, and none of the history.
        self._min_found = MIN_FOUND + (exact.max_length if "item_statistics" in exact.tables else 0)
        # Rows that were appended after the index was built: always candidates.
        self._appended = np.arange(index.num_items + 1, exact.num_items + 1)

    def with_tables(self, tables: Tables) -> "ApproximateRanker":
        """See `ExactRanker.with_tables`. The rows of `item_vectors` that the index knows must be the same."""
        return ApproximateRanker(self._exact.with_tables(tables), self._index, probes=self._probes)

    def exhaustive(self) -> "ApproximateRanker":
        """The same with every list read: what it ranks is what the graph ranks over the whole catalogue."""
        return ApproximateRanker(self._exact, self._index, probes=self._index.num_lists)

    @property
    def index(self) -> ItemIndex:
        return self._index

    @property
    def num_items(self) -> int:
        return self._exact.num_items

    @property
    def tables(self) -> Tables:
        return self._exact.tables

    @property
    def item_vectors(self) -> NDArray[np.float32]:
        return self._vectors_VD

    def states(self, sequences: Sequence[ItemSequence]) -> NDArray[np.float32]:
        """float32 (B, D): see `ExactRanker.states`."""
        rows_W = _distinct(np.concatenate([[0], *(self._history(sequence) for sequence in sequences)]))
        # onnxruntime computes a graph as a whole, scores too: so over as few rows as it takes.
        size = max(len(rows_W), MIN_FOUND)
        tables = {name: np.zeros((size, *table.shape[1:]), table.dtype) for name, table in self.tables.items()}
        tables["item_vectors"][: len(rows_W)] = self._vectors_VD[rows_W]
        small = self._exact.with_tables(tables)
        return small.states([self._moved(sequence, rows_W) for sequence in sequences])

    def rank(
        self, sequences: Sequence[ItemSequence], k: int, adjust_BV: NDArray[np.float32] | None = None
    ) -> list[Ranking]:
        """See `Ranker.rank`. With `adjust_BV` the ranking is exact."""
        if adjust_BV is None:
            candidates = self._found(sequences, max(self._min_found, FOUND_PER_K * k), self._probes)
            return [
                self._rank_among(sequence, candidates_C, k)
                for sequence, candidates_C in zip(sequences, candidates, strict=True)
            ]
        rankings = []
        for sequence, adjust_V in zip(sequences, adjust_BV, strict=True):
            eligible = np.flatnonzero(adjust_V != -np.inf)
            if len(eligible) > MAX_GATHERED:
                rankings += self._exact.rank([sequence], k, adjust_V[None])
            else:
                rankings.append(self._rank_among(sequence, self._with_best(sequence, eligible), k, adjust_V))
        return rankings

    def score(self, sequences: Sequence[ItemSequence], item_indices_C: NDArray[np.int64]) -> NDArray[np.float32]:
        """See `Ranker.score`."""
        scores_BC = np.empty((len(sequences), len(item_indices_C)), dtype=np.float32)
        for row, sequence in enumerate(sequences):
            candidates = self._with_best(sequence, item_indices_C)
            ranking = self._rank_among(sequence, candidates, self.num_items)
            order = np.argsort(ranking.item_indices)
            places = order[np.searchsorted(ranking.item_indices, item_indices_C, sorter=order)]
            scores_BC[row] = ranking.scores[places]
        return scores_BC

    def _with_best(self, sequence: ItemSequence, item_indices_C: NDArray[np.int64]) -> NDArray[np.int64]:
        (best,) = self._found([sequence], self._min_found, THOROUGH * self._probes)
        return np.concatenate([item_indices_C, best])

    def _found(self, sequences: Sequence[ItemSequence], n: int, probes: int) -> list[NDArray[np.int64]]:
        """What attention likes best, for each sequence, and what the index does not know."""
        items_BN = self._index.search(self.states(sequences), n, probes=probes)
        return [np.concatenate([items_N, self._appended]) for items_N in items_BN]

    def _rank_among(
        self,
        sequence: ItemSequence,
        candidates_C: NDArray[np.int64],
        k: int,
        adjust_V: NDArray[np.float32] | None = None,
    ) -> Ranking:
        """The best `k` of the candidates, of the history and of what follows it by rules."""
        read = self._history(sequence)
        tables: dict[str, NDArray[Any]] = {}
        if self._rule_items_VN is None:
            rows_W = _distinct(np.concatenate([[0], read, candidates_C]))
        else:
            # Items that were added since may have no row of rules.
            ruled = read[read < len(self._rule_items_VN)]
            followers_HN = self._rule_items_VN[ruled]
            rows_W = _distinct(np.concatenate([[0], read, candidates_C, followers_HN.ravel()]))
            places = np.searchsorted(rows_W, ruled)
            shape = (len(rows_W), followers_HN.shape[1])
            tables["rule_items"] = np.zeros(shape, np.int32)
            tables["rule_items"][places] = np.searchsorted(rows_W, followers_HN)
            tables["rule_weights"] = np.zeros(shape, np.float32)
            tables["rule_weights"][places] = self.tables["rule_weights"][ruled]
        tables["item_vectors"] = self._vectors_VD[rows_W]
        if "item_statistics" in self.tables:
            statistics_VS = self.tables["item_statistics"]
            # Items that were added since have no row: they are like the padding, without events.
            tables["item_statistics"] = statistics_VS[np.where(rows_W < len(statistics_VS), rows_W, 0)]
        adjust_1W = None if adjust_V is None else adjust_V[rows_W][None]
        (ranking,) = self._exact.with_tables(tables).rank([self._moved(sequence, rows_W)], k, adjust_1W)
        return Ranking(rows_W[ranking.item_indices], ranking.scores)

    def _history(self, sequence: ItemSequence) -> NDArray[np.int64]:
        """What the graph reads of it, oldest first."""
        return np.array(sequence.items[-self._exact.max_length :], dtype=np.int64)

    def _moved(self, sequence: ItemSequence, rows_W: NDArray[np.int64]) -> ItemSequence:
        """The same sequence by places in `rows_W`, which hold all its items."""
        places = np.searchsorted(rows_W, self._history(sequence))
        length = len(places)
        return dataclasses.replace(
            sequence,
            items=places.tolist(),
            timestamps_ms=sequence.timestamps_ms[len(sequence.timestamps_ms) - length :],
            event_types=sequence.event_types[len(sequence.event_types) - length :],
        )


def _distinct(values_X: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rising, each once; `np.unique` takes 40 times as long for a list that is sorted but for its end."""
    rising_X = np.sort(values_X)
    is_new_X = np.ones(len(rising_X), dtype=bool)
    np.not_equal(rising_X[1:], rising_X[:-1], out=is_new_X[1:])
    return rising_X[is_new_X]
