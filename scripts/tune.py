"""Search around the automatic recipe, on validation.

python -m scripts.tune --data data/NAME --output FOLDER [--trials N] [--minutes M]

Needs the extra `tune`. The same command goes on where an earlier one stopped, with a trial that was cut off too, and
FOLDER/config.toml is the best experiment so far: python -m scripts.train --config FOLDER/config.toml …
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from scripts.train import ProgressBar
from scripts.training.config import ConfigError, TrainingConfig, parse_assignments
from scripts.training.interactions import DataError, PreparedData
from scripts.training.recipe import choose_recipe, count
from scripts.training.run_folder import WATCHED_METRIC, RunError
from scripts.training.trainer import Observer

try:
    from scripts.training.tuning import TUNED_CONFIG_FILE, Tuning, TuningError, num_judging_cases, tune
except ModuleNotFoundError as error:
    if error.name != "optuna":
        raise
    sys.exit("tune: optuna is not installed; pip install 'segue[tune]', or pip install -e '.[train,tune]' here")


class Progress:
    """One bar per trial, and one line for how it ended; see `TuningObserver`."""

    def __init__(self, data: PreparedData, max_trials: int, *, is_silent: bool) -> None:
        self._data = data
        self._max_trials = max_trials
        self._is_silent = is_silent
        self._bar: ProgressBar | None = None

    def on_trial(self, _number: int, config: TrainingConfig, standing: Tuning) -> Observer:
        self.close()
        if self._is_silent:
            return Silence()
        best = "" if standing.best is None else f", best {standing.best:.4f}"
        label = f"trial {standing.num_ended + 1} of {self._max_trials}{best}: epoch"
        self._bar = ProgressBar(label, self._data.train, config.max_epochs)
        return self._bar

    def on_trial_end(self, number: int, outcome: str, _standing: Tuning) -> None:
        self.close()
        if not self._is_silent:
            print(f"trial {number}: {outcome}", file=sys.stderr)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None


class Silence:
    def on_member(self, member: int, num_members: int) -> None: ...
    def on_batch(self, epoch: int, tokens: int, loss: float) -> None: ...

    def on_epoch(self, record: dict[str, object], best: dict[str, object]) -> None: ...


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0; 1 where the data or the folder cannot be used; 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.tune", description="Search around the automatic recipe, on validation."
    )
    parser.add_argument("--data", type=Path, required=True, help="folder that prepare wrote")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="holds the search, to go on from")
    parser.add_argument("--trials", type=int, default=30, metavar="N", help="in all (default %(default)s)")
    parser.add_argument("--minutes", type=float, metavar="M", help="of this call; default no limit")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                        help="change a value of the automatic recipe; repeatable")  # fmt: skip
    parser.add_argument("--quiet", action="store_true", help="no progress")
    options = parser.parse_args(arguments)
    progress: Progress | None = None
    try:
        data = PreparedData.load(options.data)
        automatic = choose_recipe(count(data))[0].with_values(parse_assignments(options.set))
        progress = Progress(data, options.trials, is_silent=options.quiet)
        tuning = tune(
            data,
            automatic,
            options.output,
            max_trials=options.trials,
            max_seconds=None if options.minutes is None else 60 * options.minutes,
            observer=progress,
        )
    except (TuningError, RunError, ConfigError, DataError) as error:
        print(f"tune: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"tune: interrupted; the same command goes on from the last whole epoch in {options.output}",
              file=sys.stderr)  # fmt: skip
        return 130
    finally:
        if progress is not None:
            progress.close()
    print(table(tuning, num_judging_cases(data, automatic)))
    if tuning.best is None:
        print(f"tune: no trial ended in time; the same command goes on in {options.output}", file=sys.stderr)
        return 1
    print(options.output / TUNED_CONFIG_FILE)
    return 0


def table(tuning: Tuning, num_cases: int) -> str:
    """What the best trial changed and what it gained, as text; `num_cases` validation cases judged all trials."""
    ended = f"{tuning.num_ended} trials ended, {tuning.num_pruned} of them stopped early, {tuning.num_failed} failed"
    if tuning.automatic is None or tuning.best is None:
        return ended
    lines = [ended, f"automatic recipe  validation {WATCHED_METRIC} {tuning.automatic:.4f}"]
    gain = tuning.best / tuning.automatic - 1 if tuning.automatic else 0.0
    lines.append(f"best trial        validation {WATCHED_METRIC} {tuning.best:.4f}  {gain:+.1%}  {tuning.best_run}")
    lines += [f"  {key:<14}  {before!s:>14} → {after}" for key, (before, after) in tuning.changes.items()]
    # Of values from 0 to 1 with this mean none vary more than those that are 0 or 1.
    error = (tuning.best * (1 - tuning.best) / num_cases) ** 0.5
    lines += [
        f"the gain is on the {num_cases:,} cases that chose it; a value has a standard error of up to {error:.4f}:",
        "only evaluate on the test part, done once, measures it",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
