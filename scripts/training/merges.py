"""Whose an event is after merges: a guest's events up to a merge belong to the user it was merged into."""

from collections import defaultdict

import polars as pl


def final_owners(merges: pl.DataFrame) -> pl.DataFrame:
    """Rows user_id, log_position, owner: entries of `user_id` up to `log_position` belong to `owner`.

    Merges form chains: who was merged into a user before that user was merged into another belongs to the last.
    """
    rows: list[tuple[str, int, str]] = []
    later: defaultdict[str, list[str]] = defaultdict(list)
    columns = merges.sort("log_position", descending=True).select("user_id", "log_position", "into_user_id")
    for source, position, target in columns.iter_rows():
        # The target's earliest merge among those after this one is the one that was seen last.
        owner = later[target][-1] if later[target] else target
        later[source].append(owner)
        rows.append((source, position, owner))
    schema = {"user_id": pl.String, "log_position": pl.Int64, "owner": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")


def with_owners(events: pl.LazyFrame, merges: pl.DataFrame) -> pl.LazyFrame:
    """The events in their order, `user_id` replaced by whose they are; those without a log position came first."""
    position = pl.col("log_position").fill_null(0)
    return (
        events.with_row_index("_order")
        .with_columns(position)
        .sort("log_position")
        .join_asof(
            final_owners(merges).lazy().sort("log_position"),
            on="log_position",
            by="user_id",
            strategy="forward",
            check_sortedness=False,
        )
        .sort("_order")
        .with_columns(user_id=pl.coalesce("owner", "user_id"))
        .drop("owner", "_order")
    )
