"""Erasing a user or guest: from every key at once, from the event log, and by a mark from what was collected.

Erased is also what became the owner's by merges: the log still holds it under the names of the guests. Marks name
owners by their digests, so that nothing in the store says whose they are; `collect` honours them and takes them away.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

from app.state.connection import Store, read_store_id, store_errors
from app.state.event_log import START, ErasureMark
from app.state.keys import Keys, Owner
from app.state.merging import MergedPart, MergeEnd, UnderWay, source_name
from app.state.script import Script, ScriptCall

PAGE_ENTRIES = 1000
"""A script holds up every other client of the server: a thousand entries take it about a millisecond."""


class Erased(NamedTuple):
    """How many events of the history and how many entries of the event log are gone."""

    num_events: int
    num_log_entries: int


class Erasing:
    """Erases owners of one namespace."""

    def __init__(self, redis: Store, *, namespace: str, shards: int, settle_seconds: float) -> None:
        """settle_seconds: after so long the store holds what workers had still to write of lists that were served."""
        self._redis = redis
        self._keys = Keys(namespace, shards)
        self._settle_seconds = settle_seconds
        self._erase_owner = Script(redis, "erase_owner")
        self._log_end = Script(redis, "log_end")
        self._erase_log = Script(redis, "erase_log")
        self._last_step = MergeEnd(redis, self._keys)

    async def erase(self, owner: Owner) -> Erased:
        """When this returns, no key and no value of the store holds the owner's id.

        Events that come meanwhile or afterwards are those of a new owner with the same id.

        Raises:
            StoreUnavailable: a part may be left; the same call again completes it.
        """
        keys = self._keys
        store_id = await read_store_id(self._redis, keys)
        under_way = await self._under_way(owner)
        [(num_events, merged, expected)] = await self._erase_owner.run(
            ScriptCall(
                (
                    keys.history(owner),
                    keys.counted(owner),
                    keys.last_merge(owner),
                    *keys.detached(owner),
                    keys.merged(owner),
                    keys.expected(owner),
                    *keys.erasing(owner),
                    keys.lists(owner),
                ),
                (),
            )
        )
        await asyncio.sleep(self._settle_seconds)
        num_entries = await self._erase_own_entries(owner, store_id)
        for part in merged:
            num_entries += await self._erase_part(MergedPart.parse(part.decode()), store_id)
        for name in expected:
            num_entries += await self._erase_merge_into(owner, name.decode(), store_id)
        if under_way is not None:
            await self._call_off(owner, under_way, store_id)
        with store_errors():
            # Again the lists: a request that was under way may have kept one of the history that is gone.
            await self._redis.delete(keys.lists(owner), *keys.erasing(owner))
        return Erased(num_events, num_entries)

    async def _under_way(self, source: Owner) -> UnderWay | None:
        merges = await self._merges_under_way(self._keys.shard_of(source))
        return merges.get(source)

    async def _merges_under_way(self, shard: int) -> dict[Owner, UnderWay]:
        """A few at most: those of this moment and those that a worker's end has interrupted."""
        with store_errors():
            found: Any = await self._redis.hgetall(self._keys.under_way(shard))
        return {Owner.parse(source.decode()): UnderWay.parse(value) for source, value in found.items()}

    async def _erase_own_entries(self, owner: Owner, store_id: str) -> int:
        shard = self._keys.shard_of(owner)
        [upto] = await self._log_end.run(ScriptCall((self._keys.events(shard),), ()))
        mark = ErasureMark(owner.digest(store_id), START, upto.decode())
        beginning = orjson.dumps({f"{owner.kind}_id": owner.id})[:-1]
        return await self._erase_entries(shard, mark, (beginning,))

    async def _erase_part(self, part: MergedPart, store_id: str) -> int:
        """What another owner did before it was merged into the one that is erased, and the entry of the merge."""
        mark = ErasureMark(part.digest, part.after, part.upto)
        return await self._erase_entries(part.shard, mark, (b"", store_id, part.digest))

    async def _erase_merge_into(self, owner: Owner, name: str, store_id: str) -> int:
        """A merge that began and did not end; there is none where the source was only expected."""
        num_entries = 0
        for source, under_way in (await self._merges_under_way(int(name.split(" ")[0]))).items():
            if under_way.target == owner and source_name(self._keys, source, store_id) == name:
                part = MergedPart.parse(f"{name} {under_way.after} {under_way.upto}")
                num_entries += await self._erase_part(part, store_id)
                await self._call_off(source, under_way, store_id)
        return num_entries

    async def _call_off(self, source: Owner, under_way: UnderWay, store_id: str) -> None:
        """End a merge without its having taken place, and let the target forget the source."""
        await self._last_step.end(source, source_name(self._keys, source, store_id), under_way)

    async def _erase_entries(self, shard: int, mark: ErasureMark, whose: Sequence[str | bytes]) -> int:
        """whose: arguments 4… of `erase_log.lua`."""
        num_erased = 0
        position: bytes | str | None = mark.after
        while position is not None:
            call = ScriptCall((self._keys.events(shard),), (position, mark.upto, PAGE_ENTRIES, *whose))
            [(position, num_of_page)] = await self._erase_log.run(call)
            num_erased += num_of_page
        # Not before: a collector that had honoured the mark already could meet an entry that is still there.
        with store_errors():
            await self._redis.sadd(self._keys.erased(shard), str(mark))
        return num_erased
