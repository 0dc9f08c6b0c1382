"""/items: what can be recommended, read and changed."""

import base64
import binascii
from collections.abc import Iterable
from itertools import islice
from typing import Annotated, Any, Protocol, TypeVar

import orjson
from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from app.api.bulk_items import put_many
from app.api.openapi import body_of, problems, reference
from app.api.problems import invalid_body, pointer_part
from app.api.schemas.common import Parameters
from app.api.schemas.items import (
    BulkItemBody,
    ItemAnswer,
    ItemBatch,
    ItemBody,
    ItemPatchBody,
    ItemsAnswer,
    ItemsPutAnswer,
)
from app.api.security import JSON, NDJSON, read_body
from app.artifacts.registry import LiveModel
from app.errors import CatalogueFull, Fault, InvalidRequest, NotFound
from app.state.catalogue import Catalogue, CatalogueItem, CatalogueView, FieldKinds, ItemRecord, PutOutcome
from app.telemetry import Telemetry

B = TypeVar("B", bound=BaseModel)
ItemId = Annotated[str, Path(min_length=1, max_length=256)]
# `:path`, because an id may hold slashes.
ONE = "/items/{item_id:path}"


class Models(Protocol):
    @property
    def live(self) -> LiveModel | None: ...


class ItemsParameters(Parameters):
    title_prefix: str | None = Query(
        None, max_length=256, description="Items whose `title` begins so, whatever the case, by title."
    )
    limit: int = Query(20, ge=1, le=100)
    cursor: str | None = Query(None, max_length=256, description="`next_cursor` of the answer before.")


def router(catalogue: Catalogue, models: Models, telemetry: Telemetry, *, max_items: int) -> APIRouter:
    routes = APIRouter(tags=["items"])

    @routes.get(
        "/items", response_model=ItemsAnswer, responses=problems(422), summary="List items, or find them by title"
    )
    async def items(parameters: Annotated[ItemsParameters, Query()]) -> Response:
        """Without `title_prefix` all items: the model's in its order, then those added since."""
        live = models.live
        # In a thread: the first search of a version reads all titles, which would keep other requests waiting.
        answer = await run_in_threadpool(page_of, catalogue.view(live), parameters)
        return Response(orjson.dumps(answer), headers=_version(live), media_type=JSON)

    array = {"type": "array", "items": reference(BulkItemBody), "maxItems": max_items}
    one_or_many = {"anyOf": [reference(BulkItemBody), array, reference(ItemBatch)]}
    lines = {"type": "string", "description": "One item object a line."}

    @routes.post(
        "/items",
        response_model=ItemsPutAnswer,
        responses=problems(400, 413, 415, 422, 503),
        openapi_extra=body_of({JSON: one_or_many, NDJSON: lines}),
        summary="Put many items",
    )
    async def put_items(request: Request) -> Response:
        """Each like a `PUT` of the whole item, and each checked alone: a bad one does not keep its neighbours out; when
        all are bad, the answer is 422. Of two with one id the later one stays."""
        media_type, raw = await read_body(request, JSON, NDJSON)
        live = models.live
        answer = await put_many(catalogue, live, telemetry, media_type, raw, max_items=max_items)
        return Response(orjson.dumps(answer), headers=_version(live), media_type=JSON)

    @routes.get(ONE, response_model=ItemAnswer, responses=problems(404, 422), summary="Read one item")
    async def item(item_id: ItemId) -> Response:
        live = models.live
        found = catalogue.view(live).item(item_id)
        if found is None:
            raise NotFound("There is no such item.")
        return _answer(found, live)

    @routes.put(
        ONE,
        response_model=ItemAnswer,
        responses=problems(400, 404, 413, 415, 422, 503),
        openapi_extra=body_of({JSON: reference(ItemBody)}),
        summary="Add an item, or replace what is known of it",
    )
    async def put_item(item_id: ItemId, request: Request) -> Response:
        """In force here when the answer leaves, and within a second everywhere. The same again changes nothing. (An id
        with a line break fits in no path: 404.)"""
        body = await _read(request, ItemBody)
        live = models.live
        _check_fields(catalogue.view(live), item_id, body.attributes)
        record = ItemRecord(body.attributes, body.available, replaces=True)
        (outcome,) = await catalogue.put([(item_id, record)])
        telemetry.items(outcome, 1)
        if outcome is PutOutcome.FULL:
            raise CatalogueFull
        in_model = live is not None and item_id in live.vocabulary
        return _answer(CatalogueItem(item_id, dict(body.attributes), body.available, in_model), live)

    @routes.patch(
        ONE,
        response_model=ItemAnswer,
        responses=problems(400, 404, 413, 415, 422, 503),
        openapi_extra=body_of({JSON: reference(ItemPatchBody)}),
        summary="Change some attributes of an item, or its availability",
    )
    async def patch_item(item_id: ItemId, request: Request) -> Response:
        """Of two at once both are kept, as long as they name different attributes."""
        body = await _read(request, ItemPatchBody)
        live = models.live
        _check_fields(catalogue.view(live), item_id, body.attributes)
        changed = await catalogue.patch(live, item_id, body.attributes, body.available)
        if changed is None:
            raise NotFound("There is no such item; PUT adds one.")
        telemetry.items("patched", 1)
        return _answer(changed, live)

    @routes.delete(
        ONE, status_code=204, response_class=Response, responses=problems(404, 422, 503), summary="Take an item out"
    )
    async def delete_item(item_id: ItemId) -> Response:
        """It is not recommended any more, whatever this model or a later one knows, until it is put again. An item that
        never was is none either: the answer is the same."""
        await catalogue.delete(item_id)
        telemetry.items("deleted", 1)
        return Response(status_code=204)

    return routes


async def _read(request: Request, model: type[B]) -> B:
    _, raw = await read_body(request, JSON)
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        raise invalid_body(error, raw) from None


def _check_fields(view: CatalogueView, item_id: str, attributes: dict[str, Any]) -> None:
    misfits = FieldKinds(view).misfits(item_id, attributes)
    if misfits:
        faults = [Fault(detail, f"/attributes/{pointer_part(field)}") for field, detail in misfits.items()]
        raise InvalidRequest("The item does not fit the catalogue.", faults=faults)


def _answer(item: CatalogueItem, live: LiveModel | None) -> Response:
    return Response(orjson.dumps(item), headers=_version(live), media_type=JSON)


def _version(live: LiveModel | None) -> dict[str, str] | None:
    return {"X-Model-Version": live.version} if live is not None else None


def page_of(view: CatalogueView, parameters: ItemsParameters) -> dict[str, Any]:
    """`ItemsAnswer` as a dictionary. Deleted items take a place in the order of indices, and none in the page."""
    version = view.model.version if view.model is not None else None
    start = 0 if parameters.cursor is None else read_cursor(parameters.cursor, version or "")
    if parameters.title_prefix is not None:
        places: Iterable[tuple[int, int]] = islice(enumerate(view.find_title(parameters.title_prefix)), start, None)
    else:
        places = ((index - 1, index) for index in range(start + 1, view.num_items + 1))
    found = ((place, item) for place, index in places if (item := view.item_at(index)) is not None)
    page = list(islice(found, parameters.limit + 1))
    more = len(page) > parameters.limit
    return {
        "model_version": version,
        "items": [item for _, item in page[: parameters.limit]],
        "next_cursor": write_cursor(page[-1][0], version or "") if more else None,
    }


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
