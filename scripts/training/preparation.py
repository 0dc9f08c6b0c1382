"""From a source of raw events to a data folder: clean, split, join attributes, describe, write."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson
import polars as pl

from app.artifacts.manifest import DEFAULT_EVENT_TYPES, EventType
from scripts.training.cleaning import Cleaned, CleaningRules, clean
from scripts.training.datasets import Source
from scripts.training.interactions import (
    INTERACTIONS_FILE,
    ITEMS_FILE,
    PREPARED_FILE,
    USERS_FILE,
    DataError,
    Part,
    PreparedData,
    Split,
    fingerprint,
    interactions_of,
)

REPEATS_ARE_COMMON = 0.05
"""Share of repeats above which seen items stay eligible: hiding them would hide what people come back for."""


@dataclass(frozen=True)
class PreparationConfig:
    """How a source becomes a data folder."""

    name: str
    rules: CleaningRules
    split: Split = "leave-one-out"
    test_share: float = 0.1
    """Of all events, by time, after the test time of a temporal split; as many again validate."""
    exclude_seen: Literal["auto", "yes", "no"] = "auto"


def prepare(
    source: Source, config: PreparationConfig, folder: Path, progress: Callable[[str], object] = lambda _: None
) -> PreparedData:
    """Write the data folder of a source.

    Raises:
        DataError: see `clean`; a temporal split of data without a clock.
    """
    cleaned = clean(source.interactions, source.columns, config.rules, progress)
    split_times_ms = _split_times_ms(cleaned, config) if config.split == "temporal" else {}
    summary = summarise(cleaned)
    exclude_seen, reason = _exclude_seen(summary["share_of_repeats"], config.exclude_seen)
    progress("writing")
    return write_prepared(
        folder,
        name=config.name,
        rows=cleaned.rows,
        item_ids=cleaned.item_ids,
        attributes=attributes_of(source.items, cleaned.item_ids),
        user_ids=cleaned.user_ids,
        has_clock=cleaned.has_clock,
        exclude_seen=exclude_seen,
        exclude_seen_reason=reason,
        split=config.split,
        split_times_ms=split_times_ms,
        event_types=cleaned.event_types,
        cleaning=[asdict(entry) for entry in cleaned.dropped],
        summary=summary,
        config={"origin": source.origin, "columns": asdict(source.columns), **_as_json(config)},
    )


def _as_json(config: PreparationConfig) -> dict[str, Any]:
    written = asdict(config)
    written["rules"]["event_uses"] = {
        name: use.model_dump(exclude_defaults=True) for name, use in config.rules.event_uses.items()
    }
    return written


def summarise(cleaned: Cleaned) -> dict[str, Any]:
    """What remains, in numbers. A repeat is an event on an item that the user had met before."""
    rows = cleaned.rows
    num_users, num_items = len(cleaned.user_ids), len(cleaned.item_ids)
    lengths = np.bincount(rows["user_index"].to_numpy())
    pairs = rows["user_index"].to_numpy().astype(np.int64) * (num_items + 1) + rows["item_index"].to_numpy()
    num_pairs = pl.Series(pairs).n_unique()
    quartiles = np.quantile(lengths, [0, 0.25, 0.5, 0.75, 1])
    return {
        "num_rows_read": cleaned.num_rows_read,
        "time_unit": cleaned.time_unit,
        "num_users": num_users,
        "num_items": num_items,
        "num_interactions": rows.height,
        "length_mean": float(lengths.mean()),
        "length_quartiles": [float(value) for value in quartiles],
        "density": num_pairs / (num_users * num_items),
        "share_of_repeats": 1 - num_pairs / rows.height,
    }


def attributes_of(items: pl.DataFrame | None, item_ids: list[str]) -> list[Mapping[str, Any]]:
    """Attributes in the order of `item_ids`, without nulls; {} for an item that the table lacks.

    Where the table repeats an id, its first row counts.
    """
    if items is None:
        return [{} for _ in item_ids]
    known = items.with_columns(pl.col("item_id").cast(pl.String)).unique("item_id", keep="first", maintain_order=True)
    wanted = pl.DataFrame({"item_id": pl.Series(item_ids, dtype=pl.String)})
    temporal = [pl.col(pl.Date, pl.Datetime).dt.to_string("iso:strict")]
    joined = wanted.join(known, on="item_id", how="left", maintain_order="left").with_columns(temporal)
    return [
        {name: value for name, value in row.items() if name != "item_id" and value is not None and value == value}
        for row in joined.iter_rows(named=True)
    ]


def _split_times_ms(cleaned: Cleaned, config: PreparationConfig) -> dict[Part, int]:
    """The times that leave `test_share` of the events after the later and as many between the two."""
    if not cleaned.has_clock:
        raise DataError(
            f"a temporal split needs a clock, but the times are only an order ({cleaned.time_unit}); "
            "use --split leave-one-out, or state the unit with --time-unit"
        )
    if not 0 < config.test_share < 0.5:
        raise DataError(f"--test-share is {config.test_share}; expected more than 0 and less than 0.5")
    times_ms = cleaned.rows["timestamp_ms"].to_numpy()
    validation, test = np.quantile(times_ms, [1 - 2 * config.test_share, 1 - config.test_share])
    return {"validation": int(validation), "test": int(test)}


def _exclude_seen(share_of_repeats: float, choice: Literal["auto", "yes", "no"]) -> tuple[bool, str]:
    if choice != "auto":
        return choice == "yes", "as asked"
    share = f"{share_of_repeats:.1%} of the interactions repeat an item of the same user"
    if share_of_repeats > REPEATS_ARE_COMMON:
        return False, f"{share}, more than {REPEATS_ARE_COMMON:.0%}: people come back to what they know"
    return True, f"{share}, no more than {REPEATS_ARE_COMMON:.0%}: people look for what is new to them"


def write_prepared(
    folder: Path,
    *,
    name: str,
    rows: pl.DataFrame,
    item_ids: Sequence[str],
    attributes: Sequence[Mapping[str, Any]],
    user_ids: Sequence[str],
    has_clock: bool,
    exclude_seen: bool,
    exclude_seen_reason: str = "",
    split: Split = "leave-one-out",
    split_times_ms: Mapping[Part, int] | None = None,
    event_types: Mapping[str, EventType] = DEFAULT_EVENT_TYPES,
    cleaning: Sequence[Mapping[str, Any]] = (),
    summary: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
) -> PreparedData:
    """Write a data folder and load it. `rows` has the columns of interactions.parquet, sorted as it is there.

    prepared.json comes last and the old one goes first, so a folder with a prepared.json is a whole one.
    """
    interactions = interactions_of(rows, len(user_ids))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PREPARED_FILE).unlink(missing_ok=True)
    rows.write_parquet(folder / INTERACTIONS_FILE)
    items = {
        "item_index": np.arange(1, len(item_ids) + 1, dtype=np.uint32),
        "item_id": pl.Series(item_ids, dtype=pl.String),
        "attributes": pl.Series([orjson.dumps(item).decode() for item in attributes], dtype=pl.String),
    }
    pl.DataFrame(items).write_parquet(folder / ITEMS_FILE)
    users = {"user_index": np.arange(len(user_ids), dtype=np.uint32), "user_id": pl.Series(user_ids, dtype=pl.String)}
    pl.DataFrame(users).write_parquet(folder / USERS_FILE)
    times = dict(split_times_ms or {})
    prepared = {
        "name": name,
        "split": split,
        "split_times_ms": times,
        "has_clock": has_clock,
        "exclude_seen": exclude_seen,
        "exclude_seen_reason": exclude_seen_reason,
        "event_types": {label: entry.model_dump() for label, entry in event_types.items()},
        "num_users": len(user_ids),
        "num_items": len(item_ids),
        "num_interactions": rows.height,
        "cleaning": list(cleaning),
        "summary": dict(summary or {}),
        "config": dict(config or {}),
        "fingerprint": fingerprint(interactions, item_ids, split, times),
    }
    partial = folder / f"{PREPARED_FILE}.partial"
    partial.write_bytes(orjson.dumps(prepared, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    partial.replace(folder / PREPARED_FILE)
    return PreparedData.load(folder)
