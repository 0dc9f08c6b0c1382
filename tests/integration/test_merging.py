"""Merges in a real Valkey server: nothing lost, nothing twice, wherever a worker dies."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from app.state.connection import Store, claim_store, connect
from app.state.history import Event, HistoryEvent, Owner
from app.state.merging import MergeResult, Merging
from app.state.popularity import Popularity
from tests.integration.histories import USER, T, click, item_ids, make_history, num_logged
from tests.integration.power import PowerCut, cut_power

GUEST = Owner("session", "s9")
OTHER = Owner("user", "u2")


def merging(redis: Store, *, cap: int = 200) -> Merging:
    return Merging(redis, namespace="default", shards=16, cap=cap, ttl_days=10, log_max_age_days=30)


async def claimed(url: str) -> Store:
    redis = connect(url, timeout_ms=5000, max_connections=4)
    await claim_store(redis, namespace="default", shards=16)
    return redis


async def keys_that_name(redis: Redis, text: str) -> list[bytes]:
    return sorted([key async for key in redis.scan_iter(f"*{text}*")])


async def test_guest_becomes_the_user_and_begins_anew(redis: Store) -> None:
    await claim_store(redis, namespace="default", shards=16)
    history = make_history(redis)
    await history.append([click("a", 0), click("d", 3), click("b", 1, GUEST), click("c", 2, GUEST)])
    assert await merging(redis).merge(GUEST, USER) == MergeResult(num_moved=2, history_length=4)
    assert (await item_ids(history), await item_ids(history, GUEST)) == ("abcd", "")
    assert await merging(redis).merge(GUEST, USER) == MergeResult(0, 4)

    await history.append([click("e", 4, GUEST)])
    assert (await item_ids(history), await item_ids(history, GUEST)) == ("abcd", "e")
    assert await merging(redis).merge(GUEST, OTHER) == MergeResult(1, 1)
    assert (await item_ids(history, OTHER), await item_ids(history, GUEST)) == ("e", "")
    assert await keys_that_name(redis, "s9") == [b"default:{6}:last_merge:session:s9"]


async def test_event_sent_again_for_the_user_is_known_after_the_merge(redis: Store) -> None:
    await claim_store(redis, namespace="default", shards=16)
    history = make_history(redis)
    shown = Event(GUEST, "x", "impression", T, event_id="e2", use="count")
    await history.append([click("a", 0, GUEST, event_id="e1"), shown])
    await history.append([click("z", 5, event_id="e1")])
    assert await merging(redis).merge(GUEST, USER) == MergeResult(0, 1)  # the user's own event of that id stays
    again = Event(USER, "x", "impression", T, event_id="e2", use="count")
    assert await history.append([click("q", 9, event_id="e1"), again]) == ["duplicate", "duplicate"]
    assert await item_ids(history) == "z"


async def test_merge_counts_nothing_twice_and_is_logged_among_the_guests_events(redis: Store) -> None:
    await claim_store(redis, namespace="default", shards=16)
    history = make_history(redis)
    popularity = Popularity(redis, namespace="default", shards=16, half_life_days=7, cache_seconds=0)
    await history.append([click("a", 0, GUEST), click("b", 1)])
    before = [item.item_id for item in await popularity.top()], await num_logged(redis)
    await merging(redis).merge(GUEST, USER)
    await history.append([click("c", 2, GUEST)])
    entries = await redis.xrange("default:{6}:events")
    assert [fields[b"kind"] for _, fields in entries] == [b"event", b"merge", b"event"]
    assert entries[1][1][b"data"] == b'{"session_id":"s9","to":{"user_id":"u1"}}'
    await redis.delete("default:{6}:events")
    assert before == (["b", "a"], 2)


async def test_history_keeps_its_owner_when_merged_into_itself(redis: Store) -> None:
    with pytest.raises(ValueError, match="into itself"):
        await merging(redis).merge(USER, USER)


async def test_chain_of_merges_ends_at_the_last(redis: Store) -> None:
    await claim_store(redis, namespace="default", shards=16)
    history, merge = make_history(redis), merging(redis).merge
    await history.append([click("a", 0, GUEST), click("b", 1, OTHER)])
    assert await merge(GUEST, OTHER) == MergeResult(1, 2)
    assert await merge(OTHER, USER) == MergeResult(2, 2)
    assert await item_ids(history) == "ab"
    parts = await redis.zrange("default:{8}:merged:user:u1", 0, -1)
    assert len(parts) == 2  # what was the guest's and then the other's, and the other's own


joint = st.builds(
    lambda key, owner, at, sequence, item, named, use: Event(
        owner, f"i{item}", "click", T + at, sequence=sequence, event_id=f"e{key}" if named else None, use=use
    ),
    st.integers(0, 10**6), st.sampled_from([USER, GUEST]), st.integers(0, 6), st.integers(0, 2),
    st.integers(0, 10**6), st.booleans(), st.sampled_from(["sequence", "sequence", "negative", "count"]),
)  # fmt: skip


@given(events=st.lists(joint, max_size=25, unique_by=(lambda e: e.item_id, lambda e: e.event_id or e.item_id)))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_merge_equals_replay_of_the_joint_events(valkey_url: str, events: list[Event]) -> None:
    cap = 8

    async def history_after(events: list[Event], *, merge: bool) -> list[HistoryEvent]:
        redis = await claimed(valkey_url)
        await redis.flushall()
        await claim_store(redis, namespace="default", shards=16)
        history = make_history(redis, cap=cap)
        for event in events:
            await history.append([event])
        if merge:
            result = await merging(redis, cap=cap).merge(GUEST, USER)
            assert result.history_length == len(await history.read(USER))
        found = await history.read(USER)
        await redis.aclose()
        return found

    as_one = [replace(event, owner=USER) for event in events]
    merged = asyncio.run(history_after(events, merge=True))
    assert merged == asyncio.run(history_after(as_one, merge=False))


@pytest.mark.parametrize("way_on", ["again", "resume", "another target"])
@pytest.mark.parametrize("after_sending", [False, True])
async def test_worker_that_dies_anywhere_loses_nothing_and_repeats_nothing(
    valkey_url: str, monkeypatch: pytest.MonkeyPatch, after_sending: bool, way_on: str
) -> None:
    at, num_messages = 0, 1
    while at < num_messages:
        at += 1
        redis = await claimed(valkey_url)
        await redis.flushall()
        await claim_store(redis, namespace="default", shards=16)
        history = make_history(redis)
        await history.append([click("a"), click("c", 2), click("b", 1, GUEST), click("d", 3, GUEST)])
        await merging(redis).merge(Owner("session", "warm"), USER)  # scripts are loaded, connections open

        with monkeypatch.context() as patch:
            so_far = cut_power(patch, at, after_sending=after_sending)
            try:
                await merging(redis).merge(GUEST, USER)
            except PowerCut:
                pass
            else:
                at = num_messages  # it needed no more messages
            num_messages = max(num_messages, so_far() + 1)
        await redis.aclose()
        redis = await claimed(valkey_url)
        history = make_history(redis)

        await history.append([click("e", 4, GUEST)])
        if way_on == "resume":
            await merging(redis).resume()
        else:
            await merging(redis).merge(GUEST, USER if way_on == "again" else OTHER)
        found = [await item_ids(history, owner) for owner in (USER, GUEST, OTHER)]
        if way_on == "again":
            assert found == ["abcde", "", ""], at
        elif way_on == "resume":
            assert found in (["abcd", "e", ""], ["ac", "bde", ""]), at
        else:
            assert found in (["abcd", "", "e"], ["ac", "", "bde"]), at
        left = [key for key in await keys_that_name(redis, "") if b"detached" in key or b"under_way" in key]
        assert left == [], at
        assert await redis.get("default:{6}:detached_history:session:s9") is None
        await redis.aclose()
    assert num_messages >= 6


async def test_merges_at_once_are_one_merge(redis: Store) -> None:
    await claim_store(redis, namespace="default", shards=16)
    history = make_history(redis)
    for round_number in range(20):
        guest = Owner("session", f"g{round_number}")
        await history.append([click(f"{n}", 10 * round_number + n, guest) for n in range(5)])
        results = await asyncio.gather(*[merging(redis).merge(guest, USER) for _ in range(4)], merging(redis).resume())
        assert sum(result.num_moved for result in results[:4] if isinstance(result, MergeResult)) <= 5
    assert await item_ids(history) == "01234" * 20
