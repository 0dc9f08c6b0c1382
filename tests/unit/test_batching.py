"""Batches over a ranker whose scores are computed by eye: item i has −|i − newest item|."""

import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from app.ranking.batching import MAX_ITEMS_INLINE, Batcher, Query, rank_all
from app.ranking.ranker import ItemSequence, Ranking

NUM_ITEMS = 9


def sequence(*items: int) -> ItemSequence:
    return ItemSequence(items, (1,) * len(items), (0,) * len(items))


class Distances:
    """Remembers the size of every run; `gate`, where given, holds each of them up."""

    item_vectors = None

    def __init__(self, num_items: int = NUM_ITEMS, gate: threading.Event | None = None) -> None:
        self.num_items = num_items
        self.sizes: list[int] = []
        self.widths: list[int | None] = []
        self.threads: set[str] = set()
        self._gate = gate

    def rank(
        self, sequences: Sequence[ItemSequence], k: int, adjust_BV: NDArray[np.float32] | None = None
    ) -> list[Ranking]:
        if self._gate is not None:
            assert self._gate.wait(10)
        self.sizes.append(len(sequences))
        self.widths.append(None if adjust_BV is None else adjust_BV.shape[1])
        self.threads.add(threading.current_thread().name)
        scores_BV = self._scores(sequences)
        if adjust_BV is not None:
            scores_BV = scores_BV + adjust_BV
        rankings = []
        for scores_V in scores_BV:
            best = np.argsort(-scores_V, kind="stable")
            best = best[np.isfinite(scores_V[best])][:k]
            rankings.append(Ranking(best, scores_V[best]))
        return rankings

    def score(self, sequences: Sequence[ItemSequence], item_indices_C: NDArray[np.int64]) -> NDArray[np.float32]:
        return self._scores(sequences)[:, item_indices_C]

    def _scores(self, sequences: Sequence[ItemSequence]) -> NDArray[np.float32]:
        newest_B1 = np.array([each.items[-1] for each in sequences])[:, None]
        scores_BV = -np.abs(np.arange(self.num_items + 1) - newest_B1).astype(np.float32)
        scores_BV[:, 0] = -np.inf
        return scores_BV


def indices(ranking: Ranking) -> list[int]:
    return ranking.item_indices.tolist()


def adjusted(**factors: float) -> NDArray[np.float32]:
    """`adjusted(i3=1.5)` adds 1.5 to item 3."""
    adjust_V = np.zeros(NUM_ITEMS + 1, np.float32)
    for name, value in factors.items():
        adjust_V[int(name[1:])] = value
    return adjust_V


# One run


def test_every_query_of_a_run_has_its_own_k_and_its_own_hidden_items() -> None:
    ranker = Distances()
    rankings = rank_all(
        ranker, [Query(sequence(5), 3), Query(sequence(1), 2, hidden={1, 2}), Query(sequence(9), 4, hidden=[8])]
    )
    assert [indices(ranking) for ranking in rankings] == [[5, 4, 6], [3, 4], [9, 7, 6, 5]]
    assert rankings[1].scores.tolist() == [-2.0, -3.0]
    assert (ranker.sizes, ranker.widths) == ([3], [None])  # no row as wide as the catalogue


def test_adjustment_of_one_query_leaves_the_others_alone() -> None:
    queries = [
        Query(sequence(5), 3),
        Query(sequence(5), 3, adjust_V=adjusted(i9=4.5, i5=-np.inf)),
        Query(sequence(5), 3, hidden={9}, adjust_V=adjusted(i9=4.5)),
    ]
    assert [indices(ranking) for ranking in rank_all(Distances(), queries)] == [[5, 4, 6], [9, 4, 6], [5, 4, 6]]


queries = st.builds(
    lambda newest, k, hidden, adjust: Query(
        sequence(newest), k, frozenset(hidden), None if adjust is None else np.array([0, *adjust], np.float32)
    ),
    st.integers(1, NUM_ITEMS),
    st.integers(1, 12),
    st.sets(st.integers(1, NUM_ITEMS)),
    st.none() | st.lists(st.sampled_from([0.0, 1.5, -np.inf]), min_size=NUM_ITEMS, max_size=NUM_ITEMS),
)


@given(batch=st.lists(queries, min_size=1, max_size=6))
def test_batch_equals_brute_force_for_each_query_alone(batch: list[Query]) -> None:
    for query, ranking in zip(batch, rank_all(Distances(), batch), strict=True):
        newest = query.sequence.items[-1]
        scores = {index: -abs(index - newest) for index in range(1, NUM_ITEMS + 1) if index not in query.hidden}
        if query.adjust_V is not None:
            scores = {index: score + float(query.adjust_V[index]) for index, score in scores.items()}
        eligible = [index for index, score in scores.items() if score != -np.inf]
        assert indices(ranking) == sorted(eligible, key=lambda index: (-scores[index], index))[: query.k]
        assert ranking.scores.tolist() == [scores[index] for index in indices(ranking)]


# Many callers


async def test_callers_of_one_moment_share_a_run_and_get_their_own_answers() -> None:
    ranker, batcher = Distances(), Batcher()
    rankings = await asyncio.gather(*[batcher.rank(ranker, Query(sequence(n), 1)) for n in range(1, 9)])
    assert [indices(ranking) for ranking in rankings] == [[n] for n in range(1, 9)]
    assert ranker.sizes == [8]
    batcher.close()


async def test_over_few_items_a_run_leaves_some_callers_for_the_next() -> None:
    """So that the event loop answers the first while the others are ranked."""
    small, large, batcher = Distances(), Distances(MAX_ITEMS_INLINE + 1), Batcher()
    for ranker in (small, large):
        rankings = await asyncio.gather(*[batcher.rank(ranker, Query(sequence(1 + n % 9), 1)) for n in range(20)])
        assert [indices(ranking) for ranking in rankings] == [[1 + n % 9] for n in range(20)]
    assert (small.sizes, large.sizes) == ([8, 8, 4], [20])
    batcher.close()


async def test_lone_caller_of_a_small_catalogue_needs_no_thread() -> None:
    ranker, large, batcher = Distances(), Distances(MAX_ITEMS_INLINE + 1), Batcher()
    assert indices(await batcher.rank(ranker, Query(sequence(4), 1))) == [4]
    assert indices(await batcher.rank(large, Query(sequence(4), 1))) == [4]
    assert ranker.threads == {threading.main_thread().name}
    assert ranker.threads & large.threads == set()
    batcher.close()


async def test_callers_during_a_run_wait_for_the_next_one_together() -> None:
    gate = threading.Event()
    ranker, batcher = Distances(gate=gate), Batcher(max_batch=3)
    first = [asyncio.create_task(batcher.rank(ranker, Query(sequence(n), 1))) for n in (1, 2)]
    await asyncio.sleep(0.01)  # the run is under way, held up by the gate
    later = [asyncio.create_task(batcher.rank(ranker, Query(sequence(n), 1))) for n in (3, 4, 5, 6)]
    await asyncio.sleep(0.01)
    gate.set()
    assert [indices(ranking) for ranking in await asyncio.gather(*first, *later)] == [[n] for n in range(1, 7)]
    assert ranker.sizes == [2, 3, 1]
    batcher.close()


async def test_lengths_far_apart_are_not_padded_to_each_other() -> None:
    ranker, batcher = Distances(), Batcher()
    lengths = (1, 2, 40, 50, 1)
    answers = await asyncio.gather(*[batcher.rank(ranker, Query(sequence(*[7] * n), 1)) for n in lengths])
    assert [indices(ranking) for ranking in answers] == [[7]] * 5
    assert sorted(ranker.sizes) == [2, 3]
    batcher.close()


async def test_versions_never_share_a_run() -> None:
    old, new, batcher = Distances(), Distances(), Batcher()
    await asyncio.gather(*[batcher.rank(ranker, Query(sequence(1), 1)) for ranker in (old, new, old)])
    assert (old.sizes, new.sizes) == ([2], [1])
    batcher.close()


async def test_caller_that_hangs_up_leaves_the_others_their_answers() -> None:
    ranker, batcher = Distances(), Batcher()
    tasks = [asyncio.create_task(batcher.rank(ranker, Query(sequence(n), 1))) for n in (1, 2, 3)]
    await asyncio.sleep(0)  # all three are waiting
    tasks[1].cancel()
    assert [indices(await tasks[place]) for place in (0, 2)] == [[1], [3]]
    batcher.close()


@pytest.mark.parametrize("callers", [1, 3])
async def test_failing_run_fails_its_callers_and_nobody_else(callers: int) -> None:
    class Broken(Distances):
        def rank(self, *_: object, **__: object) -> list[Ranking]:
            raise ValueError("broken graph")

    ranker, batcher = Distances(), Batcher()
    failed = await asyncio.gather(
        *[batcher.rank(Broken(), Query(sequence(1), 1)) for _ in range(callers)], return_exceptions=True
    )
    assert [str(error) for error in failed] == ["broken graph"] * callers
    assert indices(await batcher.rank(ranker, Query(sequence(4), 1))) == [4]
    batcher.close()
