"""Answers of `/users`."""

from datetime import datetime

from pydantic import BaseModel


class HistoryStep(BaseModel):
    item_id: str
    event_type: str
    timestamp: datetime


class UserAnswer(BaseModel):
    """`history_length` counts all stored events; `history` holds the newest `limit` of them, oldest first."""

    user_id: str
    history_length: int
    history: list[HistoryStep]
