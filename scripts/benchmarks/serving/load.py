"""Load: wrk asks as fast as it is answered, the open loop at moments of its own."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from scripts.benchmarks.errors import BenchmarkError
from scripts.benchmarks.open_loop import Call, Samples, constant_moments, run_open_loop
from scripts.benchmarks.serving.services import Running

WRK_SCRIPT = """
local bodies = {}
for line in io.lines("%s") do bodies[#bodies + 1] = line end
wrk.method, wrk.path = "POST", "%s"
wrk.headers["Content-Type"] = "application/json"
local place = 0
request = function()
  place = place %% #bodies + 1
  return wrk.format(nil, nil, nil, bodies[place])
end
done = function(summary, latency)
  local failed = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.timeout
  io.write(string.format('RESULT {"requests":%%d,"microseconds":%%d,"failed":%%d,"p50":%%d,"p90":%%d,"p99":%%d}\\n',
    summary.requests, summary.duration, failed,
    latency:percentile(50), latency:percentile(90), latency:percentile(99)))
end
"""
WARM_UP_SECONDS = 2.0
MAX_LAG_MS = 5.0


@dataclass(frozen=True)
class Load:
    """What a service did under it; latencies in milliseconds, `cores` is processor time over time on the clock."""

    per_second: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    num_failed: int
    cores: float
    note: str = ""


def open_loop(running: Running, calls: Iterable[Call], rate: float, seconds: float) -> Load:
    """Every request at its moment; a first second or two to warm up is not counted."""
    endless = iter(calls)
    run_open_loop(running.url, endless, constant_moments(rate, WARM_UP_SECONDS))
    before = running.cpu_seconds()
    samples = run_open_loop(running.url, endless, constant_moments(rate, seconds))
    return load_of(samples, seconds, (running.cpu_seconds() - before) / seconds)


def load_of(samples: Samples, seconds: float, cores: float) -> Load:
    lag_ms = samples.lag_p99_ms
    return Load(
        len(samples) / seconds,
        samples.percentile(50),
        samples.percentile(90),
        samples.percentile(99),
        samples.num_failed,
        cores,
        f"the client was up to {lag_ms:.0f} ms late" if lag_ms > MAX_LAG_MS else "",
    )


def closed_loop(running: Running, path: str, bodies: Iterable[bytes], seconds: float, connections: int = 16) -> Load:
    """wrk with one thread; the bodies come in their order, again and again.

    Raises:
        BenchmarkError: no wrk.
    """
    if shutil.which("wrk") is None:
        raise BenchmarkError("wrk is not installed (Debian: apt-get install wrk)")
    with TemporaryDirectory() as folder:
        lines, script = Path(folder) / "bodies", Path(folder) / "ask.lua"
        lines.write_bytes(b"\n".join(bodies))
        script.write_text(WRK_SCRIPT % (lines, path))
        command = ["wrk", "-t1", f"-c{connections}", "--latency", "-s", str(script), running.url]
        subprocess.run([*command, "-d1s"], check=True, capture_output=True)  # warms up
        before = running.cpu_seconds()
        output = subprocess.run([*command, f"-d{round(seconds)}s"], check=True, capture_output=True, text=True).stdout
        cpu_seconds = running.cpu_seconds() - before
    found = re.search(r"^RESULT (.*)$", output, re.MULTILINE)
    if found is None:
        raise BenchmarkError(f"wrk printed no result: {output[:300]}")
    result: dict[str, int] = json.loads(found[1])
    measured_s = result["microseconds"] / 1e6
    return Load(
        result["requests"] / measured_s,
        result["p50"] / 1000,
        result["p90"] / 1000,
        result["p99"] / 1000,
        result["failed"],
        cpu_seconds / measured_s,
    )
