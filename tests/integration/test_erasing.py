"""Erasing in a real Valkey server: not a byte of the id is left, and others keep what is theirs."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from app.state.connection import Store, claim_store
from app.state.erasing import Erased, Erasing
from app.state.event_log import EventLog, ServedRecord
from app.state.history import Event, Owner
from app.state.kept_lists import KeptList, KeptLists
from app.state.merging import Merging
from scripts.training.collecting import collect
from tests.integration.histories import T, click, item_ids, make_history
from tests.integration.power import PowerCut, cut_power

ANN, BOB = Owner("user", "ann-id"), Owner("user", "bob-id")
GUEST, STRANGE = Owner("session", "guest-id"), Owner("user", 'st"r\\ange-ü\n')
LIST = KeptList("rec_1", "model", (), "v1", 2, 1, ("i1",), np.ones(1, np.float32))


def erasing(redis: Store) -> Erasing:
    return Erasing(redis, namespace="default", shards=16, settle_seconds=0)


def merging(redis: Store) -> Merging:
    return Merging(redis, namespace="default", shards=16, cap=200, ttl_days=10, log_max_age_days=30)


async def event_log(redis: Store) -> EventLog:
    store_id = await claim_store(redis, namespace="default", shards=16)
    return EventLog(redis, namespace="default", shards=16, max_entries=100_000, max_age_days=30, store_id=store_id)


async def everything(redis: Store) -> AsyncIterator[bytes]:
    """Every key, and every value read by the commands of its type."""
    async for key in redis.scan_iter(count=1000):
        yield key
        match await redis.type(key):
            case b"string":
                yield repr(await redis.get(key)).encode()
            case b"set":
                yield repr(await redis.smembers(key)).encode()
            case b"hash":
                yield repr(await redis.hgetall(key)).encode()
            case b"zset":
                yield repr(await redis.zrange(key, 0, -1)).encode()
            case b"stream":
                yield repr(await redis.xrange(key)).encode()
            case kind:
                raise AssertionError(f"{key!r} is a {kind!r}, which this test cannot read")


async def holds(redis: Store, text: str) -> list[bytes]:
    return [part[:200] async for part in everything(redis) if text.encode() in part]


def served(number: int, owner: Owner | None) -> ServedRecord:
    return ServedRecord(f"rec_{number}", owner, T + number, "v1", "model", ("i1", "i2"), (2.5, 1.25))


async def live_through(redis: Store) -> None:
    """Two users and a guest act, get lists, and the guest signs in as Ann, then acts as a guest again."""
    history, log = make_history(redis), await event_log(redis)
    await history.append([click("a", 0, ANN), click("b", 1, BOB), click("c", 2, GUEST)])
    await history.append([Event(owner, "x", "impression", T, use="count") for owner in (ANN, BOB, GUEST)])
    lists = KeptLists(redis, namespace="default", shards=16)
    for owner in (ANN, BOB, GUEST):
        await lists.keep(owner, LIST)
    await log.append_served([served(1, ANN), served(2, BOB), served(3, GUEST), served(4, None)])
    await merging(redis).merge(GUEST, ANN)
    await history.append([click("d", 3, GUEST)])


async def test_not_a_byte_of_the_user_is_left_and_others_keep_theirs(redis: Store) -> None:
    await live_through(redis)
    assert len(await holds(redis, "ann-id")) >= 4
    # Ann's own event, impression, list; the guest's event, impression, list and the entry of the merge
    assert await erasing(redis).erase(ANN) == Erased(num_events=2, num_log_entries=7)
    assert await holds(redis, "ann-id") == []
    history = make_history(redis)
    assert [await item_ids(history, owner) for owner in (ANN, BOB, GUEST)] == ["", "b", "d"]
    entries = [part async for part in everything(redis) if b"kind" in part]
    assert sum(part.count(b"bob-id") for part in entries) == 3
    assert sum(part.count(b"guest-id") for part in entries) == 1
    assert sum(part.count(b"rec_4") for part in entries) == 1
    assert await erasing(redis).erase(ANN) == Erased(0, 0)


async def test_not_a_byte_of_the_guest_is_left_and_the_user_keeps_the_events(redis: Store) -> None:
    await live_through(redis)
    assert (await erasing(redis).erase(GUEST)).num_events == 1
    assert await holds(redis, "guest-id") == []
    history = make_history(redis)
    assert [await item_ids(history, owner) for owner in (ANN, GUEST)] == ["ac", ""]


async def test_id_of_any_characters_is_erased_by_name_and_by_digest(redis: Store) -> None:
    history = make_history(redis)
    await event_log(redis)
    await history.append([click("a", 0, STRANGE), click("b", 1, Owner("user", "st"))])
    await merging(redis).merge(STRANGE, ANN)
    await history.append([click("c", 2, STRANGE)])
    assert await erasing(redis).erase(ANN) == Erased(1, 2)
    assert await erasing(redis).erase(STRANGE) == Erased(1, 1)
    assert await holds(redis, "ange") == []
    assert await item_ids(history, Owner("user", "st")) == "b"


async def test_list_that_a_request_under_way_keeps_goes_as_well(redis: Store) -> None:
    await live_through(redis)
    erasure = asyncio.create_task(Erasing(redis, namespace="default", shards=16, settle_seconds=1).erase(ANN))
    history = make_history(redis)
    while await item_ids(history, ANN):
        await asyncio.sleep(0.01)
    await KeptLists(redis, namespace="default", shards=16).keep(ANN, LIST)
    assert (await erasure).num_events == 2
    assert await holds(redis, "ann-id") == []


async def test_user_who_comes_back_begins_anew(redis: Store) -> None:
    await live_through(redis)
    await erasing(redis).erase(ANN)
    history = make_history(redis)
    assert await history.append([click("a", 0, ANN)]) == ["accepted"]
    assert await item_ids(history, ANN) == "a"


@pytest.mark.parametrize("victim", [ANN, GUEST])
async def test_merge_that_is_half_done_is_called_off(
    redis: Store, monkeypatch: pytest.MonkeyPatch, victim: Owner
) -> None:
    history = make_history(redis)
    for at in range(1, 12):
        await redis.flushall()
        await event_log(redis)
        await history.append([click("a", 0, ANN), click("c", 2, GUEST)])
        with monkeypatch.context() as patch:
            cut_power(patch, at, after_sending=True)
            try:
                await merging(redis).merge(GUEST, ANN)
            except PowerCut:
                await redis.connection_pool.disconnect()
        await erasing(redis).erase(victim)
        await merging(redis).resume()
        assert await holds(redis, victim.id) == [], at
        other = ANN if victim is GUEST else GUEST
        assert await item_ids(history, victim) == ""
        assert await item_ids(history, other) in ("a", "c", "ac", ""), at


async def test_erasure_that_breaks_off_is_completed_by_the_same_call(
    redis: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    at, num_messages = 0, 1
    while at < num_messages:
        at += 1
        await redis.flushall()
        await live_through(redis)
        await erasing(redis).erase(Owner("user", "nobody"))  # scripts are loaded
        with monkeypatch.context() as patch:
            so_far = cut_power(patch, at, after_sending=True)
            try:
                await erasing(redis).erase(ANN)
            except PowerCut:
                num_messages = at + 1
            else:
                assert so_far() < at
        await redis.connection_pool.disconnect()
        await erasing(redis).erase(ANN)
        assert await holds(redis, "ann-id") == [], at
        assert [await item_ids(make_history(redis), owner) for owner in (BOB, GUEST)] == ["b", "d"]
    assert num_messages >= 8


# In what was collected


async def test_collected_files_lose_the_user_at_the_next_run(redis: Store, tmp_path: Path) -> None:
    await live_through(redis)
    log, history = await event_log(redis), make_history(redis)
    assert [batch.num_events async for batch in collect(log, tmp_path, batch_entries=3)]
    before = _rows(tmp_path)
    assert {"ann-id", "bob-id", "session:guest-id"} <= {row[0] for row in before}
    await history.append([click("e", 4, ANN), click("f", 5, BOB)])

    await erasing(redis).erase(ANN)
    await history.append([click("g", 6, ANN)])  # the same id, later: another user
    [batch async for batch in collect(log, tmp_path, batch_entries=100)]
    assert _rows(tmp_path) == [
        ("ann-id", "g"), ("bob-id", "b"), ("bob-id", "f"), ("bob-id", "x"), ("session:guest-id", "d"),
    ]  # fmt: skip
    assert pl.read_parquet(tmp_path / "served-*.parquet")["user_id"].to_list() == [None, "bob-id"]
    assert not list(tmp_path.glob("merges-*"))
    assert not list(tmp_path.glob("*.tmp"))

    await erasing(redis).erase(ANN)
    [batch async for batch in collect(log, tmp_path, batch_entries=100)]
    assert [path.name for path in tmp_path.iterdir() if b"ann-id" in path.read_bytes()] == []
    assert [part async for part in everything(redis) if b":erased" in part] == []  # all marks are honoured


async def test_user_is_erased_from_entries_that_are_collected_and_still_in_the_log(
    redis: Store, tmp_path: Path
) -> None:
    await live_through(redis)
    log = await event_log(redis)
    [batch async for batch in collect(log, tmp_path, batch_entries=100)]
    assert "ann-id" in {row[0] for row in _rows(tmp_path)}
    assert await erasing(redis).erase(ANN) == Erased(num_events=2, num_log_entries=7)
    assert await holds(redis, "ann-id") == []
    assert [batch async for batch in collect(log, tmp_path, batch_entries=100)] == []
    assert _rows(tmp_path) == [("bob-id", "b"), ("bob-id", "x"), ("session:guest-id", "d")]
    assert [path.name for path in tmp_path.iterdir() if b"ann-id" in path.read_bytes()] == []
    assert [part async for part in everything(redis) if b":erased" in part] == []  # all marks are honoured


async def test_mark_waits_until_files_are_rewritten(
    redis: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await live_through(redis)
    log = await event_log(redis)
    [batch async for batch in collect(log, tmp_path, batch_entries=100)]
    await erasing(redis).erase(BOB)

    def cut(*_: object) -> None:
        raise PowerCut

    with monkeypatch.context() as patch:
        patch.setattr("scripts.training.collecting._write_durably", cut)
        with pytest.raises(PowerCut):
            [batch async for batch in collect(log, tmp_path, batch_entries=100)]
    assert "bob-id" in {row[0] for row in _rows(tmp_path)}
    [batch async for batch in collect(log, tmp_path, batch_entries=100)]
    assert [path.name for path in tmp_path.iterdir() if b"bob-id" in path.read_bytes()] == []


async def test_user_erased_while_a_batch_is_in_hand_is_not_written_for_good(
    redis: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await live_through(redis)
    log = await event_log(redis)
    read = EventLog.read
    erased = False

    async def read_then_erase(self: EventLog, shard: int, after: str, upto: str, count: int) -> object:
        nonlocal erased
        entries = await read(self, shard, after, upto, count)
        if not erased and any(b"bob-id" in entry.data for entry in entries):
            erased = True
            await erasing(redis).erase(BOB)
        return entries

    monkeypatch.setattr(EventLog, "read", read_then_erase)
    [batch async for batch in collect(log, tmp_path, batch_entries=100)]
    assert erased
    assert [path.name for path in tmp_path.iterdir() if b"bob-id" in path.read_bytes()] == []


def _rows(folder: Path) -> list[tuple[str, str]]:
    table = pl.read_parquet(folder / "events-*.parquet").select("user_id", "item_id")
    return sorted(table.rows())
