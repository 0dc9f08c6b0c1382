"""Prepared data: who did what in which order, and what of it may be learnt from, validated on and tested on.

A data folder holds four files, written by `prepare` and read by everything offline:

    interactions.parquet   user_index uint32 (0…), item_index uint32 (1…num_items), timestamp_ms int64,
                           event_type uint8, value float32 or null; sorted by user, time, file order
    items.parquet          item_index, item_id, attributes (one JSON object as text)
    users.parquet          user_index, user_id
    prepared.json          name, split, times of the split, clock, event types, what cleaning dropped, fingerprint
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import orjson
import polars as pl
from numpy.typing import NDArray

from app.artifacts.manifest import EventType
from app.ranking.ranker import ItemSequence

INTERACTIONS_FILE = "interactions.parquet"
ITEMS_FILE = "items.parquet"
USERS_FILE = "users.parquet"
PREPARED_FILE = "prepared.json"

Split = Literal["leave-one-out", "temporal"]
Part = Literal["validation", "test"]
MIN_EVENTS_FOR_A_CASE = 3
CASES_OF_A_PART = 20_000
"""Of a temporal split, at most: enough for a standard error of NDCG@10 of about 0.002."""
FIELDS_AS_WRITTEN = ("name", "split", "split_times_ms", "has_clock", "exclude_seen", "exclude_seen_reason",
                     "cleaning", "summary", "config")  # fmt: skip
"""Fields of PreparedData that prepared.json holds under the same name, as they are."""


class DataError(ValueError):
    """Interactions, or a data folder, that cannot be used; says what was found, what was expected, what to do."""


class TimeGroups(NamedTuple):
    """Events of one user that share a time: `starts` are the groups' first rows, `of_event` each row's group."""

    starts: NDArray[np.int64]
    of_event: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Interactions:
    """The sequences of num_users users in flat arrays: user u owns rows offsets[u]…offsets[u + 1] − 1, oldest first.

    Equal times keep file order. Where the data have no clock, `timestamps_ms` holds the position 0, 1, 2, ….
    """

    items: NDArray[np.int32]
    timestamps_ms: NDArray[np.int64]
    event_types: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    def __post_init__(self) -> None:
        sizes = {len(self.items), len(self.timestamps_ms), len(self.event_types), int(self.offsets[-1])}
        if len(sizes) != 1 or self.offsets[0] != 0 or (np.diff(self.offsets) < 0).any():
            raise DataError(f"arrays of one length and offsets rising from 0 to it are expected, found sizes {sizes}")

    def __len__(self) -> int:
        return len(self.items)

    @property
    def num_users(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Events per user, int64 (num_users,)."""
        return np.diff(self.offsets)

    @cached_property
    def time_groups(self) -> "TimeGroups":
        owners = np.repeat(np.arange(self.num_users), self.lengths)
        is_new = np.ones(len(self), np.bool_)
        is_new[1:] = (owners[1:] != owners[:-1]) | (self.timestamps_ms[1:] != self.timestamps_ms[:-1])
        return TimeGroups(np.flatnonzero(is_new), np.cumsum(is_new) - 1)

    @cached_property
    def num_earlier(self) -> NDArray[np.int64]:
        """Of each event, how many events of its user have an earlier time, int64 (len(self),)."""
        groups = self.time_groups
        owners = np.repeat(np.arange(self.num_users), self.lengths)
        earlier: NDArray[np.int64] = groups.starts[groups.of_event] - self.offsets[owners]
        return earlier

    def sequence(self, user: int) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.uint8]]:
        """Items, times and event types of one user: views, oldest first."""
        rows = slice(int(self.offsets[user]), int(self.offsets[user + 1]))
        return self.items[rows], self.timestamps_ms[rows], self.event_types[rows]

    def item_sequence(self, user: int, cap: int | None = None) -> ItemSequence:
        """One user's sequence as the ranker takes it; with `cap`, only the newest `cap` events (at least 1)."""
        stop = int(self.offsets[user + 1])
        start = int(self.offsets[user]) if cap is None else max(int(self.offsets[user]), stop - cap)
        return ItemSequence(
            self.items[start:stop].tolist(),
            self.timestamps_ms[start:stop].tolist(),
            self.event_types[start:stop].tolist(),
        )

    def item_counts(self, num_items: int) -> NDArray[np.int64]:
        """Events per item, int64 (num_items + 1,), index = item index, [0] = 0."""
        return np.bincount(self.items, minlength=num_items + 1).astype(np.int64)

    def prefixes(self, users: NDArray[np.int64], lengths: NDArray[np.int64]) -> "Interactions":
        """The first `lengths[i]` events of `users[i]`, as sequence i of the result."""
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        rows = np.repeat(self.offsets[users] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Interactions(self.items[rows], self.timestamps_ms[rows], self.event_types[rows], offsets)


@dataclass(frozen=True, eq=False)
class Cases:
    """What is evaluated: sequence i of `histories` was followed by item `targets[i]`; both are of `user_indices[i]`.
    `target_types` are the event types of the targets, where these are known; with `asks_type` each case asks for its
    own, otherwise for any."""

    histories: Interactions
    targets: NDArray[np.int32]
    user_indices: NDArray[np.int64]
    target_types: NDArray[np.uint8] | None = None
    asks_type: bool = False

    def __post_init__(self) -> None:
        if self.asks_type and self.target_types is None:
            raise ValueError("cases cannot ask for the types of targets whose types are not known")

    def __len__(self) -> int:
        return len(self.targets)

    def history(self, case: int, cap: int | None = None) -> ItemSequence:
        """The history of one case, with the type it asks for; with `cap`, only the newest `cap` events (at least 1)."""
        sequence = self.histories.item_sequence(case, cap)
        if self.target_types is None or not self.asks_type:
            return sequence
        return replace(sequence, target_type=int(self.target_types[case]))

    def chosen(self, rows: NDArray[np.int64]) -> "Cases":
        histories = self.histories.prefixes(rows, self.histories.lengths[rows])
        types = None if self.target_types is None else self.target_types[rows]
        return Cases(histories, self.targets[rows], self.user_indices[rows], types, self.asks_type)


@dataclass(frozen=True, eq=False)
class PreparedData:
    """A data folder in memory. `everything` is what `--refit` may learn from, `train` what any measured model may."""

    folder: Path
    name: str
    split: Split
    split_times_ms: Mapping[Part, int]
    """Where the temporal split cuts; empty for leave-one-out."""
    has_clock: bool
    exclude_seen: bool
    exclude_seen_reason: str
    event_types: dict[str, EventType]
    cleaning: list[dict[str, Any]]
    summary: dict[str, Any]
    config: dict[str, Any]
    fingerprint: str
    everything: Interactions
    item_ids: list[str]  # by item index − 1

    @classmethod
    def load(cls, folder: Path) -> "PreparedData":
        """Raises DataError: no data folder, or files that do not belong together."""
        try:
            prepared = orjson.loads((folder / PREPARED_FILE).read_bytes())
            rows = pl.read_parquet(folder / INTERACTIONS_FILE)
            item_ids = pl.read_parquet(folder / ITEMS_FILE, columns=["item_id"])["item_id"].to_list()
        except (OSError, orjson.JSONDecodeError, pl.exceptions.ComputeError) as error:
            raise DataError(
                f"{folder} is not a data folder ({error}); make one with python -m scripts.prepare"
            ) from error
        everything = interactions_of(rows, prepared["num_users"])
        found = fingerprint(everything, item_ids, prepared["split"], prepared["split_times_ms"])
        if found != prepared["fingerprint"]:
            raise DataError(
                f"{folder} holds data with fingerprint {found[:12]}…, its {PREPARED_FILE} says "
                f"{prepared['fingerprint'][:12]}…; prepare it again"
            )
        return cls(
            folder=folder,
            event_types={name: EventType.model_validate(entry) for name, entry in prepared["event_types"].items()},
            fingerprint=found,
            everything=everything,
            item_ids=item_ids,
            **{field: prepared[field] for field in FIELDS_AS_WRITTEN},
        )

    @property
    def num_users(self) -> int:
        return self.everything.num_users

    @property
    def num_items(self) -> int:
        return len(self.item_ids)

    @property
    def num_interactions(self) -> int:
        return len(self.everything)

    @cached_property
    def attributes(self) -> list[dict[str, Any]]:
        """Attributes by item index − 1; an item of which nothing is known has an empty object."""
        column = pl.read_parquet(self.folder / ITEMS_FILE, columns=["attributes"])["attributes"]
        return [orjson.loads(text) for text in column]

    @cached_property
    def user_ids(self) -> list[str]:
        """By user index."""
        ids: list[str] = pl.read_parquet(self.folder / USERS_FILE, columns=["user_id"])["user_id"].to_list()
        return ids

    @cached_property
    def train(self) -> Interactions:
        """What a measured model learns from: neither validation nor test targets nor anything after them.

        Leave-one-out: all but the last two events of users with at least 3; all events of the others. Temporal: the
        events before the validation time. Every user keeps a (perhaps empty) sequence.
        """
        return self.everything.prefixes(np.arange(self.num_users), self._lengths_before("validation"))

    @property
    def asks_by_time(self) -> bool:
        """Whether a case's history is all of earlier times, as of a temporal split, and not all that stands before it:
        what is learnt from is then asked for in the same way."""
        return self.split == "temporal"

    def cases(self, part: Part, *, at_most: int = CASES_OF_A_PART, seed: int = 0) -> Cases:
        """The cases of one part, by user index.

        Leave-one-out: the target is the last event (test) or the one before it (validation) of users with at least 3
        events, the history all before it.

        Temporal: every event of the part is a target, by user and time, its history all that the user did at earlier
        times, events of the part included: what a service with an old model and a fresh history meets. Events of the
        same time are not history: files give them an order, people do not (a receipt may be sorted). An event without
        a history has no case. At most so many, drawn by seed; those of one user are not independent of each other.
        """
        everything = self.everything
        if self.split == "leave-one-out":
            users = np.flatnonzero(everything.lengths >= MIN_EVENTS_FOR_A_CASE)
            lengths = self._lengths_before(part)[users]
            return self._cases(users, lengths, everything.offsets[users] + lengths)
        first = self._lengths_before(part)
        counts = self._lengths_after(part) - first
        users = np.repeat(np.arange(self.num_users), counts)
        places = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + first[users]
        rows = everything.offsets[users] + places
        chosen = np.flatnonzero(everything.num_earlier[rows] > 0)
        if len(chosen) > at_most:
            chosen = np.sort(np.random.default_rng(seed).choice(chosen, at_most, replace=False))
        rows, users = rows[chosen], users[chosen]
        return self._cases(users, everything.num_earlier[rows], rows)

    def first_cases(self, part: Part) -> Cases:
        """Of a temporal split, each user's first event of the part as a target (of several of that time the first in
        the file), the history all before it; users without a history have no case.

        Raises:
            DataError: the data are split leave-one-out, where a part has one event per user: see `cases`.
        """
        if self.split != "temporal":
            raise DataError("first_cases belong to a temporal split; the parts of leave-one-out are one event per user")
        lengths = self._lengths_before(part)
        users = np.flatnonzero((lengths > 0) & (lengths < self._lengths_after(part)))
        return self._cases(users, lengths[users], self.everything.offsets[users] + lengths[users])

    def _cases(self, users: NDArray[np.int64], lengths: NDArray[np.int64], rows: NDArray[np.int64]) -> Cases:
        everything = self.everything
        histories = everything.prefixes(users, lengths)
        return Cases(histories, everything.items[rows], users, everything.event_types[rows])

    def _lengths_after(self, part: Part) -> NDArray[np.int64]:
        """Of each user, the events before the end of the part."""
        return self.everything.lengths if part == "test" else self._lengths_before("test")

    def _lengths_before(self, part: Part) -> NDArray[np.int64]:
        """How many of each user's events come before the target of the part, int64 (num_users,)."""
        lengths = self.everything.lengths
        if self.split == "leave-one-out":
            held_out = 1 if part == "test" else 2
            return np.where(lengths >= MIN_EVENTS_FOR_A_CASE, lengths - held_out, lengths)
        owners = np.repeat(np.arange(self.num_users), lengths)
        is_before = self.everything.timestamps_ms < self.split_times_ms[part]
        before = np.bincount(owners[is_before], minlength=self.num_users)
        return before.astype(np.int64)


def interactions_of(rows: pl.DataFrame, num_users: int) -> Interactions:
    """Interactions from the sorted columns of interactions.parquet."""
    owners = rows["user_index"].to_numpy()
    counts = np.bincount(owners, minlength=num_users)
    if len(counts) != num_users or (np.diff(owners.astype(np.int64)) < 0).any():
        raise DataError(f"rows sorted by user_index 0…{num_users - 1} are expected; prepare the data again")
    return Interactions(
        items=rows["item_index"].to_numpy().astype(np.int32),
        timestamps_ms=rows["timestamp_ms"].to_numpy().astype(np.int64),
        event_types=rows["event_type"].to_numpy().astype(np.uint8),
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
    )


def fingerprint(
    interactions: Interactions, item_ids: Sequence[str], split: Split, split_times_ms: Mapping[Part, int]
) -> str:
    """sha256 of sequences, times, event types, item ids and the split; the same whatever wrote the files."""
    digest = hashlib.sha256()
    for array in (interactions.offsets, interactions.items, interactions.timestamps_ms, interactions.event_types):
        digest.update(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).data)
    digest.update("\0".join([split, *(f"{part}={split_times_ms[part]}" for part in sorted(split_times_ms))]).encode())
    digest.update("\0".join(["", *item_ids]).encode())
    return digest.hexdigest()
