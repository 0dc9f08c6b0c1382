"""`python -m scripts.prepare` from files to a data folder, through its command line."""

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from scripts.prepare import main
from scripts.training.interactions import PreparedData

EVENTS = """kunde,artikel,zeit
u1,a,2026-11-01T10:00:00Z
u1,b,2026-11-01T10:00:00Z
u1,a,2026-11-01T09:00:00Z
u2,b,2026-11-02T10:00:00Z
u2,a,2026-11-03T10:00:00Z
u2,,2026-11-03T10:00:00Z
u2,b,2026-11-04T10:00:00Z
"""
NAMES = ["--user-column", "kunde", "--item-column", "artikel", "--timestamp-column", "zeit"]


@pytest.fixture
def events(tmp_path: Path) -> Path:
    path = tmp_path / "events.csv"
    path.write_text(EVENTS)
    return path


def test_the_command_prints_a_table_and_the_path_it_made(tmp_path: Path, events: Path) -> None:
    output = tmp_path / "shop"
    command = [sys.executable, "-m", "scripts.prepare", "--interactions", str(events), "--output", str(output)]
    done = subprocess.run([*command, *NAMES, "--min-item-events", "1"], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[-1] == str(output)
    assert any(line.split() == ["rows", "read", "7", "time:", "ISO", "8601"] for line in lines)
    assert any(line.startswith("− user or item id missing") and line.endswith(" 1") for line in lines)
    assert "writing" in done.stderr

    data = PreparedData.load(output)
    assert data.user_ids == ["u1", "u2"]
    assert [data.item_ids[item - 1] for item in data.everything.sequence(0)[0]] == ["a", "a", "b"]
    # Two of six interactions repeat an item of the same user: seen items stay eligible, and the reason is kept.
    assert data.exclude_seen is False
    assert data.exclude_seen_reason.startswith("33.3%")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--user-column", "user"], "no column 'user'"),
        ([*NAMES, "--min-item-events", "99"], "nothing remains of 7 rows"),
        ([*NAMES, "--time-unit", "ms"], "holds ISO 8601 times"),
        ([*NAMES, "--items", "nowhere.csv"], "nowhere.csv does not exist"),
        ([*NAMES, "--min-item-events", "1", "--split", "temporal", "--test-share", "0.6"], "--test-share is 0.6"),
    ],
)
def test_what_cannot_be_prepared_is_one_line_and_exit_code_1(
    tmp_path: Path, events: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--interactions", str(events), "--output", str(tmp_path / "x"), "--quiet", *arguments]) == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.startswith("prepare: ")
    assert captured.out == ""
    assert not (tmp_path / "x").exists()


def test_a_temporal_split_is_refused_without_a_clock(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "events.parquet"
    pl.DataFrame({"user_id": ["u"] * 4, "item_id": list("abcd"), "timestamp": [0, 1, 2, 3]}).write_parquet(path)
    options = ["--interactions", str(path), "--output", str(tmp_path / "x"), "--min-item-events", "1", "--quiet"]
    assert main([*options, "--split", "temporal"]) == 1
    assert "needs a clock" in capsys.readouterr().err
    assert main(options) == 0


def test_a_temporal_split_leaves_the_stated_share_after_its_times(tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    times = [1_700_000_000 + second for second in range(100)]
    users = [f"u{second % 5}" for second in range(100)]
    pl.DataFrame({"user_id": users, "item_id": ["a"] * 100, "timestamp": times}).write_parquet(path)
    options = ["--interactions", str(path), "--output", str(tmp_path / "x"), "--quiet", "--split", "temporal"]
    assert main([*options, "--test-share", "0.2"]) == 0
    data = PreparedData.load(tmp_path / "x")
    before = {part: sum(1000 * time < data.split_times_ms[part] for time in times) for part in ("validation", "test")}
    assert before == {"validation": 60, "test": 80}
    assert len(data.train) == 60
    assert (len(data.cases("test")), len(data.first_cases("test"))) == (20, 5)


def test_preparing_again_gives_the_same_fingerprint(tmp_path: Path, events: Path) -> None:
    fingerprints = set()
    for name in ("first", "second"):
        arguments = ["--interactions", str(events), "--output", str(tmp_path / name), "--quiet", *NAMES]
        assert main([*arguments, "--min-item-events", "1"]) == 0
        fingerprints.add(PreparedData.load(tmp_path / name).fingerprint)
    assert len(fingerprints) == 1
