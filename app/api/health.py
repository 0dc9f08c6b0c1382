"""GET /livez, /readyz and /metrics: for those who run the service."""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import orjson
from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from app.api.schemas.health import LiveAnswer, ReadyAnswer
from app.api.security import JSON
from app.artifacts.registry import LiveModel
from app.errors import StoreUnavailable
from app.telemetry import Telemetry

_NOT_READY: dict[int | str, dict[str, Any]] = {
    503: {"model": ReadyAnswer, "description": "The store does not answer: events cannot be taken."}
}


class Models(Protocol):
    @property
    def live(self) -> LiveModel | None: ...

    @property
    def problem(self) -> str | None: ...


def router(check_store: Callable[[], Awaitable[object]], models: Models, telemetry: Telemetry) -> APIRouter:
    """`check_store` raises StoreUnavailable when the store does not answer."""
    routes = APIRouter(tags=["operations"])

    @routes.get("/livez", response_model=LiveAnswer, summary="Is the process alive?")
    async def livez() -> Response:
        """Asks nobody else: a worker whose store is down need not be restarted."""
        return Response(b'{"status":"live"}', media_type=JSON)

    @routes.get("/readyz", response_model=ReadyAnswer, responses=_NOT_READY, summary="Can it do its work?")
    async def readyz() -> Response:
        """Ready without a model too: then it answers by popularity, and says so here."""
        live = models.live
        reasons = []
        if live is None and models.problem is None:
            reasons.append("no_model: no version was promoted; answers are by popularity")
        if models.problem is not None:
            reasons.append(f"model_refused: {models.problem}")
        status = "degraded" if reasons else "ready"
        try:
            await check_store()
        except StoreUnavailable:
            status = "unavailable"
            reasons.insert(0, "store_unavailable: the store does not answer")
        body = {"status": status, "model_version": live.version if live is not None else None, "reasons": reasons}
        return Response(orjson.dumps(body), 503 if status == "unavailable" else 200, media_type=JSON)

    # Not async: it reads the files of all workers.
    @routes.get("/metrics", response_class=Response, summary="Metrics of all workers in the Prometheus text format")
    def metrics() -> Response:
        return Response(telemetry.render(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return routes
