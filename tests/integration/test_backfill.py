"""Past events from files into a real store, by the command's `main`: the store is what `POST /events` would make it."""

import asyncio
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from app.state.bookmarks import Bookmarks
from app.state.connection import connect
from app.state.event_log import EventLog
from app.state.history import Event, HistoryEvent, Owner
from app.state.popularity import PopularItem, Popularity
from scripts import backfill
from scripts.training.collecting import collect
from tests.integration.histories import make_history, num_logged

SECOND = int(time.time()) - 1000
"""Late enough for popularity to count."""


@pytest.fixture
def store(valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty store, which the command's settings name as well."""
    monkeypatch.setenv("SEGUE_REDIS_URL", valkey_url)
    monkeypatch.setenv("SEGUE_ARTIFACTS_DIR", str(tmp_path / "artifacts"))
    return valkey_url


def run(*arguments: object) -> int:
    return backfill.main(["--quiet", *map(str, arguments)])


async def _look(url: str, owners: Sequence[Owner]) -> tuple[list[list[HistoryEvent]], list[PopularItem], int]:
    redis = connect(url, timeout_ms=5000, max_connections=4)
    try:
        history = make_history(redis)
        popularity = Popularity(redis, namespace="default", shards=16, half_life_days=7)
        return [await history.read(owner) for owner in owners], list(await popularity.top()), await num_logged(redis)
    finally:
        await redis.aclose()


def histories(url: str, *names: str) -> list[str]:
    """The items of each user, oldest first, without a separator."""
    found, _, _ = asyncio.run(_look(url, [Owner("user", name) for name in names]))
    return ["".join(event.item_id for event in events) for events in found]


def rows(num_rows: int) -> list[dict[str, Any]]:
    draw = random.Random(5)
    return [
        {
            "user_id": f"u{draw.randrange(9)}",
            "item_id": f"i{draw.randrange(30)}",
            "timestamp": SECOND + draw.randrange(50),
            "event_type": draw.choice(["click", "buy", "impression"]),
            "event_id": f"e{number}" if number % 2 else None,
            "value": number / 4,
        }
        for number in range(num_rows)
    ]


@pytest.mark.parametrize("suffix", ["parquet", "csv", "tsv", "ndjson"])
def test_store_is_as_if_the_rows_had_been_posted(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    table = pl.DataFrame(rows(2000))
    path = tmp_path / f"events.{suffix}"
    writers = {"parquet": table.write_parquet, "csv": table.write_csv, "ndjson": table.write_ndjson}
    writers.get(suffix, lambda file: table.write_csv(file, separator="\t"))(path)
    owners = [Owner("user", f"u{number}") for number in range(9)]

    async def post() -> None:
        redis = connect(store, timeout_ms=5000, max_connections=4)
        await make_history(redis).append(
            [
                Event(
                    Owner("user", row["user_id"]), row["item_id"], row["event_type"], row["timestamp"] * 1_000_000,
                    event_id=row["event_id"], use="count" if row["event_type"] == "impression" else "sequence",
                    value=row["value"],
                )
                for row in rows(2000)
            ]
        )  # fmt: skip
        await redis.aclose()

    async def empty() -> None:
        redis = connect(store, timeout_ms=5000, max_connections=4)
        await redis.flushall()
        await redis.aclose()

    asyncio.run(post())
    expected = asyncio.run(_look(store, owners))
    asyncio.run(empty())
    assert run(path) == 0
    found = asyncio.run(_look(store, owners))
    assert found[0] == expected[0]
    assert found[2] == expected[2]
    assert dict(found[1]) == pytest.approx(dict(expected[1]), rel=1e-3)
    assert f"{expected[2]:,} accepted, {2000 - expected[2]:,} duplicates" in capsys.readouterr().out


def test_interrupted_run_goes_on_where_it_stopped(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Five events of one time straddle each border between parts; in file order they spell the alphabet."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    table = pl.DataFrame({"user_id": "u", "item_id": list(letters), "timestamp": [SECOND + n // 5 for n in range(26)]})
    table.write_parquet(tmp_path / "events.parquet")
    monkeypatch.setattr(backfill, "PART_ROWS", 6)
    write, written = Bookmarks.write, []

    async def cut(self: Bookmarks, name: str, num_rows: int) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(num_rows)
        await write(self, name, num_rows)

    with monkeypatch.context() as patch:
        patch.setattr(Bookmarks, "write", cut)
        assert run(tmp_path / "events.parquet") == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert written == [6, 12]
    assert run(tmp_path / "events.parquet") == 0
    assert "12 done before" in capsys.readouterr().out
    assert histories(store, "u") == [letters]
    assert run(tmp_path / "events.parquet") == 0
    assert "0 accepted, 0 duplicates, 0 ignored, 0 rejected, 26 done before" in capsys.readouterr().out
    assert run("--from-start", tmp_path / "events.parquet") == 0
    assert "0 accepted, 26 duplicates, 0 ignored, 0 rejected, 0 done before" in capsys.readouterr().out
    assert histories(store, "u") == [letters]


def test_bad_rows_are_named_and_keep_no_others_out(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "events.csv"
    path.write_text(
        "user_id,item_id,timestamp,position\n"
        "u,a,2026-01-01T00:00:00Z,1\n"
        "u,,2026-01-01T00:00:01Z,\n"
        "u,b,yesterday,\n"
        ",c,2026-01-01T00:00:02Z,\n"
        "u,d,2026-01-01T00:00:03Z,0\n"
        "u,e,2090-01-01T00:00:00Z,\n"
        "u,f,2026-01-01T00:00:04Z,\n"
    )
    assert run(path) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("2 accepted, 0 duplicates, 0 ignored, 5 rejected, 0 done before; ")
    lines = printed.err.splitlines()
    assert [line.split(": ")[:2] for line in lines] == [
        ["row 2", "item_id"], ["row 3", "timestamp"], ["row 4", "the event"], ["row 5", "position"],
        ["row 6", "timestamp"],
    ]  # fmt: skip
    assert histories(store, "u") == ["af"]
    path.write_text("user_id,item_id,timestamp\nu,,2026-01-01T00:00:00Z\n")
    assert run(path) == 1


def test_event_types_are_used_as_by_the_service(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    types = tmp_path / "types.toml"
    types.write_text('[watch]\nthreshold = 0.5\n[skip]\nuse = "negative"\n')
    monkeypatch.setenv("SEGUE_EVENT_TYPES_FILE", str(types))
    pl.DataFrame(
        {
            "user_id": "u",
            "item_id": ["a", "b", "c", "d"],
            "timestamp": [SECOND + n for n in range(4)],
            "event_type": ["watch", "watch", "skip", "impression"],
            "value": [0.4, 0.5, None, None],
        }
    ).write_parquet(tmp_path / "events.parquet")
    assert run(tmp_path / "events.parquet") == 0
    found, popular, logged = asyncio.run(_look(store, [Owner("user", "u")]))
    assert [(event.item_id, event.event_type) for event in found[0]] == [("b", "watch"), ("c", "skip")]
    assert ([item.item_id for item in popular], logged) == (["b"], 4)
    types.write_text("[watch]\nthresold = 0.5\n")
    assert run("--from-start", tmp_path / "events.parquet") == 1


def test_without_log_histories_and_popularity_are_all_that_is_written(store: str, tmp_path: Path) -> None:
    pl.DataFrame(rows(50)).write_parquet(tmp_path / "events.parquet")
    assert run("--no-log", tmp_path / "events.parquet") == 0
    found, popular, logged = asyncio.run(_look(store, [Owner("user", f"u{number}") for number in range(9)]))
    assert any(found)
    assert popular
    assert logged == 0


def test_what_collect_wrote_brings_users_and_guests_back(store: str, tmp_path: Path) -> None:
    guest, user = Owner("session", "s1"), Owner("user", "u1")

    async def live_through() -> list[list[HistoryEvent]]:
        redis = connect(store, timeout_ms=5000, max_connections=4)
        history = make_history(redis)
        await history.append(
            [
                Event(guest, "a", "click", SECOND * 1_000_000 + 1, properties={"device": "ios"}),
                Event(user, "b", "click", SECOND * 1_000_000 + 2, event_id="e", value=0.5, position=3),
                *[Event(user, letter, "click", SECOND * 1_000_000 + 3) for letter in "zyxw"],
            ]
        )
        before = [await history.read(owner) for owner in (guest, user)]
        log = EventLog(redis, namespace="default", shards=16, max_entries=1000, max_age_days=30, store_id="1")
        (tmp_path / "log").mkdir()
        async for _ in collect(log, tmp_path / "log", batch_entries=100):
            pass
        await redis.flushall()
        await redis.aclose()
        return before

    before = asyncio.run(live_through())
    assert [event.item_id for event in before[1]] == list("bzyxw")
    assert run(*sorted((tmp_path / "log").glob("events-*.parquet"))) == 0
    assert asyncio.run(_look(store, [guest, user]))[0] == before


@pytest.mark.parametrize(
    ("header", "row", "arguments", "message"),
    [
        ("user_id,timestamp", "u,2026-01-01T00:00:00Z", (), "no column item_id"),
        ("item_id,timestamp", "i,2026-01-01T00:00:00Z", (), "user_id or session_id"),
        ("user_id,item_id", "u,i", (), "no column timestamp"),
        ("user_id,item_id,timestamp", "u,i,17", (), "'timestamp'"),
        ("user_id,item_id,timestamp", "u,i,1700000000", ("--column", "user_id=member"), "'member' (user_id)"),
    ],
)
def test_file_that_lacks_what_an_event_needs_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], header: str, row: str, arguments: tuple[str, ...], message: str
) -> None:
    path = tmp_path / "events.csv"
    path.write_text(f"{header}\n{row}\n")
    assert run(path, *arguments) == 1
    assert message in capsys.readouterr().err


def test_columns_may_have_other_names_and_further_ones_are_named(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "baskets.parquet"
    pl.DataFrame({"household": [7], "item_id": [12], "at": [SECOND], "shop": ["x"]}).write_parquet(path)
    assert run(path, "--column", "user_id=household", "--column", "timestamp=at") == 0
    assert "not used: shop" in capsys.readouterr().err
    assert histories(store, "7") == ["12"]
