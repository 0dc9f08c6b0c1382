"""An open loop: requests at given moments, whatever the service makes of them.

A closed loop like wrk waits for a slow answer before it asks again, and so asks least when the service is worst. Here
every request has its moment, and the time that it waits for a free connection belongs to its latency.
"""

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import cast
from urllib.parse import urlsplit

import numpy as np
import uvloop
from numpy.typing import NDArray

MIN_CONNECTIONS = 32
"""Used in turn, as many callers would: the one that answered last would otherwise take nearly all requests, and with
them one worker of several."""
MAX_CONNECTIONS = 256
TIMEOUT_S = 10.0
"""An answer that is not there so long after the last request was sent counts as failed."""
GRANULARITY_S = 0.002
"""Timers fire up to a millisecond late. A request sent later than this after its moment is counted from its moment."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request to come; `kind` names its row in the results."""

    kind: str
    path: str
    body: bytes


@dataclass(frozen=True)
class Samples:
    """What became of each request, in the order of their moments.

    start_s: its moment, from the start; latency_ms: NaN without an answer; status: 0 without one.
    lag_ms: how long after its moment the client itself came to it. Much of it means that the client was the bottleneck.
    """

    kind: NDArray[np.str_]
    start_s: NDArray[np.float64]
    latency_ms: NDArray[np.float64]
    status: NDArray[np.int64]
    lag_ms: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.start_s)

    def of(self, kind: str) -> "Samples":
        return self[self.kind == kind]

    def __getitem__(self, chosen: NDArray[np.bool_]) -> "Samples":
        return Samples(
            self.kind[chosen], self.start_s[chosen], self.latency_ms[chosen], self.status[chosen], self.lag_ms[chosen]
        )

    @property
    def num_failed(self) -> int:
        """Without an answer, or with one that is not 2xx."""
        return int(np.count_nonzero((self.status < 200) | (self.status > 299)))

    @property
    def lag_p99_ms(self) -> float:
        return float(np.percentile(self.lag_ms, 99)) if len(self) else 0.0

    def percentile(self, percent: float) -> float:
        """Of the latency in milliseconds; requests without an answer took forever."""
        if not len(self):
            return float("nan")
        latency_ms = np.where(np.isnan(self.latency_ms), np.inf, self.latency_ms)
        return float(np.percentile(latency_ms, percent, method="higher"))


def constant_moments(per_second: float, seconds: float) -> NDArray[np.float64]:
    return np.arange(int(per_second * seconds)) / per_second


def ramp_moments(per_second: float, seconds: float) -> NDArray[np.float64]:
    """A rate that grows evenly from 0 to `per_second`: request n comes when the integral of the rate reaches n."""
    total = per_second * seconds / 2
    moments: NDArray[np.float64] = seconds * np.sqrt((np.arange(int(total)) + 0.5) / total)
    return moments


def run_open_loop(
    url: str,
    calls: Iterable[Call],
    moments_s: NDArray[np.float64],
    *,
    headers: Mapping[str, str] | None = None,
    max_connections: int = MAX_CONNECTIONS,
    max_unanswered: int | None = None,
) -> Samples:
    """Post one call at each of the rising moments; returns when all are answered or given up.

    `headers` go with each of them. Once `max_unanswered` are without an answer no more are sent, and the samples end
    there.

    Raises:
        OSError: the address does not answer at all.
        ValueError: it is none.
    """
    return uvloop.run(_OpenLoop(url, headers or {}, max_connections, max_unanswered).run(iter(calls), moments_s))


class _OpenLoop:
    def __init__(self, url: str, headers: Mapping[str, str], max_connections: int, max_unanswered: int | None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or parts.hostname is None:
            raise ValueError(f"{url!r} must be http://host:port or https://host:port")
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._host, self._base = parts.hostname, parts.path.rstrip("/")
        self._port = parts.port or (80 if self._tls is None else 443)
        given = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._head = f"Host: {parts.netloc.rpartition('@')[2]}\r\nContent-Type: application/json\r\n{given}"
        self._max_connections = max_connections
        self._max_unanswered = max_unanswered
        self._idle: deque[_Connection] = deque()
        self._num_open = 0
        self._waiting: deque[int] = deque()

    async def run(self, calls: Iterator[Call], moments_s: NDArray[np.float64]) -> Samples:
        num = len(moments_s)
        self._calls = list(islice(calls, num))
        if len(self._calls) < num:
            raise ValueError(f"{num} moments but only {len(self._calls)} calls")
        self._counted_from = np.full(num, np.nan)
        self._latency_s = np.full(num, np.nan)
        self._status = np.zeros(num, np.int64)
        lag_s = np.zeros(num)
        self._num_sent = self._num_finished = 0
        self._is_sending = True
        self._done = asyncio.Event()
        # At once, so that an address where nobody listens is an error and not a thousand failed requests.
        while self._num_open < min(MIN_CONNECTIONS, self._max_connections):
            self._num_open += 1
            await self._open()
        start = time.perf_counter()
        for number, moment_s in enumerate(moments_s.tolist()):
            moment = start + moment_s
            wait = moment - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            elif number % 50 == 0:
                await asyncio.sleep(0)  # behind: answers must be taken all the same
            now = time.perf_counter()
            lag_s[number] = now - moment
            self._counted_from[number] = moment if now - moment > GRANULARITY_S else now
            self._waiting.append(number)
            self._num_sent += 1
            self._send_waiting()
            if self._max_unanswered is not None and self._num_sent - self._num_finished >= self._max_unanswered:
                break
        self._is_sending = False
        self._note_the_end()
        with suppress(TimeoutError):  # what is unanswered has status 0
            await asyncio.wait_for(self._done.wait(), TIMEOUT_S)
        for connection in self._idle:
            connection.close()
        kinds = np.array([call.kind for call in self._calls])
        samples = Samples(kinds, moments_s, self._latency_s * 1000, self._status, lag_s * 1000)
        return samples[np.arange(num) < self._num_sent]

    def _send_waiting(self) -> None:
        while self._waiting:
            if not self._idle:
                if self._num_open < self._max_connections:
                    self._num_open += 1
                    opening = asyncio.ensure_future(self._open())
                    opening.add_done_callback(self._opened)
                return
            connection, number = self._idle.popleft(), self._waiting.popleft()
            call = self._calls[number]
            line = f"POST {self._base}{call.path} HTTP/1.1\r\n"
            head = f"{line}{self._head}Content-Length: {len(call.body)}\r\n\r\n"
            connection.send(number, head.encode() + call.body)

    async def _open(self) -> None:
        """The caller has counted it in `_num_open`."""
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: _Connection(self), self._host, self._port, ssl=self._tls)
        self._idle.append(connection)

    def _opened(self, opening: "asyncio.Future[None]") -> None:
        if opening.cancelled() or opening.exception() is not None:
            self._num_open -= 1  # the next request tries again
            if self._waiting:
                self.finish(self._waiting.popleft(), 0)
            return
        self._send_waiting()

    def finish(self, number: int, status: int) -> None:
        self._status[number] = status
        if status:
            self._latency_s[number] = time.perf_counter() - self._counted_from[number]
        self._num_finished += 1
        self._note_the_end()

    def _note_the_end(self) -> None:
        if not self._is_sending and self._num_finished == self._num_sent:
            self._done.set()

    def free(self, connection: "_Connection") -> None:
        self._idle.append(connection)
        self._send_waiting()

    def lost(self, connection: "_Connection") -> None:
        self._num_open -= 1
        if connection in self._idle:
            self._idle.remove(connection)
        self._send_waiting()


class _Connection(asyncio.Protocol):
    """HTTP/1.1 with one request at a time."""

    def __init__(self, owner: _OpenLoop) -> None:
        self._owner = owner
        self._number: int | None = None
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def send(self, number: int, request: bytes) -> None:
        self._number = number
        self._transport.write(request)

    def close(self) -> None:
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator or self._number is None:
            return
        fields = head.lower() + b"\r\n"
        if b"\r\ntransfer-encoding: chunked\r\n" in fields:
            if not body.endswith(b"0\r\n\r\n"):  # no JSON ends like the last chunk
                return
        else:
            at = fields.find(b"\r\ncontent-length:")
            if at >= 0 and len(body) < int(fields[at + 17 :].split(b"\r\n", 1)[0]):
                return
        number, self._number, self._received = self._number, None, b""
        self._owner.finish(number, int(head[9:12]))
        if b"\r\nconnection: close" in fields:
            self._transport.close()
        else:
            self._owner.free(self)

    def connection_lost(self, error: Exception | None) -> None:
        del error
        if self._number is not None:
            self._owner.finish(self._number, 0)
            self._number = None
        self._owner.lost(self)
