"""Time-decayed popularity from the store's own counters, which `append.lua` keeps per shard."""

import asyncio
import time
from typing import NamedTuple

import numpy as np
from redis.asyncio import Redis

from app.errors import StoreUnavailable
from app.state.connection import store_errors
from app.state.keys import Keys


class PopularItem(NamedTuple):
    """`weight` is the sum over the item's events, each halved every half-life since it happened."""

    item_id: str
    weight: float


class Popularity:
    """The most popular items of a namespace, read at most every few seconds."""

    def __init__(
        self,
        redis: Redis,
        *,
        namespace: str,
        shards: int,
        half_life_days: float,
        max_items: int = 2000,
        cache_seconds: float = 5.0,
    ) -> None:
        self._redis = redis
        self._keys = Keys(namespace, shards)
        self._half_life_s = half_life_days * 86_400
        self._max_items = max_items
        self._cache_seconds = cache_seconds
        self._items: list[PopularItem] | None = None
        self._read_at = 0.0
        self._reading = asyncio.Lock()

    async def top(self) -> list[PopularItem]:
        """The items by falling weight, equal weights by rising item id; at most `max_items`.

        Each shard contributes its own `max_items` best: what is among them nowhere is missed, however it adds up.

        Raises:
            StoreUnavailable: the store does not answer and never did; an earlier list is served on otherwise.
        """
        if self._items is not None and time.monotonic() - self._read_at < self._cache_seconds:
            return self._items
        async with self._reading:  # one read for all who wait
            if self._items is None or time.monotonic() - self._read_at >= self._cache_seconds:
                try:
                    self._items = await self._read()
                except StoreUnavailable:
                    if self._items is None:
                        raise
                self._read_at = time.monotonic()
            return self._items

    async def _read(self) -> list[PopularItem]:
        with store_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                for shard in range(self._keys.shards):
                    pipe.zrange(self._keys.popularity(shard), 0, self._max_items - 1, desc=True, withscores=True)
                replies = await pipe.execute()
        # A shard's score is the time at which one event would weigh as much as all the item's events do: in half-lives
        # it is a logarithm to base 2, and weights of shards add up below it.
        logarithms: dict[bytes, float] = {}
        for reply in replies:
            for item, score in reply:
                logarithms[item] = float(np.logaddexp2(logarithms.get(item, -np.inf), score / self._half_life_s))
        now = time.time() / self._half_life_s
        items = [PopularItem(item.decode(), float(np.exp2(value - now))) for item, value in logarithms.items()]
        # Sorted by the logarithm: weights of long ago are all 0.0.
        order = sorted(zip(logarithms.values(), items, strict=True), key=lambda pair: (-pair[0], pair[1].item_id))
        return [item for _, item in order[: self._max_items]]
