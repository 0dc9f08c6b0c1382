"""GET /users/{user_id}: what is stored of a user."""

from collections.abc import Sequence
from typing import Annotated, Protocol

import orjson
from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from app.api.openapi import problems
from app.api.schemas.common import MAX_HISTORY, Parameters
from app.api.schemas.users import UserAnswer
from app.api.security import JSON
from app.state.history import HistoryEvent, Owner
from app.times import format_timestamp


class Histories(Protocol):
    async def read(self, owner: Owner) -> Sequence[HistoryEvent]: ...


class UserParameters(Parameters):
    limit: int = Query(MAX_HISTORY, ge=1, le=MAX_HISTORY, description="At most so many events, the newest ones.")


def router(histories: Histories) -> APIRouter:
    routes = APIRouter(tags=["users"])

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
