"""How far a long piece of work has come, kept in the store that it is done on: an emptied store forgets it too."""

from app.state.connection import Store, store_errors
from app.state.keys import Keys

KEPT_DAYS = 90


class Bookmarks:
    """By name, how many rows of something are done. Forgotten 90 days after the last of them."""

    def __init__(self, redis: Store, *, namespace: str, shards: int) -> None:
        self._redis = redis
        self._keys = Keys(namespace, shards)

    async def read(self, name: str) -> int:
        """0 where nothing is known. Raises StoreUnavailable."""
        with store_errors():
            found = await self._redis.get(self._keys.bookmark(name))
        return int(found or 0)

    async def write(self, name: str, num_rows: int) -> None:
        """Raises StoreUnavailable."""
        with store_errors():
            await self._redis.set(self._keys.bookmark(name), num_rows, ex=KEPT_DAYS * 86_400)
