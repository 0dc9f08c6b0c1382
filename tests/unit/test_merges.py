"""Whose a row is after merges: by hand, and against a walk along every chain."""

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from scripts.training.merges import with_owners

MERGES = {"user_id": pl.String, "log_position": pl.Int64, "into_user_id": pl.String}
EVENTS = {"user_id": pl.String, "log_position": pl.Int64, "row": pl.Int64}


def owners(events: list[tuple[str, int | None]], merges: list[tuple[str, int, str]]) -> list[str]:
    numbered = [(user, position, row) for row, (user, position) in enumerate(events)]
    table = with_owners(
        pl.DataFrame(numbered, schema=EVENTS, orient="row").lazy(), pl.DataFrame(merges, schema=MERGES, orient="row")
    ).collect()
    assert table["row"].to_list() == list(range(len(events)))
    found: list[str] = table["user_id"].to_list()
    return found


def test_only_what_came_before_a_merge_changes_hands() -> None:
    kiosk = [("s9", 10, "ann"), ("s9", 20, "bob")]
    events = [("s9", 25), ("s9", 10), ("s9", 11), ("bob", 1), ("s9", 20), ("s9", None)]
    assert owners(events, kiosk) == ["s9", "ann", "bob", "bob", "bob", "ann"]


def test_chain_leads_to_its_end_and_only_forward() -> None:
    chain = [("s9", 10, "ann"), ("ann", 20, "bob"), ("s8", 30, "ann")]
    assert owners([("s9", 5), ("s8", 5), ("ann", 15), ("ann", 25)], chain) == ["bob", "ann", "bob", "ann"]


names = st.sampled_from("abcd")
positions = st.integers(1, 30)


@given(
    events=st.lists(st.tuples(names, positions), max_size=12),
    merges=st.lists(
        st.tuples(names, positions, names).filter(lambda merge: merge[0] != merge[2]),
        max_size=10,
        unique_by=lambda merge: merge[1],
    ),
)
def test_every_row_ends_where_a_walk_along_the_merges_ends(
    events: list[tuple[str, int]], merges: list[tuple[str, int, str]]
) -> None:
    def walk(owner: str, position: int) -> str:
        for source, at, target in sorted(merges, key=lambda merge: merge[1]):
            if source == owner and at >= position:
                owner, position = target, at + 1
        return owner

    assert owners(list(events), merges) == [walk(*event) for event in events]
