from redis.asyncio import Redis

from app.state.history import AppendOutcome, Event, History, Owner


async def test_batch_sent_twice_is_stored_once(redis: Redis) -> None:
    h = History(
        redis,
        namespace="t",
        shards=16,
        cap=5,
        ttl_days=10,
        log_max_entries=1000,
        log_max_age_days=30,
        popularity_half_life_days=7,
    )
    u = Owner("user", "u1")
    e = [Event(u, f"i{n}", "click", 1_700_000_000_000_000 + n) for n in range(3)] + [
        Event(Owner("user", f"v{n}"), "i", "c", 17) for n in range(20)
    ]
    assert set(await h.append(e)) == {AppendOutcome.ACCEPTED}
    assert set(await h.append(e)) == {AppendOutcome.DUPLICATE}
