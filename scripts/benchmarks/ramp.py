"""What a service did while requests came ever faster, second by second."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scripts.benchmarks.open_loop import Samples


@dataclass(frozen=True)
class Second:
    """Requests whose moments lie in one second, counted from 0; latencies in milliseconds, infinite without answer."""

    number: int
    num_requests: int
    num_failed: int
    p50_ms: float
    p90_ms: float
    p99_ms: float


def seconds_of(samples: Samples) -> list[Second]:
    """The seconds in which requests came."""
    number = samples.start_s.astype(int)
    seconds = []
    for each in np.unique(number).tolist():
        part = samples[number == each]
        seconds.append(
            Second(each, len(part), part.num_failed, part.percentile(50), part.percentile(90), part.percentile(99))
        )
    return seconds


def sustained_rate(seconds: Sequence[Second], p90_ms: float) -> float:
    """Requests of the last second before the first one with a failure or a larger p90; 0 where the first has it."""
    rate = 0.0
    for second in seconds:
        if second.num_failed or second.p90_ms > p90_ms:
            break
        rate = second.num_requests
    return rate


def plot(seconds: Sequence[Second], p90_ms: float, path: Path) -> None:
    """Latency over the requests per second at which it was measured; the ending of `path` says the format."""
    from matplotlib.figure import Figure  # takes a second, and most runs draw nothing

    rates = [second.num_requests for second in seconds]
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for label, values in (
        ("p50", [second.p50_ms for second in seconds]),
        ("p90", [second.p90_ms for second in seconds]),
        ("p99", [second.p99_ms for second in seconds]),
    ):
        axes.plot(rates, values, label=label)
    failing = [second.num_requests for second in seconds if second.num_failed]
    if failing:
        axes.axvspan(failing[0], rates[-1], alpha=0.15, color="tab:red", label="requests failed")
    axes.axhline(p90_ms, color="grey", linewidth=0.8, linestyle=":")
    axes.set_yscale("log")
    axes.set_xlabel("requests per second")
    axes.set_ylabel("latency, ms")
    axes.legend(frameon=False)
    figure.savefig(path)
