"""The one place where the objects of a worker are made and wired."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version

import structlog
from fastapi import FastAPI

from app.api import batch, events, health, items, models, openapi, pages, problems, recommend, similar, users
from app.api.middleware import RequestContext
from app.api.scenarios import Scenarios
from app.api.schemas.scenarios import read_scenarios
from app.api.security import Admission
from app.artifacts.event_types import read_event_uses
from app.artifacts.registry import ModelRegistry
from app.errors import StoreMismatch, StoreUnavailable
from app.ranking.batching import Batcher
from app.recommender.live_rules import LiveRules
from app.recommender.paging import Paging
from app.recommender.recommender import Recommender
from app.settings import Settings, load_settings
from app.state.catalogue import Catalogue
from app.state.connection import claim_store, connect
from app.state.erasing import Erasing
from app.state.event_log import EventLog
from app.state.kept_lists import KeptLists
from app.state.merging import Merging
from app.state.opening import history_of
from app.state.popularity import Popularity
from app.state.served import ServedBuffer
from app.telemetry import Telemetry, configure_logging

CLAIM_SECONDS = 1.0
"""A store that does not answer at the start is asked again so often."""
SERVED_INTERVAL_SECONDS = 0.25
"""How long a list that was served waits for others, to be written with them."""

log = structlog.get_logger(__name__)


def from_environment() -> FastAPI:
    """What each worker runs."""
    settings = load_settings()
    configure_logging(settings.log_level)
    return create_app(settings)


def create_app(settings: Settings) -> FastAPI:
    """A complete service; nothing is opened, read or sent before its lifespan begins.

    Raises:
        ValueError: `settings` name no store — `python -m app` starts one and names it —, or a file of event types
            or of scenarios that cannot be used.
    """
    if settings.redis_url is None:
        raise ValueError("create_app needs settings.redis_url; python -m app starts a store of its own and sets it")
    telemetry = Telemetry(settings.namespace)
    redis = connect(
        settings.redis_url.get_secret_value(),
        timeout_ms=settings.redis_timeout_ms,
        max_connections=settings.redis_max_connections,
    )
    history = history_of(settings, redis, on_log_dropped=lambda amount: telemetry.log_dropped("log_full", amount))
    merging = Merging(
        redis,
        namespace=settings.namespace,
        shards=settings.shards,
        cap=settings.history_cap,
        ttl_days=settings.history_ttl_days,
        log_max_age_days=settings.log_max_age_days,
    )
    event_log = EventLog(
        redis,
        namespace=settings.namespace,
        shards=settings.shards,
        max_entries=settings.log_max_entries,
        max_age_days=settings.log_max_age_days,
        on_dropped=lambda amount: telemetry.log_dropped("log_full", amount),
    )
    served = ServedBuffer(
        event_log,
        sample_rate=settings.served_sample_rate,
        interval_seconds=SERVED_INTERVAL_SECONDS,
        on_dropped=lambda amount: telemetry.log_dropped("served_unwritten", amount),
    )
    erasing = Erasing(
        redis,
        namespace=settings.namespace,
        shards=settings.shards,
        settle_seconds=2 * SERVED_INTERVAL_SECONDS,
    )
    popularity = Popularity(
        redis,
        namespace=settings.namespace,
        shards=settings.shards,
        half_life_days=settings.popularity_half_life_days,
        trending_half_life_hours=settings.trending_half_life_hours,
    )
    catalogue = Catalogue(redis, namespace=settings.namespace, max_items=settings.max_live_items)
    registry = ModelRegistry(
        settings.namespace_artifacts,
        history_cap=settings.history_cap,
        reload_seconds=settings.reload_seconds,
        device=settings.device,
        intra_op_threads=settings.intra_op_threads,
        ranking=settings.ranking,
        event_uses=read_event_uses(settings.event_types_file) if settings.event_types_file is not None else None,
        prepare=catalogue.prepare,
        on_reload=telemetry.reload,
    )
    batcher = Batcher()
    live_rules = LiveRules(event_log, history, registry, catalogue) if settings.live_rules else None
    recommender = Recommender(
        history,
        registry,
        catalogue,
        popularity,
        served,
        batcher,
        live_rules,
        new_item_share=settings.new_item_share,
    )
    paging = Paging(recommender, KeptLists(redis, namespace=settings.namespace, shards=settings.shards))
    scenarios = Scenarios(read_scenarios(settings.scenarios_file) if settings.scenarios_file is not None else {})

    async def claim() -> None:
        await claim_store(redis, namespace=settings.namespace, shards=settings.shards)

    async def open_store() -> None:
        """Claim it and end what a worker that died has left half-way."""
        await claim()
        await merging.resume()

    async def claim_when_it_answers() -> None:
        while True:
            await asyncio.sleep(CLAIM_SECONDS)
            try:
                await open_store()
            except StoreUnavailable:
                continue
            except StoreMismatch as error:
                # The next worker meets it at its start and says so; this one must not write into a foreign layout.
                log.critical("store_mismatch", problem=str(error))
                os.kill(os.getpid(), signal.SIGTERM)
            return

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(redis.aclose)
            try:
                await open_store()
            except StoreUnavailable:
                claiming = asyncio.create_task(claim_when_it_answers(), name="claim-store")
                stack.callback(claiming.cancel)
            stack.push_async_callback(registry.stop)
            stack.callback(batcher.close)
            await registry.start()
            catalogue.view(registry.live)  # so that the live items are put in the model's order as they are read
            await stack.enter_async_context(catalogue)
            await stack.enter_async_context(served)
            if live_rules is not None:
                await stack.enter_async_context(live_rules)
            yield

    app = FastAPI(
        title="Segue",
        version=version("segue"),
        description="Events in, a self-attention model at request time, ranked items out.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    problems.install(app, telemetry)
    openapi.install(app)
    # The last one added is the outermost.
    app.add_middleware(Admission, max_bytes=settings.max_body_bytes, max_in_flight=settings.max_in_flight)
    app.add_middleware(RequestContext, telemetry=telemetry)
    limits = {"max_events": settings.max_batch_events, "max_future_seconds": settings.max_future_seconds}
    for router in (
        recommend.router(recommender, paging, scenarios, telemetry),
        batch.router(recommender, scenarios, telemetry),
        similar.router(recommender, scenarios, telemetry),
        events.router(history, registry, telemetry, **limits),
        users.router(history, merging, erasing),
        items.router(catalogue, registry, telemetry, max_items=settings.max_batch_items),
        models.router(registry),
        health.router(claim, registry, telemetry),
        pages.router(),
    ):
        # Not include_router: its layer around each call has nothing to add to routes that are complete.
        app.router.routes.extend(router.routes)
    app.mount("/console", pages.ConsoleFiles(directory=pages.CONSOLE))
    return app
