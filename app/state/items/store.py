"""Items that were changed live, in the store: their records, and the log by which every worker hears of a change."""

from collections.abc import AsyncIterator, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from app.state.connection import Store, store_errors
from app.state.keys import Keys
from app.state.script import Script, ScriptCall

MAX_ITEMS_PER_CALL = 250
"""A script holds up every other client of the server."""
CHANGES_KEPT = 100_000
"""A worker that is further behind reads all records anew."""
ANY_REVISION, NO_REVISION = "*", ""


class Change(NamedTuple):
    """The record that an item has since a revision: changes are numbered from 1, without a gap."""

    item_id: str
    revision: int
    record: bytes


class PutOutcome(StrEnum):
    PUT = "put"
    UNCHANGED = "unchanged"
    """The item had this very record already: no change, and no new revision."""
    CONFLICT = "conflict"
    """The item has not the revision that was expected."""
    FULL = "full"


class PutReply(NamedTuple):
    """`revision`: of the item's record now, 0 where it has none."""

    outcome: PutOutcome
    revision: int


class ChangesLost(Exception):
    """The log begins later than where the reader stands, or the store is another one: read all records."""


_OUTCOMES = {
    ord("p"): PutOutcome.PUT,
    ord("u"): PutOutcome.UNCHANGED,
    ord("c"): PutOutcome.CONFLICT,
    ord("f"): PutOutcome.FULL,
}


class ItemStore:
    """The records of one namespace, all under one hash tag: a change and its entry in the log are one atomic step."""

    def __init__(self, redis: Store, *, namespace: str, max_items: int) -> None:
        """max_items: records kept, those of deleted items among them."""
        self._redis = redis
        self._records, self._changes, self._revision = Keys(namespace, 1).items
        self._header: list[str | bytes] = [str(CHANGES_KEPT), str(max_items)]
        self._script = Script(redis, "put_items")

    async def put(
        self, records: Sequence[tuple[str, bytes]], *, expected_revision: int | str | None = ANY_REVISION
    ) -> list[PutReply]:
        """Put the encoded records, in their order; the replies come in it. 250 at a time are atomic.

        expected_revision: put only what has it now; None: only where there is no record.

        Raises:
            StoreUnavailable: some may have been put. Putting all of them again completes it.
        """
        expected = NO_REVISION if expected_revision is None else str(expected_revision)
        replies: list[PutReply] = []
        for start in range(0, len(records), MAX_ITEMS_PER_CALL):
            arguments = list(self._header)
            for item_id, record in records[start : start + MAX_ITEMS_PER_CALL]:
                arguments += (item_id, expected, record)
            call = ScriptCall((self._records, self._changes, self._revision), arguments)
            ((letters, revisions),) = await self._script.run(call)
            replies += [
                PutReply(_OUTCOMES[letter], revision) for letter, revision in zip(letters, revisions, strict=True)
            ]
        return replies

    async def read(self, item_id: str) -> tuple[int, bytes] | None:
        """The item's revision and record."""
        with store_errors():
            value: Any = await self._redis.hget(self._records, item_id)
        return _parse(value) if value is not None else None

    async def last_revision(self) -> int:
        with store_errors():
            return int(await self._redis.get(self._revision) or 0)

    async def changes_after(self, revision: int, count: int) -> list[Change]:
        """The next changes, at most `count`; an item that changed twice may be in it twice.

        Raises:
            ChangesLost: some of them are no longer in the log.
        """
        with store_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.get(self._revision)
                pipe.xrange(self._changes, min=f"{revision + 1}-0", count=count)
                last, entries = await pipe.execute()
        last = int(last or 0)
        if last < revision or (last > revision and (not entries or _number(entries[0][0]) != revision + 1)):
            raise ChangesLost(f"the change log ends at {last} and lacks {revision + 1}")
        return [Change(fields[b"item_id"].decode(), _number(entry), fields[b"record"]) for entry, fields in entries]

    async def read_all(self, count: int = 1000) -> AsyncIterator[list[Change]]:
        """Every record that is there all the while, some of them perhaps twice; in pages of about `count`."""
        cursor = 0
        while True:
            with store_errors():
                reply: Any = await self._redis.hscan(self._records, cursor, count=count)
            cursor, page = reply
            yield [Change(item_id.decode(), *_parse(value)) for item_id, value in page.items()]
            if cursor == 0:
                return


def _parse(value: bytes) -> tuple[int, bytes]:
    revision, _, record = value.partition(b" ")
    return int(revision), record


def _number(entry: bytes) -> int:
    return int(entry.partition(b"-")[0])
