"""A server-side script: sent once, called by its digest, sent again after a server has lost it."""

from collections.abc import Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Any, NamedTuple

from redis.exceptions import NoScriptError, ResponseError

from app.state.connection import Store, is_refusal, store_errors, unavailable

MAX_ARGUMENTS_ON_SHARED_CONNECTION = 64
"""Of all calls of one round trip, some ten events: what takes the server longer would hold up the reads behind it."""


class ScriptCall(NamedTuple):
    """All keys of a call carry the tag of one shard, so that it is atomic on a cluster as well."""

    keys: Sequence[str]
    arguments: Sequence[str | bytes | int]


class Script:
    """The Lua files of this folder that are named, one behind the other: shared functions first."""

    def __init__(self, redis: Store, *names: str) -> None:
        self._redis = redis
        parts = [files("app.state").joinpath(f"{name}.lua").read_bytes() for name in names]
        self._text = b"#!lua\n" + b"\n".join(parts)
        self._sha = sha1(self._text, usedforsecurity=False).hexdigest()

    async def run(self, *calls: ScriptCall) -> list[Any]:
        """The replies, in the order of the calls, all in one round trip.

        Raises:
            StoreUnavailable: the store does not answer or refuses; some of the calls may have been carried out.
            ResponseError: the script is at fault.
        """
        replies = await self._send(calls)
        lost = [number for number, reply in enumerate(replies) if _is_lost(reply)]
        if lost:  # the server was restarted or its scripts were flushed; the other calls are done
            with store_errors():
                await self._redis.script_load(self._text)
            for number, reply in zip(lost, await self._send([calls[number] for number in lost]), strict=True):
                replies[number] = reply
        for reply in replies:
            if isinstance(reply, ResponseError) and is_refusal(reply):
                raise unavailable(reply) from reply
            if isinstance(reply, Exception):
                raise reply
        return replies

    async def _send(self, calls: Sequence[ScriptCall]) -> list[Any]:
        commands = [("EVALSHA", self._sha, len(call.keys), *call.keys, *call.arguments) for call in calls]
        with store_errors():
            if sum(map(len, commands)) <= MAX_ARGUMENTS_ON_SHARED_CONNECTION:
                return await self._redis.pipelined.call_all(commands)
            async with self._redis.pipeline(transaction=False) as pipe:
                for command in commands:
                    pipe.execute_command(*command)
                return await pipe.execute(raise_on_error=False)


def _is_lost(reply: object) -> bool:
    """redis-py takes the code out of the text and makes it a class."""
    return isinstance(reply, NoScriptError) or (isinstance(reply, ResponseError) and str(reply).startswith("NOSCRIPT"))
