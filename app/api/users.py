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
from app.api.schemas.users import (
    MergeAnswer,
    MergeBody,
    SessionAnswer,
    SessionErasedAnswer,
    UserAnswer,
    UserErasedAnswer,
)
from app.api.security import JSON, read_body
from app.state.erasing import Erased
from app.state.history import HistoryEvent, Owner
from app.state.merging import MergeResult
from app.times import format_timestamp


class Histories(Protocol):
    async def read(self, owner: Owner) -> Sequence[HistoryEvent]: ...


class Merges(Protocol):
    async def merge(self, source: Owner, target: Owner) -> MergeResult: ...


class Erases(Protocol):
    async def erase(self, owner: Owner) -> Erased: ...


class HistoryParameters(Parameters):
    limit: int = Query(MAX_HISTORY, ge=1, le=MAX_HISTORY, description="At most so many events, the newest ones.")


PathId = Annotated[str, Path(min_length=1, max_length=256)]


def router(histories: Histories, merging: Merges, erasing: Erases) -> APIRouter:
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
        source = Owner.of_caller(body.source.user_id, body.source.session_id)
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
    async def user(user_id: PathId, parameters: Annotated[HistoryParameters, Query()]) -> Response:
        """The newest `limit` events, oldest first: the order in which `/recommend` takes a `history`. A user without
        events has an empty history. (An id with a line break fits in no path: 404.)"""
        return await history_of(Owner("user", user_id), parameters.limit)

    @routes.get(
        "/sessions/{session_id:path}",
        response_model=SessionAnswer,
        responses=problems(404, 422, 503),
        summary="Read a guest's history",
    )
    async def session(session_id: PathId, parameters: Annotated[HistoryParameters, Query()]) -> Response:
        """The same for a guest: what came since the last merge."""
        return await history_of(Owner("session", session_id), parameters.limit)

    @routes.delete(
        "/users/{user_id:path}",
        response_model=UserErasedAnswer,
        responses=problems(404, 422, 503),
        summary="Erase a user",
    )
    async def erase_user(user_id: PathId) -> Response:
        """When this answers, nothing in the store holds the user's id: no history, no entry of the event log, none of
        a guest that was merged into the user, up to the merge. What was collected goes when `collect` runs next."""
        return await erase(Owner("user", user_id))

    @routes.delete(
        "/sessions/{session_id:path}",
        response_model=SessionErasedAnswer,
        responses=problems(404, 422, 503),
        summary="Erase a guest",
    )
    async def erase_session(session_id: PathId) -> Response:
        """The same for a guest. A user's history keeps what was merged into it."""
        return await erase(Owner("session", session_id))

    async def history_of(owner: Owner, limit: int) -> Response:
        events = await histories.read(owner)
        steps = [
            {
                "item_id": event.item_id,
                "event_type": event.event_type,
                "timestamp": format_timestamp(event.timestamp_us),
            }
            for event in events[-limit:]
        ]
        answer = {f"{owner.kind}_id": owner.id, "history_length": len(events), "history": steps}
        return Response(orjson.dumps(answer), media_type=JSON)

    async def erase(owner: Owner) -> Response:
        erased = await erasing.erase(owner)
        answer = {
            f"{owner.kind}_id": owner.id,
            "erased_events": erased.num_events,
            "erased_log_entries": erased.num_log_entries,
        }
        return Response(orjson.dumps(answer), media_type=JSON)

    return routes
