"""The open loop against servers whose slowness is known."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from scripts.benchmarks.open_loop import Call, Samples, constant_moments, ramp_moments, run_open_loop

CALL = Call("ask", "/recommend", b'{"user_id":"u"}')


@contextmanager
def server(*answer: bytes, pause_s: float = 0, seen: list[bytes] | None = None) -> Iterator[str]:
    """Answers every request in its turn, one `pause_s` after the other, in the given pieces; `seen` takes the heads."""
    pieces = answer or (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",)
    started, loop = threading.Event(), asyncio.new_event_loop()
    ports: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if seen is not None:
                    seen.append(head)
                await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
                async with turn:
                    await asyncio.sleep(pause_s)
                for piece in pieces:
                    writer.write(piece)
                    await asyncio.sleep(0.001 * (len(pieces) > 1))
                if b"connection: close" in pieces[0].lower():
                    break
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    async def main() -> None:
        listening = await asyncio.start_server(serve, "127.0.0.1", 0)
        ports.append(listening.sockets[0].getsockname()[1])
        started.set()
        await stop.wait()
        listening.close()

    turn, stop = asyncio.Lock(), asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(main()))
    thread.start()
    assert started.wait(10)
    try:
        yield f"http://127.0.0.1:{ports[0]}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()


def test_every_request_is_sent_at_its_moment_and_measured() -> None:
    with server() as url:
        samples = run_open_loop(url, [CALL] * 50, constant_moments(500, 0.1))
    assert samples.status.tolist() == [200] * 50
    assert samples.num_failed == 0
    assert samples.lag_p99_ms < 1000
    assert 0 < samples.percentile(50) < 1000
    assert samples.start_s[-1] == pytest.approx(49 / 500)


def test_waiting_behind_a_slow_answer_counts_as_latency() -> None:
    """Ten requests at once, one connection, 20 ms each: the last has waited for all of them."""
    with server(pause_s=0.02) as url:
        samples = run_open_loop(url, [CALL] * 10, np.zeros(10), max_connections=1)
    assert samples.latency_ms[-1] >= 200
    assert np.all(np.diff(samples.latency_ms) >= 15)


def test_service_that_falls_behind_is_spared_the_rest() -> None:
    with server(pause_s=0.01) as url:
        samples = run_open_loop(url, [CALL] * 1000, constant_moments(1000, 1.0), max_unanswered=20)
    assert 20 <= len(samples) < 100
    assert samples.num_failed == 0


@pytest.mark.parametrize("closing", [b"", b"Connection: close\r\n"])
def test_refusals_are_failures_and_have_latencies(closing: bytes) -> None:
    with server(b"HTTP/1.1 503 Service Unavailable\r\n" + closing + b"content-length: 3\r\n\r\nno!") as url:
        samples = run_open_loop(url, [CALL] * 5, constant_moments(1000, 0.005))
    assert samples.status.tolist() == [503] * 5
    assert samples.num_failed == 5
    assert not np.isnan(samples.latency_ms).any()


@pytest.mark.parametrize("pieces", [[b"2\r\n{}\r\n0\r\n\r\n"], [b"1\r\n{\r\n", b"1\r\n}\r\n", b"0\r\n\r\n"]])
def test_answers_in_chunks_are_read_to_their_end(pieces: list[bytes]) -> None:
    """As a proxy may send them; on one connection an answer that ends too early would be taken for the next one's."""
    with server(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *pieces) as url:
        samples = run_open_loop(url, [CALL] * 5, np.zeros(5), max_connections=1)
    assert samples.status.tolist() == [200] * 5
    assert np.all(np.diff(samples.latency_ms) > 0)


def test_headers_go_with_every_request_and_the_path_of_the_url_before_theirs() -> None:
    seen: list[bytes] = []
    with server(seen=seen) as url:
        run_open_loop(f"{url}/shop/", [CALL] * 2, np.zeros(2), headers={"Authorization": "Bearer x"})
    assert len(seen) == 2
    for head in seen:
        assert head.startswith(b"POST /shop/recommend HTTP/1.1\r\n")
        assert b"\r\nAuthorization: Bearer x\r\n" in head
        assert f"\r\nHost: {url.removeprefix('http://')}\r\n".encode() in head


def test_no_more_is_sent_once_too_many_are_unanswered() -> None:
    with server(pause_s=0.05) as url:
        samples = run_open_loop(url, [CALL] * 100, constant_moments(2000, 0.05), max_unanswered=5)
    assert 5 <= len(samples) < 20
    assert samples.num_failed == 0


def test_address_where_nobody_listens_is_an_error() -> None:
    with pytest.raises(ConnectionError):
        run_open_loop("http://127.0.0.1:9", [CALL], np.zeros(1))


def test_percentiles_take_the_unanswered_for_the_slowest() -> None:
    nothing = np.zeros(4)
    samples = Samples(
        np.array(["a", "b", "a", "a"]),
        nothing,
        np.array([1.0, 9.0, np.nan, 3.0]),
        np.array([200, 200, 0, 204]),
        nothing,
    )
    ours = samples.of("a")
    assert (len(ours), ours.num_failed, ours.percentile(50)) == (3, 1, 3.0)
    assert ours.percentile(99) == np.inf


def test_ramp_grows_evenly_to_its_rate() -> None:
    """From 0 to 100 requests/s within 10 s: 500 requests, a quarter of them in the first half."""
    moments = ramp_moments(100, 10)
    assert len(moments) == 500
    assert np.count_nonzero(moments < 5) == 125
    assert np.all(np.diff(moments) > 0)
    assert 1 / (moments[-1] - moments[-2]) == pytest.approx(100, rel=0.01)
