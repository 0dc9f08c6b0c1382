"""The store that the settings name, for whoever is not a worker of the service, and the history that they describe."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from app.settings import Settings
from app.state.connection import Store, claim_store, connect
from app.state.embedded import EmbeddedStore
from app.state.history import History

LEAST_TIMEOUT_MS = 5000
"""Nobody waits for these processes."""


@asynccontextmanager
async def open_store(settings: Settings) -> AsyncIterator[tuple[Store, str]]:
    """The store and its own id.

    Without a URL the embedded store is used: adopted where it runs, started for the time being where it does not.

    Raises:
        StoreMismatch: the store was first used with another number of shards.
        StoreUnavailable: the store does not answer.
    """
    async with AsyncExitStack() as stack:
        if settings.redis_url is None:
            embedded = EmbeddedStore.start(settings.data_dir)
            stack.callback(embedded.stop)
            url = embedded.url
        else:
            url = settings.redis_url.get_secret_value()
        redis = connect(url, timeout_ms=max(settings.redis_timeout_ms, LEAST_TIMEOUT_MS), max_connections=4)
        stack.push_async_callback(redis.aclose)
        yield redis, await claim_store(redis, namespace=settings.namespace, shards=settings.shards)


def history_of(
    settings: Settings, redis: Store, *, writes_log: bool = True, on_log_dropped: Callable[[int], None] | None = None
) -> History:
    return History(
        redis,
        namespace=settings.namespace,
        shards=settings.shards,
        cap=settings.history_cap,
        ttl_days=settings.history_ttl_days,
        log_max_entries=settings.log_max_entries,
        log_max_age_days=settings.log_max_age_days,
        popularity_half_life_days=settings.popularity_half_life_days,
        trending_half_life_hours=settings.trending_half_life_hours,
        writes_log=writes_log,
        on_log_dropped=on_log_dropped,
    )
