"""Tables beside the graph, mapped into memory so that all workers share what they take.

Shapes: V catalogue with padding (row = item index), D embedding, N rules an item, A attribute values.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from app.artifacts.attribute_values import AttributeValues
from app.artifacts.manifest import ATTRIBUTE_VALUES_FILE, ATTRIBUTE_VECTORS_FILE, TABLE_FILES, Manifest
from app.errors import ArtifactError


@dataclass(frozen=True)
class AttributeVectors:
    """What an item's vector is made of where training never saw the item.

    vectors_AD: float32 (A, D), row = place of the value in `values`.
    """

    values: AttributeValues
    vectors_AD: NDArray[np.float32]

    def item_vector(self, attributes: Mapping[str, Any]) -> NDArray[np.float32]:
        """float32 (D,): the sum of the vectors of the n values that are known, over √n; zero where none is."""
        rows = self.values.rows_of(attributes)
        vector_D: NDArray[np.float32] = self.vectors_AD[rows].sum(axis=0) / np.float32(max(len(rows), 1) ** 0.5)
        return vector_D


def added_vector(
    attributes: Mapping[str, Any], vectors: AttributeVectors | None, mean_D: NDArray[np.float32]
) -> NDArray[np.float32]:
    """float32 (D,): the row of an item that training never saw: of its attributes' values, or the mean of all items
    where the model knows none of them."""
    vector_D = vectors.item_vector(attributes) if vectors is not None else mean_D
    return vector_D if vector_D.any() else mean_D


def read_tables(folder: Path, manifest: Manifest) -> dict[str, NDArray[Any]]:
    """The tables that the graph takes as inputs.

    Raises:
        ArtifactError: a table of another type or number of rows, or rules that name items beyond the catalogue.
    """
    tables = {}
    for name in manifest.graph.tables:
        table = np.load(folder / TABLE_FILES[name], mmap_mode="r", allow_pickle=False)
        dtype = np.dtype(np.int32 if name == "rule_items" else np.float32)
        if table.dtype != dtype or table.ndim != 2 or len(table) != manifest.num_items + 1:
            raise ArtifactError(
                f"{folder.name}: {TABLE_FILES[name]} holds {table.dtype} {table.shape}, expected {dtype} with "
                f"{manifest.num_items + 1} rows"
            )
        tables[name] = table
    items_VN = tables.get("rule_items")
    if items_VN is not None and not (items_VN.min() >= 0 and items_VN.max() <= manifest.num_items):
        raise ArtifactError(f"{folder.name}: {TABLE_FILES['rule_items']} names items outside 0…{manifest.num_items}")
    return tables


def read_attribute_vectors(folder: Path, manifest: Manifest) -> AttributeVectors | None:
    """None where the model has learnt nothing about attributes.

    Raises:
        ArtifactError: vectors and values that do not belong together.
    """
    if ATTRIBUTE_VECTORS_FILE not in manifest.files:
        return None
    vectors_AD = np.load(folder / ATTRIBUTE_VECTORS_FILE, mmap_mode="r", allow_pickle=False)
    values = AttributeValues(orjson.loads((folder / ATTRIBUTE_VALUES_FILE).read_bytes()))
    if vectors_AD.dtype != np.float32 or vectors_AD.ndim != 2 or len(vectors_AD) != len(values):
        raise ArtifactError(
            f"{folder.name}: {ATTRIBUTE_VECTORS_FILE} holds {vectors_AD.dtype} {vectors_AD.shape}, expected float32 "
            f"with a row for each of {len(values)} values"
        )
    return AttributeVectors(values, vectors_AD)
