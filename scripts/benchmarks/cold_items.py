"""Items that training never saw: are they recommended to the right users by their attributes alone?

A random tenth of a set's items is held out of training with all their events. Where the last event of a user is one of
them, the user's earlier events that the model knows are a case. Every held-out item gets the row that the service gives
an item which is put into the catalogue (`app.recommender.cold_items`), behind the rows of the items that are known.

Shapes: B cases, V items of the model with padding, N held-out items, W = V + N, D embedding.
"""

import argparse
import math
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from app.artifacts.tables import AttributeVectors, added_vector
from app.ranking.rerank import keep_places
from app.ranking.similar import likeness_to_history
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
SHARE = 0.1
"""Of the places, where some are kept for new items."""
BOOST = 3.0
OTHER_CASES = 2000
"""Cases of items that the model knows, evenly spaced: what is given to new items is taken from these."""
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
    """Of one way to rank, each case's target from 0: `among` the held-out items alone, and among `all` items with seen
    ones hidden, at most the largest cut-off. Ties count against the target.

    places: how many of the first ten places go to held-out items, as a share.
    others: hit rate at 10 of cases whose target the model knows.
    """

    among: NDArray[np.int64]
    all: NDArray[np.int64]
    places: float
    others: float


@dataclass(frozen=True, eq=False)
class _Scored:
    """Cases with what the parts say of each item; seen items are −inf, and targets lose every tie."""

    targets_B: NDArray[np.int64]
    served_BW: NDArray[np.float32]
    attention_BW: NDArray[np.float32]
    likeness_BN: NDArray[np.float32]


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
        vectors = AttributeVectors(learn_attribute_values(data.attributes), by_value_AD.detach().numpy())
    mean_D = model.item_vectors().detach()[1:].mean(dim=0).numpy()
    return torch.from_numpy(np.array([added_vector(each, vectors, mean_D) for each in attributes]))


def rank_held_out(cold: HeldOut, model: FusedModel) -> dict[str, Ranks]:
    """Each case's held-out item in the ways in which a service could rank it.

    Raises:
        DataError: the model has learnt nothing about attributes.
    """
    if model.attention.attribute_vectors() is None:
        raise DataError("this model adds no attributes to its item vectors")
    num_known = cold.data.num_items + 1
    test = cold.data.cases("test")
    some = np.arange(0, len(test), max(1, len(test) // OTHER_CASES))
    others = [list(test.histories.item_sequence(number).items) for number in some.tolist()]
    known_targets = test.targets[some].astype(np.int64)
    among: dict[str, list[NDArray[np.int64]]] = {}
    ranks: dict[str, list[NDArray[np.int64]]] = {}
    num_places: Counter[str] = Counter()
    hits: dict[str, list[NDArray[np.bool_]]] = {}
    for batch in _scored(cold, model, cold.histories, num_known + cold.targets):
        for way, (among_BN, lists) in _ways(batch, num_known).items():
            among.setdefault(way, []).append(_better(among_BN, batch.targets_B - num_known))
            ranks.setdefault(way, []).append(_ranks(lists, batch.targets_B))
            num_places[way] += sum(index >= num_known for row in lists for index in row[:10])
    for batch in _scored(cold, model, others, known_targets):
        for way, (_, lists) in _ways(batch, num_known).items():
            hits.setdefault(way, []).append(_ranks(lists, batch.targets_B) < 10)
    return {
        way: Ranks(
            np.concatenate(among[way]),
            np.concatenate(ranks[way]),
            num_places[way] / (10 * len(cold.histories)),
            float(np.concatenate(hits[way]).mean()),
        )
        for way in ranks
    }


def _scored(
    cold: HeldOut, model: FusedModel, histories: Sequence[list[int]], targets: NDArray[np.int64]
) -> Iterator[_Scored]:
    with torch.inference_mode():
        known_VD = model.item_vectors()
        new_ND = added_vectors(model, cold.data, cold.attributes)
        table_WD = torch.cat([known_VD, new_ND])
        for start in range(0, len(histories), BATCH):
            some, targets_B = histories[start : start + BATCH], targets[start : start + BATCH]
            items_BL = pad_items(some, model.config.max_length)
            states_BD = model.attention.last_state(items_BL, table_WD)
            served_BW = model.fused_scores(states_BD, items_BL, table_WD, model.rules).numpy().copy()
            attention_BW = model.attention.scores(states_BD, table_WD).numpy().copy()
            likeness_BN = np.array([likeness_to_history(new_ND.numpy(), known_VD[row].numpy()) for row in some])
            for row, history in enumerate(some):
                served_BW[row, history] = attention_BW[row, history] = -np.inf
            for scores, columns_B in ((served_BW, targets_B), (attention_BW, targets_B),
                                      (likeness_BN, targets_B - len(known_VD))):  # fmt: skip
                rows = np.flatnonzero(columns_B >= 0)
                own = rows, columns_B[rows]
                scores[own] = np.nextafter(scores[own], np.float32(-np.inf))
            yield _Scored(targets_B, served_BW, attention_BW, likeness_BN)


def _ways(batch: _Scored, first_new: int) -> dict[str, tuple[NDArray[np.float32], list[list[int]]]]:
    """Way → scores of the new items among themselves (B, N), and the first items for each case."""
    size = max(CUTOFFS)
    served_BN = batch.served_BW[:, first_new:]
    attention_BN = batch.attention_BW[:, first_new:]
    boosted_BW = batch.served_BW.copy()
    boosted_BW[:, first_new:] += math.log(BOOST)
    by_rank = _best(batch.served_BW, size)

    def with_places(scores_BN: NDArray[np.float32]) -> list[list[int]]:
        new = _best(scores_BN, int(SHARE * size))
        return [
            keep_places(ranked, [first_new + place for place in best], first_new, SHARE, size)
            for ranked, best in zip(by_rank, new, strict=True)
        ]

    return {
        "ranked with all others": (served_BN, by_rank),
        f"a boost of {BOOST:g} on new items": (served_BN, _best(boosted_BW, size)),
        f"{SHARE:.0%} of the places, by attention": (attention_BN, with_places(attention_BN)),
        f"{SHARE:.0%} of the places, by likeness": (batch.likeness_BN, with_places(batch.likeness_BN)),
        "attention alone": (attention_BN, _best(batch.attention_BW, size)),
    }


def _best(scores_BX: NDArray[np.float32], size: int) -> list[list[int]]:
    """Equal ones by rising column."""
    best: list[list[int]] = np.argsort(-scores_BX, axis=1, kind="stable")[:, :size].tolist()
    return best


def _better(scores_BX: NDArray[np.float32], columns_B: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many of a row stand above its column."""
    above: NDArray[np.int64] = (scores_BX > np.take_along_axis(scores_BX, columns_B[:, None], axis=1)).sum(axis=1)
    return above


def _ranks(lists: Sequence[list[int]], targets_B: NDArray[np.int64]) -> NDArray[np.int64]:
    """From 0; the length of the list where the target is not in it."""
    pairs = zip(lists, targets_B.tolist(), strict=True)
    return np.array([row.index(target) if target in row else len(row) for row, target in pairs], dtype=np.int64)


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
            share(found.others),
        ]
        for name, found in ranks.items()
    ]
    rows.append(["popularity", *chance, *(share(0.0) for _ in CUTOFFS), "0.0%", ""])
    of_all = num_held_out / (num_items + num_held_out)
    at_random = [share(min(1.0, cutoff / (num_items + num_held_out))) for cutoff in CUTOFFS]
    rows.append(["random", *chance, *at_random, f"{of_all:.1%}", ""])
    head = [
        f"{cold.data.name}: {len(cold.histories):,} cases",
        *(f"HR@{cutoff} among {num_held_out:,} new items" for cutoff in CUTOFFS),
        *(f"HR@{cutoff} among all {num_items + num_held_out:,}" for cutoff in CUTOFFS),
        "of ten places to new items",
        "HR@10 of other cases",
    ]
    return markdown_table(head, rows)


def measure_cold_items(
    name: str, data_folder: Path, output: Path, *, changes: Mapping[str, Any], progress: TrainingProgress
) -> tuple[HeldOut, dict[str, Ranks]]:
    """See `rank_held_out`."""
    cold = hold_out(benchmark_source(name, data_folder, output), name, output / "data" / f"{name}-cold")
    config = choose_recipe(count(cold.data))[0].with_values(changes)
    run = train_once(cold.data, config, output, label=f"{name} without a tenth of its items: epoch", progress=progress)
    return cold, rank_held_out(cold, load_run(run).model)


def register(subjects: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subjects.add_parser("cold-items", help="items held out of training, recommended by their attributes")
    add_experiment_arguments(parser, Path("docs/benchmarks/cold-items.md"), ("beauty",))
    parser.set_defaults(run=_main)


def _main(options: argparse.Namespace) -> None:
    settings = "".join(f" --set {assignment}" for assignment in options.set)
    parts = [
        f"    python -m scripts.benchmark cold-items --data-folder DATA --sets {' '.join(options.sets)}{settings}",
        f"{machine()}. A random tenth of the items is held out of training with all their events; a case is a user "
        "whose last event is one of them; other cases are those of the test part, whose items the model knows. Seen "
        "items are masked, ties count against the target, one seed.",
    ]
    for name in options.sets:
        cold, ranks = measure_cold_items(
            name, options.data_folder, options.output, changes=parse_assignments(options.set), progress=ProgressBar
        )
        parts.append(cold_table(cold, ranks))
        print(parts[-1], end="\n\n")
    write_section(options.page, "cold-items", "\n\n".join(parts))
    print(options.page)
