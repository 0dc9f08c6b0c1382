"""Histories when the server is down, slow, full, forgetful or a cluster."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from redis.asyncio import Redis

from app.errors import StoreUnavailable
from app.state.connection import claim_store, connect
from app.state.history import Owner
from app.state.popularity import Popularity
from tests.integration.conftest import Server
from tests.integration.histories import ACCEPTED, DUPLICATE, USER, click, item_ids, make_history, num_logged


async def test_lost_script_is_loaded_again_for_the_shards_that_miss_it(redis: Redis) -> None:
    history = make_history(redis)
    batch = [click("a", n, Owner("user", f"u{n}")) for n in range(40)]
    await redis.script_flush()
    assert await history.append(batch) == [ACCEPTED] * 40
    await redis.script_flush()
    assert await history.append(batch[:1]) == [DUPLICATE]


async def test_stopped_store_is_unavailable_and_the_same_batch_completes_after_its_return(own_valkey: Server) -> None:
    redis = connect(own_valkey.url, timeout_ms=200, max_connections=4)
    history = make_history(redis)
    batch = [click("a", n, Owner("user", f"u{n}")) for n in range(40)]
    own_valkey.stop()
    with pytest.raises(StoreUnavailable, match="Connection"):
        await history.append(batch)
    with pytest.raises(StoreUnavailable):
        await history.read(USER)
    with pytest.raises(StoreUnavailable):
        await claim_store(redis, namespace="default", shards=16)
    own_valkey.start()
    assert await history.append(batch) == [ACCEPTED] * 40
    await redis.aclose()


@pytest.mark.parametrize(
    ("option", "refusing", "working"), [("maxmemory", "1", "0"), ("min-replicas-to-write", "1", "0")]
)
async def test_store_that_refuses_to_write_is_unavailable_and_writes_no_half(
    redis: Redis, option: str, refusing: str, working: str
) -> None:
    history = make_history(redis)
    await history.append([click("a")])
    await redis.config_set(option, refusing)
    try:
        with pytest.raises(StoreUnavailable):
            await history.append([click("b", n, Owner("user", f"u{n}")) for n in range(40)])
        assert await item_ids(history) == "a"  # reading goes on
    finally:
        await redis.config_set(option, working)
    assert await num_logged(redis) == 1
    assert await redis.keys("*:history:*") == [b"default:{8}:history:user:u1"]


async def test_slow_store_is_unavailable_within_the_timeouts(own_valkey: Server) -> None:
    redis = connect(own_valkey.url, timeout_ms=100, max_connections=4)
    with own_valkey.client() as client:
        client.client_pause(3000)
        start = asyncio.get_running_loop().time()
        with pytest.raises(StoreUnavailable, match="Timeout"):
            await make_history(redis).read(USER)
        assert asyncio.get_running_loop().time() - start < 1.5  # three tries of 0.1 s, and the waits between
    await redis.aclose()


@pytest.fixture
def cluster() -> Iterator[Server]:
    with TemporaryDirectory(prefix="segue-") as folder:
        server = Server(Path(folder), "--cluster-enabled", "yes", "--port", "0", "--cluster-port", "0")
        yield server
        server.stop()


async def test_scripts_stay_within_one_slot_on_a_cluster(cluster: Server) -> None:
    with cluster.client() as client:
        client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
    redis = connect(cluster.url, timeout_ms=2000, max_connections=4)
    while (await redis.execute_command("CLUSTER INFO"))["cluster_state"] != "ok":  # type: ignore[no-untyped-call]
        await asyncio.sleep(0.02)  # the server declares itself whole a moment later
    await claim_store(redis, namespace="default", shards=16)
    history = make_history(redis)
    batch = [click("a", n, Owner("user", f"u{n % 50}")) for n in range(100)]
    assert await history.append(batch) == [ACCEPTED] * 100
    assert await history.append(batch) == [DUPLICATE] * 100
    assert await item_ids(history) == "aa"
    assert [
        item.item_id for item in await Popularity(redis, namespace="default", shards=16, half_life_days=7).top()
    ] == ["a"]
    await redis.aclose()
