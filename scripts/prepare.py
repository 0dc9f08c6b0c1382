"""Interactions → data folder.

python -m scripts.prepare --interactions events.parquet --items items.parquet --output data/shop
python -m scripts.prepare --dataset ml-100k --output data/ml-100k
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from app.artifacts.event_types import read_event_uses
from scripts.training.cleaning import CleaningRules, Columns
from scripts.training.datasets import DATASETS, EXPECTED_FILES, Source, fetch, read_items, read_table
from scripts.training.interactions import DataError, PreparedData
from scripts.training.preparation import PreparationConfig, prepare

NUM_STEPS = 6


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, or 1 where the data cannot be used."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        event_uses = read_event_uses(options.event_types) if options.event_types else {}
    except ValueError as error:
        parser.error(f"--event-types: {error}")
    config = PreparationConfig(
        name=options.output.name,
        rules=CleaningRules(
            time_unit=options.time_unit,
            min_item_events=options.min_item_events,
            min_user_events=options.min_user_events,
            max_user_events=options.max_user_events,
            max_events_per_hour=options.max_events_per_hour,
            count_only=tuple(options.count_only),
            event_uses=event_uses,
        ),
        split=options.split,
        test_share=options.test_share,
        exclude_seen=options.exclude_seen,
    )
    try:
        source = _source(options)
        with tqdm(
            total=NUM_STEPS, file=sys.stderr, disable=options.quiet, bar_format="{desc:<22} {bar} {elapsed}"
        ) as bar:

            def show(step: str) -> None:
                bar.set_description_str(step)
                bar.update()

            data = prepare(source, config, options.output, show)
    except (DataError, OSError) as error:
        print(f"prepare: {error}", file=sys.stderr)
        return 1
    print(table(data))
    print(options.output)
    return 0


def table(data: PreparedData) -> str:
    """What was dropped and why, and what remains, as text."""
    summary = data.summary
    quartiles = " · ".join(f"{value:g}" for value in summary["length_quartiles"])
    split = data.split + "".join(f", {part} from {time_ms} ms" for part, time_ms in data.split_times_ms.items())
    lines = [
        ("rows read", f"{summary['num_rows_read']:,}", f"time: {summary['time_unit']}"),
        *((f"− {entry['reason']}", f"{entry['rows']:,}", "") for entry in data.cleaning if entry["rows"]),
        ("interactions", f"{data.num_interactions:,}", ""),
        ("users", f"{data.num_users:,}", ""),
        ("items", f"{data.num_items:,}", ""),
        (
            "events per user",
            f"{summary['length_mean']:.1f}",
            f"quartiles {quartiles}",
        ),
        ("density", f"{summary['density']:.4%}", "user-item pairs that occur"),
        ("share of repeats", f"{summary['share_of_repeats']:.1%}", ""),
        ("seen items", "excluded" if data.exclude_seen else "eligible", data.exclude_seen_reason),
        ("split", "", split),
    ]
    widths = [max(len(line[column]) for line in lines) for column in (0, 1)]
    return "\n".join(f"{name:<{widths[0]}}  {number:>{widths[1]}}  {note}".rstrip() for name, number, note in lines)


def _source(options: argparse.Namespace) -> Source:
    named = {
        field: getattr(options, f"{field}_column")
        for field in ("user", "item", "timestamp", "event_type", "value")
        if getattr(options, f"{field}_column") is not None
    }
    if options.dataset:
        dataset = DATASETS[options.dataset]
        source = dataset.read(fetch(dataset, options.downloads), options.downloads)
        return replace(source, columns=replace(source.columns, **named))
    columns = Columns(**named)
    items = read_items(options.items, columns.item) if options.items else None
    return Source(read_table(options.interactions), items, columns, str(options.interactions))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.prepare",
        description="Clean events, split them into training, validation and test, and write a data folder.",
    )
    add = parser.add_argument
    origin = parser.add_mutually_exclusive_group(required=True)
    origin.add_argument("--interactions", type=Path, metavar="FILE", help=f"events: {EXPECTED_FILES}")
    origin.add_argument("--dataset", choices=sorted(DATASETS), help="a public data set, downloaded once")
    add("--items", type=Path, metavar="FILE", help="attributes: item_id and any other columns")
    add("--output", type=Path, required=True, metavar="FOLDER", help="data/NAME")
    add("--downloads", type=Path, default=Path("data/downloads"), metavar="FOLDER", help="where downloads are kept")
    for field in ("user", "item", "timestamp", "event-type", "value"):
        add(f"--{field}-column", metavar="NAME", help=f"where the {field.replace('-', ' ')} is")
    add("--time-unit", choices=["auto", "s", "ms", "us", "order"], default="auto", help="of numbers in the time column")
    add("--split", choices=["leave-one-out", "temporal"], default="leave-one-out", help="default %(default)s")
    add("--test-share", type=float, default=0.1, help="share of events a temporal split tests on (default %(default)s)")
    add("--min-item-events", type=_count, default=5, metavar="N", help="drop rarer items (default %(default)s)")
    add("--min-user-events", type=_count, default=3, metavar="N", help="drop users with fewer (default %(default)s)")
    add("--max-user-events", type=_count, default=0, metavar="N", help="drop users with more (default: no cap)")
    add("--max-events-per-hour", type=_count, default=0, metavar="N", help="drop users with more (default: no cap)")
    add("--count-only", action="append", default=[], metavar="TYPE", help="an event type that stays out of sequences")
    add("--event-types", type=Path, metavar="FILE", help="TOML: what each type is used for, as SEGUE_EVENT_TYPES_FILE")
    add("--exclude-seen", choices=["auto", "yes", "no"], default="auto", help="recommend only new items")
    add("--quiet", action="store_true", help="no progress bar")
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{number} is negative; expected 0 or more")
    return number


if __name__ == "__main__":
    sys.exit(main())
