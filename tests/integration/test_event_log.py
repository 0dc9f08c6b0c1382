"""The event log's own reading, writing and trimming, and what is counted beside it."""

import time

import pytest
from redis.asyncio import Redis

from app.errors import StoreUnavailable
from app.state.connection import connect
from app.state.event_log import START, EventLog, ServedRecord
from app.state.history import Event, History, Owner
from app.state.popularity import Popularity
from tests.integration.conftest import Server

USER = Owner("user", "u1")
DAY_US = 86_400_000_000


def _log(redis: Redis, max_entries: int = 1000, **options: object) -> EventLog:
    return EventLog(redis, namespace="default", shards=4, max_entries=max_entries, max_age_days=30, **options)  # type: ignore[arg-type]


def _history(redis: Redis) -> History:
    return History(
        redis, namespace="default", shards=4, cap=200, ttl_days=10, log_max_entries=1000, log_max_age_days=30,
        popularity_half_life_days=7,
    )  # fmt: skip


def _served(number: int, owner: Owner | None = USER) -> ServedRecord:
    return ServedRecord(f"rec_{number}", owner, 17, None, "popular", (), ())


async def test_entries_are_read_page_by_page_and_only_what_was_read_is_trimmed(redis: Redis) -> None:
    log, shard = _log(redis), 0  # crc32("user:u1") is divisible by 4
    assert await log.last_positions() == [START] * 4
    await _history(redis).append([Event(USER, "a", "click", 5)])
    await log.append_served([_served(n) for n in range(6)])
    last = (await log.last_positions())[shard]

    page = await log.read(shard, START, last, 4)
    assert [entry.kind for entry in page] == ["event", "served", "served", "served"]
    assert await log.trim(shard, page[-1].position) == 4
    rest = await log.read(shard, page[-1].position, last, 100)
    assert [b'"rec_%d"' % n in entry.data for n, entry in enumerate(rest, start=3)] == [True] * 3
    assert rest[-1].position == last
    assert await log.read(shard, last, last, 100) == []
    assert await log.trim(shard, page[-1].position) == 0


async def test_served_lists_alone_cannot_fill_the_log_for_ever(redis: Redis) -> None:
    dropped: list[int] = []
    log = _log(redis, max_entries=1000, on_dropped=dropped.append)
    for start in range(0, 3000, 500):
        await log.append_served([_served(n) for n in range(start, start + 500)])
    kept = await redis.xlen("default:{0}:events")
    assert 1000 <= kept < 1200
    assert sum(dropped) == 3000 - kept


async def test_entries_beyond_the_maximum_age_go(redis: Redis) -> None:
    dropped: list[int] = []
    month_ago_ms = int(time.time() * 1000) - 31 * 86_400_000
    for number in range(500):
        await redis.xadd("default:{0}:events", {"kind": "served", "data": "{}"}, id=f"{month_ago_ms}-{number}")
    await _log(redis, on_dropped=dropped.append).append_served([_served(1)])
    assert sum(dropped) >= 400  # whole blocks of about a hundred go
    assert await redis.xlen("default:{0}:events") == 501 - sum(dropped)


async def test_popularity_halves_with_every_half_life_and_adds_up_over_shards(redis: Redis) -> None:
    now_us = int(time.time() * 1_000_000)
    users = [Owner("user", f"u{n}") for n in range(8)]
    await _history(redis).append(
        [
            *[Event(user, "now", "click", now_us) for user in users],
            *[Event(user, "week", "click", now_us - 7 * DAY_US, weight=3.0) for user in users],
            *[Event(user, "fortnight", "click", now_us - 14 * DAY_US) for user in users],
            *[Event(user, "1997", "click", 870_000_000_000_000) for user in users],
            Event(USER, "unweighted", "click", now_us, weight=0.0),
        ]
    )
    assert len({user_shard async for user_shard in redis.scan_iter("*:popularity")}) > 1
    top = await Popularity(redis, namespace="default", shards=4, half_life_days=7).top()
    # By hand: 8 · 3 / 2 = 12, 8, 8 / 4 = 2, and 28 years are 1,500 half-lives.
    assert [item.item_id for item in top] == ["week", "now", "fortnight", "1997"]
    assert [item.weight for item in top] == pytest.approx([12, 8, 2, 0], rel=1e-3)


async def test_popularity_is_read_once_in_a_while_and_outlives_the_store(own_valkey: Server) -> None:
    redis = connect(own_valkey.url, timeout_ms=500, max_connections=4)
    popularity = Popularity(redis, namespace="default", shards=4, half_life_days=7, cache_seconds=0)
    patient = Popularity(redis, namespace="default", shards=4, half_life_days=7, cache_seconds=3600)
    await _history(redis).append([Event(USER, "a", "click", 5)])
    first = await patient.top()
    await _history(redis).append([Event(USER, "b", "click", 6)])
    assert await patient.top() == first
    assert [item.item_id for item in await popularity.top()] == ["b", "a"]
    own_valkey.stop()
    assert [item.item_id for item in await popularity.top()] == ["b", "a"]
    with pytest.raises(StoreUnavailable):
        await Popularity(redis, namespace="default", shards=4, half_life_days=7).top()
    await redis.aclose()
