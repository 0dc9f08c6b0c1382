"""The connection that concurrent callers share: each gets its own answer, whatever becomes of the others."""

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import redis.exceptions as failures

from app.state.connection import Store, connect
from tests.integration.conftest import Server


async def num_connections(store: Store) -> int:
    return len(await store.client_list())


async def test_concurrent_callers_get_their_own_answers_over_one_connection(redis: Store) -> None:
    before = await num_connections(redis)
    await asyncio.gather(*[redis.pipelined.call("SET", f"key{n}", f"value{n}") for n in range(200)])
    answers = await asyncio.gather(*[redis.pipelined.call("GET", f"key{n}") for n in range(200)])
    assert answers == [b"value%d" % n for n in range(200)]
    assert await num_connections(redis) == before + 1


async def test_several_commands_of_one_call_are_answered_in_their_order(redis: Store) -> None:
    commands = [("RPUSH", "list", n) for n in range(5)]
    assert await redis.pipelined.call_all(commands) == [1, 2, 3, 4, 5]
    assert await redis.pipelined.call("LRANGE", "list", 0, -1) == [b"0", b"1", b"2", b"3", b"4"]
    assert await redis.pipelined.call_all([]) == []


async def test_answer_longer_than_one_read_comes_whole(redis: Store) -> None:
    long = b"x" * 3_000_000
    await redis.pipelined.call("SET", "long", long)
    answers = await asyncio.gather(*[redis.pipelined.call(command, "long") for command in ("GET", "STRLEN", "GET")])
    assert answers == [long, len(long), long]


async def test_refusal_reaches_its_caller_alone_with_the_servers_words(redis: Store) -> None:
    await redis.pipelined.call("SET", "text", "a")
    right, wrong = await asyncio.gather(
        redis.pipelined.call("GET", "text"), redis.pipelined.call("INCR", "text"), return_exceptions=True
    )
    assert right == b"a"
    assert isinstance(wrong, failures.ResponseError)
    assert str(wrong).startswith("ERR value is not an integer")
    several = await redis.pipelined.call_all([("INCR", "text"), ("GET", "text")])
    assert isinstance(several[0], failures.ResponseError)
    assert several[1] == b"a"


async def test_caller_that_hangs_up_does_not_shift_the_answers_of_others(redis: Store) -> None:
    await redis.pipelined.call_all([("SET", f"key{n}", n) for n in range(3)])
    calls = [asyncio.create_task(redis.pipelined.call("GET", f"key{n}")) for n in range(3)]
    await asyncio.sleep(0)  # all three are in the queue
    calls[1].cancel()
    assert [await calls[0], await calls[2]] == [b"0", b"2"]


async def test_lost_connection_is_opened_again_and_the_calls_repeated(redis: Store) -> None:
    number = await redis.pipelined.call("CLIENT", "ID")
    await redis.client_kill_filter(_id=str(number))
    answers = await asyncio.gather(*[redis.pipelined.call("ECHO", n) for n in range(20)])
    assert answers == [b"%d" % n for n in range(20)]


async def test_stopped_server_fails_all_and_its_return_is_noticed(own_valkey: Server) -> None:
    store = connect(own_valkey.url, timeout_ms=200, max_connections=4)
    assert await store.pipelined.call("ECHO", "a") == b"a"
    own_valkey.stop()
    failed = await asyncio.gather(*[store.pipelined.call("ECHO", "a") for _ in range(5)], return_exceptions=True)
    assert {type(error) for error in failed} == {failures.ConnectionError}
    own_valkey.start()
    assert await store.pipelined.call("ECHO", "b") == b"b"
    await store.aclose()


async def test_silent_server_is_given_up_within_the_timeouts_and_late_answers_are_nobodys(own_valkey: Server) -> None:
    store = connect(own_valkey.url, timeout_ms=100, max_connections=4)
    assert await store.pipelined.call("ECHO", "a") == b"a"
    with own_valkey.client() as client:
        client.client_pause(1000)
        start = asyncio.get_running_loop().time()
        with pytest.raises((failures.TimeoutError, failures.ConnectionError), match="Timeout"):
            await store.pipelined.call("ECHO", "late")
        assert asyncio.get_running_loop().time() - start < 1.5  # three tries of 0.1 s, and the waits between
        client.client_unpause()
    assert await store.pipelined.call("ECHO", "b") == b"b"
    await store.aclose()


async def test_password_and_database_of_the_url_hold() -> None:
    with TemporaryDirectory(prefix="segue-") as folder:
        server = Server(Path(folder))
        with server.client() as client:
            client.config_set("requirepass", "secret")
        store = connect(f"unix://:secret@{server.socket}?db=3", timeout_ms=2000, max_connections=4)
        await store.pipelined.call("SET", "key", "in three")
        assert await store.get("key") == b"in three"
        assert b"db=3" in await store.pipelined.call("CLIENT", "INFO")
        await store.aclose()
        refused = connect(f"unix://:wrong@{server.socket}", timeout_ms=2000, max_connections=4)
        with pytest.raises(failures.ConnectionError, match="invalid username-password"):
            await refused.pipelined.call("GET", "key")
        await refused.aclose()
        server.stop()
