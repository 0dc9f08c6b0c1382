"""The store that the service starts beside itself."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import redis

from app.errors import StoreUnavailable
from app.state.embedded import MAX_SOCKET_PATH_BYTES, EmbeddedStore


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with TemporaryDirectory(prefix="segue-") as folder:
        yield Path(folder)


def _client(store: EmbeddedStore) -> redis.Redis:
    return redis.Redis.from_url(store.url)


def _pid(store: EmbeddedStore) -> int:
    with _client(store) as client:
        return int(client.info("server")["process_id"])


def _is_up(store: EmbeddedStore) -> bool:
    with _client(store) as client:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False


def test_what_was_written_is_there_after_a_restart(data_dir: Path) -> None:
    store = EmbeddedStore.start(data_dir)
    with _client(store) as client:
        client.zadd("history", {"a": 1.0})
    store.stop()
    assert not _is_up(store)

    again = EmbeddedStore.start(data_dir)
    with _client(again) as client:
        assert client.zrange("history", 0, -1) == [b"a"]
        assert client.config_get("zset-max-listpack-entries") == {"zset-max-listpack-entries": "256"}
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        assert client.config_get("port") == {"port": "0"}
    again.stop()


def test_file_of_yesterday_is_written_anew_without_what_was_deleted(data_dir: Path) -> None:
    store = EmbeddedStore.start(data_dir)
    folder = data_dir / "store" / "appendonlydir"
    with _client(store) as client:
        client.set("user:ann", "private")
        client.delete("user:ann")
        client.set("kept", "value")
        assert any(b"private" in path.read_bytes() for path in folder.iterdir())
        assert not store.rewrite_file_when_due()
        for path in folder.glob("*.base.*"):
            os.utime(path, (0, 0))
        assert store.rewrite_file_when_due()
        while client.info("persistence")["aof_rewrite_in_progress"] or any(
            b"private" in path.read_bytes() for path in folder.iterdir()
        ):
            time.sleep(0.02)  # the server's child decides when
    store.stop()
    again = EmbeddedStore.start(data_dir)
    with _client(again) as client:
        assert client.get("kept") == b"value"
    again.stop()


def test_two_that_start_at_once_share_one_server_and_the_last_stops_it(data_dir: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from app.state.embedded import EmbeddedStore\n"
        "store = EmbeddedStore.start(Path(sys.argv[1])); print('up', flush=True); sys.stdin.read(); store.stop()"
    )
    with ExitStack() as stack:
        parents = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", program, str(data_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
                )
            )
            for _ in range(3)
        ]
        assert [parent.stdout.readline() for parent in parents if parent.stdout] == [b"up\n"] * 3
        store = EmbeddedStore.start(data_dir)
        pid = _pid(store)
        for parent in parents:
            parent.communicate(timeout=10)
            assert parent.returncode == 0
        assert _pid(store) == pid
        store.stop()
        assert not _is_up(store)


def test_server_outlives_a_killed_parent_and_the_next_one_adopts_it(data_dir: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from app.state.embedded import EmbeddedStore\n"
        "store = EmbeddedStore.start(Path(sys.argv[1])); print('up', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(data_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"up\n"
        os.killpg(parent.pid, signal.SIGKILL)  # the whole group, as Ctrl-C would reach it

    store = EmbeddedStore.start(data_dir)
    assert store._process is None  # it was there already
    store.stop()
    assert not _is_up(store)


def test_store_that_died_is_started_again_with_its_data(data_dir: Path) -> None:
    store = EmbeddedStore.start(data_dir)
    assert not store.ensure_running()
    with _client(store) as client:
        client.set("key", "value")
    os.kill(_pid(store), signal.SIGTERM)
    assert store._process is not None
    store._process.wait(10)

    assert store.ensure_running()
    store._wait_until_it_answers()
    with _client(store) as client:
        assert client.get("key") == b"value"
    store.stop()


def test_server_too_busy_to_answer_is_not_started_twice(data_dir: Path) -> None:
    store = EmbeddedStore.start(data_dir)
    pid = _pid(store)
    os.kill(pid, signal.SIGSTOP)
    try:
        assert not store.ensure_running()
    finally:
        os.kill(pid, signal.SIGCONT)
    assert _pid(store) == pid
    store.stop()


def test_folder_too_deep_for_a_socket_gets_a_short_one_elsewhere(data_dir: Path) -> None:
    deep = data_dir / ("d" * 100) / "ü %20"
    store = EmbeddedStore.start(deep)
    assert _is_up(store)
    assert len(os.fsencode(store._socket)) <= MAX_SOCKET_PATH_BYTES
    assert (deep / "store" / "address").read_text().strip() == store.url
    store.stop()
    store._socket.parent.rmdir()


def test_store_that_cannot_read_its_file_says_why(data_dir: Path) -> None:
    folder = data_dir / "store" / "appendonlydir"
    folder.mkdir(parents=True)
    (folder / "appendonly.aof.manifest").write_text("not a manifest\n")
    with pytest.raises(StoreUnavailable, match=r"ended[\s\S]*manifest"):
        EmbeddedStore.start(data_dir)
