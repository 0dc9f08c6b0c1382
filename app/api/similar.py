"""POST /similar: items in, items like them out."""

from typing import Protocol

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.api.direct import DirectRoute
from app.api.openapi import body_of, problems, reference
from app.api.recommend import answer_body, count, ranking_request, respond
from app.api.scenarios import Scenarios
from app.api.schemas.recommend import SimilarAnswer, SimilarBody
from app.api.security import JSON, read_body
from app.recommender.requests import Recommendation, RecommendationRequest
from app.state.history import HistoryEvent
from app.telemetry import Telemetry


class FindsSimilar(Protocol):
    async def similar(self, request: RecommendationRequest) -> Recommendation: ...


def router(recommender: FindsSimilar, scenarios: Scenarios, telemetry: Telemetry) -> APIRouter:
    routes = APIRouter(tags=["recommendations"], route_class=DirectRoute)

    @routes.post(
        "/similar",
        response_model=SimilarAnswer,
        responses=problems(400, 413, 415, 422, 503),
        openapi_extra=body_of({JSON: reference(SimilarBody)}),
        summary="Find items like one or several others",
    )
    async def similar(request: Request) -> Response:
        """By the direction of the vectors that the live model has learnt. What comes *next* after an item is another
        question: `/recommend` with that item as the `history`."""
        _, raw = await read_body(request, JSON)
        answer = await recommender.similar(to_request(scenarios.parse(SimilarBody, raw)))
        count(answer, telemetry)
        found = answer_body(answer)
        del found["history_length"]
        return respond(found)

    return routes


def to_request(body: SimilarBody) -> RecommendationRequest:
    """The items stand where the history stands otherwise, and do not come themselves."""
    item_ids = body.item_ids if body.item_ids is not None else [body.item_id or ""]
    return ranking_request(
        body,
        owner=None,
        history=[HistoryEvent(item_id, "interaction", 0) for item_id in item_ids],
        exclude_items=frozenset(body.exclude_items) | {*item_ids},
        exclude_seen=False,
        strategy=None,
        new_item_share=0.0,
    )
