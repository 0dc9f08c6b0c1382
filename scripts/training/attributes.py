"""What items have in common, counted from their attributes: which values are worth a vector, and which item has which.

A value counts when several items have it, so titles and identifiers vanish by themselves, and when some item lacks it.
Numbers fall into bins of equally many items where there are more of them than bins.
"""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from app.artifacts.attribute_values import AttributeValues, each_value, label_of
from scripts.training.attribute_embedding import AttributeTable

MIN_ITEMS = 2
"""Items that a value must belong to: what only one has says nothing that its own vector could not."""
NUM_BINS = 10


def shared_attributes(attributes: Sequence[Mapping[str, Any]]) -> AttributeTable | None:
    """The values worth a vector and who has them; None where no value is."""
    values = learn_attribute_values(attributes)
    return attribute_table(values, attributes) if len(values) else None


def learn_attribute_values(attributes: Sequence[Mapping[str, Any]]) -> AttributeValues:
    """The values worth a vector, in alphabetical order; `attributes` holds one object per item."""
    texts: Counter[str] = Counter()
    numbers: dict[str, list[float]] = {}
    for item in attributes:
        labels = set()  # each once per item, however often the item repeats it
        for field, value in item.items():
            for each in each_value(value):
                if isinstance(each, str | bool):
                    labels.add(label_of(field, each))
                else:
                    numbers.setdefault(field, []).append(each)
        texts.update(labels)
    for field, values in numbers.items():
        texts.update(_number_labels(field, np.array(values, dtype=np.float64)))
    at_most = len(attributes) - 1
    return AttributeValues(sorted(label for label, count in texts.items() if MIN_ITEMS <= count <= at_most))


def _number_labels(field: str, values: np.ndarray) -> Counter[str]:
    """The numbers themselves where they are few, else bins at their quantiles; with the number of items of each."""
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) <= NUM_BINS:
        return Counter({label_of(field, float(value)): int(n) for value, n in zip(distinct, counts, strict=True)})
    inner = np.unique(np.quantile(values, np.arange(1, NUM_BINS) / NUM_BINS, method="higher"))
    bounds = ["-inf", *(label_of("", float(bound))[1:] for bound in inner if bound > distinct[0]), "inf"]
    sizes = np.bincount(np.searchsorted([float(bound) for bound in bounds[1:-1]], values, side="right"))
    labels = [f"{field}=[{low},{high})" for low, high in itertools.pairwise(bounds)]
    # A bin is part of a partition: none is left out for being small.
    return Counter({label: max(MIN_ITEMS, int(size)) for label, size in zip(labels, sizes, strict=True)})


def attribute_table(values: AttributeValues, attributes: Sequence[Mapping[str, Any]]) -> AttributeTable:
    """Which item has which values; item index i is `attributes[i − 1]`, index 0 has none."""
    rows = [values.rows_of(item) for item in attributes]
    offsets = np.concatenate([[0, 0], np.cumsum([len(row) for row in rows])])
    flat = np.fromiter(itertools.chain.from_iterable(rows), dtype=np.int32, count=int(offsets[-1]))
    return AttributeTable(torch.from_numpy(flat), torch.from_numpy(offsets.astype(np.int32)), len(values))
