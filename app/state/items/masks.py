"""From a filter expression to the items for which it holds."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Protocol

import numpy as np

from app.errors import Fault, InvalidRequest
from app.state.filters import (
    AVAILABLE,
    ITEM_ID,
    ORDERING,
    SPECIAL_FIELDS,
    All,
    AnyOf,
    Condition,
    Filter,
    Kind,
    Not,
    Operator,
    conditions,
)
from app.state.items.blocks import Block
from app.state.items.columns import NO_COLUMN, Bools, Wanted

MAX_NAMED_FIELDS = 50
"""An error names so many of the fields that exist."""
ARTICLES = {Kind.STRING: "a string", Kind.NUMBER: "a number or a time", Kind.BOOLEAN: "a boolean"}
_PLURALS = {Kind.STRING: "strings", Kind.NUMBER: "numbers or times", Kind.BOOLEAN: "booleans"}

Predicate = Callable[[Block], Bools]
"""For which rows of a block it holds; the array is the caller's own."""


class Items(Protocol):
    """What a mask is made of."""

    @property
    def blocks(self) -> tuple[Block, ...]: ...

    @property
    def serials(self) -> tuple[int, ...]: ...

    @property
    def num_items(self) -> int: ...

    def index_of(self, item_id: str) -> int | None: ...


@dataclass(frozen=True, slots=True)
class _Entry:
    """`serials` are those of the blocks that the mask was made from; kept themselves, these would stay in memory."""

    serials: tuple[int, ...]
    mask_V: Bools


class MaskCache:
    """Masks by filter, the least recently used forgotten first, at most `max_bytes` and `max_masks` of them.

    A mask of an earlier state is not lost: only the blocks that are new since are looked at again.
    """

    def __init__(self, *, max_bytes: int = 64 * 2**20, max_masks: int = 1024) -> None:
        self._max_bytes = max_bytes
        self._max_masks = max_masks
        self._entries: OrderedDict[Filter, _Entry] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()  # masks are asked for by the event loop's thread and by others

    def mask(self, filter: Filter, items: Items, pointer: str) -> Bools:
        """See `CatalogueView.mask`."""
        with self._lock:
            entry = self._entries.get(filter)
            if entry is not None:
                self._entries.move_to_end(filter)
                if entry.serials == items.serials:
                    return entry.mask_V
        check(filter, items.blocks, pointer)
        mask_V = _evaluate(filter, items, entry)
        mask_V.flags.writeable = False
        self._keep(filter, _Entry(items.serials, mask_V))
        return mask_V

    def _keep(self, filter: Filter, entry: _Entry) -> None:
        with self._lock:
            before = self._entries.pop(filter, None)
            self._bytes += entry.mask_V.nbytes - (before.mask_V.nbytes if before is not None else 0)
            self._entries[filter] = entry
            while self._bytes > self._max_bytes or len(self._entries) > self._max_masks:
                _, forgotten = self._entries.popitem(last=False)
                self._bytes -= forgotten.mask_V.nbytes


def _evaluate(filter: Filter, items: Items, before: _Entry | None) -> Bools:
    predicate = predicate_of(filter, items)
    mask_V = np.empty(items.num_items + 1, dtype=np.bool_)
    mask_V[0] = False
    known = before.serials if before is not None else ()
    for number, block in enumerate(items.blocks):
        rows = slice(block.start, block.start + block.size)
        if before is not None and number < len(known) and known[number] == block.serial:
            mask_V[rows] = before.mask_V[rows]
        else:
            mask_V[rows] = predicate(block)
    return mask_V


def predicate_of(filter: Filter, items: Items) -> Predicate:
    match filter:
        case Not():
            inner = predicate_of(filter.filter, items)
            return lambda block: ~inner(block)
        case All():
            return _joined([predicate_of(part, items) for part in filter.filters], every=True)
        case AnyOf():
            return _joined([predicate_of(part, items) for part in filter.filters], every=False)
        case Condition(field=field, operator=Operator.NE):
            equal = predicate_of(Condition(field, Operator.EQ, filter.elements), items)
            return lambda block: ~equal(block)
        case Condition(field=field) if field == ITEM_ID:
            return _by_id(filter, items)
        case Condition(field=field) if field == AVAILABLE:
            return _by_availability(filter)
        case Condition():
            return _by_attribute(filter)


def _joined(predicates: Sequence[Predicate], *, every: bool) -> Predicate:
    def holds(block: Block) -> Bools:
        rows_N = np.full(block.size, every, dtype=np.bool_)
        for predicate in predicates:
            if every:
                rows_N &= predicate(block)
                decided = not rows_N.any()
            else:
                rows_N |= predicate(block)
                decided = bool(rows_N.all())
            if decided:
                break
        return rows_N

    return holds


def _by_attribute(condition: Condition) -> Predicate:
    field, operator = condition.field, condition.operator
    if operator is Operator.EXISTS:
        if condition.elements[0].value:
            return lambda block: block.columns.get(field, NO_COLUMN).exist(block.size)
        return lambda block: ~block.columns.get(field, NO_COLUMN).exist(block.size)
    if operator in ORDERING:
        number = float(condition.elements[0].value)
        return lambda block: block.columns.get(field, NO_COLUMN).compare(operator, number, block.size)
    wanted = Wanted.of(condition.elements)
    if operator is Operator.ALL_OF:
        return lambda block: block.columns.get(field, NO_COLUMN).have_all(wanted, block.size)
    return lambda block: block.columns.get(field, NO_COLUMN).have_any(wanted, block.size)


def _by_id(condition: Condition, items: Items) -> Predicate:
    """Every item has exactly one id."""
    if condition.operator is Operator.EXISTS:
        return _constant(bool(condition.elements[0].value))
    ids = {element.value for element in condition.elements}
    if condition.operator is Operator.ALL_OF and len(ids) > 1:
        return _constant(False)
    found = [items.index_of(str(item_id)) for item_id in ids]
    indices = np.sort(np.array([index for index in found if index is not None], dtype=np.int64))

    def holds(block: Block) -> Bools:
        rows_N = np.zeros(block.size, dtype=np.bool_)
        first, last = np.searchsorted(indices, (block.start, block.start + block.size))
        rows_N[indices[first:last] - block.start] = True
        return rows_N

    return holds


def _by_availability(condition: Condition) -> Predicate:
    """Every item has exactly one."""
    if condition.operator is Operator.EXISTS:
        return _constant(bool(condition.elements[0].value))
    wanted = {element.value for element in condition.elements}
    if len(wanted) == 2:
        return _constant(condition.operator is not Operator.ALL_OF)
    if True in wanted:
        return lambda block: ~block.hidden
    return lambda block: block.hidden.copy()


def _constant(value: bool) -> Predicate:
    return lambda block: np.full(block.size, value, dtype=np.bool_)


def check(filter: Filter, blocks: Sequence[Block], pointer: str) -> None:
    """
    Raises:
        InvalidRequest: a condition names a field that no item has, or compares with what the field never holds.
    """
    faults: list[Fault] = []
    for condition, place in conditions(filter, pointer):
        field = condition.field
        if field == ITEM_ID:
            held = {Kind.STRING}
        elif field == AVAILABLE:
            held = {Kind.BOOLEAN}
        else:
            columns = [block.columns[field] for block in blocks if field in block.columns]
            if not columns:
                faults.append(Fault(f"No item has a field {field!r}; {_known(blocks)}", f"{place}/field"))
                continue
            held = {kind for kind in Kind if any(column.num_elements[kind] for column in columns)}
        if condition.operator is Operator.EXISTS:
            continue
        if condition.operator in ORDERING and Kind.NUMBER not in held:
            faults.append(Fault(f"Field {field!r} holds {listed(held)}, which have no order", f"{place}/op"))
            continue
        for number, element in enumerate(condition.elements):
            if element.kind not in held and held:
                many = condition.operator in (Operator.IN, Operator.ANY_OF, Operator.ALL_OF)
                faults.append(
                    Fault(
                        f"Field {field!r} holds {listed(held)}, not {ARTICLES[element.kind]}",
                        f"{place}/value/{number}" if many else f"{place}/value",
                    )
                )
                break
    if faults:
        raise InvalidRequest("The filter does not fit the catalogue.", faults=faults)


def listed(kinds: set[Kind]) -> str:
    """
    >>> listed({Kind.BOOLEAN, Kind.STRING})
    'strings and booleans'
    """
    return " and ".join(_PLURALS[kind] for kind in Kind if kind in kinds)


def _known(blocks: Sequence[Block]) -> str:
    fields = sorted({field for block in blocks for field in block.columns})
    named = [*SPECIAL_FIELDS, *fields[:MAX_NAMED_FIELDS]]
    more = len(fields) - MAX_NAMED_FIELDS
    return "known are " + ", ".join(named) + (f" and {more} more" if more > 0 else "")


def num_elements(blocks: Sequence[Block], field: str) -> Mapping[Kind, int]:
    """How many elements of each kind the field has."""
    columns = [block.columns[field] for block in blocks if field in block.columns]
    return {kind: sum(column.num_elements[kind] for column in columns) for kind in Kind}
