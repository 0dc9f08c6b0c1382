"""One connection for many callers: what they send in one turn of the event loop goes out together.

redis-py takes a connection for each call and waits on a reader of its own, some 100 µs of a worker's time; a future in
a queue takes a tenth of that. The server answers in the order of the commands, so the queue says whose answer it is.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, cast

import hiredis
import redis.exceptions as failures
from redis.asyncio import ConnectionPool
from redis.backoff import AbstractBackoff


class PipelinedConnection:
    """Opened by the first call, opened again by the first call after a loss."""

    def __init__(self, pool: ConnectionPool, *, timeout_s: float, num_retries: int, backoff: AbstractBackoff) -> None:
        """`pool` says how connections are made; this one is not among those that it lends."""
        self._pool = pool
        self._timeout_s = timeout_s
        self._num_retries = num_retries
        self._backoff = backoff
        self._line: _Line | None = None
        self._opening: asyncio.Task[_Line] | None = None

    async def call(self, *command: str | bytes | int | float) -> Any:
        """The answer to one command, text as bytes.

        A lost connection or a missing answer is tried again: the command must be one that may be repeated, and quick,
        since all that come behind it wait for it.

        Raises:
            redis.exceptions.ResponseError: the server's refusal, its code included.
            redis.exceptions.ConnectionError, redis.exceptions.TimeoutError: no answer.
        """
        replies = await self.call_all((command,))
        if isinstance(replies[0], failures.ResponseError):
            raise replies[0]
        return replies[0]

    async def call_all(self, commands: Sequence[Sequence[str | bytes | int | float]]) -> list[Any]:
        """The answers to several commands in their order; a refusal is a ResponseError among them.

        Raises:
            redis.exceptions.ConnectionError, redis.exceptions.TimeoutError: no answer; some may have been carried out.
        """
        if not commands:
            return []
        # hiredis annotates a tuple of one argument.
        packed = b"".join([hiredis.pack_command(tuple(command)) for command in commands])  # type: ignore[arg-type]
        num_failures = 0
        while True:
            line = self._line
            if line is None or line.lost:
                line = await self._open()
            try:
                return await line.send(packed, len(commands))
            except (failures.ConnectionError, failures.TimeoutError):
                num_failures += 1
                if num_failures > self._num_retries:
                    raise
                await asyncio.sleep(self._backoff.compute(num_failures))

    async def aclose(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
        if self._line is not None:
            await self._line.aclose()

    async def _open(self) -> "_Line":
        """One opening for all who wait; who stops waiting does not stop it."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._connect(), name="store-connection")
            self._opening.add_done_callback(self._opened)
        return await asyncio.shield(self._opening)

    async def _connect(self) -> "_Line":
        connection = self._pool.make_connection()  # type: ignore[no-untyped-call]  # redis-py leaves it unannotated
        await connection.connect()  # TLS, password, database; with retries of its own
        # From here on the transport is ours, and the connection an empty shell that must not close it.
        writer, connection._reader, connection._writer = connection._writer, None, None
        return _Line(cast(asyncio.StreamWriter, writer), self._timeout_s)

    def _opened(self, opening: "asyncio.Task[_Line]") -> None:
        self._opening = None
        if not opening.cancelled() and opening.exception() is None:
            self._line = opening.result()


class _Line(asyncio.Protocol):
    """An open connection until it is lost; a lost one is never used again, since its answers are out of step."""

    def __init__(self, writer: asyncio.StreamWriter, timeout_s: float) -> None:
        self._writer = writer  # kept: it would close the transport when it goes
        self._transport = cast(asyncio.Transport, writer.transport)
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        # redis-py's classes of refusals would take the code out of the text.
        self._parser = hiredis.Reader(protocolError=failures.ConnectionError, replyError=failures.ResponseError)
        self._outgoing: list[bytes] = []
        self._waiting: deque[_Call] = deque()
        self._watch: asyncio.TimerHandle | None = None
        self._closed = self._loop.create_future()
        self.lost = False
        self._transport.set_protocol(self)

    def send(self, packed: bytes, num_replies: int) -> "asyncio.Future[list[Any]]":
        call = _Call(self._loop, num_replies, self._loop.time() + self._timeout_s)
        self._waiting.append(call)
        if not self._outgoing:
            self._loop.call_soon(self._write)
        self._outgoing.append(packed)
        if self._watch is None:
            self._watch = self._loop.call_at(call.deadline, self._look_at_the_clock)
        return call.answer

    def data_received(self, data: bytes) -> None:
        parser, waiting = self._parser, self._waiting
        parser.feed(data)
        try:
            while (reply := parser.gets()) is not False:
                call = waiting[0]
                call.replies.append(reply)
                if len(call.replies) == call.num_replies:
                    waiting.popleft()
                    if not call.answer.done():  # a caller that hung up has cancelled its own
                        call.answer.set_result(call.replies)
        except (failures.ConnectionError, IndexError):
            self._lose(failures.ConnectionError("the server sent what nobody asked for"))

    def connection_lost(self, error: Exception | None) -> None:
        self._closed.set_result(None)
        self._lose(failures.ConnectionError(f"Connection lost: {error or 'the server closed it'}"))

    async def aclose(self) -> None:
        self._lose(failures.ConnectionError("Connection closed"))
        await self._closed

    def _write(self) -> None:
        packed, self._outgoing = self._outgoing, []
        if not self.lost:
            self._transport.write(packed[0] if len(packed) == 1 else b"".join(packed))

    def _look_at_the_clock(self) -> None:
        self._watch = None
        if not self._waiting:
            return
        deadline = self._waiting[0].deadline
        if deadline <= self._loop.time():
            self._lose(failures.TimeoutError("Timeout reading from the store"))
        else:
            self._watch = self._loop.call_at(deadline, self._look_at_the_clock)

    def _lose(self, error: Exception) -> None:
        self.lost = True
        self._transport.abort()
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        while self._waiting:
            answer = self._waiting.popleft().answer
            if not answer.done():
                answer.set_exception(error)


class _Call:
    __slots__ = ("answer", "deadline", "num_replies", "replies")

    def __init__(self, loop: asyncio.AbstractEventLoop, num_replies: int, deadline: float) -> None:
        self.answer: asyncio.Future[list[Any]] = loop.create_future()
        self.num_replies = num_replies
        self.deadline = deadline
        self.replies: list[Any] = []
