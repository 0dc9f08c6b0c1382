"""Attributes of a block of items as columns of numbers, on which a condition is one comparison of arrays.

Legend: N rows of a block, E elements of a column, W wanted values, C changed rows.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.state.filters import Element, Kind, Operator, time_of

Bools = NDArray[np.bool_]

FALSE_KEY, TRUE_KEY, EMPTY_KEY = 0, 1, 2
"""What stands for the booleans, which is their hash, and for the element that an empty list does not have."""
_SHIFT = 0x5DEECE66D
_BUCKET_BITS = 16
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
"""2⁶⁴ over the golden ratio: the high bits of a multiple depend on all bits of the factor."""
_TIME_LIKE = re.compile(r"(?m)^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]")
_FEW = 5
"""Up to so many wanted values are compared one by one."""


@dataclass(frozen=True, slots=True)
class Elements:
    """Elements of one kind: int64 or float64 values, and their rows; None: element e is the only one of row e."""

    values_E: NDArray[Any]
    rows_E: NDArray[np.int32] | None

    def rows(self) -> NDArray[np.int32]:
        return np.arange(len(self.values_E), dtype=np.int32) if self.rows_E is None else self.rows_E

    def rows_where(self, selected_E: Bools, num_rows: int) -> Bools:
        """The rows of which at least one element is selected."""
        rows_N = np.zeros(num_rows, dtype=np.bool_)
        if self.rows_E is None:
            rows_N[: len(selected_E)] = selected_E
        else:
            rows_N[self.rows_E[selected_E]] = True
        return rows_N

    def replaced(self, changed_N: Bools, new: "Elements") -> "Elements":
        """The elements of all rows but the changed ones, and the new ones."""
        if self.rows_E is None and new.rows_E is not None and len(new.values_E) == np.count_nonzero(changed_N):
            rows = new.rows_E
            if len(np.unique(rows)) == len(rows) and rows.max(initial=-1) < len(self.values_E):
                values_E = self.values_E.copy()
                values_E[rows] = new.values_E
                return Elements(values_E, None)
        rows = self.rows()
        kept_E = ~changed_N[rows]
        return Elements(
            np.concatenate((self.values_E[kept_E], new.values_E)), np.concatenate((rows[kept_E], new.rows()))
        )


@dataclass(frozen=True)
class Column:
    """One attribute of the rows of a block: strings and booleans as 64-bit keys, numbers and times as float64.

    A key is Python's hash of the string, which differs from process to process and cannot be aimed at: that two strings
    of one attribute agree has a probability of 2⁻⁶⁴.
    """

    keys: Elements
    numbers: Elements

    @cached_property
    def num_elements(self) -> Mapping[Kind, int]:
        keys_E = self.keys.values_E
        num_booleans = int(np.count_nonzero((keys_E == TRUE_KEY) | (keys_E == FALSE_KEY)))
        num_empty = int(np.count_nonzero(keys_E == EMPTY_KEY))
        return {
            Kind.STRING: len(keys_E) - num_booleans - num_empty,
            Kind.NUMBER: len(self.numbers.values_E),
            Kind.BOOLEAN: num_booleans,
        }

    def exist(self, num_rows: int) -> Bools:
        found_N = self.keys.rows_where(np.ones(len(self.keys.values_E), dtype=np.bool_), num_rows)
        return found_N | self.numbers.rows_where(np.ones(len(self.numbers.values_E), dtype=np.bool_), num_rows)

    def have_any(self, wanted: "Wanted", num_rows: int) -> Bools:
        """The rows with at least one of the wanted values."""
        found_N = np.zeros(num_rows, dtype=np.bool_)
        for elements, values in ((self.keys, wanted.keys), (self.numbers, wanted.numbers)):
            if len(values) and len(elements.values_E):
                found_N |= elements.rows_where(values.among(elements.values_E), num_rows)
        return found_N

    def have_all(self, wanted: "Wanted", num_rows: int) -> Bools:
        """The rows with every one of the wanted values."""
        found_N = np.ones(num_rows, dtype=np.bool_)
        for elements, values in ((self.keys, wanted.keys), (self.numbers, wanted.numbers)):
            for value in values.values_W:
                found_N &= elements.rows_where(elements.values_E == value, num_rows)
                if not found_N.any():
                    return found_N
        return found_N

    def compare(self, operator: Operator, number: float, num_rows: int) -> Bools:
        """The rows with a number, or a time, that is less, or greater, than the given one."""
        values_E = self.numbers.values_E
        match operator:
            case Operator.LT:
                selected_E = values_E < number
            case Operator.LTE:
                selected_E = values_E <= number
            case Operator.GT:
                selected_E = values_E > number
            case _:
                selected_E = values_E >= number
        return self.numbers.rows_where(selected_E, num_rows)


class WantedValues:
    """The values of one kind that a condition asks for, each once."""

    def __init__(self, values_W: NDArray[Any]) -> None:
        """values_W: int64 or float64."""
        self.values_W = np.unique(values_W)
        self._tables = list(_tables(self.values_W)) if len(self.values_W) > _FEW else None

    def __len__(self) -> int:
        return len(self.values_W)

    def among(self, values_E: NDArray[Any]) -> Bools:
        """Which of the values are wanted ones. Few are compared one by one; many are found by their bucket."""
        found_E: Bools = np.zeros(len(values_E), dtype=np.bool_)
        if self._tables is None:
            for value in self.values_W:
                found_E |= values_E == value
            return found_E
        buckets_E = _buckets(values_E)
        for table in self._tables:
            found_E |= table[buckets_E] == values_E
        return found_E


def _tables(values_W: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Tables with one wanted value per bucket, as many as are needed for those that share one.

    An empty bucket holds a value that belongs to another, so that nothing is found there.
    """
    zero_and_other = np.array([0, 1], dtype=values_W.dtype)
    left_W = values_W
    while len(left_W):
        table = np.full(1 << _BUCKET_BITS, zero_and_other[0])
        table[_buckets(zero_and_other[:1])] = zero_and_other[1]
        buckets_W, places = np.unique(_buckets(left_W), return_index=True)
        table[buckets_W] = left_W[places]
        yield table
        left_W = np.delete(left_W, places)


def _buckets(values: NDArray[Any]) -> NDArray[np.uint64]:
    return values.view(np.uint64) * _SPREAD >> np.uint64(64 - _BUCKET_BITS)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The values of a condition as columns hold them."""

    keys: WantedValues
    numbers: WantedValues

    @staticmethod
    def of(elements: Iterable[Element]) -> "Wanted":
        keys: list[str | float | bool] = []
        numbers: list[float] = []
        for kind, value in elements:
            if kind is Kind.NUMBER:
                numbers.append(float(value))
            else:
                keys.append(value)
        return Wanted(WantedValues(_keys(keys)), WantedValues(np.array(numbers, dtype=np.float64)))


def _keys(values: Sequence[object]) -> NDArray[np.int64]:
    """Of strings and booleans."""
    keys = np.fromiter(map(hash, values), np.int64, len(values))
    for place in np.flatnonzero((keys >= FALSE_KEY) & (keys <= EMPTY_KEY)).tolist():  # few, unless these are booleans
        if isinstance(values[place], str):
            keys[place] += _SHIFT
    return keys


NO_KEYS = Elements(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int32))
NO_NUMBERS = Elements(np.empty(0, dtype=np.float64), np.empty(0, dtype=np.int32))
NO_COLUMN = Column(NO_KEYS, NO_NUMBERS)


def columns_of(items: Sequence[Mapping[str, Any]]) -> dict[str, Column]:
    """A column for every attribute that occurs; row n is the nth item."""
    return {field: column_of([item.get(field) for item in items]) for field in sorted(set().union(*items))}


def column_of(values: Sequence[Any], rows: NDArray[np.int32] | None = None) -> Column:
    """The column of one attribute. Without `rows`, value n is that of row n. None and objects are no values."""
    types = set(map(type, values))
    if rows is None and len(types - {int, float}) <= 1 and (dense := _dense(values, types)) is not None:
        return dense
    rows_N = np.arange(len(values), dtype=np.int32) if rows is None else rows
    keys: list[Elements] = []
    numbers: list[Elements] = []
    for kind in types:
        some, some_rows = values, rows_N
        if len(types) > 1:
            places = [place for place, value in enumerate(values) if type(value) is kind]
            some, some_rows = [values[place] for place in places], rows_N[places]
        if kind is list:
            lengths = np.fromiter(map(len, some), np.int64, len(some))
            inside = column_of(list(chain.from_iterable(some)), np.repeat(some_rows, lengths))
            empty_rows = some_rows[lengths == 0]
            keys += (inside.keys, Elements(np.full(len(empty_rows), EMPTY_KEY), empty_rows))
            numbers.append(inside.numbers)
        elif kind is str and _may_have_times(some):
            times = [time_of(text) for text in some]
            is_time = np.array([time is not None for time in times])
            texts = [text for text, time in zip(some, times, strict=True) if time is None]
            keys.append(Elements(_keys(texts), some_rows[~is_time]))
            numbers.append(Elements(_numbers([time for time in times if time is not None]), some_rows[is_time]))
        elif kind in (str, bool):
            keys.append(Elements(_keys(some), some_rows))
        elif kind in (int, float):
            numbers.append(Elements(_numbers(some), some_rows))
    return Column(_joined(keys, NO_KEYS), _joined(numbers, NO_NUMBERS))


def _dense(values: Sequence[Any], types: set[type]) -> Column | None:
    """The column of values of one kind, none of which is missing: its elements need no rows."""
    if types <= {int, float}:
        return Column(NO_KEYS, Elements(_numbers(values), None))
    if types == {bool} or (types == {str} and not _may_have_times(values)):
        return Column(Elements(_keys(values), None), NO_NUMBERS)
    if types == {str} and None not in (times := [time_of(text) for text in values]):
        return Column(NO_KEYS, Elements(_numbers(times), None))
    return None


def _may_have_times(texts: Sequence[str]) -> bool:
    return _TIME_LIKE.search("\n".join(texts)) is not None


def _numbers(values: Sequence[Any]) -> NDArray[np.float64]:
    return np.array(values, dtype=np.float64) + 0.0  # −0 becomes 0: they are one number


def _joined(parts: Sequence[Elements], empty: Elements) -> Elements:
    if len(parts) <= 1:
        return parts[0] if parts else empty
    return Elements(
        np.concatenate([part.values_E for part in parts]),
        np.concatenate([part.rows() for part in parts], dtype=np.int32),
    )


def replace_rows(
    columns: Mapping[str, Column], rows: Sequence[int], items: Sequence[Mapping[str, Any]], num_rows: int
) -> dict[str, Column]:
    """New columns in which the given rows hold the given items; the old ones stay as they are."""
    changed_N = np.zeros(num_rows, dtype=np.bool_)
    rows_C = np.array(rows, dtype=np.int32)
    changed_N[rows_C] = True
    fields = dict.fromkeys([*columns, *(field for item in items for field in item)])
    replaced: dict[str, Column] = {}
    for field in fields:
        old = columns.get(field, NO_COLUMN)
        new = column_of([item.get(field) for item in items], rows_C)
        column = Column(old.keys.replaced(changed_N, new.keys), old.numbers.replaced(changed_N, new.numbers))
        if len(column.keys.values_E) or len(column.numbers.values_E):
            replaced[field] = column
    return replaced
