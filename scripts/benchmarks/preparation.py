"""Time and peak memory of `prepare` on a generated file with every fault that it cleans.

python -m scripts.benchmarks.preparation FILE ROWS writes the file alone.
"""

import argparse
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl

from scripts.benchmarks.processes import measured

ROWS_PER_USER = 50
ROWS_PER_ITEM = 100
SECONDS_PER_YEAR = 31_536_000
START_S = 1_700_000_000


@dataclass(frozen=True)
class PreparationCost:
    """What one run of the command took. `peak_bytes` is the largest resident set of its process."""

    rows: int
    file_bytes: int
    seconds: float
    peak_bytes: int
    table: str


def generate(path: Path, num_rows: int, seed: int = 0) -> None:
    """Write a shuffled file of events: items by Zipf's law, ids of 14 characters, epoch seconds.

    One row in a hundred lacks its user, one in a hundred its time, and one in fifty repeats an earlier row.
    """
    random = np.random.default_rng(seed)
    num_users, num_items = max(1, num_rows // ROWS_PER_USER), max(1, num_rows // ROWS_PER_ITEM)
    users = random.integers(num_users, size=num_rows, dtype=np.int64)
    items = np.minimum((num_items ** random.random(num_rows)).astype(np.int64), num_items) - 1
    times = START_S + random.integers(SECONDS_PER_YEAR, size=num_rows, dtype=np.int64)
    copies = random.integers(num_rows, size=num_rows // 50)
    originals = random.integers(num_rows, size=len(copies))
    for column in (users, items, times):
        column[copies] = column[originals]
    table = pl.DataFrame({"user": users, "item": items, "time": times, "user_gap": random.random(num_rows) < 0.01})
    table = table.with_columns(time_gap=pl.Series(random.random(num_rows) < 0.01))
    events = table.lazy().select(
        pl.when(~pl.col("user_gap")).then("user-" + pl.col("user").cast(pl.String).str.zfill(9)).alias("user_id"),
        ("item-" + pl.col("item").cast(pl.String).str.zfill(9)).alias("item_id"),
        pl.when(~pl.col("time_gap")).then("time").alias("timestamp"),
    )
    if path.suffix == ".csv":
        events.sink_csv(path)
    else:
        events.sink_parquet(path)


def measure(num_rows: int, suffix: str) -> PreparationCost:
    """Generate a file, prepare it in a process of its own, and read what the kernel counted for that process.

    Raises:
        ProcessFailed: the command failed.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / f"events{suffix}"
        # In a process of its own too: a child begins with the peak of its parent, which would hide its own.
        subprocess.run([sys.executable, "-m", __spec__.name, str(path), str(num_rows)], check=True)
        command = [sys.executable, "-m", "scripts.prepare", "--quiet", "--interactions", str(path)]
        cost = measured([*command, "--output", str(folder / "prepared")])
        return PreparationCost(num_rows, path.stat().st_size, cost.seconds, cost.peak_bytes, cost.output)


def register(subjects: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subjects.add_parser("prepare", help="time and peak memory of preparing a generated file")
    parser.add_argument("--rows", type=int, default=10_000_000, help="default %(default)s")
    parser.add_argument("--format", choices=["parquet", "csv"], default="parquet", help="default %(default)s")
    parser.set_defaults(run=_main)


def _main(options: argparse.Namespace) -> None:
    cost = measure(options.rows, f".{options.format}")
    print(cost.table)
    print(
        f"{cost.rows:,} rows ({cost.file_bytes / 1e6:,.0f} MB of {options.format}) prepared in {cost.seconds:.1f} s, "
        f"peak memory {cost.peak_bytes / 1e9:.2f} GB"
    )


if __name__ == "__main__":
    generate(Path(sys.argv[1]), int(sys.argv[2]))
