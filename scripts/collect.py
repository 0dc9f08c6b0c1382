"""Event log → Parquet, resumable: python -m scripts.collect --output data/log

Reads the store of SEGUE_REDIS_URL or the embedded one, writes what happened (`events-*.parquet`) and what was shown
(`served-*.parquet`), and removes from the log only what is safely on the disk and older than a minute: a service with
live rules may not have read the rest yet. `scripts.prepare` reads the folder.
"""

import argparse
import asyncio
import sys
from pathlib import Path

from app.errors import SegueError
from app.settings import Settings, SettingsError, load_settings
from app.state.event_log import open_event_log
from scripts.training.collecting import collect, locked_folder
from scripts.training.interactions import DataError

FOLLOW_SECONDS = 5.0


async def run(settings: Settings, output: Path, *, batch_entries: int, follow: bool) -> None:
    with locked_folder(output):
        async with open_event_log(settings) as log:
            while True:
                num_batches = num_events = num_served = num_duplicates = 0
                async for batch in collect(log, output, batch_entries=batch_entries):
                    num_batches += 1
                    num_events += batch.num_events
                    num_served += batch.num_served
                    num_duplicates += batch.num_duplicates
                    print(f"batch {batch.number}: {batch.num_events} events, {batch.num_served} lists", file=sys.stderr)
                if num_batches or not follow:
                    print(
                        f"caught up: {num_events} events and {num_served} served lists in {num_batches} batches, "
                        f"{num_duplicates} duplicates left out",
                        file=sys.stderr,
                    )
                if not follow:
                    return
                await asyncio.sleep(FOLLOW_SECONDS)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.collect", description="Move the event log into Parquet files."
    )
    parser.add_argument("--output", type=Path, default=Path("data/log"), help="log folder (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=100_000, help="entries per batch of files (default: %(default)s)")
    parser.add_argument("--follow", action="store_true", help="go on collecting every 5 seconds until interrupted")
    arguments = parser.parse_args()
    if arguments.batch < 1:
        parser.error("--batch must be at least 1")
    try:
        asyncio.run(run(load_settings(), arguments.output, batch_entries=arguments.batch, follow=arguments.follow))
    except KeyboardInterrupt:
        pass  # how --follow ends; what is not collected yet stays in the log
    except (SegueError, SettingsError, DataError) as error:
        print(error, file=sys.stderr)
        return 1
    print(arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
