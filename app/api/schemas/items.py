"""Answers of `/items`."""

from typing import Any

from pydantic import BaseModel


class ItemAnswer(BaseModel):
    item_id: str
    attributes: dict[str, Any]


class ItemsAnswer(BaseModel):
    """`next_cursor` continues the list; null at its end."""

    model_version: str | None
    items: list[ItemAnswer]
    next_cursor: str | None
