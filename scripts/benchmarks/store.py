"""What a user costs in the store, and how fast events go in and histories come out, from one client process.

Benchmarks alone may use the service's own classes: what they measure is the service.
"""

import argparse
import asyncio
import random
import string
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from redis.asyncio import Redis

from app.errors import StoreUnavailable
from app.state.connection import Store, claim_store, connect
from app.state.embedded import EmbeddedStore
from app.state.history import Event, History, Owner
from app.state.kept_lists import KeptList, KeptLists
from app.state.keys import Keys

SHARDS = 16
NUM_READERS = 2000
"""So many users at most have a list kept: all at once would wait for a connection longer than one does."""
START_US = 1_790_000_000_000_000
MINUTE_US = 60_000_000
ALPHABET = string.ascii_lowercase + string.digits


@dataclass(frozen=True)
class Speed:
    """Of one kind of call. Processor times hold on a busy machine as well; the rate is what a clock on the wall saw.

    The rate is per second, the processor times are microseconds per unit: an event, or a history read.
    """

    per_second: float
    client_microseconds: float
    server_microseconds: float


@dataclass(frozen=True)
class StoreFigures:
    """Bytes are the server's own `used_memory`, keys and allocator overhead included."""

    server: str
    num_users: int
    events_per_user: int
    history_bytes_per_user: float
    log_bytes_per_event: float
    popularity_bytes_per_item: float
    kept_list_bytes: float
    speeds: dict[str, Speed]


async def measure_store(
    *, num_users: int, events_per_user: int, seconds: float, url: str | None = None
) -> StoreFigures:
    """Fill an empty store and measure it; every speed is taken over about `seconds`.

    User ids have 12 characters, item ids 10, event types are `click`, and half of the events carry an `event_id` of 36.
    Without a URL the store is an embedded one of its own; with one it must be empty, and is left full.

    Raises:
        StoreUnavailable: the store does not answer, or holds something.
    """
    if url is not None:
        return await _measure(url, num_users, events_per_user, seconds)
    with TemporaryDirectory(prefix="segue-") as folder:
        store = EmbeddedStore.start(Path(folder))
        try:
            return await _measure(store.url, num_users, events_per_user, seconds)
        finally:
            store.stop()


async def _measure(url: str, num_users: int, events_per_user: int, seconds: float) -> StoreFigures:
    redis = connect(url, timeout_ms=60_000, max_connections=64)
    try:
        if await redis.dbsize():
            raise StoreUnavailable("the store to be measured must be empty")
        return await _fill_and_measure(redis, num_users, events_per_user, seconds)
    finally:
        await redis.aclose()


async def _fill_and_measure(redis: Store, num_users: int, events_per_user: int, seconds: float) -> StoreFigures:
    await claim_store(redis, namespace="default", shards=SHARDS)
    history = History(
        redis,
        namespace="default",
        shards=SHARDS,
        cap=200,
        ttl_days=365,
        log_max_entries=1_000_000,
        log_max_age_days=30,
        popularity_half_life_days=7.0,
    )
    draw = random.Random(7)
    users = [_text(draw, 12) for _ in range(num_users)]
    items = [_text(draw, 10) for _ in range(5000)]
    server = await redis.info("server")

    before = await _memory(redis)
    for place in range(events_per_user):
        events = [_event(draw, user, items, place) for user in users]
        for start in range(0, num_users, 500):
            await history.append(events[start : start + 500])
    after = await _memory(redis)
    keys = Keys("default", SHARDS)
    lists = [key(shard) for shard in range(SHARDS) for key in (keys.popularity, keys.trending)]
    num_counters = sum([await redis.zcard(name) for name in lists])
    await redis.delete(*[keys.events(shard) for shard in range(SHARDS)])
    without_log = await _memory(redis)
    await redis.delete(*lists)
    histories = await _memory(redis)

    kept_lists = KeptLists(redis, namespace="default", shards=SHARDS)

    async def keep(user: str) -> None:
        await kept_lists.keep(Owner("user", user), _ranked_list(draw, items))

    readers = users[:NUM_READERS]
    await asyncio.gather(*[keep(user) for user in readers])
    with_lists = await _memory(redis)
    await redis.delete(*[keys.lists(Owner("user", user)) for user in readers])

    places = iter(range(events_per_user, 1_000_000_000))

    def fresh(size: int) -> list[Event]:
        return [_event(draw, draw.choice(users), items, next(places)) for _ in range(size)]

    async def one_of_sixteen() -> None:
        await asyncio.gather(*[history.append(fresh(1)) for _ in range(16)])

    again = fresh(500)
    speeds = {
        "append, batches of 500": await _speed(redis, lambda: history.append(fresh(500)), 500, seconds),
        "append, the same 500 again": await _speed(redis, lambda: history.append(again), 500, seconds),
        "append, single, one at a time": await _speed(redis, lambda: history.append(fresh(1)), 1, seconds),
        "append, single, 16 at a time": await _speed(redis, one_of_sixteen, 16, seconds),
        "keep a list of 500 items": await _speed(redis, lambda: keep(draw.choice(users)), 1, seconds),
        "read": await _speed(redis, lambda: history.read(Owner("user", draw.choice(users))), 1, seconds),
    }
    return StoreFigures(
        server=f"{server.get('server_name', 'redis')} {server.get('valkey_version', server['redis_version'])}",
        num_users=num_users,
        events_per_user=events_per_user,
        history_bytes_per_user=(histories - before) / num_users,
        log_bytes_per_event=(after - without_log) / (num_users * events_per_user),
        popularity_bytes_per_item=(without_log - histories) / num_counters,
        kept_list_bytes=(with_lists - histories) / len(readers),
        speeds=speeds,
    )


def _text(draw: random.Random, length: int) -> str:
    return "".join(draw.choices(ALPHABET, k=length))


def _ranked_list(draw: random.Random, items: Sequence[str]) -> KeptList:
    ranked = draw.sample(items, 500)
    scores = np.sort(np.array([draw.gauss(-6, 2) for _ in ranked], dtype=np.float32))[::-1]
    version = "20260101T000000-2496b70f"
    return KeptList("rec_mVX9pDOZPbxjuAID1234", "model", (), version, 128, 10, tuple(ranked), scores)


def _event(draw: random.Random, user: str, items: Sequence[str], place: int) -> Event:
    event_id = f"{draw.getrandbits(144):036x}" if place % 2 else None
    at = START_US + place * MINUTE_US + draw.randrange(MINUTE_US)
    return Event(Owner("user", user), draw.choice(items), "click", at, event_id=event_id)


async def _memory(redis: Redis) -> int:
    """`used_memory` once nothing waits to be freed: deleting large keys is done in the background."""
    while (await redis.info("memory"))["lazyfree_pending_objects"]:
        await asyncio.sleep(0.05)  # until the server's background thread is through
    return int((await redis.info("memory"))["used_memory"])


async def _speed(redis: Redis, call: Callable[[], Awaitable[object]], num_units: int, seconds: float) -> Speed:
    await call()
    num_calls, server = 0, await _server_seconds(redis)
    start, client = time.perf_counter(), time.process_time()
    while time.perf_counter() - start < seconds:
        await call()
        num_calls += 1
    spent, client = time.perf_counter() - start, time.process_time() - client
    server, total = await _server_seconds(redis) - server, num_calls * num_units
    return Speed(total / spent, client / total * 1_000_000, server / total * 1_000_000)


async def _server_seconds(redis: Redis) -> float:
    cpu = await redis.info("cpu")
    return float(cpu["used_cpu_user"] + cpu["used_cpu_sys"])


def register(subjects: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subjects.add_parser("store", help="bytes per user, events per second, history reads")
    parser.add_argument("--users", type=int, default=2000, help="default %(default)s")
    parser.add_argument("--events-per-user", type=int, default=128, help="default %(default)s")
    parser.add_argument("--seconds", type=float, default=5.0, help="per speed, default %(default)s")
    parser.add_argument("--url", help="an empty Redis or Valkey instead of the embedded server; it is left full")
    parser.set_defaults(run=_main)


def _main(options: argparse.Namespace) -> None:
    figures = asyncio.run(
        measure_store(
            num_users=options.users,
            events_per_user=options.events_per_user,
            seconds=options.seconds,
            url=options.url,
        )
    )
    print(f"{figures.server}, {figures.num_users:,} users with {figures.events_per_user} events each")
    print(f"{figures.history_bytes_per_user:,.0f} bytes per user")
    print(f"{figures.log_bytes_per_event:,.0f} bytes per event in the log, until it is collected")
    print(f"{figures.popularity_bytes_per_item:,.0f} bytes per item and shard for popularity")
    print(f"{figures.kept_list_bytes:,.0f} bytes per list of 500 items that is kept for further pages")
    for name, speed in figures.speeds.items():
        print(
            f"{name:32}{speed.per_second:10,.0f} /s{speed.client_microseconds:8,.0f} µs client"
            f"{speed.server_microseconds:8,.0f} µs server"
        )
