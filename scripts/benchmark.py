"""The proofs: speed and memory, measured where this runs. python -m scripts.benchmark prepare --rows 10000000"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from scripts.benchmarks import ablation, accuracy, preparation, serving, store, temporal
from scripts.training.config import ConfigError
from scripts.training.interactions import DataError
from scripts.training.run_folder import RunError


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0; 1 where something that is needed is missing; 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m scripts.benchmark", description="Measure one part of Segue.")
    subjects = parser.add_subparsers(required=True)
    prepare = subjects.add_parser("prepare", help="time and peak memory of preparing a generated file")
    prepare.add_argument("--rows", type=int, default=10_000_000, help="default %(default)s")
    prepare.add_argument("--format", choices=["parquet", "csv"], default="parquet", help="default %(default)s")
    prepare.set_defaults(run=_prepare)
    memory = subjects.add_parser("store", help="bytes per user, events per second, history reads")
    memory.add_argument("--users", type=int, default=2000, help="default %(default)s")
    memory.add_argument("--events-per-user", type=int, default=128, help="default %(default)s")
    memory.add_argument("--seconds", type=float, default=5.0, help="per speed, default %(default)s")
    memory.add_argument("--url", help="an empty Redis or Valkey instead of the embedded server; it is left full")
    memory.set_defaults(run=_store)
    speed = subjects.add_parser("serving", help="POST /recommend under wrk, beside a route that does nothing")
    speed.add_argument("--artifacts", type=Path, default=Path("model_artifacts"), help="default %(default)s")
    speed.add_argument("--rounds", type=int, default=5, help="of each route, in turn; default %(default)s")
    speed.add_argument("--seconds", type=int, default=10, help="per round, default %(default)s")
    speed.add_argument("--connections", type=int, default=16, help="default %(default)s")
    speed.set_defaults(run=_serving)
    for subject in (accuracy, ablation, temporal):
        subject.register(subjects)
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except (serving.BenchmarkError, ConfigError, DataError, RunError) as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("benchmark: interrupted; one that trains goes on when it is called again", file=sys.stderr)
        return 130
    return 0


def _prepare(options: argparse.Namespace) -> None:
    cost = preparation.measure(options.rows, f".{options.format}")
    print(cost.table)
    print(
        f"{cost.rows:,} rows ({cost.file_bytes / 1e6:,.0f} MB of {options.format}) prepared in {cost.seconds:.1f} s, "
        f"peak memory {cost.peak_bytes / 1e9:.2f} GB"
    )


def _store(options: argparse.Namespace) -> None:
    figures = asyncio.run(
        store.measure_store(
            num_users=options.users,
            events_per_user=options.events_per_user,
            seconds=options.seconds,
            url=options.url,
        )
    )
    print(f"{figures.server}, {figures.num_users:,} users with {figures.events_per_user} events each")
    print(f"{figures.history_bytes_per_user:,.0f} bytes per user")
    print(f"{figures.log_bytes_per_event:,.0f} bytes per event in the log, until it is collected")
    print(f"{figures.popularity_bytes_per_item:,.0f} bytes per item and shard for popularity")
    for name, speed in figures.speeds.items():
        print(
            f"{name:32}{speed.per_second:10,.0f} /s{speed.client_microseconds:8,.0f} µs client"
            f"{speed.server_microseconds:8,.0f} µs server"
        )


def _serving(options: argparse.Namespace) -> None:
    found = serving.compare_serving(
        options.artifacts, rounds=options.rounds, seconds=options.seconds, connections=options.connections
    )
    print(
        f"model {found.model_version}, {found.num_items:,} items; histories of {serving.EVENTS_PER_USER} events, k 10"
    )
    print(f"{options.connections} connections, one worker; medians of {options.rounds} rounds of {options.seconds} s")
    print(f"{'':14}{'requests/s':>12}{'p50 ms':>9}{'p90 ms':>9}{'p99 ms':>9}{'failed':>9}")
    for name, result in (("/recommend", found.service), ("empty route", found.empty)):
        print(
            f"{name:14}{result.requests_per_second:12,.0f}{result.p50_ms:9.2f}{result.p90_ms:9.2f}"
            f"{result.p99_ms:9.2f}{result.num_failed:9,}"
        )
    print(f"/recommend reaches {found.ratio:.2f} of the empty route's requests/s")


if __name__ == "__main__":
    sys.exit(main())
