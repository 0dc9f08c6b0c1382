"""Tables beside a graph are read as they are, or refused with what was found."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from app.artifacts.manifest import Manifest, read_manifest
from app.artifacts.tables import read_attribute_vectors, read_tables
from app.errors import ArtifactError
from tests.make_tiny_artifact import ARTIFACTS as TINY


@pytest.fixture
def artifact(tmp_path: Path) -> tuple[Path, Manifest]:
    source = TINY / (TINY / "CURRENT").read_text().strip()
    folder = tmp_path / source.name
    shutil.copytree(source, folder)
    return folder, read_manifest(folder)


def test_tables_are_mapped_under_the_names_of_the_inputs(artifact: tuple[Path, Manifest]) -> None:
    tables = read_tables(*artifact)
    assert {name: (type(table), table.dtype.name, len(table)) for name, table in tables.items()} == {
        "item_vectors": (np.memmap, "float32", 31),
        "rule_items": (np.memmap, "int32", 31),
        "rule_weights": (np.memmap, "float32", 31),
    }


@pytest.mark.parametrize(
    ("file", "table", "message"),
    [
        (
            "item_vectors.npy",
            np.zeros((30, 16), np.float32),
            r"holds float32 \(30, 16\), expected float32 with 31 rows",
        ),
        ("item_vectors.npy", np.zeros(31, np.float32), r"holds float32 \(31,\)"),
        ("rule_weights.npy", np.zeros((31, 4), np.float64), "holds float64"),
        ("rule_items.npy", np.full((31, 4), 31, np.int32), r"names items outside 0…30"),
        ("rule_items.npy", np.full((31, 4), -1, np.int32), r"names items outside 0…30"),
    ],
)
def test_table_that_does_not_fit_is_refused(
    artifact: tuple[Path, Manifest], file: str, table: np.ndarray, message: str
) -> None:
    folder, manifest = artifact
    np.save(folder / file, table)
    with pytest.raises(ArtifactError, match=message):
        read_tables(folder, manifest)


def test_vector_of_a_new_item_is_the_sum_of_its_values_over_the_root_of_their_number(
    artifact: tuple[Path, Manifest],
) -> None:
    folder, manifest = artifact
    (folder / "attribute_values.json").write_text(json.dumps(["genres=Comedy", "genres=Drama", "year=[-inf,1980)"]))
    vectors_AD = np.zeros((3, 16), np.float32)
    vectors_AD[:, :2] = [[1, 2], [3, 4], [5, 6]]
    np.save(folder / "attribute_vectors.npy", vectors_AD)
    vectors = read_attribute_vectors(folder, manifest)
    assert vectors is not None
    two = vectors.item_vector({"genres": ["Drama", "Western"], "year": 1975, "title": "Ran"})
    np.testing.assert_allclose(two[:2], np.array([3 + 5, 4 + 6]) / np.sqrt(2), rtol=1e-6)
    assert not vectors.item_vector({"title": "Ran"}).any()


def test_attribute_vectors_that_do_not_fit_are_refused(artifact: tuple[Path, Manifest]) -> None:
    folder, manifest = artifact
    (folder / "attribute_values.json").write_text('["genres=Comedy"]')
    with pytest.raises(ArtifactError, match="a row for each of 1 values"):
        read_attribute_vectors(folder, manifest)
