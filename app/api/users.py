"""What is stored of a user or guest, and whose it is."""

from collections.abc import Sequence
from typing import Annotated, Protocol

import orjson
from fastapi import APIRouter, Path, Query
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from app.api.openapi import body_of, problems, reference
from app.api.problems import invalid_body
from app.api.schemas.common import MAX_HISTORY, Parameters
from app.api.schemas.users import MergeAnswer, MergeBody, UserAnswer
from app.api.security import JSON, read_body
from app.state.history import HistoryEvent, Owner
from app.state.merging import MergeResult
from app.times import format_timestamp


class Histories(Protocol):
    async def read(self, owner: Owner) -> Sequence[HistoryEvent]: ...


class Merges(Protocol):
    async def merge(self, source: Owner, target: Owner) -> MergeResult: ...


class UserParameters(Parameters):
    limit: int = Query(MAX_HISTORY, ge=1, le=MAX_HISTORY, description="At most so many events, the newest ones.")


def router(histories: Histories, merging: Merges) -> APIRouter:
    routes = APIRouter(tags=["users"])

    @routes.post(
        "/users/merge",
        response_model=MergeAnswer,
        responses=problems(400, 413, 415, 422, 503),
        openapi_extra=body_of({JSON: reference(MergeBody)}),
        summary="Make a guest's events a user's",
    )
    async def merge(request: Request) -> Response:
        """As if the events had been sent with the user's id to begin with. What the guest does afterwards is a new
        guest's. Sending it again merges what has come since, and ends what an error left half-way."""
        _, raw = await read_body(request, JSON)
        try:
            body = MergeBody.model_validate_json(raw)
        except ValidationError as error:
            raise invalid_body(error, raw) from None
        source = (
            Owner("session", body.source.session_id)
            if body.source.session_id is not None
            else Owner("user", body.source.user_id or "")
        )
        result = await merging.merge(source, Owner("user", body.to.user_id))
        answer = {
            "user_id": body.to.user_id,
            "merged": result.num_moved,
            "history_length": result.history_length,
        }
        return Response(orjson.dumps(answer), media_type=JSON)

    # `:path`, because an id may hold slashes.
    @routes.get(
        "/users/{user_id:path}",
        response_model=UserAnswer,
        responses=problems(404, 422, 503),
        summary="Read a user's history",
    )
    async def user(
        user_id: Annotated[str, Path(min_length=1, max_length=256)], parameters: Annotated[UserParameters, Query()]
    ) -> Response:
        """The newest `limit` events, oldest first: the order in which `/recommend` takes a `history`. A user without
        events has an empty history. (An id with a line break fits in no path: 404.)"""
        events = await histories.read(Owner("user", user_id))
        steps = [
            {
                "item_id": event.item_id,
                "event_type": event.event_type,
                "timestamp": format_timestamp(event.timestamp_us),
            }
            for event in events[-parameters.limit :]
        ]
        return Response(
            orjson.dumps({"user_id": user_id, "history_length": len(events), "history": steps}), media_type=JSON
        )

    return routes
