"""The buffer between answers and the event log."""

import asyncio
from collections.abc import Sequence
from typing import cast

from app.errors import StoreUnavailable
from app.state.event_log import EventLog, ServedRecord
from app.state.served import ServedBuffer


class FakeLog:
    """Takes records, or fails as often as it is told to."""

    def __init__(self, num_failures: int = 0) -> None:
        self.num_failures = num_failures
        self.written: list[str] = []
        self.wrote = asyncio.Event()

    async def append_served(self, records: Sequence[ServedRecord]) -> None:
        if self.num_failures:
            self.num_failures -= 1
            raise StoreUnavailable("down")
        self.written += [record.recommendation_id for record in records]
        self.wrote.set()


def _record(number: int) -> ServedRecord:
    return ServedRecord(f"rec_{number}", None, 17, None, "popular", ("a",), (1.0,))


def _buffer(log: FakeLog, **options: object) -> ServedBuffer:
    return ServedBuffer(cast(EventLog, log), **({"sample_rate": 1.0, "interval_seconds": 0.001} | options))  # type: ignore[arg-type]


async def test_records_are_written_in_the_background() -> None:
    log = FakeLog()
    async with _buffer(log) as buffer:
        buffer.record(_record(1))
        await asyncio.wait_for(log.wrote.wait(), 5)
        assert log.written == ["rec_1"]


async def test_what_is_left_is_written_at_shutdown() -> None:
    log = FakeLog()
    async with _buffer(log, interval_seconds=3600) as buffer:
        for number in range(1200):
            buffer.record(_record(number))
    assert log.written == [f"rec_{number}" for number in range(1200)]


async def test_records_wait_in_order_while_the_store_is_down() -> None:
    log = FakeLog(num_failures=3)
    async with _buffer(log) as buffer:
        for number in range(700):
            buffer.record(_record(number))
        await asyncio.wait_for(log.wrote.wait(), 5)
    assert log.written == [f"rec_{number}" for number in range(700)]


async def test_oldest_records_go_when_the_buffer_is_full_and_are_counted() -> None:
    log, dropped = FakeLog(), list[int]()
    async with _buffer(log, interval_seconds=3600, capacity=10, on_dropped=dropped.append) as buffer:
        for number in range(25):
            buffer.record(_record(number))
    assert log.written == [f"rec_{number}" for number in range(15, 25)]
    assert sum(dropped) == 15


async def test_records_that_cannot_be_written_at_shutdown_are_counted() -> None:
    log, dropped = FakeLog(num_failures=10**9), list[int]()
    async with _buffer(log, interval_seconds=3600, on_dropped=dropped.append) as buffer:
        buffer.record(_record(1))
    assert (log.written, dropped) == ([], [1])


async def test_sampling_keeps_its_share_and_is_the_same_for_the_same_recommendation() -> None:
    async def written(rate: float) -> list[str]:
        log = FakeLog()
        async with _buffer(log, interval_seconds=3600, sample_rate=rate) as buffer:
            for number in range(4000):
                buffer.record(_record(number))
        return log.written

    assert await written(0) == []
    assert len(await written(1)) == 4000
    quarter = await written(0.25)
    assert 800 < len(quarter) < 1200  # 1000 ± 7 standard deviations
    assert quarter == await written(0.25)
