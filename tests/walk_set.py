"""A data set of predictable walks, as a file of events, and settings that train on it in seconds."""

from pathlib import Path

import polars as pl

from scripts.training.synthetic import markov_sequences

NAME = "walk"
SETTINGS = ["dim=16", "num_blocks=1", "max_epochs=2", "max_length=10", "device=cpu", "dropout=0.1"]


def write_walk_set(folder: Path, *, num_users: int = 60, has_clock: bool = False) -> Path:
    """`folder/sets/walk/interactions.parquet`: 30 items, 9 events a user, minutes apart from one starting time per user
    where there is a clock; returns `folder/sets`."""
    sequences = markov_sequences(num_users=num_users, num_items=30, length=9, predictability=0.8, seed=2)
    start_s = 1_700_000_000 if has_clock else 0
    step = 60 if has_clock else 1
    rows = [
        {"user_id": f"u{user}", "item_id": f"i{item}", "timestamp": start_s + step * place}
        for user, sequence in enumerate(sequences)
        for place, item in enumerate(sequence)
    ]
    (folder / "sets" / NAME).mkdir(parents=True)
    pl.DataFrame(rows).write_parquet(folder / "sets" / NAME / "interactions.parquet")
    return folder / "sets"


def settings() -> list[str]:
    """As words of a command."""
    return [word for setting in SETTINGS for word in ("--set", setting)]
