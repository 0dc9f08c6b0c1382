"""Requests per second and latency of `POST /recommend` beside a route that does nothing, both under wrk, in one run."""

import argparse
import json
import os
import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.artifacts.manifest import VOCABULARY_FILE
from app.artifacts.registry import read_current
from app.artifacts.vocabulary import ItemVocabulary
from scripts.benchmarks.errors import BenchmarkError

NUM_USERS = 500
EVENTS_PER_USER = 50
WRK_SCRIPT = """
local num_users = %d
wrk.method, wrk.path = "POST", "/recommend"
wrk.headers["Content-Type"] = "application/json"
math.randomseed(7)
request = function()
  return wrk.format(nil, nil, nil, '{"user_id":"bench-' .. math.random(num_users) .. '","k":10}')
end
done = function(summary, latency)
  local failed = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.timeout
  io.write(string.format('RESULT {"requests":%%d,"microseconds":%%d,"failed":%%d,"p50":%%d,"p90":%%d,"p99":%%d}\\n',
    summary.requests, summary.duration, failed,
    latency:percentile(50), latency:percentile(90), latency:percentile(99)))
end
"""


@dataclass(frozen=True)
class LoadResult:
    """One round of one route; latencies in milliseconds."""

    requests_per_second: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    num_failed: int


@dataclass(frozen=True)
class ServingComparison:
    """Medians over the rounds. `ratio` divides the two routes' requests per second within each round first."""

    service: LoadResult
    empty: LoadResult
    ratio: float
    model_version: str
    num_items: int


def compare_serving(artifacts: Path, *, rounds: int, seconds: int, connections: int) -> ServingComparison:
    """Alternate between the service (one worker) and the empty route, `rounds` times `seconds` each.

    Raises:
        BenchmarkError: no wrk, no promoted artifact, or an answer that no model made.
    """
    if shutil.which("wrk") is None:
        raise BenchmarkError("wrk is not installed (Debian: apt-get install wrk)")
    version = read_current(artifacts)
    if version is None:
        raise BenchmarkError(f"{artifacts} has no CURRENT; promote a version first")
    vocabulary = ItemVocabulary.read(artifacts / version / VOCABULARY_FILE)
    with tempfile.TemporaryDirectory() as folder, _service(Path(folder), artifacts) as service_url:
        _fill_histories(service_url, list(vocabulary))
        status, answer = _call(f"{service_url}/recommend", {"user_id": "bench-1", "k": 10})
        if status != 200 or json.loads(answer)["strategy"] != "model":
            raise BenchmarkError(f"the service does not answer from a model: {answer[:300]!r}")
        (Path(folder) / "answer.json").write_bytes(answer)
        script = Path(folder) / "recommend.lua"
        script.write_text(WRK_SCRIPT % NUM_USERS)
        with _empty_route(Path(folder) / "answer.json") as empty_url:
            for url in (service_url, empty_url):
                _wrk(url, script, connections, 2)  # warms up
            pairs = [
                tuple(_wrk(url, script, connections, seconds) for url in (service_url, empty_url))
                for _ in range(rounds)
            ]
    return ServingComparison(
        service=_median([pair[0] for pair in pairs]),
        empty=_median([pair[1] for pair in pairs]),
        ratio=statistics.median(one.requests_per_second / other.requests_per_second for one, other in pairs),
        model_version=version,
        num_items=len(vocabulary),
    )


@contextmanager
def _service(folder: Path, artifacts: Path) -> Iterator[str]:
    port = _free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SEGUE_")} | {
        "SEGUE_PORT": str(port),
        "SEGUE_DATA_DIR": str(folder / "data"),
        "SEGUE_ARTIFACTS_DIR": str(artifacts),
        "SEGUE_LOG_LEVEL": "warning",
    }
    with _process([sys.executable, "-m", "app"], port, environment) as url:
        yield url


@contextmanager
def _empty_route(answer: Path) -> Iterator[str]:
    port = _free_port()
    command = [sys.executable, "-m", "scripts.benchmarks.empty_route", str(answer), str(port)]
    with _process(command, port, dict(os.environ)) as url:
        yield url


@contextmanager
def _process(command: list[str], port: int, environment: dict[str, str]) -> Iterator[str]:
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while socket.socket().connect_ex(("127.0.0.1", port)) != 0:
            if process.poll() is not None or time.monotonic() > deadline:
                raise BenchmarkError(f"{' '.join(command[1:])} did not start")
            time.sleep(0.1)  # nothing announces that a port has opened
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _fill_histories(url: str, item_ids: list[str]) -> None:
    generator = random.Random(7)
    for first in range(1, NUM_USERS + 1, 20):
        batch = [
            {"user_id": f"bench-{user}", "item_id": generator.choice(item_ids), "timestamp": 1_700_000_000_000 + step}
            for user in range(first, first + 20)
            for step in range(EVENTS_PER_USER)
        ]
        status, answer = _call(f"{url}/events", {"events": batch})
        if status != 200:
            raise BenchmarkError(f"POST /events answered {status}: {answer[:300]!r}")


def _call(url: str, body: object) -> tuple[int, bytes]:
    request = urllib.request.Request(  # noqa: S310  # our own http:// on loopback
        url, data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310  # as above
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def _wrk(url: str, script: Path, connections: int, seconds: int) -> LoadResult:
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script), url]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r"^RESULT (.*)$", output, re.MULTILINE)
    if found is None:
        raise BenchmarkError(f"wrk printed no result: {output[:300]}")
    result: dict[str, Any] = json.loads(found[1])
    return LoadResult(
        requests_per_second=result["requests"] / result["microseconds"] * 1e6,
        p50_ms=result["p50"] / 1000,
        p90_ms=result["p90"] / 1000,
        p99_ms=result["p99"] / 1000,
        num_failed=result["failed"],
    )


def _median(results: list[LoadResult]) -> LoadResult:
    return LoadResult(
        requests_per_second=statistics.median(result.requests_per_second for result in results),
        p50_ms=statistics.median(result.p50_ms for result in results),
        p90_ms=statistics.median(result.p90_ms for result in results),
        p99_ms=statistics.median(result.p99_ms for result in results),
        num_failed=sum(result.num_failed for result in results),
    )


def register(subjects: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subjects.add_parser("serving", help="POST /recommend under wrk, beside a route that does nothing")
    parser.add_argument("--artifacts", type=Path, default=Path("model_artifacts"), help="default %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="of each route, in turn; default %(default)s")
    parser.add_argument("--seconds", type=int, default=10, help="per round, default %(default)s")
    parser.add_argument("--connections", type=int, default=16, help="default %(default)s")
    parser.set_defaults(run=_main)


def _main(options: argparse.Namespace) -> None:
    found = compare_serving(
        options.artifacts, rounds=options.rounds, seconds=options.seconds, connections=options.connections
    )
    print(f"model {found.model_version}, {found.num_items:,} items; histories of {EVENTS_PER_USER} events, k 10")
    print(f"{options.connections} connections, one worker; medians of {options.rounds} rounds of {options.seconds} s")
    print(f"{'':14}{'requests/s':>12}{'p50 ms':>9}{'p90 ms':>9}{'p99 ms':>9}{'failed':>9}")
    for name, result in (("/recommend", found.service), ("empty route", found.empty)):
        print(
            f"{name:14}{result.requests_per_second:12,.0f}{result.p50_ms:9.2f}{result.p90_ms:9.2f}"
            f"{result.p99_ms:9.2f}{result.num_failed:9,}"
        )
    print(f"/recommend reaches {found.ratio:.2f} of the empty route's requests/s")
