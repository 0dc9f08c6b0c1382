"""What was recommended, on its way to the event log: an answer never waits for it."""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from zlib import crc32

import structlog

from app.errors import StoreUnavailable
from app.state.event_log import EventLog, ServedRecord

BATCH = 500
SHUTDOWN_TIMEOUT_S = 5.0

_log = structlog.get_logger(__name__)


class ServedBuffer:
    """A worker's buffer of served records, written in the background while the buffer is entered (`async with`).

    While the store is down the records wait; beyond `capacity` the oldest go and `on_dropped` hears how many, as it
    does of those that cannot be written within five seconds of leaving. A worker that is killed loses at most
    `interval_seconds` of records.
    """

    def __init__(
        self,
        log: EventLog,
        *,
        sample_rate: float,
        capacity: int = 10_000,
        interval_seconds: float = 0.25,
        on_dropped: Callable[[int], None] | None = None,
    ) -> None:
        """sample_rate: share of the recommendations that is recorded, 0…1, chosen by the recommendation id."""
        self._event_log = log
        self._sample_rate = sample_rate
        self._capacity = capacity
        self._interval_seconds = interval_seconds
        self._on_dropped = on_dropped
        self._records: deque[ServedRecord] = deque()
        self._closing = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None

    def record(self, record: ServedRecord) -> None:
        """Take a record; returns at once."""
        if crc32(record.recommendation_id.encode()) >= self._sample_rate * 2**32:
            return
        self._records.append(record)
        if len(self._records) > self._capacity:
            self._records.popleft()
            self._dropped(1)

    async def __aenter__(self) -> "ServedBuffer":
        self._writer = asyncio.create_task(self._write_until_closing())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        if self._writer is not None:
            with suppress(TimeoutError):  # what is left is counted below
                await asyncio.wait_for(self._writer, SHUTDOWN_TIMEOUT_S)
        if self._records:
            self._dropped(len(self._records))
            self._records.clear()

    async def _write_until_closing(self) -> None:
        closing = False
        while not closing:
            with suppress(TimeoutError):  # the interval is over: time to write
                await asyncio.wait_for(self._closing.wait(), self._interval_seconds)
            closing = self._closing.is_set()
            with suppress(StoreUnavailable):  # reported where it arose; the records wait for the next round
                await self._flush()

    async def _flush(self) -> None:
        while self._records:
            batch = [self._records.popleft() for _ in range(min(BATCH, len(self._records)))]
            try:
                await self._event_log.append_served(batch)
            except (StoreUnavailable, asyncio.CancelledError):
                self._records.extendleft(reversed(batch))
                raise
            except Exception:
                _log.exception("served_records_refused")  # a batch that can never be written must not block the rest
                self._dropped(len(batch))

    def _dropped(self, num_records: int) -> None:
        if self._on_dropped is not None:
            self._on_dropped(num_records)
