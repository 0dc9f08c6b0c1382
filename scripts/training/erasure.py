"""Erasing what the service has erased from the files of a log folder too.

A mark names an owner by its digest and a part of its log entries. Erased with them is what belonged to the owner since
a merge, as far as the files know of the merge.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import polars as pl

from app.state.event_log import ErasureMark
from app.state.keys import Owner
from scripts.training.log_rows import position_number

BEGINNING = 0
"""No entry has this position: a range behind it holds those of unknown position too."""
Range = tuple[int, int]
"""Positions behind the first, up to the second."""


def erased_ranges(
    marks: Iterable[ErasureMark], store_id: str, user_ids: Iterable[str | None], merges: pl.DataFrame
) -> dict[str, list[Range]]:
    """What is erased, by user_id as it stands in the files.

    merges: the rows of all `merges-*.parquet`, with user_id, into_user_id and log_position.
    """
    by_digest: defaultdict[str, list[Range]] = defaultdict(list)
    for mark in marks:
        by_digest[mark.digest].append((position_number(mark.after), position_number(mark.upto)))
    ranges: defaultdict[str, list[Range]] = defaultdict(list)
    found = [
        (user_id, range_)
        for user_id in user_ids
        if user_id is not None
        for owner in _owners_written_as(user_id)
        for range_ in by_digest.get(owner.digest(store_id), ())
    ]
    into: defaultdict[str, list[tuple[str, Range]]] = defaultdict(list)
    last: dict[str, int] = {}
    for source, target, position in (
        merges.sort("log_position").select("user_id", "into_user_id", "log_position").iter_rows()
    ):
        into[target].append((source, (last.get(source, BEGINNING), position)))
        last[source] = position
    while found:
        user_id, (after, upto) = found.pop()
        if (after, upto) in ranges[user_id]:
            continue
        ranges[user_id].append((after, upto))
        found += [(source, part) for source, part in into[user_id] if after < part[1] <= upto]
    return dict(ranges)


def is_erased(ranges: dict[str, list[Range]]) -> pl.Expr:
    """True for the rows of a log file that are erased, never null."""
    position = pl.col("log_position").fill_null(BEGINNING)
    parts = [
        (pl.col("user_id") == user_id) & (position <= upto) & ((position > after) | pl.lit(after == BEGINNING))
        for user_id, owned in ranges.items()
        for after, upto in owned
    ]
    return pl.any_horizontal(pl.lit(False), *parts).fill_null(False)


def files_without(files: Sequence[Path], ranges: dict[str, list[Range]]) -> Iterator[tuple[Path, pl.DataFrame]]:
    """The files that hold erased rows, each with the rows that remain."""
    names = list(ranges)
    for path in files:
        if not pl.scan_parquet(path).filter(pl.col("user_id").is_in(names)).limit(1).collect().height:
            continue
        rows = pl.read_parquet(path)
        if "log_position" not in rows.columns:  # written by a release that did not keep it
            rows = rows.with_columns(log_position=pl.lit(None, pl.Int64))
        kept = rows.filter(~is_erased(ranges))
        if kept.height < rows.height:
            yield path, kept


def _owners_written_as(user_id: str) -> list[Owner]:
    """A guest's id is written behind `session:`, with which a user's id may begin as well."""
    user = Owner("user", user_id)
    return [user, Owner.parse(user_id)] if user_id.startswith("session:") else [user]
