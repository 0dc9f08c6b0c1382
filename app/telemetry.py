"""What the service says about itself: metrics that stay right with several workers, and structured logs."""

import contextlib
import fcntl
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import orjson
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector

METRICS_ENVIRONMENT = "PROMETHEUS_MULTIPROC_DIR"
"""Read by prometheus_client when it is first imported: set it before a worker starts."""

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

POSITIONS = (
    ("1", 1, 1), ("2", 2, 2), ("3", 3, 3), ("4", 4, 4), ("5", 5, 5),
    ("6-10", 6, 10), ("11-20", 11, 20), ("21-50", 21, 50), ("51+", 51, 100_000),
)  # fmt: skip
"""Label, first and last position: few enough for a metric, one by one where it matters."""

request_id: ContextVar[str] = ContextVar("request_id")


def current_request_id() -> str:
    """Empty outside a request."""
    return request_id.get("")


class Telemetry:
    """The metrics of one worker, each labelled with the namespace.

    Under `python -m app` every worker writes its numbers to its own file in one folder and `render` adds all of them,
    whichever worker is asked. Without that folder the numbers are this process's alone.
    """

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._folder = Path(os.environ[METRICS_ENVIRONMENT]) if METRICS_ENVIRONMENT in os.environ else None
        if self._folder is not None and values.ValueClass is values.MutexValue:
            raise RuntimeError(f"{METRICS_ENVIRONMENT} was set after prometheus_client was imported")
        self._registry = CollectorRegistry()
        # In a shared folder the files are the registry.
        own = None if self._folder is not None else self._registry
        common = ["namespace"]
        self._requests = Histogram(
            "segue_request_seconds",
            "Time from request to answer.",
            [*common, "route", "method", "status"],
            buckets=SECONDS,
            registry=own,
        )
        self._events = Counter(
            "segue_events", "Events received, by what became of them.", [*common, "outcome"], registry=own
        )
        self._items = Counter(
            "segue_item_changes", "Items received, by what became of them.", [*common, "outcome"], registry=own
        )
        self._recommendations = Counter(
            "segue_recommendations",
            "Answers of /recommend and /similar; `reasons` are joined by +.",
            [*common, "strategy", "reasons", "model_version"],
            registry=own,
        )
        self._recommended = Counter(
            "segue_recommended_items",
            "Items in answers of /recommend and /similar, by their position.",
            [*common, "strategy", "model_version", "position"],
            registry=own,
        )
        self._attributed = Counter(
            "segue_attributed_events",
            "Stored events that carry a recommendation id, by what made that list and the item's position in it.",
            [*common, "strategy", "model_version", "event_type", "position"],
            registry=own,
        )
        self._reloads = Counter(
            "segue_model_reloads", "Tries to load a model version, per worker.", [*common, "outcome"], registry=own
        )
        self._live = Gauge(
            "segue_model_live_workers",
            "Workers that serve this version.",
            [*common, "model_version"],
            multiprocess_mode="livesum",
            registry=own,
        )
        self._dropped = Counter(
            "segue_log_entries_dropped",
            "Entries of the event log that went before collect removed them, and served records that never got there.",
            [*common, "reason"],
            registry=own,
        )
        self._store_errors = Counter(
            "segue_store_errors", "Requests that met a store which did not answer.", common, registry=own
        )
        self._live_version: str | None = None
        # Finding a labelled child takes longer than counting: keep those in use. Their number is bounded, since
        # every label comes from a closed list, the routes, or the versions on disk.
        self._children: dict[tuple[str, ...], Any] = {}

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        self._child(self._requests, route, method, str(status)).observe(seconds)

    def events(self, outcome: str, amount: int) -> None:
        if amount:
            self._child(self._events, outcome).inc(amount)

    def items(self, outcome: str, amount: int) -> None:
        if amount:
            self._child(self._items, outcome).inc(amount)

    def recommendation(self, strategy: str, reasons: Sequence[str], model_version: str | None) -> None:
        self._child(self._recommendations, strategy, "+".join(reasons), model_version or "").inc()

    def recommended(self, strategy: str, model_version: str | None, first_position: int, last_position: int) -> None:
        """One answer's items, from position to position."""
        for label, first, last in POSITIONS:
            amount = min(last, last_position) - max(first, first_position) + 1
            if amount > 0:
                self._child(self._recommended, strategy, model_version or "", label).inc(amount)

    def attributed(self, strategy: str, model_version: str, event_type: str, position: int | None) -> None:
        label = next((label for label, first, last in POSITIONS if position and first <= position <= last), "")
        self._child(self._attributed, strategy, model_version, event_type, label).inc()

    def reload(self, version: str, error: str | None, seconds: float) -> None:
        """A `ReloadListener` of the model registry."""
        del seconds  # in the request histogram's place there is only the log, which the registry writes
        self._child(self._reloads, "failed" if error else "live").inc()
        if error is None:
            if self._live_version is not None:
                self._child(self._live, self._live_version).set(0)
            self._live_version = version
            self._child(self._live, version).set(1)

    def log_dropped(self, reason: str, amount: int) -> None:
        if amount:
            self._child(self._dropped, reason).inc(amount)

    def store_error(self) -> None:
        self._child(self._store_errors).inc()

    def render(self) -> bytes:
        """All workers' metrics in the Prometheus text format."""
        if self._folder is None:
            return generate_latest(self._registry)
        forget_dead_workers(self._folder)
        together = CollectorRegistry()
        MultiProcessCollector(together, str(self._folder))  # type: ignore[no-untyped-call]  # the library has no annotation here
        return generate_latest(together)

    def _child(self, metric: Histogram | Counter | Gauge, *labels: str) -> Any:
        key = (metric._name, *labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = metric.labels(self._namespace, *labels)
        return child


def forget_dead_workers(folder: Path) -> None:
    """Remove the gauges of processes that are gone. Their counters stay, or a sum would fall when a worker dies."""
    for file in folder.glob("gauge_live*_*.db"):
        try:
            os.kill(int(file.stem.rpartition("_")[2]), 0)
        except ProcessLookupError:
            file.unlink(missing_ok=True)


@contextlib.contextmanager
def metrics_folder(data_dir: Path) -> Iterator[Path]:
    """A fresh folder for the metrics of one parent process and its workers, removed at the end.

    Folders of parents that were killed are removed too: they are those whose lock nobody holds.
    """
    parent = data_dir / "metrics"
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.iterdir():
        with contextlib.suppress(OSError), (left / "lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(dir=parent))
    with (folder / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def configure_logging(level: str) -> None:
    """One JSON object a line on stderr, for our own log and for that of the libraries.

    Bodies, headers and URLs of the store are never logged, only codes, counts, routes and versions.
    """
    shared: list[structlog.types.Processor] = [
        _add_request_id,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    render = structlog.processors.JSONRenderer(serializer=_dumps)
    severity = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared, render],
        wrapper_class=structlog.make_filtering_bound_logger(severity),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render]
        )
    )
    logging.basicConfig(handlers=[handler], level=severity, force=True)


def _add_request_id(_logger: object, _method: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    name = current_request_id()
    if name:
        entry["request_id"] = name
    return entry


def _dumps(entry: Mapping[str, Any], **_: Any) -> str:
    return orjson.dumps(entry, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
