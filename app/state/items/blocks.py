"""Items in blocks of consecutive rows: a change makes one block anew and leaves the others as they are.

Item index i is row i; row 0 is padding and in no block. A row of a block holds what is in force: the artifact's
attributes, and what was changed live over them.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import count
from typing import Any, Protocol

import numpy as np

from app.state.filters import AVAILABLE
from app.state.items.columns import Bools, Column, columns_of, replace_rows
from app.state.items.records import ItemRecord

BLOCK_ROWS = 16_384
"""What one change costs falls with it, what a mask over a million items costs rises."""
_SERIALS = count(1)


class BaseAttributes(Protocol):
    """The artifact's attributes by item index."""

    def __len__(self) -> int: ...

    def __getitem__(self, item_index: int) -> dict[str, Any]: ...

    def of_range(self, start: int, stop: int) -> list[dict[str, Any]]: ...


class NoAttributes:
    """Without a model no item has any."""

    def __len__(self) -> int:
        return 0

    def __getitem__(self, item_index: int) -> dict[str, Any]:
        raise IndexError(item_index)

    def of_range(self, start: int, stop: int) -> list[dict[str, Any]]:
        raise IndexError((start, stop))


class Block:
    """Rows `start` … `start + size - 1`, never changed once made. Columns are made when they are first asked for."""

    def __init__(
        self,
        base: BaseAttributes,
        start: int,
        size: int,
        records: Sequence[bytes | None] | None = None,
        made: "tuple[Bools, dict[str, Column]] | None" = None,
    ) -> None:
        """records: of each row, encoded; None: no row has one. made: columns that are known already."""
        self._base = base
        self._records = records
        self.start = start
        self.size = size
        self.serial = next(_SERIALS)
        """No other block of this process has it."""
        if made is not None:
            self._made = made

    @cached_property
    def _made(self) -> tuple[Bools, dict[str, Column]]:
        first, last = self.start, min(self.start + self.size, len(self._base) + 1)
        items = self._base.of_range(first, last) if first < last else []
        items += [{} for _ in range(self.size - len(items))]
        hidden_N = np.zeros(self.size, dtype=np.bool_)
        for row, item in enumerate(items):
            record = self.record_at(row)
            if record is not None:
                items[row], available = ItemRecord.decode(record).over(item)
                hidden_N[row] = not available
            elif AVAILABLE in item:
                hidden_N[row] = item.pop(AVAILABLE) is False
        return hidden_N, columns_of(items)

    @property
    def hidden(self) -> Bools:
        return self._made[0]

    @property
    def columns(self) -> Mapping[str, Column]:
        return self._made[1]

    def record_at(self, row: int) -> bytes | None:
        """`row` counts from the beginning of the block."""
        return self._records[row] if self._records is not None and row < len(self._records) else None

    def item_at(self, row: int) -> tuple[dict[str, Any], bool]:
        """The attributes in force and whether the item is available."""
        return self._in_force(row, self.record_at(row))

    def with_records(self, changes: Mapping[int, bytes], size: int) -> "Block":
        """A new block of at least as many rows, with other records at the given rows."""
        records: list[bytes | None] = [None] * size
        if self._records is not None:
            records[: len(self._records)] = self._records
        for row, record in changes.items():
            records[row] = record
        made = None
        if "_made" in self.__dict__:
            rows = sorted(changes)
            items = [self._in_force(row, changes[row]) for row in rows]
            hidden_N = np.zeros(size, dtype=np.bool_)
            hidden_N[: self.size] = self.hidden
            hidden_N[rows] = [not available for _, available in items]
            made = hidden_N, replace_rows(self.columns, rows, [attributes for attributes, _ in items], size)
        return Block(self._base, self.start, size, records, made)

    @cached_property
    def live_titles(self) -> list[tuple[str, int]]:
        """`title` in lower case and item index of the items that were changed live and not deleted, sorted."""
        titles = ((self._in_force(row, record)[0].get("title"), row) for row, record in self.records())
        return sorted((title.casefold(), self.start + row) for title, row in titles if isinstance(title, str))

    def records(self) -> Iterator[tuple[int, bytes]]:
        """The rows that were changed live, with their encoded records."""
        for row, record in enumerate(self._records or ()):
            if record is not None:
                yield row, record

    def _in_force(self, row: int, record: bytes | None) -> tuple[dict[str, Any], bool]:
        index = self.start + row
        base = self._base[index] if index <= len(self._base) else {}
        return (ItemRecord() if record is None else ItemRecord.decode(record)).over(base)


def base_blocks(base: BaseAttributes, num_items: int) -> list[Block]:
    """Blocks over the artifact's items, without live changes."""
    return [Block(base, start, min(BLOCK_ROWS, num_items + 1 - start)) for start in range(1, num_items + 1, BLOCK_ROWS)]
