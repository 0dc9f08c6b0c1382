"""Users whose next item is as predictable as we choose: what a model must learn, and what no model can."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from app.artifacts.manifest import DEFAULT_EVENT_TYPES, EventType
from scripts.training.interactions import PreparedData
from scripts.training.preparation import write_prepared

BEHAVIOURS = {"view": EventType(index=1), "cart": EventType(index=2), "purchase": EventType(index=3)}
"""The event-type map of `behaviour_sequences`."""


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


def behaviour_sequences(
    *, num_users: int, num_items: int, length: int, seed: int
) -> tuple[list[NDArray[np.int32]], list[NDArray[np.uint8]]]:
    """Sequences of items and the event types (`BEHAVIOURS`) that go with them, over three kinds of items, n of each.

    Items 1…n are viewed, walking a ring. Wherever a user stands, item a, the next event is as often the view of the
    ring's next item, where the user then stands, as item n + a put into the cart or item 2n + a purchased. So history
    and type together tell the next item for certain, and the history alone leaves three.
    """
    rng = np.random.default_rng(seed)
    size = num_items // len(BEHAVIOURS)
    ring = rng.permutation(size) + 1
    successor = np.empty(size + 1, dtype=np.int64)
    successor[ring] = np.roll(ring, -1)
    viewed_U = rng.integers(1, size + 1, num_users)
    items, types = [viewed_U], [np.ones(num_users, dtype=np.int64)]
    for _ in range(length - 1):
        type_U = rng.integers(1, 1 + len(BEHAVIOURS), num_users)
        viewed_U = np.where(type_U == 1, successor[viewed_U], viewed_U)
        items.append(viewed_U + size * (type_U - 1))
        types.append(type_U)
    return list(np.stack(items, axis=1).astype(np.int32)), list(np.stack(types, axis=1).astype(np.uint8))


def write_sequences(
    folder: Path,
    sequences: Sequence[NDArray[np.int32]],
    *,
    name: str,
    num_items: int,
    attributes: Sequence[Mapping[str, Any]] | None = None,
    exclude_seen: bool = False,
    types: Sequence[NDArray[np.uint8]] | None = None,
    event_types: Mapping[str, EventType] = DEFAULT_EVENT_TYPES,
) -> PreparedData:
    """A prepared data folder, split leave-one-out, of sequences of item indices; times are positions (an order without
    a clock). `types` are the event types of the sequences, indices of `event_types`; without them all are 1."""
    lengths = [len(sequence) for sequence in sequences]
    num_rows = sum(lengths)
    rows = pl.DataFrame(
        {
            "user_index": np.repeat(np.arange(len(sequences)), lengths).astype(np.uint32),
            "item_index": np.concatenate(sequences).astype(np.uint32),
            "timestamp_ms": np.concatenate([np.arange(length, dtype=np.int64) for length in lengths]),
            "event_type": np.ones(num_rows, dtype=np.uint8) if types is None else np.concatenate(types),
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
        event_types=event_types,
    )
