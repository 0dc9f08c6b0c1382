"""The live items in the order of one model, continued change by change."""

from collections.abc import Iterable, Iterator

from app.state.items.records import ItemRecord
from app.state.items.view import CatalogueView

MAX_DEAD_ROWS = 1000
"""So many deleted items behind the model's own may keep an index, or as many as half of the items there."""


class LiveItems:
    """The newest view of a model, and what has no place in it."""

    def __init__(self, view: CatalogueView, records: Iterable[tuple[str, bytes]] = ()) -> None:
        """view: one without live changes; the records, encoded, come on top."""
        self.view = view
        self._deleted: dict[str, bytes] = {}
        """Records of deleted items that have no index: a later model may know them."""
        self._num_dead_rows = 0
        self.place(records)

    def place(self, records: Iterable[tuple[str, bytes]]) -> None:
        """In place of the items' earlier records; of two of one item the later one stays."""
        placed: dict[str, bytes] = {}
        for item_id, record in records:
            index = self.view.index_of(item_id)
            deleted = ItemRecord.decode(record).deleted
            if index is None and deleted and item_id not in placed:
                self._deleted[item_id] = record
                continue
            self._deleted.pop(item_id, None)
            placed[item_id] = record
            if deleted and (index is None or index > self.view.num_model_items):
                self._num_dead_rows += 1
        if placed:
            self.view = self.view.with_records(placed)

    def records(self) -> Iterator[tuple[str, bytes]]:
        """All of them, as the constructor takes them for another model."""
        yield from self.view.records()
        yield from list(self._deleted.items())

    @property
    def is_crowded(self) -> bool:
        """Whether so many deleted items hold an index that it is worth the work to begin anew."""
        num_added = self.view.num_items - self.view.num_model_items
        return self._num_dead_rows > max(MAX_DEAD_ROWS, num_added // 2)
