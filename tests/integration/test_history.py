"""Histories in a real Valkey server: once, in order, capped, whoever sends what how often."""

import asyncio
import multiprocessing
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from app.errors import StoreMismatch
from app.state.connection import claim_store, connect
from app.state.history import Event, HistoryEvent, Owner
from app.state.popularity import Popularity
from tests.integration.histories import (
    ACCEPTED,
    DUPLICATE,
    IGNORED,
    NOT_STORED,
    USER,
    T,
    click,
    item_ids,
    make_history,
    num_logged,
)

# Once


async def test_retried_batch_is_stored_once(redis: Redis) -> None:
    history = make_history(redis)
    batch = [click(f"i{n}", n, Owner("user", f"u{n % 40}")) for n in range(120)]
    assert await history.append(batch) == [ACCEPTED] * 120
    assert await history.append(batch) == [DUPLICATE] * 120
    assert await history.append(batch[::-1][:50]) == [DUPLICATE] * 50
    assert await history.read(Owner("user", "u7")) == [HistoryEvent(f"i{n}", "click", T + n) for n in (7, 47, 87)]
    assert await num_logged(redis) == 120


async def test_event_id_wins_once_whatever_its_later_copies_say(redis: Redis) -> None:
    history = make_history(redis)
    first = click("a", 5, event_id="e1")
    assert await history.append([first, click("b", 9, event_id="e1")]) == [ACCEPTED, DUPLICATE]
    assert await history.append([click("c", -9, event_id="e1"), click("a", 5)]) == [DUPLICATE, ACCEPTED]
    assert await history.append([click("a", 5, Owner("user", "u2"), event_id="e1")]) == [ACCEPTED]
    assert await item_ids(history) == "aa"


async def test_event_with_neither_id_nor_time_is_new_at_every_call(redis: Redis) -> None:
    history = make_history(redis)
    event = click("a", has_own_timestamp=False)
    assert await history.append([event, event]) == [ACCEPTED, ACCEPTED]
    assert await history.append([event]) == [ACCEPTED]
    assert await item_ids(history) == "aaa"


async def test_same_item_at_another_time_or_with_another_type_is_another_event(redis: Redis) -> None:
    history = make_history(redis)
    buy = Event(USER, "a", "buy", T)
    assert await history.append([click("a"), click("a", 1), click("a", 2), buy]) == [ACCEPTED] * 4
    assert await item_ids(history) == "aaaa"


async def test_counted_only_event_is_logged_once_and_never_read(redis: Redis) -> None:
    history = make_history(redis, cap=3)
    shown = [Event(USER, f"i{n}", "impression", T + n, use="count") for n in range(5)]
    assert await history.append(shown) == [ACCEPTED] * 5
    assert await history.append(shown) == [IGNORED] * 2 + [DUPLICATE] * 3
    assert await history.read(USER) == []
    assert await num_logged(redis) == 5
    assert await redis.zcard("default:{8}:counted:user:u1") == 3
    assert await Popularity(redis, namespace="default", shards=16, half_life_days=7).top() == []


async def test_large_batch_is_stored_within_the_timeouts_and_in_its_order(valkey_url: str) -> None:
    redis = connect(valkey_url, timeout_ms=1000, max_connections=4)
    history = make_history(redis, cap=250)
    at_once = [click(f"i{n}", 0) for n in range(1200)]
    others = [click(f"i{n}", n, Owner("user", f"v{n % 500}"), event_id=f"e{n}") for n in range(8800)]
    assert set(await history.append(others[:4000] + at_once + others[4000:])) == {ACCEPTED}
    assert [event.item_id for event in await history.read(USER)] == [f"i{n}" for n in range(950, 1200)]
    assert len(await history.read(Owner("user", "v7"))) == 18
    await redis.aclose()


def _hammer(url: str, barrier: Any) -> None:
    async def append() -> None:
        redis = connect(url, timeout_ms=5000, max_connections=8)
        batch = [click(f"{n % 7}", n, Owner("user", f"u{n % 20}"), event_id=f"e{n}") for n in range(200)]
        barrier.wait(20)
        await asyncio.gather(*[make_history(redis).append(batch) for _ in range(5)])
        await redis.aclose()

    asyncio.run(append())


async def test_batch_sent_at_once_by_several_workers_is_stored_once(redis: Redis, valkey_url: str) -> None:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    workers = [context.Process(target=_hammer, args=(valkey_url, barrier)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        await asyncio.to_thread(worker.join, 30)
        assert worker.exitcode == 0
    assert await num_logged(redis) == 200
    assert [event.timestamp_us - T for event in await make_history(redis).read(Owner("user", "u3"))] == list(
        range(3, 200, 20)
    )


# In order


async def test_late_event_falls_into_its_place(redis: Redis) -> None:
    history = make_history(redis)
    for item_id, at in [("a", 0), ("c", 2), ("d", 3), ("b", 1)]:
        assert await history.append([click(item_id, at)]) == [ACCEPTED]
    assert await item_ids(history) == "abcd"


async def test_events_of_one_time_keep_the_order_of_their_batch_or_their_sequence(redis: Redis) -> None:
    history = make_history(redis)
    letters = "zyxwvutsrqponmlkjihgfedcba"
    await history.append([click(letter) for letter in letters])
    assert await item_ids(history) == letters

    guest = Owner("session", "u1")
    await history.append([click("c", owner=guest, sequence=999), click("a", owner=guest, sequence=0)])
    await history.append([click("b", owner=guest, sequence=36)])
    assert await item_ids(history, guest) == "abc"


async def test_ids_of_any_characters_come_back_unchanged(redis: Redis) -> None:
    history = make_history(redis)
    strange = ["\x1f", "", "ü🎬", "a:b{c}", "x" * 256, "line\nbreak", "\x00"]
    owner = Owner("user", "{1} ü:\n")
    await history.append([click(item_id, n, owner) for n, item_id in enumerate(strange)])
    assert [event.item_id for event in await history.read(owner)] == strange


async def test_event_type_that_would_be_misread_is_refused(redis: Redis) -> None:
    with pytest.raises(ValueError, match=r"U\+001F"):
        await make_history(redis).append([Event(USER, "a", "cl\x1fick", T)])


identified = st.builds(
    lambda key, at, sequence, item, named, use: Event(
        USER if key % 3 else Owner("session", "s"), f"i{item}", "click" if key % 2 else "buy", T + at,
        sequence=sequence, event_id=f"e{key}" if named else None, use=use,
    ),
    st.integers(0, 10**6), st.integers(0, 6), st.integers(0, 2), st.integers(0, 10**6), st.booleans(),
    st.sampled_from(["sequence", "sequence", "negative"]),
)  # fmt: skip


@given(
    events=st.lists(identified, max_size=25, unique_by=(lambda e: e.item_id, lambda e: e.event_id or e.item_id)),
    data=st.data(),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_order_division_and_repetition_of_events_gives_one_history(
    valkey_url: str, events: list[Event], data: st.DataObject
) -> None:
    cap = 8
    sent = list(data.draw(st.permutations(events)))
    for event in data.draw(st.lists(st.sampled_from(events), max_size=15)) if events else []:
        sent.insert(data.draw(st.integers(0, len(sent))), event)
    cuts = data.draw(st.lists(st.integers(0, len(sent)), max_size=6).map(sorted))
    batches = [sent[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(sent)], strict=True)]

    async def stored(batches: list[list[Event]]) -> list[list[HistoryEvent]]:
        redis = connect(valkey_url, timeout_ms=5000, max_connections=4)
        await redis.flushall()
        for batch in batches:
            await make_history(redis, cap=cap).append(batch)
        histories = [await make_history(redis, cap=cap).read(owner) for owner in owners]
        await redis.aclose()
        return histories

    owners = (USER, Owner("session", "s"))
    histories = asyncio.run(stored(batches))
    assert histories == asyncio.run(stored([events]))
    for owner, history in zip(owners, histories, strict=True):
        times = {
            use: sorted(e.timestamp_us for e in events if e.owner == owner and e.use == use)
            for use in ("sequence", "negative")
        }
        kept = sorted(times["sequence"][-cap:] + times["negative"])
        assert [e.timestamp_us for e in history] == kept
        assert set(history) <= {HistoryEvent(e.item_id, e.event_type, e.timestamp_us) for e in events}


# Capped and expiring


async def test_only_the_newest_are_kept_and_older_ones_ignored_and_not_logged(redis: Redis) -> None:
    history = make_history(redis, cap=3)
    assert await history.append([click(letter, n) for n, letter in enumerate("abcde")]) == [ACCEPTED] * 5
    assert await item_ids(history) == "cde"
    logged = await num_logged(redis)
    assert await history.append([click("a", 0), click("z", 1), click("x", 3)]) == [IGNORED, IGNORED, ACCEPTED]
    assert await item_ids(history) == "dxe"
    assert await num_logged(redis) == logged + 1


async def test_full_history_stays_compact_and_a_lowered_cap_holds_at_once(redis: Redis) -> None:
    history = make_history(redis, cap=256)  # as many entries as the compact form may have
    for start in range(0, 600, 100):
        await history.append([click(f"i{n:09}", n) for n in range(start, start + 100)])
    assert await redis.object("encoding", "default:{8}:history:user:u1") == b"listpack"  # type: ignore[no-untyped-call]  # redis-py
    lowered = make_history(redis, cap=10)
    assert len(await lowered.read(USER)) == 10
    await lowered.append([click("new", 1000)])
    assert await redis.zcard("default:{8}:history:user:u1") == 10


async def test_history_expires_so_many_days_after_its_last_new_event(redis: Redis) -> None:
    history, key = make_history(redis, ttl_days=10), "default:{8}:history:user:u1"
    await history.append([click("a")])
    assert 9.99 < await redis.pttl(key) / 86_400_000 <= 10
    await redis.pexpire(key, 5000)
    await history.append([click("a")])
    assert await redis.pttl(key) <= 5000  # sending it again changes nothing
    await history.append([click("b", 1)])
    assert await redis.pttl(key) / 86_400_000 > 9.99
    await redis.pexpire(key, 1)
    while await redis.exists(key):
        await asyncio.sleep(0.001)  # until the millisecond is over
    assert await history.read(USER) == []


async def test_full_log_drops_the_oldest_and_says_how_many(redis: Redis) -> None:
    dropped: list[int] = []
    history = make_history(redis, shards=1, log_max_entries=1000, on_log_dropped=dropped.append)
    for start in range(0, 3000, 500):
        await history.append([click("a", n) for n in range(start, start + 500)])
    kept = await redis.xlen("default:{0}:events")
    assert 1000 <= kept < 1200  # whole blocks of about a hundred go
    assert sum(dropped) == 3000 - kept


# Apart


async def test_namespaces_users_and_guests_never_meet(redis: Redis) -> None:
    one, two = make_history(redis, namespace="one"), make_history(redis, namespace="two")
    await one.append([click("a")])
    assert await two.append([click("b"), click("c", owner=Owner("session", "u1"))]) == [ACCEPTED] * 2
    assert [await item_ids(one), await item_ids(two), await item_ids(two, Owner("session", "u1"))] == ["a", "b", "c"]
    assert await item_ids(one, Owner("session", "u1")) == ""
    for namespace, items in [("one", ["a"]), ("two", ["b", "c"])]:
        top = await Popularity(redis, namespace=namespace, shards=16, half_life_days=7).top()
        assert sorted(item.item_id for item in top) == items
        assert await num_logged(redis, namespace) == len(items)


async def test_store_set_up_with_another_number_of_shards_is_refused(redis: Redis) -> None:
    store_id = await claim_store(redis, namespace="default", shards=16)
    assert await claim_store(redis, namespace="default", shards=16) == store_id
    assert await claim_store(redis, namespace="other", shards=4) != store_id
    with pytest.raises(StoreMismatch, match=r"has 16 shards, the settings say 8.*SEGUE_SHARDS=16"):
        await claim_store(redis, namespace="default", shards=8)


# Negative


async def test_negative_events_stand_in_time_and_push_no_other_out(redis: Redis) -> None:
    history = make_history(redis, cap=3)
    dismissed = [Event(USER, f"n{n}", "dismiss", T + 10 + n, use="negative") for n in range(60)]
    await history.append([click("a", 0), click("b", 11), click("c", 69)])
    assert await history.append(dismissed) == [ACCEPTED] * 60
    assert await history.append(dismissed) == [IGNORED] * 10 + [DUPLICATE] * 50
    found = await history.read(USER)
    assert [event.item_id for event in found] == ["a", "b", *(f"n{n}" for n in range(10, 60)), "c"]
    assert found[2] == HistoryEvent("n10", "dismiss", T + 20)

    assert await history.append([click("d", 70), click("z", -1)]) == [ACCEPTED, IGNORED]
    assert [event.item_id for event in await history.read(USER) if event.event_type == "click"] == ["b", "c", "d"]
    popular = await Popularity(redis, namespace="default", shards=16, half_life_days=7).top()
    assert {item.item_id for item in popular} == {"a", "b", "c", "d"}
    assert await num_logged(redis) == 64


async def test_negative_events_of_a_batch_without_times_keep_their_place_in_it(redis: Redis) -> None:
    history = make_history(redis, cap=2)
    await history.append([
        click("left_out", 0),
        click("back_again", 0),
        Event(USER, "gone", "dismiss", T, use="negative"),
        click("gone", 0),
        Event(USER, "gone", "dislike", T, use="negative"),
        Event(USER, "back_again", "dismiss", T, use="negative"),
        Event(USER, "back_again", "buy", T),
    ])  # fmt: skip
    kept = [(event.item_id, event.event_type) for event in await history.read(USER)]
    assert kept == [
        ("gone", "dismiss"), ("gone", "click"), ("gone", "dislike"), ("back_again", "dismiss"), ("back_again", "buy"),
    ]  # fmt: skip


async def test_full_history_with_negative_events_stays_compact_and_obeys_a_lowered_cap(redis: Redis) -> None:
    history = make_history(redis, cap=200)
    for start in range(0, 300, 100):
        await history.append([click(f"i{n:09}", n) for n in range(start, start + 100)])
        await history.append(
            [Event(USER, f"n{n}", "dismiss", T + n, use="negative") for n in range(start, start + 100)]
        )
    assert await redis.zcard("default:{8}:history:user:u1") == 250
    assert await redis.object("encoding", "default:{8}:history:user:u1") == b"listpack"  # type: ignore[no-untyped-call]  # redis-py
    lowered = make_history(redis, cap=10)
    assert [event.event_type for event in await lowered.read(USER)].count("click") == 10
    await lowered.append([click("new", 1000)])
    assert await redis.zcard("default:{8}:history:user:u1") == 60


async def test_negative_event_at_the_beginning_of_time_is_negative(redis: Redis) -> None:
    history = make_history(redis)
    await history.append([Event(USER, "n", "dismiss", 0, use="negative"), Event(USER, "a", "click", 0)])
    assert [(event.item_id, event.timestamp_us) for event in await history.read(USER)] == [("n", 0), ("a", 0)]
    assert await redis.zcount("default:{8}:history:user:u1", "-inf", "(0") == 1


# Without consent


async def test_event_not_to_be_stored_counts_the_item_and_leaves_no_byte_of_its_owner(redis: Redis) -> None:
    history = make_history(redis)
    unconsented = click("a", owner=Owner("user", "shy-user"), event_id="shy-event", store=False)
    assert await history.append([unconsented, click("b", 1), unconsented]) == [NOT_STORED, ACCEPTED, NOT_STORED]
    assert await history.read(Owner("user", "shy-user")) == []
    assert await num_logged(redis) == 1
    top = await Popularity(redis, namespace="default", shards=16, half_life_days=7).top()
    assert [item.item_id for item in top] == ["a", "b"]
    for key in await redis.keys():
        assert b"shy" not in key
    entries = [await redis.xrange(f"default:{{{shard}}}:events") for shard in range(16)]
    assert b"shy" not in repr(entries).encode()


async def test_event_not_to_be_stored_leaves_the_stored_history_as_it_is(redis: Redis) -> None:
    history = make_history(redis, cap=1)
    await history.append([click("a", 0)])
    key = "default:{8}:history:user:u1"
    await redis.pexpire(key, 5000)
    assert await history.append([click("b", 1, store=False), click("a", 0, store=False)]) == [NOT_STORED] * 2
    assert await item_ids(history) == "a"
    assert await redis.pttl(key) <= 5000
