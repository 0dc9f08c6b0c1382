"""Past events into the store: what `POST /events` does, without HTTP in between."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from app.api.events import check
from app.artifacts.manifest import EventType
from app.errors import Fault
from app.state.history import AppendOutcome, History

PART_ROWS = 5000
NUM_UNDER_WAY = 3
"""Parts that are checked, sent or waited for at a time: the store works on one while this process prepares the next."""


@dataclass(frozen=True)
class StoredPart:
    """What became of one part; the outcomes are those of `POST /events`.

    rejected: the fault by the row's number in the part.
    """

    num_rows: int
    accepted: int
    duplicates: int
    ignored: int
    rejected: Mapping[int, Fault]


async def backfill(
    parts: Iterable[list[dict[str, Any]]],
    history: History,
    event_types: Mapping[str, EventType],
    *,
    max_future_seconds: int,
) -> AsyncIterator[StoredPart]:
    """Checks and stores every part; a part is given out, in their order, when all before it are stored as well.

    Raises:
        StoreUnavailable: the store does not answer; what was given out is stored.
    """
    under_way: deque[asyncio.Task[StoredPart]] = deque()
    try:
        for bodies in parts:
            under_way.append(asyncio.create_task(_store(bodies, history, event_types, max_future_seconds)))
            if len(under_way) == NUM_UNDER_WAY:
                yield await under_way.popleft()
        while under_way:
            yield await under_way.popleft()
    finally:
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)


async def _store(
    bodies: list[dict[str, Any]], history: History, event_types: Mapping[str, EventType], max_future_seconds: int
) -> StoredPart:
    batch = await check(
        bodies,
        "{}",
        event_types=event_types,
        now_us=time.time_ns() // 1000,
        max_future_us=max_future_seconds * 1_000_000,
    )
    outcomes = await history.append(batch.events)
    return StoredPart(
        num_rows=len(bodies),
        accepted=outcomes.count(AppendOutcome.ACCEPTED),
        duplicates=outcomes.count(AppendOutcome.DUPLICATE),
        ignored=outcomes.count(AppendOutcome.IGNORED),
        rejected=batch.rejected,
    )
