"""Entries of the event log as rows of Parquet files: their columns, and how they are told apart.

A guest's `user_id` is `session:<id>`. `log_position` orders the entries of one user or guest as they were logged.
"""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

import orjson
import polars as pl

from app.state.event_log import LogEntry

TIME = pl.Datetime("us", "UTC")
SCHEMAS: dict[str, dict[str, pl.DataType | type[pl.DataType]]] = {
    "events": {
        "user_id": pl.String,
        "item_id": pl.String,
        "event_type": pl.String,
        "timestamp": TIME,
        "sequence": pl.Int32,
        "value": pl.Float64,
        "event_id": pl.String,
        "recommendation_id": pl.String,
        "position": pl.Int32,
        "properties": pl.String,
        "log_position": pl.Int64,
        "identity": pl.UInt64,
    },
    "served": {
        "recommendation_id": pl.String,
        "user_id": pl.String,
        "timestamp": TIME,
        "model_version": pl.String,
        "strategy": pl.String,
        "first_position": pl.Int32,
        "item_ids": pl.List(pl.String),
        "scores": pl.List(pl.Float32),
        "propensity": pl.Float64,
        "log_position": pl.Int64,
        "identity": pl.UInt64,
    },
    "merges": {
        "user_id": pl.String,
        "into_user_id": pl.String,
        "timestamp": TIME,
        "log_position": pl.Int64,
        "identity": pl.UInt64,
    },
}
_KINDS = {"event": "events", "served": "served", "merge": "merges"}
_SEQUENCE_BITS = 20


def position_number(position: str) -> int:
    """A log position as one number: milliseconds, and what the server counts within one of them.

    >>> position_number("1-2") - position_number("1-1")
    1
    """
    milliseconds, number = position.split("-")
    return int(milliseconds) << _SEQUENCE_BITS | min(int(number), (1 << _SEQUENCE_BITS) - 1)


def rows_of(entries: Sequence[Sequence[LogEntry]]) -> dict[str, pl.DataFrame]:
    """A frame of each kind; events by time and sequence, so that ties keep the order of their batch."""
    rows: dict[str, list[tuple[Any, ...]]] = {kind: [] for kind in SCHEMAS}
    makers = {"events": _event, "served": _served, "merges": _merge}
    for shard in entries:
        for entry in shard:
            kind = _KINDS[entry.kind]
            rows[kind].append(makers[kind](orjson.loads(entry.data), entry.position))
    frames = {kind: pl.DataFrame(rows[kind], schema=schema, orient="row") for kind, schema in SCHEMAS.items()}
    frames["events"] = frames["events"].sort("timestamp", "sequence", maintain_order=True)
    frames["served"] = frames["served"].sort("timestamp", maintain_order=True)
    return frames


def owner_of(data: Mapping[str, Any]) -> str | None:
    """
    >>> owner_of({"user_id": "u1"}), owner_of({"session_id": "s1"}), owner_of({})
    ('u1', 'session:s1', None)
    """
    return f"session:{data['session_id']}" if "session_id" in data else data.get("user_id")


def _event(data: Mapping[str, Any], position: str) -> tuple[Any, ...]:
    owner, properties = owner_of(data), data.get("properties")
    return (
        owner,
        data["item_id"],
        data["event_type"],
        data["timestamp_us"],
        data["sequence"],
        data.get("value"),
        data.get("event_id"),
        data.get("recommendation_id"),
        data.get("position"),
        None if properties is None else orjson.dumps(properties).decode(),
        position_number(position),
        _identity("session" if "session_id" in data else "user", str(owner), data["digest"]),
    )


def _served(data: Mapping[str, Any], position: str) -> tuple[Any, ...]:
    return (
        data["recommendation_id"],
        owner_of(data),
        data["timestamp_us"],
        data["model_version"],
        data["strategy"],
        data["first_position"],
        data["item_ids"],
        data["scores"],
        data.get("propensity"),
        position_number(position),
        _identity(data["recommendation_id"], str(data["first_position"])),
    )


def _merge(data: Mapping[str, Any], position: str) -> tuple[Any, ...]:
    source, target = owner_of(data), owner_of(data["to"])
    at_us = int(position.split("-")[0]) * 1000
    return (source, target, at_us, position_number(position), _identity(str(source), str(target), position))


def _identity(*parts: str) -> int:
    """64 bits that two rows share only if they are the same event, list or merge."""
    return int.from_bytes(blake2b("\x1f".join(parts).encode(), digest_size=8).digest())
