"""Lists that are shown page by page: kept for half an hour, so that the next page goes on where the last one ended."""

import secrets
import struct
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import orjson
from numpy.typing import NDArray

from app.state.connection import Store, store_errors
from app.state.keys import Keys, Owner
from app.state.script import Script, ScriptCall

KEPT_SECONDS = 1800
MAX_LISTS = 8
"""Of one user or guest; the next one takes the place of the oldest."""
NAME_LENGTH = 16
SECRET_LENGTH = 16
_LENGTHS = struct.Struct("<H")


@dataclass(frozen=True, slots=True)
class KeptList:
    """A whole list, as it was when its first page was shown.

    page_size: items of a page, unless a request says otherwise.
    item_ids, scores: one length, best first.
    """

    recommendation_id: str
    strategy: str
    reasons: tuple[str, ...]
    model_version: str | None
    history_length: int
    page_size: int
    item_ids: tuple[str, ...]
    scores: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a list lies: its `name` of 16 bytes, and a `secret` that only the store and the service know."""

    name: bytes
    secret: bytes


class KeptLists:
    """The lists of one namespace. Those of one owner share a key, so that they go with the owner."""

    def __init__(self, redis: Store, *, namespace: str, shards: int, clock: Callable[[], float] = time.time) -> None:
        self._redis = redis
        self._keys = Keys(namespace, shards)
        self._clock = clock
        self._script = Script(redis, "keep_list")

    async def keep(self, owner: Owner | None, kept: KeptList) -> Place:
        """owner: None for a list that was made for nobody in particular; its name alone leads to it.

        Raises:
            StoreUnavailable: it may be kept or not.
        """
        now = int(self._clock())
        place = Place((now + KEPT_SECONDS).to_bytes(4) + secrets.token_bytes(12), secrets.token_bytes(SECRET_LENGTH))
        await self._script.run(
            ScriptCall(
                (self._keys.lists(owner or place.name.hex()),),
                (place.name.hex(), place.secret + pack(kept), f"{now:08x}", MAX_LISTS, KEPT_SECONDS * 1000),
            )
        )
        return place

    async def read(self, owner: Owner | None, name: bytes) -> tuple[KeptList, Place] | None:
        """None where this owner has no such list, or has it no longer. Raises StoreUnavailable."""
        if int.from_bytes(name[:4]) <= self._clock():
            return None
        with store_errors():
            value = await self._redis.pipelined.call("HGET", self._keys.lists(owner or name.hex()), name.hex())
        return None if value is None else (unpack(value[SECRET_LENGTH:]), Place(name, value[:SECRET_LENGTH]))


def pack(kept: KeptList) -> bytes:
    """How many items, their scores, and the rest as compressed JSON: half the size that JSON alone would have."""
    rest = (
        kept.recommendation_id,
        kept.strategy,
        kept.reasons,
        kept.model_version,
        kept.history_length,
        kept.page_size,
        kept.item_ids,
    )
    return _LENGTHS.pack(len(kept.scores)) + kept.scores.astype("<f4").tobytes() + zlib.compress(orjson.dumps(rest), 1)


def unpack(packed: bytes) -> KeptList:
    """The inverse of `pack`."""
    (length,) = _LENGTHS.unpack_from(packed)
    end = _LENGTHS.size + 4 * length
    scores = np.frombuffer(packed[_LENGTHS.size : end], dtype="<f4")
    recommendation_id, strategy, reasons, version, history_length, page_size, item_ids = orjson.loads(
        zlib.decompress(packed[end:])
    )
    return KeptList(
        recommendation_id, strategy, tuple(reasons), version, history_length, page_size, tuple(item_ids), scores
    )
