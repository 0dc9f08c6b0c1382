"""Bodies and answers of `/recommend`."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Discriminator, Field, Tag, model_validator

from app.api.schemas.common import MAX_HISTORY, Body, EventTypeName, Id, Timestamp

MAX_EXCLUDED = 1000
MAX_K = 500


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
