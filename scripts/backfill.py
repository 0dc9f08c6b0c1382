"""Past events from files into the store: python -m scripts.backfill FILE …

Each row is checked and stored as `POST /events` would do it, in the store of SEGUE_REDIS_URL or the embedded one, with
a service at work on it or without. Interrupted, the same command goes on where it stopped.
"""

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Never

from tqdm import tqdm

from app.artifacts.event_types import read_event_uses, with_uses
from app.artifacts.manifest import DEFAULT_EVENT_TYPES, EventType, read_manifest
from app.artifacts.registry import read_current
from app.errors import SegueError
from app.settings import Settings, SettingsError, load_settings
from app.state.bookmarks import Bookmarks
from app.state.history import History
from app.state.opening import history_of, open_store
from scripts.training.backfilling import PART_ROWS, StoredPart, backfill
from scripts.training.event_files import FIELDS, EventFile, read_event_file
from scripts.training.interactions import DataError

SHOWN_FAULTS = 5


def event_types_in_force(settings: Settings) -> dict[str, EventType]:
    """As a worker has them: the file's, above those of the live version, above the default.

    Raises:
        ArtifactError: the live version has no manifest that can be read.
        SettingsError: the file cannot be used.
    """
    version = read_current(settings.namespace_artifacts)
    declared = DEFAULT_EVENT_TYPES
    if version is not None:
        declared = read_manifest(settings.namespace_artifacts / version).event_types
    if settings.event_types_file is None:
        return declared
    try:
        return with_uses(declared, read_event_uses(settings.event_types_file))
    except ValueError as error:
        raise SettingsError(f"SEGUE_EVENT_TYPES_FILE: {error}") from error


@dataclass
class Backfill:
    """One run of the command. `totals` counts rows by what became of them."""

    history: History
    bookmarks: Bookmarks
    event_types: Mapping[str, EventType]
    max_future_seconds: int
    totals: Counter[str]

    async def store(self, file: EventFile, done: int, bar: "tqdm[Never]") -> None:
        """The rows of the file behind the first `done`."""
        if done == file.num_rows:
            return
        # The part before once more, which changes nothing: so events of one time keep their order across the gap.
        row = max(0, done - PART_ROWS)
        parts = file.parts(row, PART_ROWS)
        async for part in backfill(parts, self.history, self.event_types, max_future_seconds=self.max_future_seconds):
            self._report(part, row, done, bar)
            row += part.num_rows
            if row > done:
                self.totals.update(accepted=part.accepted, duplicates=part.duplicates, ignored=part.ignored)
                bar.update(row - max(done, row - part.num_rows))
                await self.bookmarks.write(file.fingerprint, row)

    def _report(self, part: StoredPart, row: int, done: int, bar: "tqdm[Never]") -> None:
        for place, fault in part.rejected.items():
            if row + place >= done:
                self.totals["rejected"] += 1
                if self.totals["rejected"] <= SHOWN_FAULTS:
                    field = (fault.pointer or "").partition("/")[2]
                    bar.write(f"row {row + place + 1}: {field or 'the event'}: {fault.detail}", file=sys.stderr)


async def run(settings: Settings, files: Mapping[Path, EventFile], options: argparse.Namespace) -> Counter[str]:
    """Rows of all files by what became of them, those of earlier runs as `done before`."""
    totals: Counter[str] = Counter()
    dropped: list[int] = []
    async with open_store(settings) as (redis, _):
        run = Backfill(
            history=history_of(settings, redis, writes_log=not options.no_log, on_log_dropped=dropped.append),
            bookmarks=Bookmarks(redis, namespace=settings.namespace, shards=settings.shards),
            event_types=event_types_in_force(settings),
            max_future_seconds=settings.max_future_seconds,
            totals=totals,
        )
        for path, file in files.items():
            done = 0 if options.from_start else min(await run.bookmarks.read(file.fingerprint), file.num_rows)
            totals["done before"] += done
            with tqdm(total=file.num_rows, initial=done, unit=" events", desc=path.name, disable=options.quiet) as bar:
                await run.store(file, done, bar)
    if dropped:
        print(
            f"The event log was full: its oldest {sum(dropped)} entries went before they were collected. Run collect, "
            "raise SEGUE_LOG_MAX_ENTRIES, or use --no-log.",
            file=sys.stderr,
        )
    return totals


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0; 1 where nothing could be stored; 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    columns = dict(pair.split("=", 1) for pair in options.column)
    try:
        files = {path: read_event_file(path, columns, options.time_unit) for path in options.files}
        for path, file in files.items():
            if file.unused:
                print(f"{path}: not used: {', '.join(file.unused)}", file=sys.stderr)
        start = time.perf_counter()
        totals = asyncio.run(run(load_settings(), files, options))
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except (SegueError, SettingsError, DataError) as error:
        print(f"backfill: {error}", file=sys.stderr)
        return 1
    outcomes = ("accepted", "duplicates", "ignored", "rejected", "done before")
    print(f"{', '.join(f'{totals[name]:,} {name}' for name in outcomes)}; {time.perf_counter() - start:.1f} s")
    return 1 if totals["rejected"] and totals["rejected"] == sum(totals.values()) else 0


def _column(text: str) -> str:
    field, separator, name = text.partition("=")
    if field not in FIELDS or not separator or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not FIELD=NAME with a FIELD of {', '.join(FIELDS)}")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.backfill", description="Store past events as POST /events would, only faster."
    )
    add = parser.add_argument
    add("files", type=Path, nargs="+", metavar="FILE", help="Parquet, CSV, TSV or NDJSON with the fields of an event")
    add("--column", type=_column, action="append", default=[], metavar="FIELD=NAME", help="what a file calls a field")
    add("--time-unit", choices=["auto", "s", "ms", "us"], default="auto", help="of numbers in the time column")
    add("--no-log", action="store_true", help="keep them out of the event log: for files that training reads as well")
    add("--from-start", action="store_true", help="forget how far an earlier run came")
    add("--quiet", action="store_true", help="no progress bar")
    return parser


if __name__ == "__main__":
    sys.exit(main())
