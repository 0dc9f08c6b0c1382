"""POST /events: behaviour in, stored when the answer leaves."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import orjson
from fastapi import APIRouter
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from app.api.direct import DirectRoute
from app.api.many import UnreadableLine, read_many
from app.api.openapi import body_of, problems, reference
from app.api.problems import faults_of
from app.api.schemas.events import EventBatch, EventBody, EventsAnswer
from app.api.security import JSON, NDJSON, read_body
from app.artifacts.manifest import EventType
from app.artifacts.registry import LiveModel
from app.errors import Fault, InvalidRequest, PayloadTooLarge, ProblemCode
from app.recommender.attribution import Origins
from app.state.history import AppendOutcome, Event, Owner
from app.telemetry import Telemetry
from app.times import TimestampOutOfRange

TURN = 200
"""After so many events of a large batch other requests have their turn: ten thousand take a fifth of a second."""
COUNTED = (AppendOutcome.ACCEPTED, AppendOutcome.NOT_STORED)
"""Not those that were sent again."""
_UNMAPPED = EventType(index=0)
_WARNINGS = {
    "not_idempotent": "Without event_id and timestamp, sending these events again stores them again.",
    "unknown_item": "The live model does not know the items of these events; they are stored for the next one.",
    "older_than_history": "These events are older than all that a full history keeps; they were not stored.",
}


class Appends(Protocol):
    async def append(self, events: Sequence[Event]) -> list[AppendOutcome]: ...


class Models(Protocol):
    @property
    def live(self) -> LiveModel | None: ...

    @property
    def event_types(self) -> Mapping[str, EventType]: ...

    def versions(self) -> list[str]: ...


@dataclass(slots=True)
class Batch:
    """The events of one request: those to store, with their places in it, and the faults of the others by place."""

    events: list[Event] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    rejected: dict[int, Fault] = field(default_factory=dict)


def router(
    history: Appends, models: Models, telemetry: Telemetry, *, max_events: int, max_future_seconds: int
) -> APIRouter:
    routes = APIRouter(tags=["events"], route_class=DirectRoute)
    origins = Origins(models.versions)
    array = {"type": "array", "items": reference(EventBody), "maxItems": max_events}
    one_or_many = {"anyOf": [reference(EventBody), array, reference(EventBatch)]}
    lines = {"type": "string", "description": "One event object a line."}

    @routes.post(
        "/events",
        response_model=EventsAnswer,
        responses=problems(400, 413, 415, 422, 503),
        openapi_extra=body_of({JSON: one_or_many, NDJSON: lines}),
        summary="Store one event or many",
    )
    async def events(request: Request) -> Response:
        """What is accepted counts in the next `/recommend`. Each event is checked alone: a bad one does not keep its
        neighbours out; when all are bad, the answer is 422. Sending a batch again changes nothing, as long as its
        events have an `event_id` or a `timestamp`."""
        media_type, raw = await read_body(request, JSON, NDJSON)
        found, base = read_many(media_type, raw, "events")
        if len(found) > max_events:
            raise PayloadTooLarge(
                f"The batch has {len(found)} events, at most {max_events} are taken; send it in parts."
            )
        live, event_types = models.live, models.event_types
        batch = await check(
            found,
            base,
            event_types=event_types,
            now_us=time.time_ns() // 1000,
            max_future_us=max_future_seconds * 1_000_000,
        )
        telemetry.events("rejected", len(batch.rejected))
        if batch.rejected and not batch.events:
            faults = list(batch.rejected.values())
            detail = f"All {len(faults)} events were rejected; errors holds the first fault of each."
            raise InvalidRequest(detail, faults=faults, code=ProblemCode.ALL_EVENTS_REJECTED)
        outcomes = await history.append(batch.events) if batch.events else []
        counts = {outcome: outcomes.count(outcome) for outcome in AppendOutcome}
        for outcome, count in counts.items():
            telemetry.events(outcome, count)
        for event, outcome in zip(batch.events, outcomes, strict=True):
            if event.recommendation_id is not None and outcome in COUNTED:
                event_type = event.event_type if event.event_type in event_types else "other"
                telemetry.attributed(*origins.of(event.recommendation_id), event_type, event.position)
        answer = {
            "accepted": counts[AppendOutcome.ACCEPTED] + counts[AppendOutcome.NOT_STORED],
            "duplicates": counts[AppendOutcome.DUPLICATE],
            "ignored": counts[AppendOutcome.IGNORED],
            "rejected": [
                {"index": place, "code": fault.code, "detail": fault.detail, "pointer": fault.pointer}
                for place, fault in batch.rejected.items()
            ],
            "warnings": warnings_of(batch, outcomes, live),
        }
        return Response(orjson.dumps(answer), media_type=JSON)

    return routes


async def check(
    found: Sequence[object], base: str, *, event_types: Mapping[str, EventType], now_us: int, max_future_us: int
) -> Batch:
    """Sort the good events from the bad. `base` is the pointer of an event, with {} for its place."""
    batch = Batch()
    for place, value in enumerate(found):
        if place % TURN == TURN - 1:
            await asyncio.sleep(0)
        result = check_one(value, base.format(place), event_types, now_us, now_us + max_future_us)
        if isinstance(result, Fault):
            batch.rejected[place] = result
        else:
            batch.events.append(result)
            batch.places.append(place)
    return batch


def check_one(
    value: object, pointer: str, event_types: Mapping[str, EventType], now_us: int, latest_us: int
) -> Event | Fault:
    if isinstance(value, UnreadableLine):
        return Fault(value.detail, pointer, code=ProblemCode.INVALID_JSON)
    try:
        body = EventBody.model_validate(value)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)[:1]
        fault = faults_of(found, value, pointer)[0]
        code = ProblemCode.INVALID_REQUEST
        if found[0]["loc"] == ("timestamp",) and isinstance(found[0].get("ctx", {}).get("error"), TimestampOutOfRange):
            code = ProblemCode.TIMESTAMP_OUT_OF_RANGE
        return Fault(fault.detail, fault.pointer, code=code)
    if body.timestamp is not None and body.timestamp > latest_us:
        ahead = (body.timestamp - now_us) / 1_000_000
        return Fault(
            f"Lies {ahead:.0f} s ahead of the server's clock; at most {(latest_us - now_us) // 1_000_000} s are taken",
            pointer + "/timestamp",
            code=ProblemCode.TIMESTAMP_IN_FUTURE,
        )
    declared = event_types.get(body.event_type, _UNMAPPED)
    return Event(
        owner=Owner.of_caller(body.user_id, body.session_id),
        item_id=body.item_id,
        event_type=body.event_type,
        timestamp_us=now_us if body.timestamp is None else body.timestamp,
        sequence=body.sequence,
        event_id=body.event_id,
        has_own_timestamp=body.timestamp is not None,
        use=declared.use_of(body.value),
        weight=declared.weight,
        value=body.value,
        recommendation_id=body.recommendation_id,
        position=body.position,
        properties=body.properties,
        store=body.store,
    )


def warnings_of(batch: Batch, outcomes: Sequence[AppendOutcome], live: LiveModel | None) -> list[dict[str, object]]:
    """One warning per kind, with the places of the events that it is about."""
    places: dict[str, list[int]] = {code: [] for code in _WARNINGS}
    for place, event, outcome in zip(batch.places, batch.events, outcomes, strict=True):
        if event.store and event.event_id is None and not event.has_own_timestamp:
            places["not_idempotent"].append(place)
        if event.store and live is not None and event.item_id not in live.vocabulary:
            places["unknown_item"].append(place)
        if outcome is AppendOutcome.IGNORED:
            places["older_than_history"].append(place)
    return [
        {"code": code, "detail": _WARNINGS[code], "indices": indices} for code, indices in places.items() if indices
    ]
