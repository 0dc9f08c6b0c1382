"""Bodies and answers of `/events`."""

from typing import Literal, Self

import orjson
from pydantic import BaseModel, Field, model_validator

from app.api.schemas.common import Body, EventTypeName, FiniteFloat, Id, Scalar, Timestamp

MAX_PROPERTIES = 20
MAX_PROPERTIES_BYTES = 2048


class EventBody(Body):
    """One thing that one user or guest did with one item."""

    item_id: Id
    user_id: Id | None = Field(None, description="Exactly one of `user_id` and `session_id`.")
    session_id: Id | None = Field(None, description="A guest: exactly one of `user_id` and `session_id`.")
    event_id: Id | None = Field(None, description="Makes sending the event again harmless, whatever else it holds.")
    event_type: EventTypeName = "interaction"
    timestamp: Timestamp | None = Field(None, description="When it happened; the time of arrival by default.")
    sequence: int | None = Field(None, ge=0, le=999, description="Orders events of the same user and time.")
    value: FiniteFloat | None = None
    recommendation_id: Id | None = Field(None, description="The answer of `/recommend` that led to this event.")
    position: int | None = Field(None, ge=1, le=100_000, description="The place of the item in that answer, from 1.")
    properties: dict[str, Scalar] | None = Field(
        None, max_length=MAX_PROPERTIES, description=f"At most {MAX_PROPERTIES_BYTES} bytes as JSON."
    )
    store: bool = Field(True, description="False: nothing is kept of it but one more count of the item's popularity.")

    @model_validator(mode="after")
    def _has_one_owner(self) -> Self:
        if (self.user_id is None) == (self.session_id is None):
            raise ValueError("needs exactly one of user_id and session_id")
        return self

    @model_validator(mode="after")
    def _properties_are_small(self) -> Self:
        if self.properties is not None and len(orjson.dumps(self.properties)) > MAX_PROPERTIES_BYTES:
            raise ValueError(f"properties exceed {MAX_PROPERTIES_BYTES} bytes")
        return self


class EventBatch(Body):
    """One way to send many. (The route reads them one by one, so that each can be rejected alone.)"""

    events: list[EventBody]


class RejectedEvent(BaseModel):
    """`index` counts the events of the request from 0; `pointer` leads to the fault in the body."""

    index: int
    code: str
    detail: str
    pointer: str


class EventWarning(BaseModel):
    """Something about stored events that the sender will want to know; `indices` count the events from 0."""

    code: Literal["not_idempotent", "unknown_item", "older_than_history"]
    detail: str
    indices: list[int]


class EventsAnswer(BaseModel):
    """accepted + duplicates + ignored + len(rejected) is the number of events sent; `accepted` counts those with
    `store: false` too."""

    accepted: int
    duplicates: int
    ignored: int
    rejected: list[RejectedEvent]
    warnings: list[EventWarning]
