"""Rules that learn from the event log while a service runs, against the tables that its model was exported with.

A global-temporal split is replayed: the model learns from the first 80 % of the events and is not trained again. What
comes after goes to the live rules event by event, as a service would see it, and every event of the last tenth is a
case, with the history as it had grown by then. Both arms rank with the same attention; an item that training never saw
has the row that the service gives it.

Shapes: V catalogue with padding (row = item index), B cases.
"""

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from app.ranking.rules import KnownRules, NewRules
from scripts.benchmarks.accuracy import add_experiment_arguments
from scripts.benchmarks.cold_items import added_vectors
from scripts.benchmarks.errors import BenchmarkError
from scripts.benchmarks.experiments import TrainingProgress, benchmark_data, temporal_split, train_once
from scripts.benchmarks.pages import machine, markdown_table, share, signed, write_section
from scripts.train import ProgressBar
from scripts.training.config import parse_assignments
from scripts.training.evaluation import bootstrap_interval
from scripts.training.fusion import FusedModel, RuleTensors
from scripts.training.interactions import PreparedData
from scripts.training.recipe import choose_recipe, count
from scripts.training.run_folder import load_run
from scripts.training.scorer import model_inputs

DEFAULT_SETS = ("ml-100k", "completejourney")
PERIODS = 5
MIN_EVENTS_PER_REFRESH = 100
"""Tables are made anew after so many events, or more where that would be done more than `MAX_REFRESHES` times: later
than a service does, which waits seconds."""
MAX_REFRESHES = 400
EVENTS_PER_CASE = 5
MAX_CASES = 10_000
"""Every fifth event of the test period is a case, fewer where these would be more."""


@dataclass(frozen=True, eq=False)
class Replay:
    """Of each case, by time: whether its target was among the first ten with frozen and with live rules, and whether
    training had never seen it."""

    data_name: str
    users: NDArray[np.int64]
    frozen: NDArray[np.bool_]
    live: NDArray[np.bool_]
    is_new: NDArray[np.bool_]


def replay(data: PreparedData, model: FusedModel) -> Replay:
    """Raises BenchmarkError: validation chose a model without rules."""
    if model.rules is None:
        raise BenchmarkError(f"{data.name}: validation gave the rules no share, so there is nothing to keep up to date")
    counts_V = data.train.item_counts(data.num_items)
    known = KnownRules(
        model.rules.items_VN.numpy(), model.rules.weights_VN.numpy(), counts_V, data.num_items, index_of=int
    )
    vectors_VD = _as_served(data, model, counts_V)
    rules = NewRules()
    tables = rules.over(known)
    found: list[tuple[int, bool, bool, bool]] = []
    is_test = data.everything.timestamps_ms >= data.split_times_ms["test"]
    events_per_case = max(EVENTS_PER_CASE, int(is_test.sum()) // MAX_CASES)
    for places in _stretches(data):
        tested = places[is_test[places]][::events_per_case]
        if len(tested):
            items_VN, weights_VN = map(torch.from_numpy, tables)
            newest = RuleTensors(items_VN, weights_VN, model.rules.statistics_VS)
            found += _tested(data, model, vectors_VD, tested, newest, counts_V)
        for place in places.tolist():
            start = data.everything.offsets[_owner(data, place)]
            earlier = data.everything.items[max(start, place - 20) : place]
            rules.add(str(data.everything.items[place]), [str(item) for item in earlier.tolist()])
        tables = rules.over(known, tables)
    users, frozen, live, is_new = zip(*found, strict=True)
    return Replay(data.name, np.array(users), np.array(frozen), np.array(live), np.array(is_new))


def _as_served(data: PreparedData, model: FusedModel, counts_V: NDArray[np.int64]) -> torch.Tensor:
    """(V, D): the model's vectors; those of items without an event in training as `app.recommender.cold_items` has
    them."""
    vectors_VD = model.item_vectors().detach().clone()
    new = np.flatnonzero(counts_V[1:] == 0) + 1
    if len(new):
        vectors_VD[new] = added_vectors(model, data, [data.attributes[item - 1] for item in new.tolist()])
    return vectors_VD


def _stretches(data: PreparedData) -> Iterator[NDArray[np.int64]]:
    """Places of the events after training, by time, so many as lie between two refreshes."""
    times_ms = data.everything.timestamps_ms
    places = np.flatnonzero(times_ms >= data.split_times_ms["validation"])
    places = places[np.argsort(times_ms[places], kind="stable")]
    size = max(MIN_EVENTS_PER_REFRESH, len(places) // MAX_REFRESHES)
    for start in range(0, len(places), size):
        yield places[start : start + size]


def _owner(data: PreparedData, place: int) -> int:
    return int(np.searchsorted(data.everything.offsets, place, side="right")) - 1


def _tested(
    data: PreparedData,
    model: FusedModel,
    vectors_VD: torch.Tensor,
    places: NDArray[np.int64],
    live: RuleTensors,
    counts_V: NDArray[np.int64],
) -> list[tuple[int, bool, bool, bool]]:
    """User, hit by the model's own rules, hit by the live ones, new: of every event that has a history."""
    everything = data.everything
    owners = np.array([_owner(data, place) for place in places.tolist()])
    lengths = places - everything.offsets[owners]
    owners, lengths, places = owners[lengths > 0], lengths[lengths > 0], places[lengths > 0]
    if not len(places):
        return []
    prefixes = everything.prefixes(owners, lengths)
    histories = [prefixes.item_sequence(number) for number in range(len(places))]
    targets_B1 = torch.from_numpy(everything.items[places].astype(np.int64))[:, None]
    hits = []
    with torch.inference_mode():
        items_BL, context = model_inputs(model, histories)
        states_BD = model.states(items_BL, vectors_VD, context)
        for rules in (model.rules, live):
            scores_BV = model.fused_scores(states_BD, items_BL, vectors_VD, rules)
            wanted_B1 = scores_BV.gather(1, targets_B1)
            if data.exclude_seen:
                for row_V, history in zip(scores_BV, histories, strict=True):
                    row_V[history.items] = -torch.inf
            scores_BV.scatter_(1, targets_B1, -torch.inf)  # so that ties are others, and count against the target
            hits.append(((scores_BV >= wanted_B1).sum(dim=1) < 10).tolist())
    is_new = (counts_V[everything.items[places]] == 0).tolist()
    return list(zip(owners.tolist(), *hits, is_new, strict=True))


def replay_table(found: Replay) -> str:
    """Markdown: HR@10 of both arms by period and in all, with what new items have of it."""
    periods = [*np.array_split(np.arange(len(found.users)), PERIODS), np.arange(len(found.users))]
    rows = []
    for number, cases in enumerate(periods, start=1):
        frozen, live, is_new = found.frozen[cases], found.live[cases], found.is_new[cases]
        rows.append(
            [
                "all" if number > PERIODS else f"{number}",
                f"{len(cases):,}",
                f"{is_new.mean():.1%}",
                share(float(frozen.mean())),
                share(float(live.mean())),
                share(float((frozen & is_new).mean())),
                share(float((live & is_new).mean())),
            ]
        )
    head = [f"{found.data_name}: fifth of the test period", "cases", "of new items", "HR@10 frozen", "HR@10 live"]
    head += ["of which new items, frozen", "of which new items, live"]
    gain = bootstrap_interval(found.live.astype(float) - found.frozen.astype(float), clusters=found.users)
    return (
        f"{markdown_table(head, rows)}\n\nLive minus frozen: HR@10 {signed(gain.mean)} [{signed(gain.low)}, "
        f"{signed(gain.high)}], 95 % bootstrap over users."
    )


def measure_live_rules(
    data: PreparedData, output: Path, *, changes: Mapping[str, Any], progress: TrainingProgress
) -> Replay:
    config = choose_recipe(count(data))[0].with_values(changes)
    run = train_once(data, config, output, label=f"{data.name}: epoch", progress=progress)
    return replay(data, load_run(run).model)


def register(subjects: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subjects.add_parser("live-rules", help="rules that learn while the service runs, against frozen ones")
    add_experiment_arguments(parser, Path("docs/benchmarks/live-rules.md"), DEFAULT_SETS)
    parser.set_defaults(run=_main)


def _main(options: argparse.Namespace) -> None:
    settings = "".join(f" --set {assignment}" for assignment in options.set)
    parts = [
        f"    python -m scripts.benchmark live-rules --data-folder DATA --sets {' '.join(options.sets)}{settings}",
        f"{machine()}. Prepared with `--split temporal`: trained on the first 80 % of the events, which are all "
        "that the model knows; replayed from there, tested on the last tenth; tables made anew "
        f"every {MIN_EVENTS_PER_REFRESH} events, or {MAX_REFRESHES} times where there are more; ties count against the "
        "target.",
    ]
    for name in options.sets:
        data = benchmark_data(name, options.data_folder, options.output, temporal_split(name))
        found = measure_live_rules(data, options.output, changes=parse_assignments(options.set), progress=ProgressBar)
        parts.append(replay_table(found))
        print(parts[-1], end="\n\n")
    write_section(options.page, "live-rules", "\n\n".join(parts))
    print(options.page)
