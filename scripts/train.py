"""Train a model: python -m scripts.train --data data/NAME --output runs/NAME

Without --config a recipe is chosen from the data; --set changes single values of either. An interrupted training goes
on with --resume and ends as if it had not been interrupted. --refit trains once more on everything afterwards, for
shipping.

Several processes train one model, each on its part of every batch: torchrun --standalone --nproc-per-node 2 -m
scripts.train …, on as many GPUs where there are any.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

# Before torch is loaded: threads that spin while they wait cost a busy machine five times the processor time, and an
# idle one nothing.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from tqdm import tqdm

from scripts.training.config import ConfigError, TrainingConfig, parse_assignments, read_config
from scripts.training.distributed import Processes, joined
from scripts.training.fitting import Fitted
from scripts.training.interactions import DataError, Interactions, PreparedData
from scripts.training.recipe import choose_recipe, count
from scripts.training.run_folder import WATCHED_METRIC, RunConfig, RunError, read_run_config, start_run
from scripts.training.tracking import TRACKERS, TrackerMissing, tracker
from scripts.training.trainer import Outcome, refit, train


class ProgressBar:
    """One bar over all epochs; the time left is that of the last possible epoch, early stopping ends sooner."""

    def __init__(self, label: str, interactions: Interactions, num_epochs: int, *, is_shown: bool = True) -> None:
        self._steps_per_epoch = int(np.maximum(interactions.lengths - 1, 0).sum())
        self._num_epochs = num_epochs
        self._label = label
        self._metric = ""
        self._member = ""
        self._bar = tqdm(total=self._steps_per_epoch * num_epochs, unit="step", unit_scale=True, file=sys.stderr,
                         disable=not is_shown)  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def on_member(self, member: int, num_members: int) -> None:
        if num_members > 1:
            self._bar.reset()
            self._member = f"model {num_members - member + 1}/{num_members}, "

    def on_batch(self, epoch: int, tokens: int, loss: float) -> None:
        before = (epoch - 1) * self._steps_per_epoch
        if self._bar.n < before:  # a resumed training begins in the middle
            self._bar.initial = self._bar.n = before
        self._bar.set_description(f"{self._member}{self._label} {epoch}/{self._num_epochs}", refresh=False)
        self._bar.set_postfix_str(f"loss {loss:.3f}{self._metric}", refresh=False)
        self._bar.update(tokens)

    def on_epoch(self, record: dict[str, Any], best: dict[str, Any]) -> None:
        if WATCHED_METRIC in record:
            now, then = record[WATCHED_METRIC], best[WATCHED_METRIC]
            self._metric = f", {WATCHED_METRIC} {now:.4f}, best {then:.4f} (epoch {best['epoch']})"


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0; 1 where the data or the folder cannot be used; 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m scripts.train", description="Train a model on prepared data.")
    parser.add_argument("--data", type=Path, required=True, help="folder that prepare wrote")
    parser.add_argument("--output", type=Path, required=True, help="run folder to write")
    parser.add_argument("--config", type=Path, help="experiment (TOML); without it a recipe is chosen from the data")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one value; repeatable (docs/training.md lists the keys)",
    )
    parser.add_argument("--resume", action="store_true", help="go on where an interrupted run stopped")
    parser.add_argument("--refit", action="store_true", help="then train on everything as well, for shipping")
    parser.add_argument("--tracker", choices=TRACKERS, default="tensorboard",
                        help="where the epochs' figures go beside the run folder (default %(default)s)")  # fmt: skip
    options = parser.parse_args(arguments)
    try:
        data = PreparedData.load(options.data)
        config = _configuration(options, data)
        with joined(config.training.device) as processes:
            if processes.is_first:
                start_run(options.output, config, resume=options.resume)
                _print_table(config, data)
            _train(data, config.training, options, processes)
    except (RunError, ConfigError, DataError, TrackerMissing) as error:
        print(f"train: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"train: interrupted; --resume goes on from the last whole epoch in {options.output}", file=sys.stderr)
        return 130
    if processes.is_first:
        print(options.output)
    return 0


def _configuration(options: argparse.Namespace, data: PreparedData) -> RunConfig:
    if options.resume and (options.output / "config.json").is_file():
        if options.config or options.set:
            raise ConfigError("a resumed run keeps its configuration; leave out --config and --set")
        return read_run_config(options.output)
    statistics = count(data)
    reasons: dict[str, str] = {}
    if options.config:
        training = read_config(options.config)
    else:
        training, reasons = choose_recipe(statistics)
    changes = parse_assignments(options.set)
    training = training.with_values(changes)
    reasons = {**reasons, **dict.fromkeys(changes, "--set")}
    folder = str(data.folder)
    return RunConfig(training, folder, data.fingerprint, data.num_items, reasons, asdict(statistics))


def _print_table(config: RunConfig, data: PreparedData) -> None:
    """What was counted, then each value with what chose it."""
    values = asdict(config.training)
    width = max(map(len, values))
    print(f"  {'data':<{width}}  {count(data)}")
    print(f"  {'seen items':<{width}}  {'masked' if data.exclude_seen else 'eligible':<16}  {data.exclude_seen_reason}")
    for name, value in values.items():
        print(f"  {name:<{width}}  {value!s:<16}  {config.reasons.get(name, '')}".rstrip())


def _train(data: PreparedData, config: TrainingConfig, options: argparse.Namespace, processes: Processes) -> None:
    output, start_tracker, is_first = options.output, tracker(options.tracker), processes.is_first
    with ProgressBar("epoch", data.train, config.max_epochs, is_shown=is_first) as bar:
        outcome = train(data, config, output, observer=bar, start_tracker=start_tracker, processes=processes)
    if is_first:
        _print_outcome(outcome)
    if not options.refit:
        return
    epochs = outcome.best_epochs
    with ProgressBar("refit", data.everything, max(epochs), is_shown=is_first) as bar:
        refit(data, config, output, num_epochs=epochs, observer=bar, start_tracker=start_tracker, processes=processes)
    if is_first:
        print(f"trained on everything for {', '.join(map(str, epochs))} epochs; export takes these weights")


def _print_outcome(outcome: Outcome) -> None:
    best = outcome.best
    print(
        f"best epoch {best['epoch']} of {outcome.num_epochs}: validation "
        f"hit_rate@10 {best['hit_rate@10']:.4f}, {WATCHED_METRIC} {best[WATCHED_METRIC]:.4f}"
    )
    if outcome.fitted:
        _print_fitted(outcome.fitted)
    if outcome.trades:
        before, after = outcome.trades[0], outcome.trades[-1]
        print(
            f"discount of popularity {after.strength:g}: validation hit_rate@10 {after.hit_rate:.4f} instead of "
            f"{before.hit_rate:.4f}, of the tail {after.tail_hit_rate:.4f} instead of {before.tail_hit_rate:.4f}, "
            f"coverage@10 {after.coverage:.3f} instead of {before.coverage:.3f}"
        )


def _print_fitted(fitted: Fitted) -> None:
    reached = ", ".join(f"{share:g}: {value:.4f}" for share, value in fitted.by_share.items())
    print(f"share of sequential rules {fitted.model.share:g}, by validation {WATCHED_METRIC} of each: {reached}")
    if fitted.by_returns:
        reached = ", ".join(f"{returns:g}: {value:.4f}" for returns, value in fitted.by_returns.items())
        print(f"share of the history's own items {fitted.model.returns:g}, by the same of each: {reached}")
    if fitted.reranked is not None:
        verdict = "kept" if fitted.model.reranker else "left out"
        print(f"re-ranked: {fitted.reranked:.4f} instead of {fitted.mixture:.4f}, {verdict}")


if __name__ == "__main__":
    sys.exit(main())
