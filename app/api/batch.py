"""POST /recommend/batch: many requests at once, each answered alone."""

from collections.abc import Sequence
from typing import Any, Protocol

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.api.direct import DirectRoute
from app.api.openapi import body_of, problems, reference
from app.api.problems import STATUS, pointer_part, problem_body
from app.api.recommend import answer_body, count, to_request
from app.api.scenarios import Scenarios
from app.api.schemas.recommend import MAX_REQUESTS, BatchedBody, RecommendBatchAnswer, RecommendBatchBody
from app.api.security import JSON, read_body
from app.errors import Fault, InvalidRequest, PayloadTooLarge, ProblemCode, RequestError
from app.recommender.requests import Recommendation, RecommendationRequest
from app.telemetry import Telemetry


class RecommendsMany(Protocol):
    async def recommend_all(self, requests: Sequence[RecommendationRequest]) -> list[Recommendation | RequestError]: ...


def router(recommender: RecommendsMany, scenarios: Scenarios, telemetry: Telemetry) -> APIRouter:
    routes = APIRouter(tags=["recommendations"], route_class=DirectRoute)

    @routes.post(
        "/recommend/batch",
        response_model=RecommendBatchAnswer,
        responses=problems(400, 413, 415, 422, 503),
        openapi_extra=body_of({JSON: reference(RecommendBatchBody)}),
        summary="Rank items for many users, guests or histories at once",
    )
    async def batch(request: Request) -> Response:
        """Each result is what `/recommend` would have answered to the request in its place, or the problem that it
        would have answered with; a bad request keeps no other out."""
        _, raw = await read_body(request, JSON)
        found = read_requests(raw)
        checked = [check(value, scenarios) for value in found]
        outcomes = iter(
            await recommender.recommend_all([each for each in checked if not isinstance(each, RequestError)])
        )
        results = [
            result_body(each if isinstance(each, RequestError) else next(outcomes), f"/requests/{place}", telemetry)
            for place, each in enumerate(checked)
        ]
        return Response(orjson.dumps({"results": results}), media_type=JSON)

    return routes


def read_requests(raw: bytes) -> list[object]:
    """The elements of `requests`, not looked at yet. Raises RequestError for a body of another shape."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The body is not JSON: {error}", code=ProblemCode.INVALID_JSON) from None
    if not isinstance(body, dict):
        raise InvalidRequest("The body must be an object with requests.")
    found = body.get("requests")
    faults = [Fault("Extra inputs are not permitted", f"/{pointer_part(name)}") for name in body if name != "requests"]
    if not isinstance(found, list) or not found:
        faults.append(Fault(f"Must be an array of 1 to {MAX_REQUESTS} requests", "/requests"))
    if faults or not isinstance(found, list):
        raise InvalidRequest("The body breaks the contract.", faults=faults)
    if len(found) > MAX_REQUESTS:
        raise PayloadTooLarge(
            f"The batch has {len(found)} requests, at most {MAX_REQUESTS} are taken; send it in parts."
        )
    return found


def check(value: object, scenarios: Scenarios) -> RecommendationRequest | RequestError:
    try:
        return to_request(scenarios.validate(BatchedBody, value))
    except RequestError as error:
        return error


def result_body(outcome: Recommendation | RequestError, pointer: str, telemetry: Telemetry) -> dict[str, Any]:
    if isinstance(outcome, RequestError):
        faults = [Fault(fault.detail, pointer + (fault.pointer or ""), code=fault.code) for fault in outcome.faults]
        return problem_body(STATUS[outcome.code], outcome.code, outcome.detail, faults)
    count(outcome, telemetry)
    return answer_body(outcome)
