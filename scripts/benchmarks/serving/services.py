"""What is measured: the service and the empty route as processes of their own, and what the kernel counts for them."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scripts.benchmarks.errors import BenchmarkError

START_SECONDS = 300
"""A million items are hashed, mapped and put into columns before the first answer."""
IDLE_CORES = 0.02
IDLE_SECONDS = 6.0
"""Longer than a worker rests between two looks at the event log."""
PATIENCE_SECONDS = 600
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Memory:
    """In bytes. `whole`: proportional set size of all processes, the store included; `worker`: what one worker has for
    itself, and so what a further one adds."""

    whole: int
    worker: int


@dataclass(frozen=True)
class Running:
    url: str
    pid: int

    def cpu_seconds(self) -> float:
        """Processor time of its processes that live, since they began."""
        return sum(_cpu_seconds(pid) for pid in _family(self.pid))

    def wait_until_idle(self) -> None:
        """Until it has nothing left to do, such as to learn from the events that it was filled with.

        Raises BenchmarkError when it still works after `PATIENCE_SECONDS`.
        """
        end = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < end:
            before = self.cpu_seconds()
            time.sleep(IDLE_SECONDS)  # over which its processor time is counted
            if self.cpu_seconds() - before < IDLE_CORES * IDLE_SECONDS:
                return
        raise BenchmarkError(f"the service did not come to rest within {PATIENCE_SECONDS} s without a request")

    def memory(self) -> Memory:
        """Raises BenchmarkError where no worker is found."""
        family = _family(self.pid)
        workers = [pid for pid in family if b"spawn_main" in _command(pid)]
        if not workers:
            raise BenchmarkError("the service has no worker process")
        whole = sum(_rollup(pid, "Pss") for pid in family)
        private = max(_rollup(pid, "Private_Clean") + _rollup(pid, "Private_Dirty") for pid in workers)
        return Memory(whole, private)


@contextmanager
def service(artifacts: Path, folder: Path, *, workers: int = 1, **settings: object) -> Iterator[Running]:
    """`python -m app` with a store of its own in `folder`, ranking by the artifacts' current version."""
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SEGUE_")}
    chosen = {"port": port, "data_dir": folder, "artifacts_dir": artifacts, "workers": workers, "log_level": "error"}
    environment |= {f"SEGUE_{name.upper()}": str(value) for name, value in (chosen | settings).items()}
    with running_process([sys.executable, "-m", "app"], port, environment) as running:
        # It listens before its workers are ready; the first answer waits for one of them.
        answer = post(running.url, "/recommend", {"history": [], "k": 1})
        if answer["model_version"] is None:
            raise BenchmarkError(f"the service answers without a model: {answer}")
        yield running


@contextmanager
def empty_route(answer: Path) -> Iterator[Running]:
    port = free_port()
    command = [sys.executable, "-m", "scripts.benchmarks.serving.empty_route", str(answer), str(port)]
    with running_process(command, port) as running:
        yield running


def drawn_items(num_users: int, num_items: int, events_per_user: int) -> list[list[int]]:
    """The item indices of each user's events, oldest first: the same each time, and the popular items are the first
    ones."""
    draw = random.Random(7)
    return [[int((num_items + 1) ** draw.random()) for _ in range(events_per_user)] for _ in range(num_users)]


def fill_histories(url: str, user_ids: Sequence[str], item_ids: Sequence[str], events_per_user: int) -> None:
    """With `drawn_items`."""
    histories = list(zip(user_ids, drawn_items(len(user_ids), len(item_ids), events_per_user), strict=True))
    for first in range(0, len(histories), 20):
        batch = [
            {"user_id": user_id, "item_id": item_ids[index - 1], "timestamp": 1_700_000_000_000 + 1000 * step}
            for user_id, indices in histories[first : first + 20]
            for step, index in enumerate(indices)
        ]
        post(url, "/events", {"events": batch})


def post(url: str, path: str, body: object) -> dict[str, object]:
    """Raises BenchmarkError for any answer but 200."""
    request = urllib.request.Request(  # noqa: S310  # our own http:// on loopback
        url + path, data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=START_SECONDS) as answer:  # noqa: S310  # as above
            content: dict[str, object] = json.load(answer)
    except urllib.error.HTTPError as error:
        raise BenchmarkError(f"POST {path} answered {error.code}: {error.read()[:300]!r}") from error
    return content


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def running_process(command: list[str], port: int, environment: dict[str, str] | None = None) -> Iterator[Running]:
    """Until the end of the block, from when it listens.

    Raises:
        BenchmarkError: it ended before, or took too long.
    """
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise BenchmarkError(f"{' '.join(command[1:])} did not start")
            time.sleep(0.1)  # nothing announces that a port has opened
        yield Running(f"http://127.0.0.1:{port}", process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _family(pid: int) -> list[int]:
    """The process and all below it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in _family(int(child)))]


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def _rollup(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise BenchmarkError(f"the kernel does not say {field} of process {pid}")
