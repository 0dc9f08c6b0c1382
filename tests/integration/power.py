"""A process that dies between two messages to the store, wherever a test wants it to."""

from collections.abc import Awaitable, Callable

import pytest
from redis.asyncio.connection import AbstractConnection

from app.state.pipelined import PipelinedConnection


class PowerCut(BaseException):
    pass


def cut_power(patch: pytest.MonkeyPatch, at: int, *, after_sending: bool) -> Callable[[], int]:
    """The process dies at the `at`-th message to the store, before or after it left; returns the messages so far."""
    count = 0

    def dying(send: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
        async def send_or_die(*arguments: object, **options: object) -> object:
            nonlocal count
            count += 1
            if count == at and not after_sending:
                raise PowerCut
            answer = await send(*arguments, **options)
            if count == at:
                raise PowerCut
            return answer

        return send_or_die

    for kind, method in ((AbstractConnection, "send_packed_command"), (PipelinedConnection, "call_all")):
        patch.setattr(kind, method, dying(getattr(kind, method)))
    return lambda: count
