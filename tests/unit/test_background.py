"""A background task ends when it is stopped, even where a cancellation is lost on the way."""

import asyncio

import pytest

from app.background import BackgroundTask


@pytest.mark.parametrize("turns", range(8))
async def test_task_is_stopped_wherever_it_is_in_wait_for(turns: int) -> None:
    """Before Python 3.12 some of these turns are the one in which `wait_for` swallows the cancellation."""
    ends: list[str] = []

    async def work() -> None:
        loop = asyncio.get_running_loop()
        too_late = loop.time() + 10
        try:
            while loop.time() < too_late:
                await asyncio.wait_for(asyncio.sleep(0), 60)
            ends.append("never cancelled")
        except asyncio.CancelledError:
            ends.append("cancelled")

    task = BackgroundTask()
    task.start(work(), "work")
    for _ in range(turns + 1):
        await asyncio.sleep(0)
    await task.stop()
    assert ends == ["cancelled"]


async def test_task_that_swallows_a_cancellation_is_cancelled_again() -> None:
    ends: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            ends.append("swallowed")
        try:
            await asyncio.sleep(10)
        finally:
            ends.append("ended")

    task = BackgroundTask()
    task.start(work(), "work")
    await asyncio.sleep(0)
    await task.stop()
    assert ends == ["swallowed", "ended"]


async def test_task_that_failed_is_stopped_without_its_error() -> None:
    async def work() -> None:
        raise ValueError("nobody's business")

    task = BackgroundTask()
    task.start(work(), "work")
    await asyncio.sleep(0)
    await task.stop()


async def test_task_that_was_never_started_can_be_stopped() -> None:
    await BackgroundTask().stop()
