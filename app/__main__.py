"""python -m app: the parent process. It owns the embedded store and the metrics folder and runs the workers."""

import asyncio
import http.client
import os
import socket
import sys
import threading
import time
from contextlib import ExitStack

import structlog

from app.api.schemas.scenarios import read_scenarios
from app.artifacts.event_types import read_event_uses
from app.errors import DeviceUnavailable, SegueError, StoreUnavailable
from app.settings import PREFIX, Settings, SettingsError, load_settings
from app.state.connection import claim_store, connect
from app.state.embedded import EmbeddedStore
from app.telemetry import METRICS_ENVIRONMENT, configure_logging, metrics_folder
from app.workers import BACKLOG, CAN_BALANCE, Supervisor, reserve

BAD_SETTINGS = 2

log = structlog.get_logger(__name__)


def main() -> int:
    """The exit code: 0 after a clean stop, 1 when the service cannot run, 2 when the settings are at fault."""
    try:
        settings = load_settings()
    except SettingsError as error:
        return refuse(str(error), BAD_SETTINGS)
    configure_logging(settings.log_level)
    try:
        return run(settings)
    except SettingsError as error:
        return refuse(str(error), BAD_SETTINGS)
    except DeviceUnavailable as error:
        return refuse(f"{PREFIX}DEVICE: {error}", BAD_SETTINGS)
    except (SegueError, OSError) as error:
        return refuse(f"the service cannot start: {error}", 1)
    except KeyboardInterrupt:
        return 0


def run(settings: Settings) -> int:
    require_device(settings)
    require_files(settings)
    with ExitStack() as stack:
        listener = stack.enter_context(listen(settings.host, settings.port, num_workers=settings.workers))
        store = None
        if settings.redis_url is None:
            store = EmbeddedStore.start(settings.data_dir)
            stack.callback(store.stop)
            os.environ[f"{PREFIX}REDIS_URL"] = store.url
        asyncio.run(claim(load_settings()))
        # A worker computes in one thread; those that numpy and faiss start would take the cores of the others.
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ.setdefault(name, "1")
        os.environ[METRICS_ENVIRONMENT] = str(stack.enter_context(metrics_folder(settings.data_dir)))
        threading.Thread(target=announce, args=(settings, listener), name="announcer", daemon=True).start()
        supervisor = Supervisor(
            listener,
            num_workers=settings.workers,
            log_level=settings.log_level,
            on_tick=(lambda: None) if store is None else lambda: look_after(store),
        )
        return 0 if supervisor.run() else 1


def refuse(message: str, exit_code: int) -> int:
    print(f"segue: {message}", file=sys.stderr)
    return exit_code


def require_device(settings: Settings) -> None:
    """Raises DeviceUnavailable. The runtime is imported only to ask it: this process never ranks."""
    if settings.device != "cpu":
        from app.ranking import exact

        exact.require_device(settings.device)


def require_files(settings: Settings) -> None:
    """Raises SettingsError: once, and not in every worker."""
    for name, path, read in (
        ("EVENT_TYPES_FILE", settings.event_types_file, read_event_uses),
        ("SCENARIOS_FILE", settings.scenarios_file, read_scenarios),
    ):
        if path is not None:
            try:
                read(path)
            except ValueError as error:
                raise SettingsError(f"the service cannot start: {PREFIX}{name}: {error}") from error


def listen(host: str, port: int, *, num_workers: int) -> socket.socket:
    """What `Supervisor` gives its workers. Raises OSError with what to do about it."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        if num_workers > 1 and CAN_BALANCE:
            return reserve(family, address[:2])
        return socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        raise OSError(f"{host}:{port}: {error.strerror}; choose another {PREFIX}HOST or {PREFIX}PORT") from error


async def claim(settings: Settings) -> None:
    """Find out before any worker starts whether the store fits. One that is down is no reason not to start.

    Raises:
        StoreMismatch: it was first used with another number of shards.
    """
    if settings.redis_url is None:
        return
    redis = connect(settings.redis_url.get_secret_value(), timeout_ms=settings.redis_timeout_ms, max_connections=1)
    try:
        await claim_store(redis, namespace=settings.namespace, shards=settings.shards)
    except StoreUnavailable:
        log.warning("started_without_store")
    finally:
        await redis.aclose()


def look_after(store: EmbeddedStore) -> None:
    """Start the store beside the service again if it has died; let it write its file anew when that is due."""
    try:
        if store.ensure_running():
            log.error("store_restarted")
        elif store.rewrite_file_when_due():
            log.info("store_file_rewritten")
    except StoreUnavailable as error:
        log.error("store_down", problem=str(error))


def announce(settings: Settings, listener: socket.socket) -> None:
    """Print one line when the first worker answers."""
    port = listener.getsockname()[1]
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104  compared, not bound
    connection = http.client.HTTPConnection(address, port, timeout=300)
    while True:
        try:
            connection.request("GET", "/livez")
            connection.getresponse().read()
            break
        except ConnectionRefusedError:  # none of several workers listens yet; where there is one, the connection waits
            time.sleep(0.05)  # nothing tells the parent when a worker begins to listen
        except (OSError, http.client.HTTPException):
            return  # the service stopped before it answered, and said why
        finally:
            connection.close()
    base = f"http://{f'[{address}]' if ':' in address else address}:{port}"
    print(f"Segue is ready: page {base}/  API {base}/docs", flush=True)


if __name__ == "__main__":
    sys.exit(main())
