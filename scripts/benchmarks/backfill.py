"""Past events into the store, by `scripts.backfill` and by posting them: rate, processor time and memory of each.

Each way fills an empty store of its own with the same events.
"""

import argparse
import asyncio
import http.client
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import orjson
import polars as pl

from app.state.connection import connect
from app.state.embedded import EmbeddedStore
from scripts.benchmarks.errors import BenchmarkError

EVENTS_PER_USER = 100
NUM_ITEMS = 20_000
DAYS = 90
BATCH = 500
NUM_CONNECTIONS = 4
GOAL = 10_000_000
POST, FILE, FILE_WITHOUT_LOG = f"POST /events, batches of {BATCH}", "scripts.backfill", "scripts.backfill --no-log"
WAYS = {"post": POST, "file": FILE, "file-without-log": FILE_WITHOUT_LOG}


@dataclass(frozen=True)
class FillCost:
    """Of one way to store events. Processor times hold on a busy machine as well.

    seconds: on the wall, as the command says, or from the first post to the last answer: no start of processes in it.
    client_microseconds: per event, of all processes but the store, their start included.
    store_bytes: per event, by the server's `used_memory`.
    """

    seconds: float
    client_microseconds: float
    server_microseconds: float
    store_bytes: float


def generate(path: Path, num_events: int) -> pl.DataFrame:
    """Events in the order of their times, of the last 90 days; items by Zipf's law; a third carry an event id."""
    random = np.random.default_rng(0)
    users = random.integers(max(1, num_events // EVENTS_PER_USER), size=num_events)
    items = (NUM_ITEMS ** random.random(num_events)).astype(np.int64)
    times = np.sort(int(time.time() * 1000) - random.integers(DAYS * 86_400_000, size=num_events))
    events = pl.DataFrame({"user": users, "item": items, "timestamp": times, "number": np.arange(num_events)}).select(
        ("user-" + pl.col("user").cast(pl.String).str.zfill(9)).alias("user_id"),
        ("item-" + pl.col("item").cast(pl.String).str.zfill(5)).alias("item_id"),
        pl.lit("click").alias("event_type"),
        "timestamp",
        pl.when(pl.col("number") % 3 == 0).then("event-" + pl.col("number").cast(pl.String)).alias("event_id"),
    )
    events.write_parquet(path)
    return events


def measure(num_events: int, ways: Collection[str] = tuple(WAYS)) -> dict[str, FillCost]:
    """By the values of `WAYS`. Raises BenchmarkError: some events were not stored."""
    with TemporaryDirectory(prefix="segue-") as name:
        file = Path(name) / "events.parquet"
        events = generate(file, num_events)
        bodies = _bodies(events) if "post" in ways else []
        fills: dict[str, Callable[[str, Path], float]] = {
            "post": lambda url, folder: _post_all(bodies, url, folder),
            "file": lambda url, folder: _backfill(file, url, folder),
            "file-without-log": lambda url, folder: _backfill(file, url, folder, "--no-log"),
        }
        return {WAYS[way]: _cost(fills[way], num_events, Path(name) / way) for way in WAYS if way in ways}


def _bodies(events: pl.DataFrame) -> list[bytes]:
    return [
        orjson.dumps([{field: value for field, value in row.items() if value is not None} for row in part.to_dicts()])
        for part in events.iter_slices(BATCH)
    ]


def _cost(fill: Callable[[str, Path], float], num_events: int, folder: Path) -> FillCost:
    store = EmbeddedStore.start(folder)
    try:
        before, cpu = asyncio.run(_info(store.url)), _processor_seconds()
        seconds = fill(store.url, folder)
        after = asyncio.run(_info(store.url))
        cpu = _processor_seconds() - cpu
    finally:
        store.stop()
    server = sum(after[name] - before[name] for name in ("used_cpu_user", "used_cpu_sys"))
    return FillCost(
        seconds,
        cpu / num_events * 1e6,
        server / num_events * 1e6,
        (after["used_memory"] - before["used_memory"]) / num_events,
    )


async def _info(url: str) -> Mapping[str, Any]:
    redis = connect(url, timeout_ms=60_000, max_connections=1)
    try:
        return {**await redis.info("cpu"), **await redis.info("memory")}
    finally:
        await redis.aclose()


def _processor_seconds() -> float:
    """Of this process and of all its children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _environment(url: str, folder: Path) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SEGUE_")}
    return inherited | {
        "SEGUE_REDIS_URL": url,
        "SEGUE_PORT": "0",
        "SEGUE_DATA_DIR": str(folder / "data"),
        "SEGUE_ARTIFACTS_DIR": str(folder / "artifacts"),
        "SEGUE_LOG_LEVEL": "warning",
    }


def _backfill(file: Path, url: str, folder: Path, *options: str) -> float:
    command = [sys.executable, "-m", "scripts.backfill", *options, str(file)]
    done = subprocess.run(command, env=_environment(url, folder), stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode or " 0 rejected" not in done.stdout:
        raise BenchmarkError(f"{' '.join(command[1:])} ended with {done.returncode}: {done.stdout}")
    return float(done.stdout.split("; ")[1].removesuffix(" s\n"))


def _post_all(bodies: list[bytes], url: str, folder: Path) -> float:
    """Through one worker, by a few connections that each wait for their answer."""
    waiting, failed = iter(bodies), []

    def post(address: str) -> None:
        with closing(http.client.HTTPConnection(address, timeout=60)) as connection:
            for body in waiting:
                connection.request("POST", "/events", body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                if (status := answer.status) != 200 or orjson.loads(answer.read())["rejected"]:
                    failed.append(status)

    with _service(url, folder) as address:
        start = time.perf_counter()
        threads = [threading.Thread(target=post, args=(address,)) for _ in range(NUM_CONNECTIONS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - start
    if failed:
        raise BenchmarkError(
            f"{len(failed)} of {len(bodies)} batches were not stored whole; the first answered {failed[0]}"
        )
    return seconds


@contextmanager
def _service(url: str, folder: Path) -> Iterator[str]:
    """One worker on a port of its own choice; gives host:port."""
    command = [sys.executable, "-m", "app"]
    process = subprocess.Popen(command, env=_environment(url, folder), stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline() if process.stdout is not None else ""
        if "http" not in line:
            raise BenchmarkError(f"the service did not start: {line!r}")
        yield urlsplit(next(word for word in line.split() if word.startswith("http"))).netloc
    finally:
        process.terminate()
        process.communicate()


def register(subjects: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subjects.add_parser("backfill", help="past events into the store, by a file and by posting them")
    parser.add_argument("--events", type=int, default=200_000, help="default %(default)s")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="default: all")
    parser.set_defaults(run=_main)


def _main(options: argparse.Namespace) -> None:
    costs = measure(options.events, options.ways)
    print(f"{options.events:,} events, {EVENTS_PER_USER} per user, in the order of their times")
    print(f"{'':32}{'events/s':>10}{'client µs':>11}{'server µs':>11}{'bytes':>8}   {GOAL:,} events would take")
    for way, cost in costs.items():
        per_second = options.events / cost.seconds
        print(
            f"{way:32}{per_second:10,.0f}{cost.client_microseconds:11.0f}{cost.server_microseconds:11.0f}"
            f"{cost.store_bytes:8.0f}   {GOAL / per_second / 60:.0f} min, {cost.store_bytes * GOAL / 1e9:.1f} GB"
        )
    if POST in costs and FILE in costs:
        ratio = costs[POST].seconds / costs[FILE].seconds
        print(f"backfill stores {ratio:.2f} times as many events a second as posting")
