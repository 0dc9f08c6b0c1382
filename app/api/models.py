"""GET /models: which version is live, and which are at hand."""

from typing import Protocol

import orjson
from fastapi import APIRouter
from starlette.responses import Response

from app.api.schemas.models import ModelsAnswer, ModelSummary
from app.api.security import JSON
from app.artifacts.registry import LiveModel


class Models(Protocol):
    @property
    def live(self) -> LiveModel | None: ...

    @property
    def problem(self) -> str | None: ...

    def versions(self) -> list[str]: ...


def router(models: Models) -> APIRouter:
    routes = APIRouter(tags=["models"])

    # Not async: it reads a folder.
    @routes.get("/models", response_model=ModelsAnswer, summary="Read the live version and those on disk")
    def versions() -> Response:
        live = models.live
        summary = None
        if live is not None:
            fields = set(ModelSummary.model_fields)
            summary = live.manifest.model_dump(mode="json", include=fields)
        answer = {"live": summary, "problem": models.problem, "versions": models.versions()}
        headers = {"X-Model-Version": live.version} if live is not None else None
        return Response(orjson.dumps(answer), headers=headers, media_type=JSON)

    return routes
