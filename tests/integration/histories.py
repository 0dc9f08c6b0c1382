"""What the tests of histories share: small defaults, events of one user, short looks into the store."""

from typing import Any

from redis.asyncio import Redis

from app.state.history import AppendOutcome, Event, History, Owner

ACCEPTED, DUPLICATE, IGNORED, NOT_STORED = AppendOutcome
T = 1_700_000_000_000_000
USER = Owner("user", "u1")


def make_history(redis: Redis, **changed: Any) -> History:
    options: dict[str, Any] = {
        "namespace": "default", "shards": 16, "cap": 200, "ttl_days": 10, "log_max_entries": 100_000,
        "log_max_age_days": 30, "popularity_half_life_days": 7.0,
    }  # fmt: skip
    return History(redis, **(options | changed))


def click(item_id: str, at: int = 0, owner: Owner = USER, **fields: Any) -> Event:
    return Event(owner, item_id, "click", T + at, **fields)


async def item_ids(history: History, owner: Owner = USER) -> str:
    return "".join(event.item_id for event in await history.read(owner))


async def num_logged(redis: Redis, namespace: str = "default") -> int:
    return sum([await redis.xlen(f"{namespace}:{{{shard}}}:events") for shard in range(16)])
