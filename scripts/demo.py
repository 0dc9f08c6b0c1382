"""Everything in one go, on real data: prepare, train, evaluate, export, promote, then the service with real histories.

python -m scripts.demo                     what `make demo` runs; the service stays up until Ctrl-C
python -m scripts.demo artifact            only the artifact, unless one is live already
python -m scripts.demo seed                the artifact, then the histories through a service that ends with them
python -m scripts.demo replay --url URL    only the histories: the data's events through POST /events
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from app.artifacts.registry import read_current
from scripts.training.interactions import PreparedData

DATASET = "ml-100k"
BATCH_EVENTS = 1000
START_SECONDS = 60.0
SHOWN_USERS = 6


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.demo", description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="?", choices=("all", "artifact", "seed", "replay"), default="all")
    parser.add_argument(
        "--data", type=Path, default=Path("data") / DATASET, help="prepared data (default: %(default)s)"
    )
    parser.add_argument("--run", type=Path, default=Path("runs") / DATASET, help="training run (default: %(default)s)")
    parser.add_argument(
        "--artifacts", type=Path, default=Path(os.environ.get("SEGUE_ARTIFACTS_DIR", "model_artifacts"))
    )
    parser.add_argument("--url", default="", help="a service that runs already; without it `all` starts one")
    arguments = parser.parse_args()
    # Stopped politely it stops the service too, as it does after Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    started = time.monotonic()
    try:
        if arguments.part in ("all", "artifact", "seed"):
            make_artifact(arguments.data, arguments.run, arguments.artifacts)
        if arguments.part == "replay":
            replay(PreparedData.load(arguments.data), arguments.url or "http://127.0.0.1:8000")
        if arguments.part in ("all", "seed"):
            serve(arguments.data, arguments.artifacts, arguments.url, started, stays=arguments.part == "all")
    except subprocess.CalledProcessError as error:
        print(
            f"demo: `{' '.join(error.cmd[1:])}` ended with {error.returncode}; its last lines say why", file=sys.stderr
        )
        return 1
    except (DemoError, urllib.error.URLError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


class DemoError(Exception):
    """The demo cannot go on; the message says what to do."""


def make_artifact(data: Path, run: Path, artifacts: Path) -> None:
    version = read_current(artifacts)
    if version is not None and (data / "prepared.json").is_file():
        print(f"demo: {version} is live already; remove {artifacts / 'CURRENT'} to train again")
        return
    if not (data / "prepared.json").is_file():
        stage("prepare", "--dataset", DATASET, "--output", data, "--min-item-events", 1, "--min-user-events", 3)
    if version is None:
        # A demo that was interrupted goes on. Left alone the recipe would train twice as long for the last few percent.
        is_begun = (run / "config.json").is_file()
        shorter = ["--set", "dim=96", "--set", "max_epochs=15"]
        stage("train", "--data", data, "--output", run, *(["--resume"] if is_begun else shorter))
        stage("evaluate", "--run", run)
        exported = stage("export", "--run", run, "--artifacts", artifacts)
        stage("promote", Path(exported).name, "--artifacts", artifacts)


def stage(name: str, *options: object) -> str:
    """Run one command, show what it prints, return its last line."""
    command = [sys.executable, "-m", f"scripts.{name}", *map(str, options)]
    print(f"\n── {name} " + "─" * (60 - len(name)), flush=True)
    started = time.monotonic()
    last = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            last = line.strip() or last
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    print(f"   {name}: {time.monotonic() - started:.0f} s", flush=True)
    return last


def serve(data: Path, artifacts: Path, url: str, started: float, *, stays: bool) -> None:
    prepared = PreparedData.load(data)
    service = None
    if not url:
        host, port = os.environ.get("SEGUE_HOST", "127.0.0.1"), os.environ.get("SEGUE_PORT", "8000")
        url = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"  # noqa: S104  # compared, not bound
        refuse_taken_port(url)
        environment = {**os.environ, "SEGUE_ARTIFACTS_DIR": str(artifacts)}
        service = subprocess.Popen([sys.executable, "-m", "app"], env=environment)
    try:
        wait_until_live(url, service)
        replay(prepared, url)
        show_first_answer(prepared, url)
        users = ",".join(prepared.user_ids[:SHOWN_USERS])
        print(f"\ndemo: ready after {time.monotonic() - started:.0f} s — open {url}/?users={users}", flush=True)
        if service is not None and stays:
            print("demo: Ctrl-C stops the service", flush=True)
            service.wait()
    finally:
        if service is not None and service.poll() is None:
            service.send_signal(signal.SIGTERM)
            service.wait()


def refuse_taken_port(url: str) -> None:
    try:
        call("GET", f"{url}/livez")
    except urllib.error.HTTPError:
        pass
    except urllib.error.URLError:
        return
    raise DemoError(f"something answers at {url} already; stop it, or set SEGUE_PORT to a free port")


def wait_until_live(url: str, service: subprocess.Popen[bytes] | None) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            call("GET", f"{url}/livez")
            return
        except urllib.error.URLError as error:
            if service is not None and service.poll() is not None:
                raise DemoError(f"the service ended with {service.returncode}; its last lines say why") from error
            if time.monotonic() > deadline:
                raise DemoError(f"{url} does not answer after {START_SECONDS:.0f} s: {error}") from error
            time.sleep(0.1)  # nothing announces that a port has opened


def replay(data: PreparedData, url: str) -> None:
    """Send every event of the data unless the last user's history is there already; sending twice changes nothing."""
    last = urllib.parse.quote(data.user_ids[-1], safe="")
    if call("GET", f"{url}/users/{last}?limit=1")["history_length"] > 0:
        print("demo: the histories are in the store already")
        return
    accepted = 0
    num_batches = -(-len(data.everything.items) // BATCH_EVENTS)
    for batch in tqdm(event_batches(data), total=num_batches, desc="histories", unit="batch", leave=False):
        answer = call("POST", f"{url}/events", {"events": batch})
        accepted += answer["accepted"]
    print(f"demo: {accepted:,} events of {len(data.user_ids):,} users sent through POST /events")


def event_batches(data: PreparedData) -> Iterator[list[dict[str, Any]]]:
    """All events in order; `sequence` keeps the order of a user's events of the same time across batches."""
    batch: list[dict[str, Any]] = []
    for user_index, user_id in enumerate(data.user_ids):
        items, timestamps_ms, _ = data.everything.sequence(user_index)
        sequence, previous = 0, None
        for item_index, timestamp_ms in zip(items.tolist(), timestamps_ms.tolist(), strict=True):
            sequence = sequence + 1 if timestamp_ms == previous else 0
            previous = timestamp_ms
            batch.append(
                {
                    "user_id": user_id,
                    "item_id": data.item_ids[item_index - 1],
                    "timestamp": timestamp_ms,
                    "sequence": sequence,
                }
            )
            if len(batch) == BATCH_EVENTS:
                yield batch
                batch = []
    if batch:
        yield batch


def show_first_answer(data: PreparedData, url: str) -> None:
    user_id = data.user_ids[0]
    answer = call("POST", f"{url}/recommend", {"user_id": user_id, "k": 5, "include": ["attributes"]})
    print(f"\nPOST /recommend for user {user_id} ({answer['history_length']} events, strategy {answer['strategy']}):")
    for item in answer["items"]:
        attributes = item["attributes"]
        title = attributes.get("title", item["item_id"])
        year = f" ({attributes['year']})" if attributes.get("year") else ""
        print(f"  {item['rank']}. {title}{year}  {', '.join(attributes.get('genres', []))}  {item['score']:.2f}")


def call(method: str, url: str, body: object | None = None) -> Any:
    request = urllib.request.Request(  # noqa: S310  # the scheme is the caller's own http:// or https://
        url,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310  # as above
        return json.loads(answer.read())


if __name__ == "__main__":
    sys.exit(main())
