"""The proofs: speed and memory, measured where this runs. python -m scripts.benchmark prepare --rows 10000000"""

import argparse
import asyncio
import sys

from scripts.benchmarks import preparation, store


def main() -> int:
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
    options = parser.parse_args()
    options.run(options)
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


if __name__ == "__main__":
    sys.exit(main())
