"""A command in a process of its own, with what the kernel counted for it."""

import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scripts.benchmarks.errors import ProcessFailed


@dataclass(frozen=True)
class ProcessCost:
    """`peak_bytes` is the largest resident set; `cpu_seconds` user and system time of all threads."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    output: str


def measured(command: Sequence[str], environment: Mapping[str, str] | None = None) -> ProcessCost:
    """Run a command to its end; stderr is passed through, for progress bars.

    A child begins with the peak of its parent, which hides its own where the parent is larger: measure from a small
    process.

    Raises:
        ProcessFailed: it did not end with 0.
    """
    with tempfile.TemporaryFile("w+") as output:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, env={**os.environ, **(environment or {})})
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise ProcessFailed(f"{' '.join(command)} ended with {process.returncode}")
        output.seek(0)
        # Linux counts in KiB.
        return ProcessCost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, output.read())
