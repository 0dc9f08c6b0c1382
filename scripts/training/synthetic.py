"""Users whose next item is as predictable as we choose: what a model must learn, and what no model can."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from scripts.training.interactions import PreparedData, write_prepared


def markov_sequences(
    *, num_users: int, num_items: int, length: int, predictability: float, seed: int
) -> list[NDArray[np.int32]]:
    """Sequences of `length` item indices 1…num_items, walking a Markov chain.

    The items stand on a ring in random order. With probability `predictability` a user goes on to the next item of
    the ring, otherwise to any item, uniformly: 0 is random, 1 deterministic. The best possible hit rate@k is p + (1 −
    p) k / num_items, nearly.
    """
    rng = np.random.default_rng(seed)
    ring = rng.permutation(num_items).astype(np.int32) + 1
    successor = np.empty(num_items + 1, dtype=np.int32)
    successor[ring] = np.roll(ring, -1)
    walks = np.empty((num_users, length), dtype=np.int32)
    walks[:, 0] = rng.integers(1, num_items + 1, num_users)
    for step in range(1, length):
        anywhere = rng.integers(1, num_items + 1, num_users)
        walks[:, step] = np.where(rng.random(num_users) < predictability, successor[walks[:, step - 1]], anywhere)
    return list(walks)


def write_sequences(
    folder: Path,
    sequences: Sequence[NDArray[np.int32]],
    *,
    name: str,
    num_items: int,
    attributes: Sequence[Mapping[str, Any]] | None = None,
    exclude_seen: bool = False,
) -> PreparedData:
    """A prepared data folder, split leave-one-out, of sequences of item indices; times are positions (an order without
    a clock)."""
    lengths = [len(sequence) for sequence in sequences]
    num_rows = sum(lengths)
    rows = pl.DataFrame(
        {
            "user_index": np.repeat(np.arange(len(sequences)), lengths).astype(np.uint32),
            "item_index": np.concatenate(sequences).astype(np.uint32),
            "timestamp_ms": np.concatenate([np.arange(length, dtype=np.int64) for length in lengths]),
            "event_type": np.ones(num_rows, dtype=np.uint8),
            "value": pl.Series([None] * num_rows, dtype=pl.Float32),
        }
    )
    return write_prepared(
        folder,
        name=name,
        rows=rows,
        item_ids=[f"i{index}" for index in range(1, num_items + 1)],
        attributes=attributes if attributes is not None else [{} for _ in range(num_items)],
        user_ids=[f"u{user}" for user in range(len(sequences))],
        has_clock=False,
        exclude_seen=exclude_seen,
    )
