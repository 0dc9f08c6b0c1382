"""Worker processes that listen on one port: started, watched, replaced when one dies, drained at the end.

One alone takes the socket that its parent has listened on from the first moment. Several each listen with a socket of
their own (SO_REUSEPORT), among which Linux shares out connections evenly; of one socket that all of them accept from,
the worker that wakes first gets nearly all, and with them all requests of clients that keep their connections.
"""

import gc
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from types import FrameType
from typing import Any

import structlog
import uvicorn

STARTUP_FAILED = 3
"""Exit code of a worker that never served: the next one would fail the same way."""
DRAIN_SECONDS = 10
"""Open requests may take so long after the signal to stop."""
RESTART_SECONDS = 1.0
"""A worker's place is filled again no sooner than so long after it was filled last."""
TICK_SECONDS = 1.0
BACKLOG = 2048
CAN_BALANCE = sys.platform == "linux"
"""Elsewhere the option exists, but the socket that was bound last gets all connections."""

log = structlog.get_logger(__name__)
spawn = multiprocessing.get_context("spawn")


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # Modules, model and routes are here to stay: no collection need go through them again, which stops a request
        # for tens of milliseconds.
        gc.collect()
        gc.freeze()


def reserve(family: int, address: tuple[Any, ...]) -> socket.socket:
    """Keeps a port for workers that listen on it, and does not listen itself. Raises OSError where it is taken."""
    # With SO_REUSEPORT alone a second service of the same user would get the port as well, and half the connections.
    _bound(family, address, socket.SO_REUSEADDR).close()
    # Without SO_REUSEADDR, so that a second service's probe sees it.
    return _bound(family, address, socket.SO_REUSEPORT)


def _own_listener(reserved: socket.socket) -> socket.socket:
    """It listens from when the server starts, and the others take what would have been its connections when it dies."""
    return _bound(reserved.family, reserved.getsockname(), socket.SO_REUSEADDR, socket.SO_REUSEPORT)


def _bound(family: int, address: tuple[Any, ...], *options: int) -> socket.socket:
    """With these options of SOL_SOCKET switched on. Raises OSError."""
    bound = socket.socket(family)
    try:
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # as `create_server` does for one worker
        for option in options:
            bound.setsockopt(socket.SOL_SOCKET, option, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


def serve(listener: socket.socket, log_level: str) -> None:
    """The life of one worker. `listener` listens, or is one that `reserve` gave."""
    _end_with_the_parent()
    server = _Server(
        uvicorn.Config(
            "app.main:from_environment",
            factory=True,
            loop="uvloop",
            http="httptools",
            ws="none",
            lifespan="on",
            access_log=False,
            log_config=None,
            log_level="warning" if log_level == "info" else log_level,
            server_header=False,
            timeout_graceful_shutdown=DRAIN_SECONDS,
            backlog=BACKLOG,
        )
    )
    is_listening = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    try:
        server.run(sockets=[listener if is_listening else _own_listener(listener)])
    except Exception:
        if server.started:
            raise
        traceback.print_exc()  # it could not even be imported, and no log is set up yet
    if not server.started:
        sys.exit(STARTUP_FAILED)


def _end_with_the_parent() -> None:
    """A parent that was killed cannot stop its workers, and they would keep the port from the next one."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


@dataclass(slots=True)
class _Place:
    process: SpawnProcess
    started_at: float


class Supervisor:
    """Runs in the main thread of the parent process."""

    def __init__(
        self, listener: socket.socket, *, num_workers: int, log_level: str, on_tick: Callable[[], None]
    ) -> None:
        """listener: see `serve`. `on_tick` is called about once a second."""
        self._listener = listener
        self._log_level = log_level
        self._on_tick = on_tick
        self._stopping = False
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_writer.setblocking(False)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)
        self._places = [self._start() for _ in range(num_workers)]

    def run(self) -> bool:
        """Until SIGINT or SIGTERM, or until a worker cannot start: then the answer is False."""
        healthy = True
        while healthy and not self._stopping:
            alive = [place.process.sentinel for place in self._places if place.process.is_alive()]
            wait([self._wake_reader, *alive], timeout=TICK_SECONDS)
            if not self._stopping:
                healthy = self._look_after_all()
                self._on_tick()
        self._drain()
        return healthy

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True
        with suppress(BlockingIOError):  # so many signals that the buffer is full: one is enough
            self._wake_writer.send(b"x")

    def _start(self) -> _Place:
        process = spawn.Process(target=serve, args=(self._listener, self._log_level), name="segue-worker")
        process.start()
        return _Place(process, time.monotonic())

    def _look_after_all(self) -> bool:
        started = [self._look_after(index) for index in range(len(self._places))]
        return all(started)

    def _look_after(self, index: int) -> bool:
        place = self._places[index]
        if place.process.is_alive():
            return True
        if place.process.exitcode == STARTUP_FAILED:
            return False
        if time.monotonic() >= place.started_at + RESTART_SECONDS:
            log.error("worker_died", pid=place.process.pid, exit_code=place.process.exitcode)
            self._places[index] = self._start()
        return True

    def _drain(self) -> None:
        for place in self._places:
            if place.process.is_alive():
                place.process.terminate()
        deadline = time.monotonic() + DRAIN_SECONDS + 5
        for place in self._places:
            place.process.join(max(deadline - time.monotonic(), 0))
            if place.process.is_alive():
                log.error("worker_killed", pid=place.process.pid)
                place.process.kill()
                place.process.join()
