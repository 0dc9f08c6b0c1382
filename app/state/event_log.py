"""The shards' streams: what happened and what was shown, kept until `collect` has it in Parquet, and a minute at least.

Events come in through `append.lua`, in the same atomic step as the history; `served` records through `append_served`;
`merge` entries through `detach.lua`.
An entry has a `kind` and `data`, a JSON object that begins with whose it is. A `merge` entry says that what stands of a
guest before it belongs to a user.
"""

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson
from redis.asyncio import Redis

from app.settings import Settings
from app.state.connection import store_errors
from app.state.keys import Keys, Owner
from app.state.opening import open_store

START = "0-0"
"""The position before every entry."""
DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class ServedRecord:
    """One list that was recommended.

    owner: None for a stateless request.
    item_ids, scores: one length, in the order shown; the first stands at `first_position`.
    propensity: the probability of showing this list, where an answer was random.
    """

    recommendation_id: str
    owner: Owner | None
    timestamp_us: int
    model_version: str | None
    strategy: str
    item_ids: tuple[str, ...]
    scores: tuple[float, ...]
    first_position: int = 1
    propensity: float | None = None


class LogEntry(NamedTuple):
    """`position` orders the entries of one shard: pass the last one to `read` to go on behind it."""

    position: str
    kind: str
    data: bytes


@dataclass(frozen=True, slots=True)
class ErasureMark:
    """What a shard's log held of one owner is erased, behind position `after` up to `upto`; see `Owner.digest`."""

    digest: str
    after: str
    upto: str

    def __str__(self) -> str:
        return f"{self.digest} {self.after} {self.upto}"

    @classmethod
    def parse(cls, text: str) -> "ErasureMark":
        return cls(*text.split(" "))


class EventLog:
    """The event log of one namespace, bounded by age and number; the oldest entries go first."""

    def __init__(
        self,
        redis: Redis,
        *,
        namespace: str,
        shards: int,
        max_entries: int,
        max_age_days: int,
        store_id: str = "",
        on_dropped: Callable[[int], None] | None = None,
    ) -> None:
        """max_entries: of one shard. `on_dropped` hears how many entries went before `collect` removed them."""
        self._redis = redis
        self._keys = Keys(namespace, shards)
        self._max_entries = max_entries
        self._max_age_ms = max_age_days * DAY_MS
        self._on_dropped = on_dropped
        self.namespace = namespace
        self.num_shards = shards
        self.store_id = store_id

    async def append_served(self, records: Sequence[ServedRecord]) -> None:
        """Write the records, each to its owner's shard (without an owner, to that of its recommendation id).

        Raises:
            StoreUnavailable: some may be written; readers tell a repeated record by its recommendation id.
        """
        keys = [self._keys.events(self._keys.shard_of(record.owner or record.recommendation_id)) for record in records]
        oldest = str(max(int(time.time() * 1000) - self._max_age_ms, 0))
        touched = sorted(set(keys))
        with store_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                for key, record in zip(keys, records, strict=True):
                    pipe.xadd(key, {"kind": "served", "data": _served_data(record)})
                for key in touched:
                    pipe.xtrim(key, maxlen=self._max_entries, approximate=True)
                    pipe.xtrim(key, minid=oldest, approximate=True)
                replies = await pipe.execute()
        num_dropped = sum(replies[len(records) :])
        if num_dropped and self._on_dropped is not None:
            self._on_dropped(num_dropped)

    async def last_positions(self) -> list[str]:
        """The newest position of every shard, in their order; START where a shard's log is empty."""
        with store_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                for shard in range(self.num_shards):
                    pipe.xrevrange(self._keys.events(shard), count=1)
                replies = await pipe.execute()
        return [reply[0][0].decode() if reply else START for reply in replies]

    async def read(self, shard: int, after: str, upto: str, count: int) -> list[LogEntry]:
        """At most `count` entries behind position `after`, up to and including `upto`, oldest first."""
        with store_errors():
            reply: Any = await self._redis.xrange(self._keys.events(shard), min=f"({after}", max=upto, count=count)
        return [LogEntry(position.decode(), fields[b"kind"].decode(), fields[b"data"]) for position, fields in reply]

    async def position_before(self, seconds: float) -> str:
        """A position before all entries of the last so many seconds, by the clock that gives them their positions."""
        with store_errors():
            now_s, now_us = await self._redis.time()
        return f"{now_s * 1000 + now_us // 1000 - round(seconds * 1000)}-0"

    async def trim(self, shard: int, upto: str) -> int:
        """Remove the entries up to and including position `upto`; returns how many there were."""
        milliseconds, number = upto.split("-")
        with store_errors():
            first_kept = f"{milliseconds}-{int(number) + 1}"
            return int(await self._redis.xtrim(self._keys.events(shard), minid=first_kept, approximate=False))

    async def erasure_marks(self) -> list[set[ErasureMark]]:
        """Of every shard, what was erased of entries that may have been collected already."""
        with store_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                for shard in range(self.num_shards):
                    pipe.smembers(self._keys.erased(shard))
                replies = await pipe.execute()
        return [{ErasureMark.parse(mark.decode()) for mark in reply} for reply in replies]

    async def remove_erasure_marks(self, marks: Sequence[set[ErasureMark]]) -> None:
        """Take away the marks of every shard that are honoured wherever entries were collected to."""
        with store_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                for shard, honoured in enumerate(marks):
                    if honoured:
                        pipe.srem(self._keys.erased(shard), *map(str, honoured))
                await pipe.execute()


@asynccontextmanager
async def open_event_log(settings: Settings) -> AsyncIterator[EventLog]:
    """The event log of the store that the settings name, for a process of its own; raises what `open_store` does."""
    async with open_store(settings) as (redis, store_id):
        yield EventLog(
            redis,
            namespace=settings.namespace,
            shards=settings.shards,
            max_entries=settings.log_max_entries,
            max_age_days=settings.log_max_age_days,
            store_id=store_id,
        )


def _served_data(record: ServedRecord) -> bytes:
    # The owner comes first, as in every entry: so an owner's entries are found without parsing.
    data: dict[str, Any] = {} if record.owner is None else {f"{record.owner.kind}_id": record.owner.id}
    data |= {
        "recommendation_id": record.recommendation_id,
        "timestamp_us": record.timestamp_us,
        "model_version": record.model_version,
        "strategy": record.strategy,
        "first_position": record.first_position,
        "item_ids": record.item_ids,
        "scores": record.scores,
    }
    if record.propensity is not None:
        data["propensity"] = record.propensity
    return orjson.dumps(data)
