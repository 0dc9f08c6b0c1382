"""Event log → Parquet: the way back from the service to training.

A log folder holds numbered batches, each written once and changed only where a user was erased:

    events-000001.parquet   user_id (a guest's is `session:<id>`), item_id, event_type, timestamp (UTC, microseconds),
                            sequence, value, event_id, recommendation_id, position, properties (JSON text),
                            log_position, identity
    served-000001.parquet   one row per recommended list: recommendation_id, user_id, timestamp, model_version,
                            strategy, first_position, item_ids, scores, propensity, log_position, identity
    merges-000001.parquet   whose events became whose: user_id, into_user_id, timestamp, log_position, identity;
                            rows of user_id up to log_position belong to into_user_id, see `merges.py`
    positions.json          how many batches are done and how far each shard was read

A batch becomes durable file by file, then `positions.json` moves on, then the log is trimmed of what is older than a
minute. Younger entries stay for the workers' live rules; `positions.json` says how far was read, so a later run trims
them and does not read them again. Killed anywhere in between, the next run throws away the batch that `positions.json`
does not count and reads it again. Whom the service has erased is erased from all batches before the next one is read; a
file is replaced by one without the rows, whole or not at all.
"""

import fcntl
import json
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl

from app.state.event_log import START, EventLog, LogEntry
from scripts.training.erasure import erased_ranges, files_without
from scripts.training.interactions import DataError
from scripts.training.log_rows import SCHEMAS, position_number, rows_of

POSITIONS_FILE = "positions.json"
READ_COUNT = 2000
SETTLE_SECONDS = 60.0
"""For so long an entry stays in the log though it is collected: workers look for new ones every few seconds
(`live_rules.REFRESH_SECONDS`), and a busy one has a minute for it."""


@dataclass(frozen=True)
class Positions:
    """`positions.json`. `shards` holds the last position read of each; `num_batches` counts the finished ones."""

    namespace: str
    store_id: str
    shards: tuple[str, ...]
    num_batches: int


@dataclass(frozen=True)
class Batch:
    """What one batch stored and what it left out because an earlier row has the same identity."""

    number: int
    num_events: int
    num_served: int
    num_duplicates: int


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Make the folder and keep every other collector out of it.

    Raises:
        DataError: another one is at work there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "collect.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"another collector writes to {folder}; wait for it or choose another folder") from error
        yield


async def collect(
    log: EventLog, folder: Path, *, batch_entries: int, settle_seconds: float = SETTLE_SECONDS
) -> AsyncIterator[Batch]:
    """Bring everything that the log holds at this moment into the folder, batch by batch.

    Of what the folder has, the log keeps the entries of the last `settle_seconds`. A store that the folder does not
    know is read from its beginning: what was collected before is recognised.

    Raises:
        DataError: the folder belongs to another namespace.
        StoreUnavailable: the store does not answer; a later run goes on from there.
    """
    positions = _read_positions(folder, log)
    _discard_unfinished(folder, positions.num_batches)
    await _honour_erasures(log, folder)
    known = {kind: _identities(folder, kind) for kind in SCHEMAS}
    ends = await log.last_positions()
    while entries := await _read_batch(log, positions.shards, ends, batch_entries):
        number = positions.num_batches + 1
        num_rows, num_duplicates = {}, 0
        for kind, frame in rows_of(entries).items():
            fresh = frame.unique("identity", keep="first", maintain_order=True)
            fresh = fresh.filter(~pl.col("identity").is_in(known[kind].implode()))
            num_rows[kind] = fresh.height
            num_duplicates += frame.height - fresh.height
            if fresh.height:
                known[kind] = known[kind].append(fresh["identity"])
                _write_durably(fresh, folder / f"{kind}-{number:06}.parquet")
        reached = [
            shard[-1].position if shard else after for shard, after in zip(entries, positions.shards, strict=True)
        ]
        positions = Positions(positions.namespace, positions.store_id, tuple(reached), number)
        _write_positions(folder, positions)
        await _trim(log, positions.shards, settle_seconds)
        if await _honour_erasures(log, folder):
            known = {kind: _identities(folder, kind) for kind in SCHEMAS}
        yield Batch(number, num_rows["events"], num_rows["served"], num_duplicates)
    await _trim(log, positions.shards, settle_seconds)  # what earlier runs had stored but not trimmed


async def _trim(log: EventLog, reached: Sequence[str], settle_seconds: float) -> None:
    """Remove from every shard what is collected and settled."""
    settled = await log.position_before(settle_seconds)
    for shard, position in enumerate(reached):
        if position != START:
            await log.trim(shard, min(position, settled, key=position_number))


async def _honour_erasures(log: EventLog, folder: Path) -> bool:
    """Erase from the files what was erased from the log; whether any file held some of it.

    No entry that was read may be waiting to be written meanwhile: its mark is taken away here.
    """
    marks = await log.erasure_marks()
    if not any(marks):
        return False
    files = [path for kind in SCHEMAS for _, path in _files(folder, kind)]
    owners: set[str | None] = set()
    merges = pl.DataFrame(schema=SCHEMAS["merges"])
    for path in files:
        owners.update(pl.scan_parquet(path).select(pl.col("user_id").unique()).collect()["user_id"])
    if merge_files := [path for _, path in _files(folder, "merges")]:
        merges = pl.read_parquet(merge_files)
        owners.update(merges["into_user_id"])
    ranges = erased_ranges(set().union(*marks), log.store_id, owners, merges)
    num_files = 0
    for path, kept in files_without(files, ranges):
        num_files += 1
        if kept.height:
            _write_durably(kept, path)
        else:
            path.unlink()
    await log.remove_erasure_marks(marks)
    return num_files > 0


async def _read_batch(
    log: EventLog, after: Sequence[str], ends: Sequence[str], batch_entries: int
) -> list[list[LogEntry]]:
    """At most `batch_entries` entries, one list per shard; an empty list when no shard holds any."""
    entries: list[list[LogEntry]] = [[] for _ in after]
    room = batch_entries
    for shard, read in enumerate(entries):
        position = after[shard]
        while room and (page := await log.read(shard, position, ends[shard], min(READ_COUNT, room))):
            read += page
            room -= len(page)
            position = page[-1].position
    return entries if room < batch_entries else []


def _files(folder: Path, kind: str) -> list[tuple[int, Path]]:
    return sorted((int(path.stem.rpartition("-")[2]), path) for path in folder.glob(f"{kind}-*.parquet"))


def _discard_unfinished(folder: Path, num_batches: int) -> None:
    for kind in SCHEMAS:
        for number, path in _files(folder, kind):
            if number > num_batches:
                path.unlink()
    for path in folder.glob("*.tmp"):
        path.unlink()


def _identities(folder: Path, kind: str) -> pl.Series:
    files = [path for _, path in _files(folder, kind)]
    if not files:
        return pl.Series("identity", dtype=pl.UInt64)
    return pl.scan_parquet(files).select("identity").collect()["identity"]


def _read_positions(folder: Path, log: EventLog) -> Positions:
    path = folder / POSITIONS_FILE
    if not path.exists():
        if any(_files(folder, kind) for kind in SCHEMAS):
            raise DataError(f"{folder} holds batches but no {POSITIONS_FILE}: choose another folder or bring it back")
        _write_positions(folder, Positions(log.namespace, log.store_id, (START,) * log.num_shards, 0))
    stored = json.loads(path.read_text())
    if stored["namespace"] != log.namespace:
        raise DataError(
            f"{folder} holds the log of namespace {stored['namespace']!r}, not {log.namespace!r}: choose another folder"
        )
    if stored["store_id"] != log.store_id:
        return Positions(log.namespace, log.store_id, (START,) * log.num_shards, stored["num_batches"])
    return Positions(stored["namespace"], stored["store_id"], tuple(stored["shards"]), stored["num_batches"])


def _write_positions(folder: Path, positions: Positions) -> None:
    temporary = folder / f"{POSITIONS_FILE}.tmp"
    temporary.write_text(json.dumps(asdict(positions), indent=1))
    _publish(temporary, folder / POSITIONS_FILE)


def _write_durably(frame: pl.DataFrame, path: Path) -> None:
    temporary = path.with_name(f"{path.name}.tmp")
    frame.write_parquet(temporary)
    _publish(temporary, path)


def _publish(temporary: Path, path: Path) -> None:
    """Rename, once the bytes are on the disk; the name is on the disk too when this returns."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
