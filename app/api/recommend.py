"""POST /recommend: a sequence in, ranked items out."""

from collections.abc import Sequence
from typing import Any, Protocol

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.api.direct import DirectRoute
from app.api.openapi import body_of, problems, reference
from app.api.scenarios import Scenarios
from app.api.schemas.recommend import BatchedBody, HistoryItem, RankingBody, RecommendAnswer, RecommendBody
from app.api.security import JSON, read_body
from app.recommender.paging import NextPage
from app.recommender.requests import Boost, Pin, Popular, Recommendation, RecommendationRequest
from app.state.history import HistoryEvent, Owner
from app.telemetry import Telemetry
from app.times import format_timestamp


class Recommends(Protocol):
    async def recommend(self, request: RecommendationRequest) -> Recommendation: ...


class GivesPages(Protocol):
    async def first(self, request: RecommendationRequest) -> Recommendation: ...

    async def next(self, asked: NextPage) -> Recommendation: ...


def router(recommender: Recommends, paging: GivesPages, scenarios: Scenarios, telemetry: Telemetry) -> APIRouter:
    routes = APIRouter(tags=["recommendations"], route_class=DirectRoute)

    @routes.post(
        "/recommend",
        response_model=RecommendAnswer,
        responses=problems(400, 410, 413, 415, 422, 503),
        openapi_extra=body_of({JSON: reference(RecommendBody)}),
        summary="Rank items for a user, a guest or a given history",
    )
    async def recommend(request: Request) -> Response:
        """An unknown user gets what is popular, with `reasons: ["unknown_user"]`. A store that is down degrades the
        answer; it still comes. Only a `cursor` needs the store."""
        _, raw = await read_body(request, JSON)
        body = scenarios.parse(RecommendBody, raw)
        if body.cursor is not None:
            owner = None if body.user_id is body.session_id is None else Owner.of_caller(body.user_id, body.session_id)
            k = body.k if "k" in body.model_fields_set else None
            answer = await paging.next(NextPage(owner, body.cursor, k, "attributes" in body.include))
        elif body.paginate:
            answer = await paging.first(to_request(body))
        else:
            answer = await recommender.recommend(to_request(body))
        count(answer, telemetry)
        found = answer_body(answer)
        if body.cursor is not None or body.paginate:
            found["next_cursor"] = answer.next_cursor
        return respond(found)

    return routes


def respond(found: dict[str, Any]) -> Response:
    """With the version that answered as a header too, for whoever does not read bodies."""
    version = found["model_version"]
    headers = {"X-Model-Version": version} if version is not None else None
    return Response(orjson.dumps(found), headers=headers, media_type=JSON)


def count(answer: Recommendation, telemetry: Telemetry) -> None:
    if answer.degraded:
        telemetry.store_error()
    telemetry.recommendation(answer.strategy, answer.reasons, answer.model_version)
    if answer.items:
        telemetry.recommended(answer.strategy, answer.model_version, answer.items[0].rank, answer.items[-1].rank)


def to_request(body: BatchedBody) -> RecommendationRequest:
    return ranking_request(
        body,
        owner=Owner.of_caller(body.user_id, body.session_id) if body.history is None else None,
        history=to_history(body.history) if body.history is not None else None,
        exclude_items=frozenset(body.exclude_items),
        exclude_seen=body.exclude_seen,
        strategy=body.strategy,
        target_event_type=body.target_event_type,
        new_item_share=body.new_item_share,
        explain=isinstance(body, RecommendBody) and body.explain,
        include_probability=isinstance(body, RecommendBody) and body.probability,
    )


def ranking_request(
    body: RankingBody,
    *,
    owner: Owner | None,
    history: Sequence[HistoryEvent] | None,
    exclude_items: frozenset[str],
    exclude_seen: bool | None,
    strategy: Popular | None,
    target_event_type: str | None = None,
    new_item_share: float | None = None,
    explain: bool = False,
    include_probability: bool = False,
) -> RecommendationRequest:
    """What every ranking takes from its body, and what each route says otherwise."""
    return RecommendationRequest(
        owner=owner,
        history=history,
        k=body.k,
        candidates=body.candidates,
        filter=body.filter,
        exclude_seen=exclude_seen,
        exclude_items=exclude_items,
        boosts=tuple(Boost(each.filter, each.factor) for each in body.boosts),
        pins=tuple(Pin(each.item_id, each.position) for each in body.pins),
        diversity=body.diversity,
        include_attributes="attributes" in body.include,
        explain=explain,
        include_probability=include_probability,
        strategy=strategy,
        target_event_type=target_event_type,
        new_item_share=new_item_share,
    )


def to_history(steps: list[str | HistoryItem]) -> list[HistoryEvent]:
    """Oldest first: by time where the steps have times (equal times keep their order), else as given, at time 0."""
    events = [
        HistoryEvent(step, "interaction", 0)
        if isinstance(step, str)
        else HistoryEvent(step.item_id, step.event_type, step.timestamp or 0)
        for step in steps
    ]
    return sorted(events, key=lambda event: event.timestamp_us)


def answer_body(answer: Recommendation) -> dict[str, Any]:
    """`RecommendAnswer` by hand: validating what we made ourselves would take as long as ranking it."""
    items = []
    for item in answer.items:
        body: dict[str, Any] = {"item_id": item.item_id, "rank": item.rank, "score": item.score}
        if item.attributes is not None:
            body["attributes"] = item.attributes
        if item.probability is not None:
            body["probability"] = item.probability
        if item.because is not None:
            body["because"] = [
                {
                    "item_id": each.item_id,
                    "timestamp": None if each.timestamp_ms is None else format_timestamp(each.timestamp_ms * 1000),
                    "contribution": each.contribution,
                }
                for each in item.because
            ]
        items.append(body)
    return {
        "recommendation_id": answer.recommendation_id,
        "strategy": answer.strategy,
        "degraded": answer.degraded,
        "reasons": answer.reasons,
        "model_version": answer.model_version,
        "history_length": answer.history_length,
        "items": items,
    }
