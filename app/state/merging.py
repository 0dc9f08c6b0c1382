"""A guest's history becomes part of a user's, across shards: detach, attach, finish.

1. The target's shard notes that it expects the source.
2. `detach`: the source's history is renamed, so that what the guest does next begins a new history; the merge is
   written into the source's event log, in its place among the guest's events, and is under way from here on.
3. `attach`: the target's shard adds what was detached, unless it no longer expects it.
4. `finish`: what was detached goes, the merge is no longer under way, and the source no longer expected.

Each step is one atomic call that may be repeated. Whoever finds a merge under way goes on at step 3: the same request
sent again, the next merge of the same guest, or `resume`, which every worker runs when it starts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from app.state.connection import Store, read_store_id, store_errors
from app.state.event_log import DAY_MS
from app.state.keys import Keys, Owner
from app.state.script import Script, ScriptCall


class MergeResult(NamedTuple):
    """How many events the target's history gained, and how many it holds now."""

    num_moved: int
    history_length: int


def source_name(keys: Keys, source: Owner, store_id: str) -> str:
    """How a target's shard speaks of a source: "shard digest", so that erasing the source need not look here."""
    return f"{keys.shard_of(source)} {source.digest(store_id)}"


@dataclass(frozen=True, slots=True)
class MergedPart:
    """Log entries that belong to another owner since a merge, behind `after` to `upto`, as `Keys.merged` lists them."""

    shard: int
    digest: str
    after: str
    upto: str

    @classmethod
    def parse(cls, text: str) -> "MergedPart":
        """The name of the source and the two positions."""
        shard, digest, after, upto = text.split(" ")
        return cls(int(shard), digest, after, upto)


class UnderWay(NamedTuple):
    """A merge between `detach` and `finish`; `value` is how the store notes it."""

    value: bytes
    target: Owner
    after: str
    upto: str

    @classmethod
    def parse(cls, value: bytes) -> "UnderWay":
        after, upto, target = value.decode().split(" ", 2)
        return cls(value, Owner.parse(target), after, upto)


class MergeEnd:
    """The last step of a merge, whether it took place or is called off."""

    def __init__(self, redis: Store, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys
        self._finish = Script(redis, "finish_merge")

    async def end(self, source: Owner, name: str, under_way: UnderWay) -> None:
        """What was detached goes, the merge is no longer under way, and its target no longer expects the source.

        Raises:
            StoreUnavailable: a part may be left; the same call again completes it.
        """
        keys = self._keys
        await self._finish.run(
            ScriptCall((keys.under_way(keys.shard_of(source)), *keys.detached(source)), (str(source), under_way.value))
        )
        await self.expect_no_more(name, under_way.target)

    async def expect_no_more(self, name: str, target: Owner) -> None:
        """`name` as `source_name` gives it."""
        with store_errors():
            await self._redis.srem(self._keys.expected(target), name)


class Merging:
    """Merges histories of one namespace; safe from any number of workers at once."""

    def __init__(
        self, redis: Store, *, namespace: str, shards: int, cap: int, ttl_days: int, log_max_age_days: int
    ) -> None:
        self._redis = redis
        self._keys = Keys(namespace, shards)
        self._cap = cap
        self._ttl_ms = ttl_days * DAY_MS
        self._log_max_age_ms = log_max_age_days * DAY_MS
        self._detach = Script(redis, "detach")
        self._attach = Script(redis, "members", "attach")
        self._last_step = MergeEnd(redis, self._keys)

    async def merge(self, source: Owner, target: Owner) -> MergeResult:
        """Make the source's events the target's, as if they had been sent with the target's id to begin with.

        Of one event that both have, the target's stays; the newest `cap` of all stay. The event log keeps the source's
        entries as they are and says from where on they are the target's. Popularity has counted them already.

        Raises:
            ValueError: source and target are one.
            StoreUnavailable: the merge may be under way; the same call, or a worker's start, ends it.
        """
        if source == target:
            raise ValueError(f"{source} cannot be merged into itself")
        name = await self._name(source)
        num_moved, is_mine = 0, False
        while not is_mine:  # an earlier merge of the source comes first, then what it has left since
            await self._expect(name, target)
            begun = await self._begin(source, target)
            if begun is None:
                await self._last_step.expect_no_more(name, target)
                break
            under_way, is_mine = begun
            num_gained = await self._complete(source, name, under_way)
            if under_way.target == target:
                num_moved += num_gained
        return MergeResult(num_moved, await self._length(target))

    async def resume(self) -> int:
        """Complete every merge that is under way; returns how many there were.

        Raises:
            StoreUnavailable: some may be left.
        """
        with store_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                for shard in range(self._keys.shards):
                    pipe.hgetall(self._keys.under_way(shard))
                replies: list[dict[bytes, bytes]] = await pipe.execute()
        found = [
            (Owner.parse(name.decode()), UnderWay.parse(value)) for reply in replies for name, value in reply.items()
        ]
        for source, under_way in found:
            await self._complete(source, await self._name(source), under_way)
        return len(found)

    async def _name(self, source: Owner) -> str:
        return source_name(self._keys, source, await read_store_id(self._redis, self._keys))

    async def _expect(self, name: str, target: Owner) -> None:
        key = self._keys.expected(target)
        with store_errors():
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.sadd(key, name)
                pipe.pexpire(key, self._ttl_ms)
                await pipe.execute()

    async def _begin(self, source: Owner, target: Owner) -> tuple[UnderWay, bool] | None:
        """The source's merge under way, and whether it began only now; None when nothing is stored."""
        keys, shard = self._keys, self._keys.shard_of(source)
        data = {f"{source.kind}_id": source.id, "to": {f"{target.kind}_id": target.id}}
        call = ScriptCall(
            (
                keys.events(shard),
                keys.under_way(shard),
                keys.last_merge(source),
                keys.history(source),
                keys.counted(source),
                keys.merged(source),
                *keys.detached(source),
                keys.lists(source),
            ),
            (str(source), str(target), orjson.dumps(data), self._log_max_age_ms),
        )
        [reply] = await self._detach.run(call)
        return None if reply is None else (UnderWay.parse(reply[0]), bool(reply[1]))

    async def _complete(self, source: Owner, name: str, under_way: UnderWay) -> int:
        """Attach and finish; returns how many events the target's history gained."""
        keys, target = self._keys, under_way.target
        with store_errors():
            async with self._redis.pipeline(transaction=True) as pipe:
                for key in keys.detached(source):
                    pipe.zrange(key, 0, -1, withscores=True)
                events, counted, merged = await pipe.execute()
        part = f"{name} {under_way.after} {under_way.upto}"
        merged.append((part.encode(), float(under_way.upto.split("-")[0])))
        # The newest first: while room is made, none is added that the next one would drop again.
        [attached] = await self._attach.run(
            ScriptCall(
                (keys.history(target), keys.counted(target), keys.merged(target), keys.expected(target)),
                (
                    self._cap,
                    self._ttl_ms,
                    self._log_max_age_ms,
                    name,
                    len(events),
                    len(counted),
                    *_score_and_member(events[::-1]),
                    *_score_and_member(counted[::-1]),
                    *_score_and_member(merged),
                ),
            )
        )
        await self._last_step.end(source, name, under_way)
        return 0 if attached is None else int(attached)

    async def _length(self, owner: Owner) -> int:
        """As many events as `History.read` gives."""
        key = self._keys.history(owner)
        with store_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.zcount(key, "-inf", "(0")
                pipe.zcount(key, 0, "+inf")
                num_negative, num_others = await pipe.execute()
        return int(num_negative) + min(int(num_others), self._cap)


def _score_and_member(pairs: Sequence[tuple[bytes, float]]) -> list[Any]:
    """Member and score as redis-py gives them → score and member as ZADD takes them. Scores are whole numbers."""
    return [part for member, score in pairs for part in (int(score), member)]
