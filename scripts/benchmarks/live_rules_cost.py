"""What following the event log costs a service under load: with live rules and without, turn by turn.

Two services of one artifact run side by side; while one is loaded the other one has nothing to do, so that both meet
the same machine. A load begins when the log that stood there before has been read; what there is to follow are the
events of the load.
"""

import argparse
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from scripts.benchmarks.pages import machine, markdown_table, write_section
from scripts.benchmarks.serving.load import Load, open_loop
from scripts.benchmarks.serving.rows import EVENTS_PER_USER, SMALL, USERS, item_ids
from scripts.benchmarks.serving.services import fill_histories, service
from scripts.benchmarks.serving.simulated import promote, write_simulated_artifact
from scripts.benchmarks.traffic import Traffic

ROUNDS = 3


def measure_cost(folder: Path, *, rate: float, seconds: float, num_items: int = SMALL) -> dict[str, list[Load]]:
    """Of each arm, what it did in each round."""
    artifacts = folder / "artifacts"
    write_simulated_artifact(artifacts, num_items, version="one")
    promote(artifacts, "one")
    ids = item_ids(num_items)
    found: dict[str, list[Load]] = {"off": [], "on": []}
    with (
        service(artifacts, folder / "off", live_rules="false") as off,
        service(artifacts, folder / "on", live_rules="true") as on,
    ):
        for running in (off, on):
            fill_histories(running.url, USERS, ids, EVENTS_PER_USER)
            running.wait_until_idle()
        for number in range(ROUNDS):
            for name, running in (("off", off), ("on", on)):
                traffic = Traffic(USERS, ids, share_of_events=0.2, seed=number)
                found[name].append(open_loop(running, traffic.calls(), rate, seconds))
    return found


def cost_table(found: dict[str, list[Load]]) -> str:
    """Markdown: of each arm the median of the rounds."""
    rows = [
        [
            f"live rules {name}",
            f"{median(load.per_second for load in loads):,.0f}",
            *(f"{median(getattr(load, column) for load in loads):.2f}" for column in ("p50_ms", "p90_ms", "p99_ms")),
            f"{sum(load.num_failed for load in loads)}",
            f"{median(load.cores for load in loads):.3f}",
        ]
        for name, loads in found.items()
    ]
    return markdown_table(["", "requests/s", "p50 ms", "p90 ms", "p99 ms", "failed", "cores"], rows)


def register(subjects: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subjects.add_parser("live-rules-cost", help="a service under load with live rules and without")
    parser.add_argument("--rate", type=float, default=200, help="requests/s, a fifth of them events (%(default)s)")
    parser.add_argument("--seconds", type=float, default=15, help="of each round (%(default)s)")
    parser.add_argument("--page", type=Path, default=Path("docs/benchmarks/live-rules.md"))
    parser.set_defaults(run=_main)


def _main(options: argparse.Namespace) -> None:
    with TemporaryDirectory() as folder:
        found = measure_cost(Path(folder), rate=options.rate, seconds=options.seconds)
    parts = [
        f"    python -m scripts.benchmark live-rules-cost --rate {options.rate:g} --seconds {options.seconds:g}",
        f"{machine()}. One worker each, {SMALL:,} items, {len(USERS)} users of {EVENTS_PER_USER} events; a fifth of "
        f"the requests are single events, the others `/recommend`; the arms turn by turn, medians of {ROUNDS} rounds.",
        cost_table(found),
    ]
    print(parts[-1])
    write_section(options.page, "live-rules-cost", "\n\n".join(parts))
    print(options.page)
