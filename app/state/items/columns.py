"""Attributes of a block of items as columns of numbers, on which a condition is one comparison of arrays.

Legend: N rows of a block, E elements of a column, W wanted values.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.state.filters import Element, Kind, Operator, time_of

Bools = NDArray[np.bool_]

TRUE_KEY, FALSE_KEY, EMPTY_KEY = 1, 2, 3
"""What stands for the booleans, and for the element that an empty list does not have."""
_SHIFT = 0x5DEECE66D
_BUCKETS = 1 << 16
_FEW = 4
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
        if len(wanted.keys_W) and len(self.keys.values_E):
            found_N |= self.keys.rows_where(among(self.keys.values_E, wanted.keys_W), num_rows)
        if len(wanted.numbers_W) and len(self.numbers.values_E):
            found_N |= self.numbers.rows_where(among(self.numbers.values_E, wanted.numbers_W), num_rows)
        return found_N

    def have_all(self, wanted: "Wanted", num_rows: int) -> Bools:
        """The rows with every one of the wanted values."""
        found_N = np.ones(num_rows, dtype=np.bool_)
        for elements, values_W in ((self.keys, wanted.keys_W), (self.numbers, wanted.numbers_W)):
            for value in values_W:
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


@dataclass(frozen=True, slots=True)
class Wanted:
    """The values of a condition as columns hold them, each once."""

    keys_W: NDArray[np.int64]
    numbers_W: NDArray[np.float64]

    @staticmethod
    def of(elements: Iterable[Element]) -> "Wanted":
        keys: list[int] = []
        numbers: list[float] = []
        for kind, value in elements:
            if kind is Kind.NUMBER:
                numbers.append(float(value))
            else:
                keys.append(key_of(value))
        return Wanted(np.unique(np.array(keys, dtype=np.int64)), np.unique(np.array(numbers, dtype=np.float64)))


def key_of(value: object) -> int:
    """The key of a string or a boolean."""
    if value is True:
        return TRUE_KEY
    if value is False:
        return FALSE_KEY
    key = hash(value)
    return key if not 1 <= key <= EMPTY_KEY else key + _SHIFT


def among(values_E: NDArray[Any], wanted_W: NDArray[Any]) -> Bools:
    """Which values are wanted ones. Many wanted ones are looked up by their low bits first: most values end there."""
    if len(wanted_W) <= _FEW:
        selected_E: Bools = values_E == wanted_W[0]
        for value in wanted_W[1:]:
            selected_E |= values_E == value
        return selected_E
    buckets = np.zeros(_BUCKETS, dtype=np.bool_)
    buckets[_bucket_of(wanted_W)] = True
    selected_E = buckets[_bucket_of(values_E)]
    places = np.flatnonzero(selected_E)
    selected_E[places] = np.isin(values_E[places], wanted_W)
    return selected_E


def _bucket_of(values: NDArray[Any]) -> NDArray[np.int64]:
    bits = values.view(np.int64)
    # The low bits of a float64 are zeros for most numbers that people write.
    return (bits ^ (bits >> 16) ^ (bits >> 32) ^ (bits >> 48)) & (_BUCKETS - 1)


NO_KEYS = Elements(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int32))
NO_NUMBERS = Elements(np.empty(0, dtype=np.float64), np.empty(0, dtype=np.int32))
NO_COLUMN = Column(NO_KEYS, NO_NUMBERS)


def columns_of(items: Sequence[Mapping[str, Any]]) -> dict[str, Column]:
    """A column for every attribute that occurs; row n is the nth item."""
    fields = dict.fromkeys(field for item in items for field in item)
    return {field: column_of([item.get(field) for item in items]) for field in fields}


def column_of(values: Sequence[Any], rows: Sequence[int] | None = None) -> Column:
    """The column of one attribute. Without `rows`, value n is that of row n; None is no value."""
    if rows is None:
        types = set(map(type, values))
        if types <= {int, float}:
            return Column(NO_KEYS, Elements(np.array(values, dtype=np.float64) + 0.0, None))
        if types == {str} and all(map(_is_no_time, values)):
            return Column(Elements(np.fromiter(map(key_of, values), np.int64, len(values)), None), NO_NUMBERS)
        rows = range(len(values))
    keys: list[int] = []
    key_rows: list[int] = []
    numbers: list[float] = []
    number_rows: list[int] = []
    for row, value in zip(rows, values, strict=True):
        if value is None:
            continue
        parts: Sequence[Any] = value if isinstance(value, list) else (value,)
        if not parts:
            keys.append(EMPTY_KEY)
            key_rows.append(row)
        for part in parts:
            if isinstance(part, str):
                number = time_of(part)
            elif isinstance(part, bool):
                number = None
            elif isinstance(part, int | float):
                number = float(part) + 0.0
            else:  # an object, a list in a list: not for filters
                continue
            if number is None:
                keys.append(key_of(part))
                key_rows.append(row)
            else:
                numbers.append(number)
                number_rows.append(row)
    return Column(_elements(keys, key_rows, np.int64), _elements(numbers, number_rows, np.float64))


def _is_no_time(text: str) -> bool:
    return len(text) < 20 or text[4] != "-" or time_of(text) is None


def _elements(values: list[Any], rows: list[int], dtype: Any) -> Elements:
    return Elements(np.array(values, dtype=dtype), np.array(rows, dtype=np.int32))


def replace_rows(
    columns: Mapping[str, Column], rows: Sequence[int], items: Sequence[Mapping[str, Any]], num_rows: int
) -> dict[str, Column]:
    """New columns in which the given rows hold the given items; the old ones stay as they are."""
    changed_N = np.zeros(num_rows, dtype=np.bool_)
    changed_N[list(rows)] = True
    fields = dict.fromkeys([*columns, *(field for item in items for field in item)])
    replaced: dict[str, Column] = {}
    for field in fields:
        old = columns.get(field, NO_COLUMN)
        new = column_of([item.get(field) for item in items], rows)
        column = Column(old.keys.replaced(changed_N, new.keys), old.numbers.replaced(changed_N, new.numbers))
        if len(column.keys.values_E) or len(column.numbers.values_E):
            replaced[field] = column
    return replaced
