"""GET /items: what the live artifact says about its items."""

import base64
import binascii
from itertools import islice
from typing import Annotated, Protocol

import orjson
from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from app.api.openapi import problems
from app.api.schemas.common import Parameters
from app.api.schemas.items import ItemAnswer, ItemsAnswer
from app.api.security import JSON
from app.artifacts.registry import LiveModel
from app.errors import Fault, InvalidRequest, NotFound


class Models(Protocol):
    @property
    def live(self) -> LiveModel | None: ...


class ItemsParameters(Parameters):
    title_prefix: str | None = Query(
        None, max_length=256, description="Items whose `title` begins so, whatever the case, by title."
    )
    limit: int = Query(20, ge=1, le=100)
    cursor: str | None = Query(None, max_length=256, description="`next_cursor` of the answer before.")


def router(models: Models) -> APIRouter:
    routes = APIRouter(tags=["items"])

    # Not async: the first search of a version reads all titles, which would keep other requests waiting.
    @routes.get(
        "/items", response_model=ItemsAnswer, responses=problems(422), summary="List items, or find them by title"
    )
    def items(parameters: Annotated[ItemsParameters, Query()]) -> Response:
        """Without `title_prefix` all items, in the artifact's order. Without a live model there are none."""
        live = models.live
        if live is None:
            return Response(orjson.dumps({"model_version": None, "items": [], "next_cursor": None}), media_type=JSON)
        start = 0 if parameters.cursor is None else read_cursor(parameters.cursor, live.version)
        indices = (
            live.attributes.find_title(parameters.title_prefix)
            if parameters.title_prefix is not None
            else iter(range(1, len(live.vocabulary) + 1))
        )
        page = list(islice(indices, start, start + parameters.limit + 1))
        more = len(page) > parameters.limit
        answer = {
            "model_version": live.version,
            "items": [
                {"item_id": live.vocabulary.id_of(index), "attributes": live.attributes[index]}
                for index in page[: parameters.limit]
            ],
            "next_cursor": write_cursor(start + parameters.limit, live.version) if more else None,
        }
        return Response(orjson.dumps(answer), headers={"X-Model-Version": live.version}, media_type=JSON)

    @routes.get(
        "/items/{item_id:path}", response_model=ItemAnswer, responses=problems(404, 422), summary="Read one item"
    )
    async def item(item_id: Annotated[str, Path(min_length=1, max_length=256)]) -> Response:
        live = models.live
        index = live.vocabulary.index_of(item_id) if live is not None else None
        if live is None or index is None:
            raise NotFound("The live model does not know this item." if live else "No model is live.")
        answer = {"item_id": item_id, "attributes": live.attributes[index]}
        return Response(orjson.dumps(answer), headers={"X-Model-Version": live.version}, media_type=JSON)

    return routes


def write_cursor(start: int, version: str) -> str:
    return base64.urlsafe_b64encode(f"{start} {version}".encode()).decode()


def read_cursor(cursor: str, version: str) -> int:
    """Where to go on. Raises InvalidRequest for a cursor that is not ours or of another version: places have moved."""
    try:
        start, _, made_for = base64.urlsafe_b64decode(cursor).decode().partition(" ")
        position = int(start)
    except (binascii.Error, ValueError):
        raise _bad_cursor("Is no cursor of this service") from None
    if made_for != version:
        raise _bad_cursor("Belongs to another model version; begin again without it")
    if position < 0:
        raise _bad_cursor("Is no cursor of this service")
    return position


def _bad_cursor(detail: str) -> InvalidRequest:
    return InvalidRequest("A parameter breaks the contract.", faults=[Fault(detail, parameter="cursor")])
