"""Files of past events, read in parts as bodies of `POST /events`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from scripts.training.cleaning import id_text
from scripts.training.datasets import read_table
from scripts.training.interactions import DataError
from scripts.training.times import TimeUnit, read_time

ID_FIELDS = ("user_id", "session_id", "item_id", "event_id", "recommendation_id")
FIELDS = (*ID_FIELDS, "event_type", "timestamp", "sequence", "value", "position", "properties")
RFC3339 = "%Y-%m-%dT%H:%M:%S%.6fZ"
MAX_SEQUENCE = 999
EDGE_BYTES = 1 << 20
_OWNER_AND_TIME = ("user_id", "session_id", "timestamp")


@dataclass(frozen=True)
class EventFile:
    """
    table: the columns that FIELDS names, as far as the file has them.
    fingerprint: stands for the file's content, wherever it lies.
    unused: its other columns.
    """

    table: pl.LazyFrame
    num_rows: int
    fingerprint: str
    unused: tuple[str, ...]

    def parts(self, start: int, size: int) -> Iterator[list[dict[str, Any]]]:
        """The rows from `start` on as bodies, at most `size` at a time, in the order of the file.

        Events of one owner and time get the `sequence` of that order where they have none, in so far as they stand in
        one part or in two neighbouring ones.
        """
        keys = [name for name in _OWNER_AND_TIME if name in self.table.collect_schema()]
        before: pl.DataFrame | None = None
        batches = self.table.slice(start).collect_batches(chunk_size=size, maintain_order=True)
        for frame in (part for batch in batches for part in batch.iter_slices(size)):
            counted = frame.with_columns(pl.int_range(pl.len(), dtype=pl.Int64).over(keys).alias("_place"))
            if before is not None:
                counted = counted.join(before, on=keys, how="left", nulls_equal=True, maintain_order="left")
                counted = counted.with_columns(pl.col("_place") + pl.col("_num_before").fill_null(0)).drop(
                    "_num_before"
                )
            before = counted.group_by(keys).agg((pl.col("_place").max() + 1).alias("_num_before"))
            own = pl.col("sequence") if "sequence" in counted.columns else pl.lit(None, pl.Int64)
            yield _bodies(counted.with_columns(sequence=pl.coalesce(own, pl.col("_place").clip(0, MAX_SEQUENCE))))


def read_event_file(path: Path, columns: Mapping[str, str], unit: TimeUnit) -> EventFile:
    """A file that `prepare` reads, or one that `collect` wrote, whose guests are guests again.

    Args:
        path: a file; see `read_table`.
        columns: the file's name of a field, where it is not the field's own.
        unit: of numbers in the column of times.

    Raises:
        DataError: no such file, or what an event needs is missing: an item, a user or guest, and a time.
    """
    table = read_table(path)
    schema = table.collect_schema()
    found = {field: columns.get(field, field) for field in FIELDS if columns.get(field, field) in schema}
    missing = [f"{columns[field]!r} ({field})" for field in columns if field not in found]
    missing += [field for field in ("item_id", "timestamp") if field not in found and field not in columns]
    if "user_id" not in found and "session_id" not in found:
        missing.append("user_id or session_id")
    if missing:
        raise DataError(f"{path} has no column {', '.join(missing)}; its columns are {', '.join(schema.names())}")
    time, has_clock, words = read_time(table, found["timestamp"], unit)
    if not has_clock:
        raise DataError(
            f"column {found['timestamp']!r} of {path} is read as {words}: events need the time they happened"
        )
    expressions = {field: pl.col(name) for field, name in found.items()}
    expressions |= {field: id_text(found[field], schema[found[field]]) for field in ID_FIELDS if field in found}
    # The API's two ways to write a time; numbers are read faster.
    in_ms = words in ("s", "ms")
    expressions["timestamp"] = time // 1000 if in_ms else pl.from_epoch(time, "us").dt.strftime(RFC3339)
    for field, dtype in (("value", pl.Float64), ("sequence", pl.Int64), ("position", pl.Int64)):
        if field in found:
            expressions[field] = pl.col(found[field]).cast(dtype, strict=False)
    if "log_position" in schema and "user_id" in found:
        owner = expressions["user_id"]
        is_guest = owner.str.starts_with("session:")
        expressions["user_id"] = pl.when(~is_guest).then(owner)
        expressions["session_id"] = pl.when(is_guest).then(owner.str.strip_prefix("session:"))
    return EventFile(
        table.select(**expressions),
        int(table.select(pl.len()).collect(engine="streaming").item()),
        _fingerprint(path),
        tuple(name for name in schema if name not in found.values()),
    )


def _bodies(frame: pl.DataFrame) -> list[dict[str, Any]]:
    bodies = []
    for row in frame.drop("_place").to_dicts():
        body = {field: value for field, value in row.items() if value is not None}
        # Without a time it would be an event of this moment: it is given one that is refused, and named.
        body.setdefault("timestamp", "")
        if "properties" in body:
            body["properties"] = _properties(body["properties"])
        bodies.append(body)
    return bodies


def _properties(value: object) -> object:
    """Text is JSON; of a record, what this row has. Anything else is left to be refused."""
    if isinstance(value, str):
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError:
            return value
    return {name: part for name, part in value.items() if part is not None} if isinstance(value, dict) else value


def _fingerprint(path: Path) -> str:
    """From size, first and last megabyte: a file of ten million events must not be read through for its name."""
    digest = blake2b(digest_size=12)
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    for file in files:
        size = file.stat().st_size
        digest.update(str(size).encode())
        with file.open("rb") as content:
            digest.update(content.read(EDGE_BYTES))
            content.seek(max(0, size - EDGE_BYTES))
            digest.update(content.read())
    return digest.hexdigest()
