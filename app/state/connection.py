"""The connection to the store: timeouts, retries, and one translation of everything that says "not now"."""

from collections.abc import Iterator
from contextlib import contextmanager
from secrets import token_hex
from typing import Any

import redis.exceptions as failures
import structlog
from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import AbstractBackoff, ExponentialBackoff

from app.errors import StoreMismatch, StoreUnavailable
from app.state.keys import Keys
from app.state.pipelined import PipelinedConnection

NUM_RETRIES = 2
BACKOFF_BASE_S = 0.02
BACKOFF_CAP_S = 0.2
REFUSALS = (
    "OOM",
    "LOADING",
    "READONLY",
    "MISCONF",
    "NOREPLICAS",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "BUSY",
    "UNKILLABLE",
)
"""First words of the answers by which a server that is up declines to work."""

_log = structlog.get_logger(__name__)


class Store(Redis):
    """redis-py's client, and beside its pool one pipelined connection for what every request needs."""

    def __init__(self, pool: ConnectionPool, *, timeout_s: float, num_retries: int, backoff: AbstractBackoff) -> None:
        super().__init__(connection_pool=pool)
        self.auto_close_connection_pool = True
        self.pipelined = PipelinedConnection(pool, timeout_s=timeout_s, num_retries=num_retries, backoff=backoff)

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await self.pipelined.aclose()
        await super().aclose(close_connection_pool)


def connect(url: str, *, timeout_ms: int, max_connections: int) -> Store:
    """A client for `redis://`, `rediss://` or `unix://`; nothing is sent yet.

    A lost connection or a missing answer is tried twice more: every write of ours may be repeated. A caller waits at
    most `timeout_ms` for a free connection of the `max_connections`, and as long for each answer. The pipelined
    connection is one more.
    """
    timeout_s = timeout_ms / 1000
    backoff = ExponentialBackoff(cap=BACKOFF_CAP_S, base=BACKOFF_BASE_S)
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=max_connections,
        timeout=timeout_s,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(backoff, NUM_RETRIES),
        retry_on_error=[failures.ConnectionError, failures.TimeoutError],
        decode_responses=False,
        protocol=2,  # scores come as flat text, which is what `History.read` parses fastest
    )
    return Store(pool, timeout_s=timeout_s, num_retries=NUM_RETRIES, backoff=backoff)


@contextmanager
def store_errors() -> Iterator[None]:
    """Turn every failure that means "the store cannot do this now" into StoreUnavailable, and log the reason."""
    try:
        yield
    except (failures.ConnectionError, failures.TimeoutError, OSError) as error:
        raise unavailable(error) from error
    except failures.ResponseError as error:
        if not is_refusal(error):
            raise
        raise unavailable(error) from error


def is_refusal(error: failures.ResponseError) -> bool:
    return isinstance(
        error, failures.OutOfMemoryError | failures.ReadOnlyError | failures.ClusterDownError | failures.MasterDownError
    ) or str(error).startswith(REFUSALS)


def unavailable(error: Exception) -> StoreUnavailable:
    reason = f"{type(error).__name__}: {error}"
    _log.warning("store_unavailable", reason=reason)
    return StoreUnavailable(reason)


async def claim_store(redis: Redis, *, namespace: str, shards: int) -> str:
    """Write the number of shards into a store that is used for the first time; returns the store's own random id.

    Raises:
        StoreMismatch: the namespace was first used with another number of shards.
        StoreUnavailable: the store does not answer.
    """
    meta = Keys(namespace, shards).meta
    with store_errors():
        async with redis.pipeline(transaction=True) as pipe:
            pipe.hsetnx(meta, "shards", str(shards))
            pipe.hsetnx(meta, "id", token_hex(8))
            pipe.hmget(meta, ["shards", "id"])
            _, _, (stored, store_id) = await pipe.execute()
    if int(stored) != shards:
        raise StoreMismatch(
            f"namespace {namespace!r} of this store has {int(stored)} shards, the settings say {shards}: "
            f"set SEGUE_SHARDS={int(stored)}, or use another namespace or an empty store"
        )
    return str(store_id.decode())


async def read_store_id(redis: Redis, keys: Keys) -> str:
    """What `claim_store` returned when this store was first used.

    Raises:
        StoreUnavailable: the store does not answer, or no service has claimed it yet.
    """
    with store_errors():
        store_id: Any = await redis.hget(keys.meta, "id")
    if store_id is None:
        raise StoreUnavailable(f"{keys.meta} holds no id: the store was emptied and is not claimed again yet")
    return str(store_id.decode())
