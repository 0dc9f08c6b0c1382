"""The way back from the service to training: event log → Parquet."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import orjson
import polars as pl
import pytest

from app.recommender.live_rules import REFRESH_SECONDS
from app.state.connection import Store, claim_store
from app.state.event_log import START, EventLog, ServedRecord
from app.state.history import Event, History, Owner
from app.state.keys import Keys
from app.state.merging import Merging
from scripts.training.collecting import SETTLE_SECONDS, collect
from scripts.training.datasets import read_table
from scripts.training.interactions import DataError, PreparedData
from tests.integration.histories import num_logged

T = 1_700_000_000_000_000
NUM_EVENTS, NUM_LISTS = 3000, 600


@pytest.fixture
def folder() -> Iterator[Path]:
    with TemporaryDirectory(prefix="segue-") as path:
        yield Path(path)


def _history(redis: Store, *, cap: int = 200, namespace: str = "default") -> History:
    return History(
        redis, namespace=namespace, shards=16, cap=cap, ttl_days=10, log_max_entries=100_000, log_max_age_days=30,
        popularity_half_life_days=7,
    )  # fmt: skip


async def _log(redis: Store, namespace: str = "default") -> EventLog:
    store_id = await claim_store(redis, namespace=namespace, shards=16)
    return EventLog(
        redis, namespace=namespace, shards=16, max_entries=100_000, max_age_days=30, store_id=store_id
    )  # fmt: skip


def _served(number: int, owner: Owner | None) -> ServedRecord:
    return ServedRecord(f"rec_{number}", owner, T + number, "v1", "model", ("i1", "i2"), (2.5, 1.25))


def _events(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / "events-*.parquet")


async def _collect(log: EventLog, folder: Path, batch_entries: int = 1000, settle_seconds: float = 0) -> list[int]:
    folder.mkdir(exist_ok=True)
    batches = collect(log, folder, batch_entries=batch_entries, settle_seconds=settle_seconds)
    return [batch.num_duplicates async for batch in batches]


async def _fill(redis: Store) -> None:
    history, log = _history(redis), await _log(redis)
    for start in range(0, NUM_EVENTS, 500):
        await history.append(
            [Event(Owner("user", f"u{n % 70}"), f"i{n % 13}", "click", T + n) for n in range(start, start + 500)]
        )
    await log.append_served([_served(n, Owner("user", f"u{n % 70}")) for n in range(NUM_LISTS)])


def _command(url: str, folder: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "scripts.collect", "--output", str(folder), *options],
        env={"SEGUE_REDIS_URL": url, "PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


async def test_every_field_arrives_and_the_log_is_empty_afterwards(redis: Store, folder: Path) -> None:
    user, guest = Owner("user", "u1"), Owner("session", "s1")
    await _history(redis).append(
        [
            Event(user, "i1", "buy", T + 5, event_id="e1", value=9.5, recommendation_id="rec_1", position=3,
                  properties={"device": "ios"}),
            Event(user, "i2", "click", T),
            Event(guest, "i3", "impression", T + 1, use="count"),
        ]
    )  # fmt: skip
    log = await _log(redis)
    await log.append_served([_served(1, user), _served(2, guest), _served(3, None)])

    assert await _collect(log, folder) == [0]

    events = _events(folder).drop("identity", "log_position")
    assert events["timestamp"].dtype == pl.Datetime("us", "UTC")
    assert events.with_columns(pl.col("timestamp").to_physical()).rows() == [
        ("u1", "i2", "click", T, 0, None, None, None, None, None),
        ("session:s1", "i3", "impression", T + 1, 0, None, None, None, None, None),
        ("u1", "i1", "buy", T + 5, 0, 9.5, "e1", "rec_1", 3, '{"device":"ios"}'),
    ]
    served = pl.read_parquet(folder / "served-*.parquet").drop("identity", "log_position")
    assert served.with_columns(pl.col("timestamp").to_physical()).rows() == [
        ("rec_1", "u1", T + 1, "v1", "model", 1, ["i1", "i2"], [2.5, 1.25], None),
        ("rec_2", "session:s1", T + 2, "v1", "model", 1, ["i1", "i2"], [2.5, 1.25], None),
        ("rec_3", None, T + 3, "v1", "model", 1, ["i1", "i2"], [2.5, 1.25], None),
    ]
    assert await num_logged(redis) == 0
    assert await _collect(log, folder) == []


async def test_collector_killed_again_and_again_loses_nothing_and_repeats_nothing(
    redis: Store, valkey_url: str, folder: Path
) -> None:
    await _fill(redis)
    num_killed = 0
    for patience in range(1, 40):
        with _command(valkey_url, folder, "--batch", "100") as process:
            # Dies after a number of batches that differs from run to run, wherever it is then.
            assert process.stderr is not None
            for _ in range(1 + patience % 7):
                process.stderr.readline()
            process.kill()
            process.wait()
            num_killed += process.returncode == -9
        if json.loads((folder / "positions.json").read_text())["num_batches"] > 31:
            break
    assert num_killed >= 5
    with _command(valkey_url, folder) as process:
        out, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert out.splitlines()[-1] == str(folder)

    events = _events(folder)
    assert sorted(events["timestamp"].to_physical()) == [T + n for n in range(NUM_EVENTS)]
    served = pl.read_parquet(folder / "served-*.parquet")
    assert sorted(served["recommendation_id"]) == sorted(f"rec_{n}" for n in range(NUM_LISTS))
    assert not list(folder.glob("*.tmp"))


@pytest.mark.parametrize("victim", ["positions.json", "trim"])
async def test_batch_that_was_written_but_not_counted_is_read_again(
    redis: Store, folder: Path, monkeypatch: pytest.MonkeyPatch, victim: str
) -> None:
    await _fill(redis)
    log = await _log(redis)

    class PowerCut(BaseException):
        pass

    def cut(*_: object) -> None:
        raise PowerCut

    with monkeypatch.context() as patch:
        if victim == "trim":
            patch.setattr(EventLog, "trim", cut)
        else:
            await _collect(log, folder, 500)  # positions.json exists
            await _history(redis).append(
                [Event(Owner("user", "u"), f"i{n}", "click", T + NUM_EVENTS + n) for n in range(9)]
            )
            patch.setattr("scripts.training.collecting._write_positions", cut)
        with pytest.raises(PowerCut):
            await _collect(log, folder, 500)
    assert await _collect(log, folder, 500) is not None

    times = _events(folder)["timestamp"].to_physical()
    assert len(times) == len(set(times)) == NUM_EVENTS + (0 if victim == "trim" else 9)
    assert await num_logged(redis) == 0


async def test_collected_entries_stay_for_a_minute_for_readers_that_were_not_there_yet(
    redis: Store, folder: Path
) -> None:
    user = Owner("user", "u1")
    keys = Keys("default", 16)
    shard, key = keys.shard_of(user), keys.events(keys.shard_of(user))
    log, history = await _log(redis), _history(redis)
    await history.append([Event(user, f"i{n}", "click", T + n) for n in range(2)])
    entries = await log.read(shard, START, "+", 10)
    await redis.delete(key)
    for entry, seconds in zip(entries, (120, 30), strict=True):  # as if they had come so long ago
        at_ms = round((time.time() - seconds) * 1000)
        await redis.xadd(key, {"kind": entry.kind, "data": entry.data}, id=f"{at_ms}-0")
    place = (await log.read(shard, START, "+", 1))[0].position  # a worker has read the first one
    await history.append([Event(user, "i2", "click", T + 2)])

    assert await _collect(log, folder, settle_seconds=SETTLE_SECONDS) == [0]
    left = await log.read(shard, place, "+", 10)
    assert [orjson.loads(entry.data)["item_id"] for entry in left] == ["i1", "i2"]
    assert await num_logged(redis) == 2  # the old one went at once

    await history.append([Event(user, "i3", "click", T + 3)])
    assert await _collect(log, folder, settle_seconds=SETTLE_SECONDS) == [0]  # the new one, and nothing again
    assert await _collect(log, folder, settle_seconds=SETTLE_SECONDS) == []
    assert _events(folder)["item_id"].to_list() == ["i0", "i1", "i2", "i3"]
    assert await num_logged(redis) == 3

    assert await _collect(log, folder, settle_seconds=20) == []  # as if it were forty seconds later
    assert await num_logged(redis) == 2
    assert await _collect(log, folder, settle_seconds=0) == []
    assert await num_logged(redis) == 0
    assert _events(folder).height == 4


def test_collected_entries_stay_for_longer_than_live_rules_take() -> None:
    assert SETTLE_SECONDS > 10 * REFRESH_SECONDS


async def test_event_that_a_short_history_forgot_is_recognised_across_batches(redis: Store, folder: Path) -> None:
    owner = Owner("user", "u1")
    log, history = await _log(redis), _history(redis, cap=1)
    first = Event(owner, "i1", "click", T, event_id="e1")
    await history.append([first])
    assert await _collect(log, folder) == [0]

    # The same event_id with later times is new to a history of one event, but not to the files.
    await history.append([Event(owner, "i2", "click", T + 1)])
    await history.append([Event(owner, "i1", "click", T + 2, event_id="e1")])
    assert await _collect(log, folder) == [1]
    assert _events(folder)["item_id"].to_list() == ["i1", "i2"]


async def test_lists_served_twice_by_a_retry_are_kept_once(redis: Store, folder: Path) -> None:
    log = await _log(redis)
    await log.append_served([_served(1, None)])
    await log.append_served([_served(1, None), _served(2, None)])
    assert await _collect(log, folder) == [1]
    assert pl.read_parquet(folder / "served-*.parquet")["recommendation_id"].to_list() == ["rec_1", "rec_2"]


async def test_store_that_was_replaced_is_read_from_its_beginning(redis: Store, folder: Path) -> None:
    await _fill(redis)
    await _collect(await _log(redis), folder)
    await redis.flushall()
    await _history(redis).append([Event(Owner("user", "u1"), "i1", "click", 5)])
    await _collect(await _log(redis), folder)
    assert _events(folder).height == NUM_EVENTS + 1


async def test_folder_of_another_namespace_is_refused(redis: Store, folder: Path) -> None:
    await _collect(await _log(redis), folder)
    with pytest.raises(DataError, match=r"'default'.*'other'"):
        await _collect(await _log(redis, "other"), folder)


def test_embedded_store_is_collected_while_no_service_runs(folder: Path) -> None:
    environment = {"SEGUE_DATA_DIR": str(folder / "data"), "PATH": "/usr/bin:/bin"}
    result = subprocess.run(
        [sys.executable, "-m", "scripts.collect", "--output", str(folder / "log")],
        env=environment, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert result.stdout.splitlines() == [str(folder / "log")]
    assert not (folder / "data" / "store" / "store.sock").exists()  # the server that it started is gone


async def test_second_collector_of_a_folder_is_refused(redis: Store, valkey_url: str, folder: Path) -> None:
    await _history(redis).append([Event(Owner("user", "u1"), "i1", "click", T)])
    with _command(valkey_url, folder, "--follow") as first:
        assert first.stderr is not None
        assert first.stderr.readline() == "batch 1: 1 events, 0 lists\n"
        with _command(valkey_url, folder) as second:
            _, errors = second.communicate(timeout=60)
            assert second.returncode == 1
            assert "another collector" in errors
        first.send_signal(2)
        out, _ = first.communicate(timeout=10)
        assert (first.returncode, out.strip()) == (0, str(folder))


async def test_collected_folder_is_prepared_like_any_file(redis: Store, folder: Path) -> None:
    await _fill(redis)
    await _history(redis).append([Event(Owner("session", "s1"), f"i{n}", "click", T + n // 2) for n in range(5)])
    await _collect(await _log(redis), folder / "log")
    command = [sys.executable, "-m", "scripts.prepare", "--interactions", folder / "log", "--output", folder / "shop"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stderr

    prepared = PreparedData.load(folder / "shop")
    assert (prepared.num_users, prepared.num_items, prepared.num_interactions) == (71, 13, NUM_EVENTS + 5)
    guest = prepared.user_ids.index("session:s1")
    items, _, _ = prepared.everything.sequence(guest)
    assert [prepared.item_ids[item - 1] for item in items] == ["i0", "i1", "i2", "i3", "i4"]  # ties keep their order


async def test_guests_events_are_the_users_after_a_merge_and_only_those_before_it(redis: Store, folder: Path) -> None:
    history, log = _history(redis), await _log(redis)
    merging = Merging(redis, namespace="default", shards=16, cap=200, ttl_days=10, log_max_age_days=30)
    guest, user = Owner("session", "s1"), Owner("user", "u1")
    await history.append([Event(user, "i1", "click", T), Event(guest, "i2", "click", T + 1)])
    await _collect(log, folder)  # one guest's event is in a file before the merge
    await history.append([Event(guest, "i3", "click", T + 2)])
    await merging.merge(guest, user)
    await history.append([Event(guest, "i4", "click", T + 3), Event(user, "i5", "click", T + 4)])
    await _collect(log, folder)

    assert _events(folder)["user_id"].to_list() == ["u1", "session:s1", "session:s1", "session:s1", "u1"]
    owned = read_table(folder).select("user_id", "item_id").collect().rows()
    assert owned == [("u1", "i1"), ("u1", "i2"), ("u1", "i3"), ("session:s1", "i4"), ("u1", "i5")]
    merges = pl.read_parquet(folder / "merges-*.parquet")
    assert merges.select("user_id", "into_user_id").rows() == [("session:s1", "u1")]
