"""The rows of the page: what is asked of which catalogue, and what it should take."""

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from app.artifacts.manifest import POPULARITY_FILE, VOCABULARY_FILE, read_manifest
from app.artifacts.registry import load_model, read_current
from app.artifacts.vocabulary import ItemVocabulary
from scripts.benchmarks.errors import BenchmarkError
from scripts.benchmarks.open_loop import Call, constant_moments, run_open_loop
from scripts.benchmarks.serving.load import Load, closed_loop, load_of, open_loop
from scripts.benchmarks.serving.services import Running, empty_route, fill_histories, post, service
from scripts.benchmarks.serving.simulated import item_id, promote, write_simulated_artifact
from scripts.benchmarks.traffic import RECOMMEND, Traffic
from scripts.training.graph import random_history

NUM_USERS = 500
EVENTS_PER_USER = 50
USERS = [f"user-{number}" for number in range(NUM_USERS)]
ROUNDS = 3
OVERLOAD_CONNECTIONS = 1000
EMPTY_ROUTE = "the empty route: FastAPI, the same body, nothing done"
SMALL, MEDIUM, LARGE = 12_000, 100_000, 1_000_000
FILTER = {"field": "category", "op": "eq", "value": "category 7"}
"""One of a hundred categories."""
RELOAD_WINDOW_S = 2.0
NUM_HISTORIES = 200
SHAPE = ("dim", "members", "temporal", "rerank")
"""Of a training: what a request to its model costs depends on."""


@dataclass(frozen=True)
class Row:
    """One line of a table. `target` is what was set out to reach, `also` what the columns do not say."""

    work: str
    target: str
    load: Load | None
    also: str = ""


class Bench:
    """Artifacts are written when they are first asked for, all in one folder that goes at the end."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.seconds = seconds
        self._folder = folder

    def artifacts(self, num_items: int) -> Path:
        artifacts = self._folder / f"artifacts-{num_items}"
        if not artifacts.exists():
            write_simulated_artifact(artifacts, num_items, version="one")
            promote(artifacts, "one")
        return artifacts

    def service(self, num_items: int, *, workers: int = 1) -> AbstractContextManager[Running]:
        return filled_service(self.artifacts(num_items), item_ids(num_items), workers=workers)


@contextmanager
def filled_service(artifacts: Path, ids: Sequence[str], *, workers: int = 1) -> Iterator[Running]:
    """With 500 users, each with 50 events. Without live rules, which would first learn from these events for minutes;
    what they cost is a benchmark of its own."""
    with (
        TemporaryDirectory() as data,
        service(artifacts, Path(data), workers=workers, live_rules="false") as running,
    ):
        fill_histories(running.url, USERS, ids, EVENTS_PER_USER)
        yield running


def item_ids(num_items: int) -> list[str]:
    return [item_id(index) for index in range(1, num_items + 1)]


def recommend_bodies(**fields: object) -> list[bytes]:
    return [json.dumps({"user_id": user_id, "k": 10} | fields).encode() for user_id in USERS]


def recommend_calls(**fields: object) -> Iterator[Call]:
    return cycle([Call(RECOMMEND, "/recommend", body) for body in recommend_bodies(**fields)])


def constant_rate(bench: Bench) -> Iterator[Row]:
    """At half the rate as well, and first the empty route: a machine that is shared is not always as fast."""
    with bench.service(SMALL, workers=2) as running:
        with _empty_route(running) as empty:
            load = closed_loop(empty, "/recommend", recommend_bodies(), max(2.0, bench.seconds / 4))
        yield Row(EMPTY_ROUTE, "", load)
        for rate, target in ((500, ""), (1000, "p90 < 7 ms, p99 < 25 ms")):
            traffic = Traffic(USERS, item_ids(SMALL), share_of_events=0.2)
            load = open_loop(running, traffic.calls(), rate, bench.seconds)
            yield Row(f"{rate:,} requests/s, 80 % recommend, 20 % events, two workers", target, load)


def small_catalogue(bench: Bench) -> Iterator[Row]:
    with bench.service(SMALL, workers=2) as running:
        load = closed_loop(running, "/recommend", recommend_bodies(), bench.seconds / 2)
        yield Row("`/recommend`, closed loop, two workers", "", load)
    with bench.service(SMALL) as running:
        yield from _at_the_limit(bench, running)
        yield from _events(bench, running)
    yield _reload(bench)


@contextmanager
def _empty_route(running: Running) -> Iterator[Running]:
    """Whose answer is one of the service's."""
    with TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        answer.write_text(json.dumps(post(running.url, "/recommend", {"user_id": USERS[0], "k": 10})))
        with empty_route(answer) as empty:
            yield empty


def _at_the_limit(bench: Bench, running: Running) -> Iterator[Row]:
    """What one worker can do, beside a route that does nothing, and what becomes of twice as much."""
    with _empty_route(running) as empty:
        ours, theirs, ratio = turn_by_turn(
            lambda seconds: closed_loop(running, "/recommend", recommend_bodies(), seconds),
            lambda seconds: closed_loop(empty, "/recommend", recommend_bodies(), seconds),
            max(2.0, bench.seconds / 4),
        )
    yield Row(
        "`/recommend`, closed loop, one worker", "≥ 0.4 × the empty route", ours, f"{ratio:.2f} × the empty route"
    )
    yield Row(EMPTY_ROUTE, "", theirs)
    yield _overload(bench, running, 2 * ours.per_second)


def _overload(bench: Bench, running: Running, rate: float) -> Row:
    """More than the service can do, from callers enough to have it all under way at once if it were let in."""
    seconds = bench.seconds / 2
    before = running.cpu_seconds()
    samples = run_open_loop(
        running.url, recommend_calls(), constant_moments(rate, seconds), max_connections=OVERLOAD_CONNECTIONS
    )
    cores = (running.cpu_seconds() - before) / seconds
    is_refused = samples.status == 503
    refused = samples[is_refused]
    return Row(
        f"{rate:,.0f} requests/s, twice as many, one worker: what it let in",
        "",
        load_of(samples[~is_refused], seconds, cores),
        f"{len(refused) / len(samples):.0%} refused with 503, p99 {refused.percentile(99):.1f} ms",
    )


def trained_model(bench: Bench, artifacts: Path) -> Iterator[Row]:
    """The live version of a folder of artifacts beside the simulated one, in turns; histories are drawn from the
    popular items of either."""
    version = read_current(artifacts)
    if version is None:
        raise BenchmarkError(f"no version of {artifacts} is live; promote one")
    manifest = read_manifest(artifacts / version)
    vocabulary = list(ItemVocabulary.read(artifacts / version / VOCABULARY_FILE))
    events_V = np.load(artifacts / version / POPULARITY_FILE, allow_pickle=False)
    ids = [vocabulary[place] for place in np.argsort(-events_V[1:], kind="stable")]
    keys = ", ".join(f"`{key}={value}`" for key, value in manifest.training.items() if key in SHAPE)
    ours, other = f"trained, {manifest.num_items:,} items", f"simulated, {SMALL:,} items"
    with filled_service(artifacts, ids) as trained, bench.service(SMALL) as simulated:
        load, simulated_load, ratio = turn_by_turn(
            lambda seconds: closed_loop(trained, "/recommend", recommend_bodies(), seconds),
            lambda seconds: closed_loop(simulated, "/recommend", recommend_bodies(), seconds),
            max(2.0, bench.seconds / 4),
        )
        yield Row(f"{ours}, `/recommend`, closed loop, one worker", "", load, f"{ratio:.2f} × simulated; {keys}")
        yield Row(f"{other}, the same", "", simulated_load)
        for name, running in ((ours, trained), (other, simulated)):
            yield Row(f"{name}, 100 requests/s", "", open_loop(running, recommend_calls(), 100, bench.seconds / 2))


def turn_by_turn(
    ours: Callable[[float], Load], theirs: Callable[[float], Load], seconds: float
) -> tuple[Load, Load, float]:
    """The loads of the median round by our requests/s, and the median ratio of ours to theirs: both meet the same
    machine."""
    pairs = [(ours(seconds), theirs(seconds)) for _ in range(ROUNDS)]
    ratio = sorted(one.per_second / other.per_second for one, other in pairs)[ROUNDS // 2]
    pairs.sort(key=lambda pair: pair[0].per_second)
    return (*pairs[ROUNDS // 2], ratio)


def _events(bench: Bench, running: Running) -> Iterator[Row]:
    events = [
        {"user_id": f"writer-{number % 5000}", "item_id": item_id(1 + number % SMALL), "event_type": "click"}
        for number in range(50_000)
    ]
    batches = [json.dumps({"events": events[start : start + 500]}).encode() for start in range(0, len(events), 500)]
    load = closed_loop(running, "/events", batches, bench.seconds / 2, connections=4)
    yield Row("events in batches of 500", "≥ 20,000 events/s", load, f"{500 * load.per_second:,.0f} events/s")
    load = closed_loop(running, "/events", [json.dumps(event).encode() for event in events[:20_000]], bench.seconds / 2)
    yield Row("single events", "≥ 1,500/s", load)


def _reload(bench: Bench) -> Row:
    """A second version goes live in the middle of an open loop."""
    artifacts = bench.artifacts(SMALL)
    if not (artifacts / "two").exists():
        write_simulated_artifact(artifacts, SMALL, version="two")
    seconds, rate = max(10.0, bench.seconds / 2), 300
    with bench.service(SMALL, workers=2) as running:
        calls = recommend_calls()
        run_open_loop(running.url, calls, constant_moments(rate, 2))
        promoting = threading.Timer(seconds / 2, promote, (artifacts, "two"))
        promoting.start()
        cpu_seconds, started = running.cpu_seconds(), time.monotonic()
        samples = run_open_loop(running.url, calls, constant_moments(rate, seconds))
        cores = (running.cpu_seconds() - cpu_seconds) / (time.monotonic() - started)
        promoting.join()
        version = post(running.url, "/recommend", {"user_id": USERS[0]})["model_version"]
    promote(artifacts, "one")
    if version != "two":
        raise BenchmarkError(f"version two was promoted, but {version} answers")
    before = samples[samples.start_s < seconds / 2].percentile(99)
    # Workers look at CURRENT every two seconds; the slowest two seconds after that are the reload's.
    starts = np.arange(seconds / 2, seconds - RELOAD_WINDOW_S, 0.5)
    windows = [samples[(samples.start_s >= at) & (samples.start_s < at + RELOAD_WINDOW_S)] for at in starts]
    worst = max(window.percentile(99) for window in windows)
    return Row(
        "a new version goes live at 300 requests/s, two workers",
        "no error, p99 at most doubled for 2 s",
        load_of(samples, seconds, cores),
        f"p99 {before:.1f} ms before, {worst:.1f} ms in the worst 2 s after",
    )


def medium_catalogue(bench: Bench) -> Iterator[Row]:
    with bench.service(MEDIUM) as running:
        load = open_loop(running, recommend_calls(), 250, bench.seconds)
        yield Row("100,000 items, 250 requests/s", "p90 < 15 ms", load)


def large_catalogue(bench: Bench) -> Iterator[Row]:
    with bench.service(LARGE) as running:
        load = open_loop(running, recommend_calls(), 50, bench.seconds)
        yield Row("1,000,000 items, 50 requests/s", "p50 < 5 ms", load)
        load = open_loop(running, recommend_calls(filter=FILTER), 20, bench.seconds)
        yield Row("a filter that keeps 1 % of 1,000,000 items, 20 requests/s", "exact, p50 < 10 ms", load)
    with bench.service(LARGE, workers=2) as running:
        open_loop(running, recommend_calls(), 50, bench.seconds / 3)
        memory = running.memory()
        yield Row(
            "memory at 1,000,000 items, two workers",
            "< 300 MB per further worker",
            None,
            f"{memory.worker / 1e6:,.0f} MB per further worker, {memory.whole / 1e6:,.0f} MB in all",
        )
    yield from _retrieval(bench)


def _retrieval(bench: Bench) -> Iterator[Row]:
    """In this process: the index alone, and what the service ranks beside the exact ranking of all items."""
    folder = bench.artifacts(LARGE) / "one"
    exact = load_model(folder, history_cap=1000, ranking="exact").ranker
    approximate = load_model(folder, history_cap=1000, ranking="approximate").ranker
    rng = np.random.default_rng(11)
    histories = [random_history(rng, LARGE, EVENTS_PER_USER) for _ in range(NUM_HISTORIES)]
    hits = 0
    for history in histories:
        found, expected = (ranker.rank([history], 10)[0].item_indices.tolist() for ranker in (approximate, exact))
        hits += len(set(found) & set(expected))
    states = [approximate.states([history]) for history in histories]  # type: ignore[attr-defined]  # of format 2
    index = approximate.index  # type: ignore[attr-defined]  # approximate as asked for
    retrieval = timed(lambda place: index.search(states[place], 160))
    yield Row("retrieval alone, 1,000,000 items", "p50 < 1 ms at recall@10 ≥ 0.98", retrieval,
              f"recall@10 of the fused ranking {hits / (10 * NUM_HISTORIES):.3f}")  # fmt: skip
    yield Row("approximate ranking, no HTTP", "", timed(lambda place: approximate.rank([histories[place]], 10)))
    yield Row("exact ranking, no HTTP", "", timed(lambda place: exact.rank([histories[place]], 10)))
    adjust_BV = np.full((1, LARGE + 1), -np.inf, dtype=np.float32)
    adjust_BV[0, 7::100] = 0
    same = sum(
        approximate.rank([history], 10, adjust_BV)[0].item_indices.tolist()
        == exact.rank([history], 10, adjust_BV)[0].item_indices.tolist()
        for history in histories[:50]
    )
    yield Row("the same filter, no HTTP", "exact", None, f"{same} of 50 lists are those of the exact ranking")


def timed(call: Callable[[int], object], num_calls: int = NUM_HISTORIES) -> Load:
    """Of calls one after another in this process."""
    milliseconds = []
    for place in range(num_calls):
        start = time.perf_counter()
        call(place)
        milliseconds.append(1000 * (time.perf_counter() - start))
    p50, p90, p99 = np.percentile(milliseconds, [50, 90, 99]).tolist()
    return Load(1000 / float(np.mean(milliseconds)), p50, p90, p99, 0, 1.0)


def curves(bench: Bench) -> Iterator[Row]:
    """50 requests/s, one worker; one thing changes at a time."""
    seconds = max(3.0, bench.seconds / 5)
    for num_items in (3_000, SMALL, MEDIUM, LARGE):
        with bench.service(num_items) as running:
            load = open_loop(running, recommend_calls(), 50, seconds)
            memory = running.memory()
            also = f"{memory.worker / 1e6:,.0f} MB a worker, {memory.whole / 1e6:,.0f} MB in all"
            yield Row(f"{num_items:,} items", "", load, also)
            if num_items == SMALL:
                yield from _lengths_and_ks(running, seconds)


def _lengths_and_ks(running: Running, seconds: float) -> Iterator[Row]:
    ids = item_ids(SMALL)
    for length in (1, 10, 50, 100, 200):
        yield Row(f"history of {length}", "", open_loop(running, _histories(ids, length), 50, seconds))
    for k in (1, 10, 100, 500):
        yield Row(f"k = {k}", "", open_loop(running, recommend_calls(k=k), 50, seconds))


def _histories(ids: list[str], length: int) -> Iterable[Call]:
    rng = np.random.default_rng(length)
    while True:
        history = [ids[place] for place in rng.integers(0, len(ids), length)]
        yield Call(RECOMMEND, "/recommend", json.dumps({"history": history, "k": 10}).encode())
