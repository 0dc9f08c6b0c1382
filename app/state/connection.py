"""The connection to the store: timeouts, retries, and one translation of everything that says "not now"."""

from collections.abc import Iterator
from contextlib import contextmanager
from secrets import token_hex

import redis.exceptions as failures
import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff

from app.errors import StoreMismatch, StoreUnavailable
from app.state.keys import Keys

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


def connect(url: str, *, timeout_ms: int, max_connections: int) -> Redis:
    """A client for `redis://`, `rediss://` or `unix://`; nothing is sent yet.

    A lost connection or a missing answer is tried twice more: every write of ours may be repeated. A caller waits at
    most `timeout_ms` for a free connection of the `max_connections`, and as long for each answer.
    """
    timeout_s = timeout_ms / 1000
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=max_connections,
        timeout=timeout_s,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(ExponentialBackoff(cap=BACKOFF_CAP_S, base=BACKOFF_BASE_S), NUM_RETRIES),
        retry_on_error=[failures.ConnectionError, failures.TimeoutError],
        decode_responses=False,
        protocol=2,  # scores come as flat text, which is what `History.read` parses fastest
    )
    return Redis.from_pool(pool)


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
