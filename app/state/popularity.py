"""What many users choose, from the store's own counters, which `append.lua` keeps per shard: popular, and trending."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from app.errors import StoreUnavailable
from app.state.connection import Store, store_errors
from app.state.keys import Keys

MAX_ITEMS_PER_SHARD = 500
MAX_TRENDING = 1000
"""Items whose surprise is worked out from all shards; the others surprise less."""
LEAST_TREND = 1.0
"""Standard deviations; below, an item has its usual ups and downs."""


Item = TypeVar("Item", str, bytes)


class PopularItem(NamedTuple):
    """`weight`: of a popular item the sum over its events, each halved every half-life since it happened; of a trending
    one how surprising its newest events are (see `trend`)."""

    item_id: str
    weight: float


class Popularity:
    """The most popular and the most trending items of a namespace, read at most every few seconds."""

    def __init__(
        self,
        redis: Store,
        *,
        namespace: str,
        shards: int,
        half_life_days: float,
        trending_half_life_hours: float = 24.0,
        max_items: int = 2000,
        cache_seconds: float = 5.0,
    ) -> None:
        self._redis = redis
        self._keys = Keys(namespace, shards)
        self._half_life_s = half_life_days * 86_400
        self._trending_half_life_s = trending_half_life_hours * 3600
        self._max_items = max_items
        self._popular = _Cached(self._read_popular, cache_seconds)
        self._trending = _Cached(self._read_trending, cache_seconds)

    async def top(self) -> Sequence[PopularItem]:
        """The items by falling weight, equal weights by rising item id; at most `max_items`.

        Each shard contributes its own 500 best: what is among them nowhere is missed, however it adds up.

        Raises:
            StoreUnavailable: the store does not answer and never did; an earlier list is served on otherwise.
        """
        return await self._popular.get()

    async def trending(self) -> Sequence[PopularItem]:
        """The items with more events of late than their popularity leads to expect, the most surprising first. Of those
        that do not surprise, none.

        Raises:
            StoreUnavailable: as `top`.
        """
        return await self._trending.get()

    async def _read_popular(self) -> Sequence[PopularItem]:
        logarithms = await self._best(self._keys.popularity, self._half_life_s)
        now = time.time() / self._half_life_s
        # Sorted by the logarithm: weights of long ago are all 0.0.
        order = sorted(logarithms, key=lambda item: (-logarithms[item], item))
        return [PopularItem(item, float(np.exp2(logarithms[item] - now))) for item in order[: self._max_items]]

    async def _read_trending(self) -> Sequence[PopularItem]:
        recent = await self._best(self._keys.trending, self._trending_half_life_s)
        usual = await self._best(self._keys.popularity, self._half_life_s)
        # What is among the best of all shards in one list need not be in the other: an item that is steady but not
        # popular would surprise. So these weights only choose the items whose own are read.
        some = [item.item_id for item in self._surprising(recent, usual)[:MAX_TRENDING]]
        if not some:
            return []
        recent = await self._of(some, self._keys.trending, self._trending_half_life_s)
        usual = await self._of(some, self._keys.popularity, self._half_life_s)
        return self._surprising(recent, usual)[: self._max_items]

    def _surprising(self, recent: Mapping[str, float], usual: Mapping[str, float]) -> list[PopularItem]:
        """By logarithms as `_best` gives them; an item that `usual` lacks has at least its newest events."""
        recent_weights, usual_weights = _weights(recent, self._trending_half_life_s), _weights(usual, self._half_life_s)
        ratio = self._trending_half_life_s / self._half_life_s
        trends = [
            PopularItem(item, trend(weight, usual_weights.get(item, weight) * ratio))
            for item, weight in recent_weights.items()
        ]
        return sorted(
            (item for item in trends if item.weight > LEAST_TREND), key=lambda item: (-item.weight, item.item_id)
        )

    async def _best(self, key: Callable[[int], str], half_life_s: float) -> dict[str, float]:
        """Of the best items of each shard, the time in half-lives at which one event would weigh as much as all of the
        item's do, as far as it is among them."""
        with store_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                for shard in range(self._keys.shards):
                    pipe.zrange(key(shard), 0, MAX_ITEMS_PER_SHARD - 1, desc=True, withscores=True)
                replies: list[list[tuple[bytes, Any]]] = await pipe.execute()
        found = await _summed(replies, half_life_s)
        return {item.decode(): value for item, value in found.items()}

    async def _of(self, items: Sequence[str], key: Callable[[int], str], half_life_s: float) -> dict[str, float]:
        """The same of these items, over all shards; without those that no shard keeps."""
        with store_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                for shard in range(self._keys.shards):
                    pipe.zmscore(key(shard), list(items))
                replies: list[list[float | None]] = await pipe.execute()
        return await _summed(
            [
                [(item, score) for item, score in zip(items, reply, strict=True) if score is not None]
                for reply in replies
            ],
            half_life_s,
        )


async def _summed(replies: Sequence[Sequence[tuple[Item, Any]]], half_life_s: float) -> dict[Item, float]:
    """Such a time is a logarithm to base 2, and weights of shards add up below it."""
    logarithms: dict[Item, float] = {}
    for reply in replies:
        for item, score in reply:
            value = float(score) / half_life_s
            before = logarithms.get(item)
            logarithms[item] = value if before is None else float(np.logaddexp2(before, value))
        await asyncio.sleep(0)  # other requests have their turn
    return logarithms


def _weights(logarithms: Mapping[str, float], half_life_s: float) -> dict[str, float]:
    now = time.time() / half_life_s
    return {item: float(np.exp2(min(value - now, 1000.0))) for item, value in logarithms.items()}


def trend(weight: float, expected: float) -> float:
    """By how many standard deviations the weight of the newest events exceeds what is expected, where events come by
    chance (Poisson); the variance of one event more keeps items that had none from trending without bound.

    expected: the item's long-run weight times the ratio of the two half-lives, which is what a steady item has.

    >>> trend(20.0, 15.0), trend(5.0, 0.0)
    (1.25, 5.0)
    """
    return (weight - expected) / float(np.sqrt(expected + 1))


class _Cached:
    """A list that is read at most every few seconds, once for all who wait for it."""

    def __init__(self, read: Callable[[], Any], seconds: float) -> None:
        self._read = read
        self._seconds = seconds
        self._items: Sequence[PopularItem] | None = None
        self._read_at = 0.0
        self._reading = asyncio.Lock()

    async def get(self) -> Sequence[PopularItem]:
        if self._items is not None and self._is_fresh():
            return self._items
        async with self._reading:
            if self._items is None or not self._is_fresh():
                try:
                    self._items = await self._read()
                except StoreUnavailable:
                    if self._items is None:
                        raise
                self._read_at = time.monotonic()
            return self._items

    def _is_fresh(self) -> bool:
        return time.monotonic() - self._read_at < self._seconds
