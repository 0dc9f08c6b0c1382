"""Items that were put into the catalogue and that the live model has never seen: vectors made of their attributes.

Shapes: V rows of the table (row = item index), D embedding.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.artifacts.registry import LiveModel
from app.artifacts.tables import added_vector
from app.ranking.approximate import ApproximateRanker
from app.ranking.exact import ExactRanker
from app.state.catalogue import CatalogueView

SPARE_ROWS = 1024
"""The table is copied when so many more items have been added, and not for each."""


class ColdItems:
    """One per worker: the live model with a row for every item of the catalogue.

    Where the model's tables can be lengthened, an added item gets a vector of those of its attributes' values that the
    model knows; one without any such value gets the mean of all items, and so a middling rank.
    """

    def __init__(self) -> None:
        self._rows: _AddedRows | None = None

    def lengthened(self, live: LiveModel, view: CatalogueView) -> LiveModel:
        """The model for requests over this view; itself where nothing was added or its graph holds its tables."""
        if view.num_items == view.num_model_items:
            self._rows = None  # they would keep a model that is no longer live
            return live
        if not isinstance(live.ranker, ExactRanker | ApproximateRanker) or live.ranker.item_vectors is None:
            return live
        if self._rows is None or self._rows.live is not live:
            self._rows = _AddedRows(live, live.ranker)
        return self._rows.follow(view)


class _AddedRows:
    """The rows behind those of one model.

    Rankers are prefixes of one table. A row is written once, before any ranker reaches it; a vector that changes makes
    a new table, so that a request under way keeps what it began with.
    """

    def __init__(self, live: LiveModel, ranker: ExactRanker | ApproximateRanker) -> None:
        self.live = live
        self._ranker = ranker
        self._table_VD = ranker.tables["item_vectors"]
        self._num_written = len(self._table_VD)
        self._mean_D: NDArray[np.float32] = self._table_VD[1:].mean(axis=0)
        self._serials: tuple[int, ...] = ()
        self._records: list[bytes | None] = []
        """Of each added item, the record that its vector was made of."""
        self._model = live

    def follow(self, view: CatalogueView) -> LiveModel:
        """The model with the rows of this view."""
        if view.serials == self._serials:
            return self._model
        changed = self._changed(view)
        self._serials = view.serials
        num_rows = view.num_items + 1
        if changed or num_rows != self._model.ranker.num_items + 1:
            is_new = all(index >= self._num_written for index in changed)
            if not is_new or num_rows > len(self._table_VD):
                table_VD = np.empty((num_rows + SPARE_ROWS, self._table_VD.shape[1]), dtype=np.float32)
                kept = min(self._num_written, num_rows)
                table_VD[:kept] = self._table_VD[:kept]
                self._table_VD = table_VD
                self._num_written = kept
            for index, vector_D in changed.items():
                self._table_VD[index] = vector_D
            self._num_written = max(self._num_written, num_rows)
            tables = {**self._ranker.tables, "item_vectors": self._table_VD[:num_rows]}
            self._model = self.live.with_ranker(self._ranker.with_tables(tables))
        return self._model

    def _changed(self, view: CatalogueView) -> dict[int, NDArray[np.float32]]:
        """By item index, the vectors that are not in the table yet."""
        first = view.num_model_items + 1
        changed = {}
        del self._records[view.num_items - view.num_model_items :]
        for number, block in enumerate(view.blocks):
            if number < len(self._serials) and self._serials[number] == block.serial:
                continue
            for index in range(max(first, block.start), block.start + block.size):
                record, place = block.record_at(index - block.start), index - first
                if place == len(self._records):
                    self._records.append(record)
                elif self._records[place] == record:
                    continue
                self._records[place] = record
                vector_D = self._vector(view.attributes(index))
                if index >= self._num_written or not np.array_equal(self._table_VD[index], vector_D):
                    changed[index] = vector_D
        return changed

    def _vector(self, attributes: Mapping[str, Any]) -> NDArray[np.float32]:
        return added_vector(attributes, self.live.attribute_vectors, self._mean_D)
