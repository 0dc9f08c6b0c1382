"""The catalogue at one moment: what a request reads from beginning to end."""

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from app.artifacts.vocabulary import ItemAttributes, ItemVocabulary
from app.state.filters import Filter, Kind
from app.state.items.blocks import BLOCK_ROWS, Block, NoAttributes, base_blocks
from app.state.items.columns import Bools
from app.state.items.masks import MaskCache, num_elements
from app.state.items.records import ItemRecord


class CatalogueModel(Protocol):
    """What the catalogue reads of a live model."""

    @property
    def version(self) -> str: ...

    @property
    def vocabulary(self) -> ItemVocabulary: ...

    @property
    def attributes(self) -> ItemAttributes: ...


@dataclass(frozen=True, slots=True)
class CatalogueItem:
    """`available`: may be recommended now. `in_model`: the live model has learnt it."""

    item_id: str
    attributes: dict[str, Any]
    available: bool
    in_model: bool


@dataclass(slots=True)
class AddedItems:
    """Ids that the model does not know, in the order in which they came; only ever appended to, and shared by views."""

    ids: list[str] = field(default_factory=list)
    indices: dict[str, int] = field(default_factory=dict)

    def append(self, item_id: str, index: int) -> None:
        self.ids.append(item_id)
        self.indices[item_id] = index


class CatalogueView:
    """An immutable snapshot: the model's items by their item indices, then the items added live.

    An index is good for one view: a later one of the same model may have other items behind the model's own.
    """

    def __init__(
        self,
        model: CatalogueModel | None,
        blocks: tuple[Block, ...],
        added: AddedItems,
        num_items: int,
        masks: MaskCache,
    ) -> None:
        self.model = model
        self.blocks = blocks
        self.serials = tuple(block.serial for block in blocks)
        self.num_items = num_items
        self.num_model_items = len(model.vocabulary) if model is not None else 0
        self._added = added
        self._masks = masks

    @property
    def numbering(self) -> object:
        """Views that have the same one give an item the same index, and a later one only further items."""
        return self._added

    @classmethod
    def of_model(
        cls, model: CatalogueModel | None, masks: MaskCache, blocks: Sequence[Block] | None = None
    ) -> "CatalogueView":
        """Nothing is changed live. `blocks` are those of `base_blocks`, where they were made before."""
        num_items = len(model.vocabulary) if model is not None else 0
        if blocks is None:
            blocks = base_blocks(model.attributes if model is not None else NoAttributes(), num_items)
        return cls(model, tuple(blocks), AddedItems(), num_items, masks)

    def index_of(self, item_id: str) -> int | None:
        index = self.model.vocabulary.index_of(item_id) if self.model is not None else None
        if index is None:
            index = self._added.indices.get(item_id)
        return index if index is not None and index <= self.num_items else None

    def id_of(self, index: int) -> str:
        """Raises IndexError for 0 and for anything above num_items."""
        if not 1 <= index <= self.num_items:
            raise IndexError(index)
        if self.model is not None and index <= self.num_model_items:
            return self.model.vocabulary.id_of(index)
        return self._added.ids[index - self.num_model_items - 1]

    def attributes(self, index: int) -> dict[str, Any]:
        """Those in force: live ones win over the artifact's. Raises IndexError like `id_of`."""
        block, row = self._place(index)
        return block.item_at(row)[0]

    def item(self, item_id: str) -> CatalogueItem | None:
        """None: there is no such item, or it was deleted."""
        index = self.index_of(item_id)
        return self.item_at(index) if index is not None else None

    def item_at(self, index: int) -> CatalogueItem | None:
        """None: the item was deleted. Raises IndexError like `id_of`."""
        block, row = self._place(index)
        record = block.record_at(row)
        if record is not None and ItemRecord.decode(record).deleted:
            return None
        attributes, available = block.item_at(row)
        return CatalogueItem(self.id_of(index), attributes, available, index <= self.num_model_items)

    @cached_property
    def hidden(self) -> Bools:
        """bool (num_items + 1,), read-only. True: deleted or unavailable; so is the padding in row 0."""
        hidden_V = np.concatenate([np.ones(1, dtype=np.bool_), *(block.hidden for block in self.blocks)])
        hidden_V.flags.writeable = False
        return hidden_V

    @cached_property
    def hidden_items(self) -> NDArray[np.int64]:
        """The item indices that `hidden` marks, rising, without the padding."""
        return np.flatnonzero(self.hidden)[1:]

    def mask(self, filter: Filter, *, pointer: str = "/filter") -> Bools:
        """bool (num_items + 1,), read-only. True: the filter holds; row 0 is False. Cached.

        It says nothing of availability: an item that must not be shown now is in `hidden`.

        Raises:
            InvalidRequest: the filter names a field that no item has, or compares a field with a value of a kind that
                it never holds. `pointer` is where the filter stands in the request.
        """
        return self._masks.mask(filter, self, pointer)

    @cached_property
    def num_elements(self) -> Mapping[str, Mapping[Kind, int]]:
        """By field, how many elements of each kind the items have."""
        fields = sorted({field for block in self.blocks for field in block.columns})
        return {field: num_elements(self.blocks, field) for field in fields}

    def find_title(self, prefix: str) -> Iterator[int]:
        """Item indices whose `title` begins with `prefix`, whatever the case, by title and then by index."""
        prefix = prefix.casefold()
        live = heapq.merge(*(block.live_titles for block in self.blocks))
        for title, index in heapq.merge(self._model_titles(prefix), live):
            if title.startswith(prefix):
                yield index

    def _model_titles(self, prefix: str) -> Iterator[tuple[str, int]]:
        if self.model is None:
            return
        for index in self.model.attributes.find_title(prefix):
            block, row = self._place(index)
            if block.record_at(row) is None:
                yield block.item_at(row)[0]["title"].casefold(), index

    def records(self) -> Iterator[tuple[str, bytes]]:
        """The items that were changed live, with their encoded records."""
        for block in self.blocks:
            for row, record in block.records():
                yield self.id_of(block.start + row), record

    def with_records(self, records: Mapping[str, bytes]) -> "CatalogueView":
        """The next view, with these records instead of the items' earlier ones; ids without an index get the next ones.

        Views form one line: only the newest may be continued.
        """
        num_items = self.num_items
        changes: dict[int, dict[int, bytes]] = {}
        for item_id, record in records.items():
            index = self.index_of(item_id)
            if index is None:
                num_items += 1
                index = num_items
                self._added.append(item_id, index)
            number, row = divmod(index - 1, BLOCK_ROWS)
            changes.setdefault(number, {})[row] = record
        blocks = list(self.blocks)
        for number in sorted(changes):
            size = min(BLOCK_ROWS, num_items - number * BLOCK_ROWS)
            if number == len(blocks):
                blocks.append(Block(NoAttributes(), number * BLOCK_ROWS + 1, 0))
            blocks[number] = blocks[number].with_records(changes[number], size)
        return CatalogueView(self.model, tuple(blocks), self._added, num_items, self._masks)

    def _place(self, index: int) -> tuple[Block, int]:
        if not 1 <= index <= self.num_items:
            raise IndexError(index)
        number, row = divmod(index - 1, BLOCK_ROWS)
        return self.blocks[number], row
