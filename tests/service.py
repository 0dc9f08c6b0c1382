"""`python -m app` as its users run it: a process, its port, its log."""

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import httpx

ROOT = Path(__file__).parent.parent
START_SECONDS = 60


class Service:
    """A running service. `log` is what it wrote to stderr so far."""

    def __init__(self, folder: Path, settings: Mapping[str, object], environment: Mapping[str, str]) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SEGUE_")}
        defaults = {
            "port": 0,
            "data_dir": folder / "data",
            "artifacts_dir": folder / "artifacts",
            "reload_seconds": 0.1,
        }
        chosen = {f"SEGUE_{name.upper()}": str(value) for name, value in (defaults | dict(settings)).items()}
        self._log: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "app"],
            cwd=ROOT,
            env=inherited | chosen | dict(environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._readers = [
            self._follow(self.process.stdout, self._lines.put),
            self._follow(self.process.stderr, self._log.append),
        ]

    def _follow(self, stream: IO[str], keep: object) -> threading.Thread:
        assert callable(keep)

        def read() -> None:
            with stream:
                for line in stream:
                    keep(line)
            keep("")  # the end

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        return thread

    def wait_for_address(self) -> str:
        line = self._lines.get(timeout=START_SECONDS)
        assert line.startswith("Segue is ready: page http"), f"{line!r}\n{self.log}"
        parts = urlsplit(line.split()[4])
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def log(self) -> str:
        return "".join(self._log)

    def wait(self) -> int:
        """The exit code; the log is complete afterwards."""
        code = self.process.wait(START_SECONDS)
        for reader in self._readers:
            reader.join(START_SECONDS)
        return code

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait()


def launch(folder: Path, *, environment: Mapping[str, str] | None = None, **settings: object) -> Service:
    """Started, but not waited for."""
    return Service(folder, settings, environment or {})


class Client(httpx.Client):
    """Speaks to one service; every answer must be JSON."""

    def __init__(self, service: Service) -> None:
        self.service = service
        super().__init__(base_url=service.wait_for_address(), timeout=20)


@contextmanager
def serving(folder: Path, *, environment: Mapping[str, str] | None = None, **settings: object) -> Iterator[Client]:
    """A service and a client of it; stopped, and its clean end checked, when the block is left."""
    service = launch(folder, environment=environment, **settings)
    try:
        with Client(service) as client:
            yield client
    finally:
        code = service.stop()
    assert code == 0, service.log


def eventually(condition: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)  # another process decides when
