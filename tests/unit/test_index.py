"""The index against all inner products, computed by numpy."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from app.ranking.index import ItemIndex
from scripts.benchmarks.serving.simulated import DIM, simulated_tables


def vectors_and_states(num_items: int, num_states: int = 100) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Item vectors (row 0 is padding) and states each near a random item's vector."""
    vectors_VD = simulated_tables(num_items)["item_vectors"]
    rng = np.random.default_rng(3)
    noise_BD = rng.normal(size=(num_states, DIM)) * 0.3 / DIM**0.5
    states_BD = 4 * (vectors_VD[rng.integers(1, num_items + 1, num_states)] + noise_BD)
    return vectors_VD, states_BD.astype(np.float32)


def best(vectors_VD: NDArray[np.float32], states_BD: NDArray[np.float32], n: int) -> NDArray[np.int64]:
    return np.argsort(-(states_BD @ vectors_VD[1:].T), axis=1)[:, :n] + 1


def recall(found_BN: NDArray[np.int64], expected_BK: NDArray[np.int64]) -> float:
    hits = sum(len(set(found) & set(expected)) for found, expected in zip(found_BN, expected_BK, strict=True))
    return hits / expected_BK.size


def test_search_of_all_lists_finds_the_best_up_to_half_precision() -> None:
    vectors_VD, states_BD = vectors_and_states(3000)
    index = ItemIndex.build(vectors_VD)
    found_BN = index.search(states_BD, 20, probes=index.num_lists)
    assert recall(found_BN, best(vectors_VD, states_BD, 10)) == 1


def test_a_search_that_reads_few_lists_misses_less_than_two_in_a_hundred() -> None:
    vectors_VD, states_BD = vectors_and_states(40_000)
    index = ItemIndex.build(vectors_VD)
    assert index.probes <= index.num_lists / 9
    assert recall(index.search(states_BD, 160), best(vectors_VD, states_BD, 10)) >= 0.98


@pytest.mark.parametrize("n", [299, 300, 301, 5000])
def test_search_for_the_whole_catalogue_gives_all_of_it_and_never_the_padding(n: int) -> None:
    vectors_VD, states_BD = vectors_and_states(300, num_states=2)
    for found_N in ItemIndex.build(vectors_VD).search(-states_BD, n, probes=1):  # the padding has the largest product
        assert len(found_N) == len(set(found_N.tolist()) - {0}) == min(n, 300)


@pytest.mark.parametrize("num_items", [1, 2, 50])
def test_tiny_catalogues_and_equal_vectors_are_indexed_too(num_items: int) -> None:
    index = ItemIndex.build(np.zeros((num_items + 1, DIM), np.float32))
    found_BN = index.search(np.ones((1, DIM), np.float32), 100)
    assert sorted(found_BN[0].tolist()) == list(range(1, num_items + 1))


def test_written_index_is_read_back(tmp_path: Path) -> None:
    vectors_VD, states_BD = vectors_and_states(2000)
    index = ItemIndex.build(vectors_VD)
    index.write(tmp_path / "index")
    again = ItemIndex.read(tmp_path / "index")
    assert again.num_items == 2000
    assert np.array_equal(again.search(states_BD, 10), index.search(states_BD, 10))


def test_same_vectors_give_the_same_file(tmp_path: Path) -> None:
    vectors_VD, _ = vectors_and_states(2000)
    for name in ("one", "other"):
        ItemIndex.build(vectors_VD).write(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
