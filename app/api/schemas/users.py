"""Bodies and answers of `/users` and `/sessions`."""

from datetime import datetime
from typing import Self

from pydantic import BaseModel, Field, model_validator

from app.api.schemas.common import Body, Id


class HistoryStep(BaseModel):
    item_id: str
    event_type: str
    timestamp: datetime


class HistoryAnswer(BaseModel):
    """`history_length` counts all stored events; `history` holds the newest `limit` of them, oldest first."""

    history_length: int
    history: list[HistoryStep]


class UserAnswer(HistoryAnswer):
    user_id: str


class SessionAnswer(HistoryAnswer):
    session_id: str


class ErasedAnswer(BaseModel):
    """How many events of the history are gone, and how many entries of the event log that had not been collected."""

    erased_events: int
    erased_log_entries: int


class UserErasedAnswer(ErasedAnswer):
    user_id: str


class SessionErasedAnswer(ErasedAnswer):
    session_id: str


class MergeSource(Body):
    """Exactly one of `session_id` and `user_id`."""

    session_id: Id | None = None
    user_id: Id | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.user_id is None) == (self.session_id is None):
            raise ValueError("needs exactly one of session_id and user_id")
        return self


class MergeTarget(Body):
    user_id: Id


class MergeBody(Body):
    """A guest's events, or another user's, become those of `to`."""

    source: MergeSource = Field(alias="from")
    to: MergeTarget

    @model_validator(mode="after")
    def _are_two(self) -> Self:
        if self.source.user_id == self.to.user_id:
            raise ValueError("from and to are the same user")
        return self


class MergeAnswer(BaseModel):
    """`merged` counts the events that the user's history gained, `history_length` all that it holds now."""

    user_id: str
    merged: int
    history_length: int
