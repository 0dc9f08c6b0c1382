"""Answers of `/models`."""

from typing import Any

from pydantic import BaseModel, ConfigDict


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
    target_event_types: list[str]
    popularity_discount: float
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
