"""Random events put into the training part, to see how much a recipe minds them."""

from pathlib import Path

import numpy as np
import polars as pl

from scripts.training.interactions import MIN_EVENTS_FOR_A_CASE, DataError, PreparedData
from scripts.training.preparation import write_prepared

HELD_OUT = 2


def with_noise(data: PreparedData, share: float, folder: Path, *, seed: int = 0) -> PreparedData:
    """A copy of leave-one-out data with `share` as many random events more among the training events of users with a
    case.

    Items are uniform over the catalogue; each new event stands after a training event that is drawn uniformly, at its
    time. Targets of validation and test stay what they were.

    Raises:
        DataError: the data are split by time, where a training part has no fixed end per user.
    """
    if data.split != "leave-one-out":
        raise DataError("noise is put into data that are split leave-one-out")
    everything = data.everything
    places = np.arange(len(everything)) - np.repeat(everything.offsets[:-1], everything.lengths)
    lengths = np.repeat(everything.lengths, everything.lengths)
    is_taught = (places < lengths - HELD_OUT) & (lengths >= MIN_EVENTS_FOR_A_CASE)
    rng = np.random.default_rng(seed)
    count = round(share * int(is_taught.sum()))
    after = np.sort(rng.choice(np.flatnonzero(is_taught), count))
    rows = np.concatenate([np.arange(len(everything)), after])
    items = np.concatenate([everything.items, rng.integers(1, data.num_items + 1, count)])
    order = np.argsort(rows, kind="stable")  # a new event comes after the one that it was drawn for
    owners = np.repeat(np.arange(data.num_users), everything.lengths)
    times_ms = everything.timestamps_ms[rows][order]
    owners = owners[rows][order]
    if not data.has_clock:
        starts = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=data.num_users))[:-1]])
        times_ms = np.arange(len(rows)) - starts[owners]
    table = pl.DataFrame(
        {
            "user_index": owners.astype(np.uint32),
            "item_index": items[order].astype(np.uint32),
            "timestamp_ms": times_ms,
            "event_type": everything.event_types[rows][order],
            "value": pl.Series([None] * len(rows), dtype=pl.Float32),
        }
    )
    return write_prepared(
        folder,
        name=folder.name,
        rows=table,
        item_ids=data.item_ids,
        attributes=data.attributes,
        user_ids=data.user_ids,
        has_clock=data.has_clock,
        exclude_seen=data.exclude_seen,
        event_types=data.event_types,
    )
