"""What a filter costs over catalogues of several sizes: cold, kept, and after a change.

Processor times of the one thread that does it: they hold on a busy machine as well.

Benchmarks may use the service's own classes: what they measure is the service.
"""

import argparse
import gc
import random
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from app.artifacts.vocabulary import ItemAttributes, ItemVocabulary
from app.state.filters import All, AnyOf, Filter, Not, condition
from app.state.items.masks import MaskCache
from app.state.items.records import ItemRecord
from app.state.items.view import CatalogueView

CATEGORIES = [f"category {number}" for number in range(50)]
BRANDS = [f"brand {number}" for number in range(2000)]
TAGS = [f"tag {number}" for number in range(500)]
FILTERS: dict[str, Filter] = {
    "category is one of 50": condition("category", "eq", CATEGORIES[7]),
    "price below 1 %": condition("price", "lt", 1.0),
    "any of 3 tags, lists of 1 to 4": condition("tags", "any_of", TAGS[:3]),
    "one of 1,000 brands": condition("brand", "in", BRANDS[:1000]),
    "one of 1,000 ids": condition("item_id", "in", [f"item-{number}" for number in range(1000)]),
    "five conditions, all / any / not": All(
        (
            condition("in_stock", "eq", True),
            condition("price", "gte", 10),
            condition("released", "gt", "2015-01-01T00:00:00Z"),
            AnyOf((condition("category", "in", CATEGORIES[:10]), condition("tags", "eq", TAGS[3]))),
            Not(condition("brand", "eq", BRANDS[0])),
        )
    ),
}


@dataclass(frozen=True)
class Model:
    version: str
    vocabulary: ItemVocabulary
    attributes: ItemAttributes


@dataclass(frozen=True)
class FilterCost:
    """Medians in seconds. `changed`: the mask again after one item of the catalogue changed."""

    kept_items: int
    cold: float
    cached: float
    changed: float


@dataclass(frozen=True)
class Costs:
    """prepare: making the columns when a model is loaded. put: one changed item, until the next view is there."""

    num_items: int
    prepare_seconds: float
    column_bytes: int
    put_seconds: float
    put_many_seconds: float
    filters: dict[str, FilterCost]


def generated(num_items: int) -> Iterator[dict[str, Any]]:
    """Seven attributes an item: a unique title, a category, a brand, a price, stock, tags and a time."""
    draw = random.Random(7)
    for number in range(num_items):
        item = {
            "title": f"Item {number} of {draw.choice(CATEGORIES)}",
            "category": draw.choice(CATEGORIES),
            "brand": draw.choice(BRANDS),
            "price": round(draw.random() * 100, 2),
            "in_stock": draw.random() < 0.9,
            "released": f"{draw.randrange(2000, 2026)}-{draw.randrange(1, 13):02}-01T00:00:00Z",
        }
        if number % 10:
            item["tags"] = draw.sample(TAGS, draw.randrange(1, 5))
        yield item


def measure(num_items: int, *, repeats: int = 9) -> Costs:
    """Over a generated catalogue that lies in a temporary folder."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "attributes.jsonl"
        ItemAttributes.write(path, generated(num_items))
        vocabulary = ItemVocabulary([f"item-{number}" for number in range(num_items)])
        model = Model("benchmark", vocabulary, ItemAttributes(path))
        gc.collect()
        before = _resident_bytes()
        start = time.process_time()
        view = CatalogueView.of_model(model, MaskCache())
        for block in view.blocks:
            _ = block.columns
        prepare_seconds = time.process_time() - start
        column_bytes = _resident_bytes() - before
        costs = {name: _cost_of(filter, model, view, repeats) for name, filter in FILTERS.items()}
        put_seconds = _median(lambda number: view.with_records(_changes(view, 1, number)), repeats)
        put_many_seconds = _median(lambda number: view.with_records(_changes(view, 1000, number)), 3)
    return Costs(num_items, prepare_seconds, column_bytes, put_seconds, put_many_seconds, costs)


def _cost_of(filter: Filter, model: Model, view: CatalogueView, repeats: int) -> FilterCost:
    def fresh() -> CatalogueView:
        return CatalogueView.of_model(model, MaskCache(), view.blocks)

    views = [fresh() for _ in range(repeats)]
    cold = _median(lambda number: views[number].mask(filter), repeats)
    mask_V = view.mask(filter)
    cached = _median(lambda _: view.mask(filter), repeats)
    changed_views = [view.with_records(_changes(view, 1, number)) for number in range(repeats)]
    changed = _median(lambda number: changed_views[number].mask(filter), repeats)
    return FilterCost(int(np.count_nonzero(mask_V)), cold, cached, changed)


def _changes(view: CatalogueView, num_changes: int, seed: int) -> dict[str, bytes]:
    draw = random.Random(seed)
    record = ItemRecord({"price": 5.0, "in_stock": False}).encode()
    return {view.id_of(draw.randrange(1, view.num_items + 1)): record for _ in range(num_changes)}


def _median(call: Callable[[int], object], repeats: int) -> float:
    seconds = []
    for number in range(repeats):
        start = time.process_time()
        call(number)
        seconds.append(time.process_time() - start)
    return sorted(seconds)[repeats // 2]


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def register(subjects: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subjects.add_parser("filters", help="what a filter costs over catalogues of several sizes")
    parser.add_argument(
        "--items", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="default %(default)s"
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    for num_items in options.items:
        costs = measure(num_items)
        print(
            f"{num_items:,} items: columns made in {costs.prepare_seconds:.2f} s, {costs.column_bytes / 1e6:,.0f} MB; "
            f"one item changed in {costs.put_seconds * 1e3:.2f} ms, 1,000 in {costs.put_many_seconds * 1e3:.0f} ms"
        )
        print(f"  {'':34}{'items':>9}{'cold ms':>10}{'kept ms':>10}{'after a change ms':>20}")
        for name, cost in costs.filters.items():
            cold, cached, changed = cost.cold * 1e3, cost.cached * 1e3, cost.changed * 1e3
            print(f"  {name:34}{cost.kept_items:9,}{cold:10.3f}{cached:10.4f}{changed:20.3f}")
