"""Which of the attribute values that a model knows an item has: the same in training and in the service.

A value is written `field=value`: `genres=Drama`, `in_stock=true`, `year=1995`, and for numbers that were put in bins
`price=[2.5,7.99)`, the lower bound included, the first and the last bin open to −inf and inf.
"""

import bisect
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

BIN = re.compile(r"(?s)(?P<field>.*)=\[(?P<low>[^\[,]+),(?P<high>[^,)]+)\)")


class AttributeValues:
    """The values in the order of their rows in `attribute_vectors`.

    >>> values = AttributeValues(["genres=Comedy", "genres=Drama", "price=[-inf,5)", "price=[5,inf)"])
    >>> values.rows_of({"genres": ["Drama", "Western"], "price": 7.5, "title": "Ran"})
    [1, 3]
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)
        self._rows = {label: row for row, label in enumerate(self.labels)}
        bins: dict[str, list[tuple[float, int]]] = {}
        for row, label in enumerate(self.labels):
            match = BIN.fullmatch(label)
            if match and _is_number(match["low"]) and _is_number(match["high"]):
                bins.setdefault(match["field"], []).append((float(match["low"]), row))
        self._bins = {field: sorted(found) for field, found in bins.items()}

    def __len__(self) -> int:
        return len(self.labels)

    def rows_of(self, attributes: Mapping[str, Any]) -> list[int]:
        """The rows of the values that are known, each once, rising; what is not known is passed over."""
        rows = {
            row
            for field, value in attributes.items()
            for each in each_value(value)
            if (row := self._row(field, each)) is not None
        }
        return sorted(rows)

    def _row(self, field: str, value: str | bool | int | float) -> int | None:
        bins = self._bins.get(field)
        if bins is not None and not isinstance(value, str | bool):
            return bins[max(0, bisect.bisect_right(bins, (value, math.inf)) - 1)][1]
        return self._rows.get(label_of(field, value))


def each_value(value: Any) -> Iterator[str | bool | int | float]:
    """The single values of an attribute: itself, or the members of a list; nothing of what is neither text, a truth
    value nor a finite number."""
    for each in value if isinstance(value, list) else (value,):
        if isinstance(each, str | bool) or (isinstance(each, int | float) and math.isfinite(each)):
            yield each


def label_of(field: str, value: str | bool | int | float) -> str:
    """
    >>> label_of("in_stock", True), label_of("year", 1995.0), label_of("price", 2.5)
    ('in_stock=true', 'year=1995', 'price=2.5')
    """
    if isinstance(value, bool):
        return f"{field}={str(value).lower()}"
    if isinstance(value, float) and value.is_integer():
        return f"{field}={int(value)}"
    return f"{field}={value}"


def _is_number(text: str) -> bool:
    try:
        return not math.isnan(float(text))
    except ValueError:
        return False
