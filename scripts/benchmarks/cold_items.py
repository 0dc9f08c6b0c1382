"""Items that training never saw: are they recommended to the right users by their attributes alone?

A random tenth of a set's items is held out of training with all their events. Where the last event of a user is one of
them, the user's earlier events that the model knows are a case. Every held-out item gets the row that the service gives
an item which is put into the catalogue (`app.recommender.cold_items`), behind the rows of the items that are known.

Shapes: V items of the model with padding, C held-out items.
"""

import argparse
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from app.artifacts.tables import AttributeVectors, added_vector
from scripts.benchmarks.accuracy import add_experiment_arguments
from scripts.benchmarks.experiments import BENCHMARK_RULES, TrainingProgress, benchmark_source, train_once
from scripts.benchmarks.pages import machine, markdown_table, share, write_section
from scripts.train import ProgressBar
from scripts.training.attributes import learn_attribute_values
from scripts.training.config import parse_assignments
from scripts.training.datasets import Source
from scripts.training.fusion import FusedModel
from scripts.training.interactions import DataError, PreparedData
from scripts.training.preparation import PreparationConfig, prepare
from scripts.training.recipe import choose_recipe, count
from scripts.training.run_folder import load_run
from scripts.training.scorer import pad_items

SEED = 7
HELD_OUT = 0.1
CUTOFFS = (10, 50)
BATCH = 256


@dataclass(frozen=True, eq=False)
class HeldOut:
    """A set without some of its items, and the cases that these make.

    targets: of each case, the place in `item_ids`.
    """

    data: PreparedData
    item_ids: list[str]
    attributes: list[dict[str, Any]]
    histories: list[list[int]]
    targets: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Ranks:
    """Of each case's target, from 0: `among` the held-out items alone, and among `all` items with seen ones hidden.

    places: how many of the first ten places go to held-out items, as a share.
    """

    among: NDArray[np.int64]
    all: NDArray[np.int64]
    places: float


def hold_out(source: Source, name: str, folder: Path) -> HeldOut:
    """Prepare a set without some of its items, and gather the cases that they make.

    Raises:
        DataError: the set has no attributes, or no case comes of it.
    """
    if source.items is None:
        raise DataError(f"{name} has no items file, and without attributes nothing is known of a new item")
    item, user, time = source.columns.item, source.columns.user, source.columns.timestamp
    events = source.interactions.with_row_index("row").with_columns(pl.col(item, user).cast(pl.String)).collect()
    items = source.items.with_columns(pl.col("item_id").cast(pl.String))
    ids = sorted(events[item].unique().to_list())
    held_out = sorted(random.Random(SEED).sample(ids, round(len(ids) * HELD_OUT)))
    known = Source(
        events.drop("row").filter(~pl.col(item).is_in(held_out)).lazy(),
        items.filter(~pl.col("item_id").is_in(held_out)),
        source.columns,
        f"{source.origin} without {len(held_out)} items",
    )
    data = prepare(known, PreparationConfig(f"{name}-cold", BENCHMARK_RULES, exclude_seen="yes"), folder)
    index_of = {item_id: index for index, item_id in enumerate(data.item_ids, start=1)}
    place_of = {item_id: place for place, item_id in enumerate(held_out)}
    histories: list[list[int]] = []
    targets: list[int] = []
    order = [user, time, "row"] if time in events.columns else [user, "row"]
    for _, rows in events.sort(order).group_by(user, maintain_order=True):
        *before, last = rows[item].to_list()
        history = [index_of[item_id] for item_id in before if item_id in index_of]
        if last in place_of and history:
            histories.append(history)
            targets.append(place_of[last])
    if not histories:
        raise DataError(f"{name}: no user's last event is a held-out item")
    attributes_of = {
        row.pop("item_id"): {field: value for field, value in row.items() if value is not None}
        for row in items.to_dicts()
    }
    attributes = [attributes_of.get(item_id, {}) for item_id in held_out]
    return HeldOut(data, held_out, attributes, histories, np.array(targets, dtype=np.int64))


def added_vectors(model: FusedModel, data: PreparedData, attributes: Sequence[Mapping[str, Any]]) -> torch.Tensor:
    """float32 (len(attributes), D): the rows that the service gives to items with these attributes, which are not among
    those that the model has learnt from `data`."""
    vectors = None
    by_value_AD = model.attention.attribute_vectors()
    if by_value_AD is not None:
        is_unit = model.config.similarity == "cosine"
        vectors = AttributeVectors(learn_attribute_values(data.attributes), by_value_AD.detach().numpy(), is_unit)
    mean_D = model.item_vectors().detach()[1:].mean(dim=0).numpy()
    return torch.from_numpy(np.array([added_vector(each, vectors, mean_D) for each in attributes]))


def rank_held_out(cold: HeldOut, model: FusedModel) -> Ranks:
    """Rank each case's held-out item as the service would.

    Raises:
        DataError: the model has learnt nothing about attributes.
    """
    with torch.inference_mode():
        if model.attention.attribute_vectors() is None:
            raise DataError("this model adds no attributes to its item vectors")
        known_VD = model.item_vectors()
        table = torch.cat([known_VD, added_vectors(model, cold.data, cold.attributes)])
        among: list[torch.Tensor] = []
        ranks: list[torch.Tensor] = []
        num_places = 0
        for start in range(0, len(cold.histories), BATCH):
            histories = cold.histories[start : start + BATCH]
            scores = model.next_scores(pad_items(histories, model.config.max_length), table)
            for row, history in zip(scores, histories, strict=True):
                row[history] = -torch.inf
            columns = torch.from_numpy(len(known_VD) + cold.targets[start : start + BATCH])[:, None]
            target_B1 = scores.gather(1, columns)
            among.append((scores[:, len(known_VD) :] > target_B1).sum(1))
            ranks.append((scores > target_B1).sum(1))
            num_places += int((scores.topk(10).indices >= len(known_VD)).sum())
    places = num_places / (10 * len(cold.histories))
    return Ranks(torch.cat(among).numpy(), torch.cat(ranks).numpy(), places)


def cold_table(cold: HeldOut, ranks: Mapping[str, Ranks]) -> str:
    """Markdown: hit rates by attributes, by popularity and at random.

    An item without events has no popularity: it stands behind all others, and among its like in any order.
    """
    num_held_out, num_items = len(cold.item_ids), cold.data.num_items
    chance = [share(min(1.0, cutoff / num_held_out)) for cutoff in CUTOFFS]
    rows = [
        [
            f"**{name}**",
            *(share(float((found.among < cutoff).mean())) for cutoff in CUTOFFS),
            *(share(float((found.all < cutoff).mean())) for cutoff in CUTOFFS),
            f"{found.places:.1%}",
        ]
        for name, found in ranks.items()
    ]
    rows.append(["popularity", *chance, *(share(0.0) for _ in CUTOFFS), "0.0%"])
    of_all = num_held_out / (num_items + num_held_out)
    at_random = [share(min(1.0, cutoff / (num_items + num_held_out))) for cutoff in CUTOFFS]
    rows.append(["random", *chance, *at_random, f"{of_all:.1%}"])
    head = [
        f"{cold.data.name}: {len(cold.histories):,} cases",
        *(f"HR@{cutoff} among {num_held_out:,} new items" for cutoff in CUTOFFS),
        *(f"HR@{cutoff} among all {num_items + num_held_out:,}" for cutoff in CUTOFFS),
        "of ten places to new items",
    ]
    return markdown_table(head, rows)


def measure_cold_items(
    name: str, data_folder: Path, output: Path, *, changes: Mapping[str, Any], progress: TrainingProgress
) -> tuple[HeldOut, dict[str, Ranks]]:
    """The model as it would be served, and its attention alone."""
    cold = hold_out(benchmark_source(name, data_folder, output), name, output / "data" / f"{name}-cold")
    config = choose_recipe(count(cold.data))[0].with_values(changes)
    run = train_once(cold.data, config, output, label=f"{name} without a tenth of its items: epoch", progress=progress)
    model = load_run(run).model
    ranks = {"as served": rank_held_out(cold, model)}
    if model.share:
        ranks["attention alone"] = rank_held_out(cold, FusedModel(model.attention, None, 0))
    return cold, ranks


def register(subjects: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subjects.add_parser("cold-items", help="items held out of training, recommended by their attributes")
    add_experiment_arguments(parser, Path("docs/benchmarks/cold-items.md"))
    parser.add_argument("--sets", nargs="+", default=["beauty"], metavar="NAME", help="default %(default)s")
    parser.set_defaults(run=_main)


def _main(options: argparse.Namespace) -> None:
    settings = "".join(f" --set {assignment}" for assignment in options.set)
    parts = [
        f"    python -m scripts.benchmark cold-items --data-folder DATA --sets {' '.join(options.sets)}{settings}",
        f"{machine()}. A random tenth of the items is held out of training with all their events; a case is a user "
        "whose last event is one of them. Seen items are masked, one seed.",
    ]
    for name in options.sets:
        cold, ranks = measure_cold_items(
            name, options.data_folder, options.output, changes=parse_assignments(options.set), progress=ProgressBar
        )
        parts.append(cold_table(cold, ranks))
        print(parts[-1], end="\n\n")
    write_section(options.page, "cold-items", "\n\n".join(parts))
    print(options.page)
