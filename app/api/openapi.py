"""What FastAPI cannot see for itself: bodies that a route reads by its own hand, and problems."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.api.problems import MEDIA_TYPE
from app.api.schemas.events import EventBatch, EventBody
from app.api.schemas.items import BulkItemBody, ItemBatch, ItemBody, ItemPatchBody
from app.api.schemas.problems import Problem
from app.api.schemas.recommend import RecommendBatchBody, RecommendBody, SimilarBody
from app.api.schemas.users import MergeBody

_REFERENCE = "#/components/schemas/{model}"
_MEANINGS = {
    400: "The body is not JSON.",
    404: "There is no such thing.",
    410: "The cursor leads to no list of this caller that is still kept.",
    413: "The body or the batch is too large.",
    415: "The body is of a type that is not read here.",
    422: "The body or a parameter breaks the contract; `errors` says where.",
    503: "The store does not answer, or too many ask at once; `Retry-After` says when to try again.",
}
_MODELS: tuple[type[BaseModel], ...] = (
    BulkItemBody,
    EventBatch,
    EventBody,
    ItemBatch,
    ItemBody,
    ItemPatchBody,
    MergeBody,
    Problem,
    RecommendBatchBody,
    RecommendBody,
    SimilarBody,
)


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """`responses` of a route."""
    content = {MEDIA_TYPE: {"schema": {"$ref": _REFERENCE.format(model=Problem.__name__)}}}
    return {status: {"description": _MEANINGS[status], "content": content} for status in statuses}


def body_of(content: dict[str, Any]) -> dict[str, Any]:
    """`openapi_extra` of a route: its request body, by media type."""
    return {
        "requestBody": {"required": True, "content": {name: {"schema": schema} for name, schema in content.items()}}
    }


def reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(model=model.__name__)}


def install(app: FastAPI) -> None:
    """Complete the schema that `/openapi.json` and the documentation page show."""

    def schema() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
                tags=app.openapi_tags,
            )
            _, definitions = models_json_schema([(model, "validation") for model in _MODELS], ref_template=_REFERENCE)
            made["components"]["schemas"] |= definitions["$defs"]
            made["components"]["schemas"] = dict(sorted(made["components"]["schemas"].items()))
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = schema  # type: ignore[method-assign]  # FastAPI's documented way to extend the schema
