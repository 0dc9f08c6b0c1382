"""Answers of `/livez` and `/readyz`."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class ReadyAnswer(BaseModel):
    """`status` is `ready`, `degraded` (it answers, but not with the model that it should) or `unavailable` (503)."""

    model_config = ConfigDict(protected_namespaces=())

    status: Literal["ready", "degraded", "unavailable"]
    model_version: str | None
    reasons: list[str]


class LiveAnswer(BaseModel):
    status: Literal["live"]
