"""The public JSON: bodies in, answers out. These are not the domain's objects; the routes translate."""

import math
from datetime import datetime
from typing import Annotated, Any, Literal, Self

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, WithJsonSchema, model_validator

from app.api.times import MAX_TIMESTAMP_MS, parse_timestamp

MAX_HISTORY = 1000
MAX_EXCLUDED = 1000
MAX_K = 500
MAX_PROPERTIES = 20
MAX_PROPERTIES_BYTES = 2048

Id = Annotated[str, Field(min_length=1, max_length=256)]
EventTypeName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Timestamp = Annotated[
    int,
    BeforeValidator(parse_timestamp),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "format": "date-time"},
                {"type": "integer", "minimum": 0, "maximum": MAX_TIMESTAMP_MS},
            ],
            "description": "RFC 3339 with an offset, or epoch milliseconds.",
        }
    ),
]
"""Arrives as text or number, is microseconds since the epoch from here on."""

FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]


def _is_scalar(value: object) -> object:
    if not isinstance(value, (str, bool, int)) and not (isinstance(value, float) and math.isfinite(value)):
        raise ValueError("must be a string, a number or a boolean")
    return value


Scalar = Annotated[Any, BeforeValidator(_is_scalar), WithJsonSchema({"type": ["string", "number", "boolean"]})]
"""One validator instead of a union, so that a bad value is one fault and not one per type that it is not."""


class Body(BaseModel):
    """Unknown fields are refused: a misspelt `exclude_seen` must not be ignored. Nothing is converted silently."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Parameters(BaseModel):
    """Query parameters; unknown ones are refused like unknown fields."""

    model_config = ConfigDict(extra="forbid")


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
    """accepted + duplicates + ignored + len(rejected) is the number of events sent."""

    accepted: int
    duplicates: int
    ignored: int
    rejected: list[RejectedEvent]
    warnings: list[EventWarning]


class HistoryItem(Body):
    """One step of a history that the caller sends along."""

    item_id: Id
    timestamp: Timestamp | None = None
    event_type: EventTypeName = "interaction"


def _kind_of_step(value: object) -> str:
    return "item_id" if isinstance(value, str) else "step"


HistoryStepBody = Annotated[
    Annotated[Id, Tag("item_id")] | Annotated[HistoryItem, Tag("step")], Discriminator(_kind_of_step)
]
"""An item id or an object; the discriminator names the faults of the one that was meant."""


class RecommendBody(Body):
    """Exactly one of `user_id`, `session_id` and `history`."""

    user_id: Id | None = None
    session_id: Id | None = None
    history: list[HistoryStepBody] | None = Field(
        None,
        max_length=MAX_HISTORY,
        description="Oldest first; nothing is stored. With timestamps on every step they decide the order.",
    )
    k: int = Field(10, ge=1, le=MAX_K)
    exclude_seen: bool | None = Field(None, description="Hide items of the history; the model's own default if null.")
    exclude_items: list[Id] = Field(default_factory=list, max_length=MAX_EXCLUDED)
    include: list[Literal["attributes"]] = Field(default_factory=list, max_length=1)

    @model_validator(mode="after")
    def _has_one_caller(self) -> Self:
        if (self.user_id, self.session_id, self.history).count(None) != 2:
            raise ValueError("needs exactly one of user_id, session_id and history")
        return self

    @model_validator(mode="after")
    def _history_has_all_times_or_none(self) -> Self:
        timed = sum(isinstance(step, HistoryItem) and step.timestamp is not None for step in self.history or ())
        if timed not in (0, len(self.history or ())):
            raise ValueError("history needs a timestamp on every step or on none")
        return self


class RankedItemAnswer(BaseModel):
    """`rank` counts from 1. `attributes` is there only when it was asked for."""

    item_id: str
    rank: int
    score: float
    attributes: dict[str, Any] | None = None


class RecommendAnswer(BaseModel):
    """`reasons` says why the answer is not a full ranking by the model; empty when it is."""

    recommendation_id: str
    strategy: Literal["model", "popular"]
    degraded: bool
    reasons: list[str]
    model_version: str | None
    history_length: int
    items: list[RankedItemAnswer]


class HistoryStep(BaseModel):
    item_id: str
    event_type: str
    timestamp: datetime


class UserAnswer(BaseModel):
    """`history_length` counts all stored events; `history` holds the newest `limit` of them, oldest first."""

    user_id: str
    history_length: int
    history: list[HistoryStep]


class ItemAnswer(BaseModel):
    item_id: str
    attributes: dict[str, Any]


class ItemsAnswer(BaseModel):
    """`next_cursor` continues the list; null at its end."""

    model_version: str | None
    items: list[ItemAnswer]
    next_cursor: str | None


class ModelSummary(BaseModel):
    """What the manifest of the live version says, without its reference cases and file hashes."""

    model_config = ConfigDict(protected_namespaces=())

    model_version: str
    format_version: int
    created_at: str
    git_commit: str | None
    num_items: int
    max_length: int
    exclude_seen: bool
    time_use: str
    event_types: dict[str, Any]
    refit: bool
    data_fingerprint: str
    model: dict[str, Any]
    training: dict[str, Any]
    preprocessing: dict[str, Any]
    metrics: dict[str, Any] | None


class ModelsAnswer(BaseModel):
    """`problem` says why the version that was promoted last is not live; null when it is."""

    live: ModelSummary | None
    problem: str | None
    versions: list[str]


class ReadyAnswer(BaseModel):
    """`status` is `ready`, `degraded` (it answers, but not with the model that it should) or `unavailable` (503)."""

    model_config = ConfigDict(protected_namespaces=())

    status: Literal["ready", "degraded", "unavailable"]
    model_version: str | None
    reasons: list[str]


class LiveAnswer(BaseModel):
    status: Literal["live"]


class ProblemError(BaseModel):
    """One fault: a JSON pointer into the body, or the name of a path or query parameter."""

    detail: str
    pointer: str | None = None
    parameter: str | None = None
    code: str | None = None


class Problem(BaseModel):
    """RFC 9457. `code` is from a closed list and does not change; `detail` is for people."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[ProblemError] | None = None
