"""Work that goes on beside a worker's requests."""

import asyncio
from collections.abc import Coroutine
from typing import Any

CANCEL_AGAIN_SECONDS = 0.1


class BackgroundTask:
    """One task from `start` to `stop`, which cancels it wherever it is; one not started can be stopped as well."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    def start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._task = asyncio.create_task(work, name=name)

    async def stop(self) -> None:
        """Returns when it has ended; how it ended is nobody's business any more."""
        if self._task is None:
            return
        while not self._task.done():
            # Again, since a cancellation can be lost: before Python 3.12 `asyncio.wait_for`, which redis-py sends
            # through, swallows one that comes in the moment in which what it waits for is done.
            self._task.cancel()
            await asyncio.wait((self._task,), timeout=CANCEL_AGAIN_SECONDS)
        await asyncio.gather(self._task, return_exceptions=True)
