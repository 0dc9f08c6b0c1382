"""What concurrent requests ask of a ranker, gathered into one run of it beside the event loop.

A run of several sequences reads the item table once and pays for each step of the graph once; onnxruntime releases the
GIL, so meanwhile the event loop speaks HTTP on another core. What comes during a run waits for the next: the busier
the service, the larger the batches, and nobody waits on purpose.

Shapes: B batch, V catalogue with padding (column = item index).
"""

import asyncio
from collections import deque
from collections.abc import Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.ranking.ranker import ItemSequence, Ranker, Ranking

MAX_BATCH = 32
MAX_SCORES = 8_000_000
"""Scores (rows times items) of one run: the graph holds a few arrays of that size, 32 MB each."""
MAX_ITEMS_INLINE = 30_000
"""Up to so many items a lone request is ranked where it stands: a thread would cost it as much as the ranking does."""
MAX_BATCH_OF_FEW = 8
"""Sequences in one run over at most `MAX_ITEMS_INLINE` items: a larger run would save little, and the event loop would
have nothing to do until all who wait are ranked together."""
ITEMS_WORTH_PADDING = 100_000
"""From so many items on, scoring them costs more than reading a padded sequence: any lengths share a run."""


@dataclass(frozen=True, slots=True)
class Query:
    """One sequence to be ranked.

    hidden: item indices that must not come back; a few hundred at most.
    adjust_V: added to the scores, float32 (num_items + 1,), −inf hides; None adds nothing.
    """

    sequence: ItemSequence
    k: int
    hidden: Collection[int] = ()
    adjust_V: NDArray[np.float32] | None = None


def rank_all(ranker: Ranker, queries: Sequence[Query]) -> list[Ranking]:
    """What `ranker.rank` gives for each query alone, in one run.

    Without `adjust_V` in any of them no row as wide as the catalogue is made: the best k + h items hold the best k of
    those that are not among h hidden ones.
    """
    sequences = [query.sequence for query in queries]
    if all(query.adjust_V is None for query in queries):
        asked = max(query.k + len(query.hidden) for query in queries)
        rankings = ranker.rank(sequences, asked)
        return [_visible(ranking, query) for ranking, query in zip(rankings, queries, strict=True)]
    adjust_BV = np.zeros((len(queries), ranker.num_items + 1), dtype=np.float32)
    for row_V, query in zip(adjust_BV, queries, strict=True):
        if query.adjust_V is not None:
            row_V[:] = query.adjust_V
        row_V[list(query.hidden)] = -np.inf
    rankings = ranker.rank(sequences, max(query.k for query in queries), adjust_BV)
    return [_first(ranking, query.k) for ranking, query in zip(rankings, queries, strict=True)]


def _visible(ranking: Ranking, query: Query) -> Ranking:
    ranking = _first(ranking, query.k + len(query.hidden))
    if not query.hidden:
        return ranking
    hidden = query.hidden
    places = [place for place, index in enumerate(ranking.item_indices.tolist()) if index not in hidden][: query.k]
    return Ranking(ranking.item_indices[places], ranking.scores[places])


def _first(ranking: Ranking, k: int) -> Ranking:
    if len(ranking.item_indices) <= k:
        return ranking
    return Ranking(ranking.item_indices[:k], ranking.scores[:k])


@dataclass(frozen=True, slots=True)
class _Waiting:
    ranker: Ranker
    query: Query
    answer: "asyncio.Future[Ranking]"


class Batcher:
    """One per worker, for whichever ranker a request brings: after a reload both versions may be in the queue."""

    def __init__(self, max_batch: int = MAX_BATCH) -> None:
        """max_batch: sequences in one run; 1 ranks each alone."""
        self._max_batch = max_batch
        self._waiting: deque[_Waiting] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ranking")
        self._starting = False
        self._running = False

    async def rank(self, ranker: Ranker, query: Query) -> Ranking:
        """See `Ranker.rank`; raises what it raises."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(ranker, query, loop.create_future())
        self._waiting.append(waiting)
        if not self._running and not self._starting:
            self._starting = True
            loop.call_soon(self._start, loop)  # behind all whose histories came in the same turn of the event loop
        return await waiting.answer

    def close(self) -> None:
        """Waits for the run under way."""
        self._thread.shutdown(cancel_futures=True)

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._starting = False
        batch = self._next_batch()
        if not batch:
            return
        ranker, queries = batch[0].ranker, [each.query for each in batch]
        if len(batch) == 1 and ranker.num_items <= MAX_ITEMS_INLINE and not self._waiting:
            done: Future[list[Ranking]] = Future()
            try:
                done.set_result(rank_all(ranker, queries))
            except Exception as error:  # whatever it is, it belongs to the one who asked
                done.set_exception(error)
            self._finish(batch, done)
            return
        self._running = True
        running = self._thread.submit(rank_all, ranker, queries)
        running.add_done_callback(lambda done: loop.call_soon_threadsafe(self._finish_and_go_on, loop, batch, done))

    def _next_batch(self) -> list[_Waiting]:
        """The one who has waited longest, and with it those that fit into the same run."""
        batch: list[_Waiting] = []
        left: deque[_Waiting] = deque()
        size = self._max_batch
        while self._waiting and len(batch) < size:
            each = self._waiting.popleft()
            if each.answer.done():  # the caller hung up
                continue
            if not batch:
                num_items = each.ranker.num_items
                most = MAX_BATCH_OF_FEW if num_items <= MAX_ITEMS_INLINE else MAX_SCORES // (num_items + 1)
                size = max(1, min(size, most))
            if not batch or _fits(each, batch[0]):
                batch.append(each)
            else:
                left.append(each)
        self._waiting.extendleft(reversed(left))
        return batch

    def _finish_and_go_on(
        self, loop: asyncio.AbstractEventLoop, batch: Sequence[_Waiting], done: "Future[list[Ranking]]"
    ) -> None:
        self._running = False
        self._finish(batch, done)
        self._start(loop)

    @staticmethod
    def _finish(batch: Sequence[_Waiting], done: "Future[list[Ranking]]") -> None:
        error = done.exception()
        if error is not None:
            for each in batch:
                if not each.answer.done():
                    each.answer.set_exception(error)
            return
        for each, ranking in zip(batch, done.result(), strict=True):
            if not each.answer.done():
                each.answer.set_result(ranking)


def _fits(one: _Waiting, first: _Waiting) -> bool:
    """Whether padding one to the other costs less than a run of its own."""
    if one.ranker is not first.ranker or (one.query.adjust_V is None) != (first.query.adjust_V is None):
        return False
    shorter, longer = sorted((len(one.query.sequence.items), len(first.query.sequence.items)))
    return longer <= 2 * shorter or first.ranker.num_items >= ITEMS_WORTH_PADDING
