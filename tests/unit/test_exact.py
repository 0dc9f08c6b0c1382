"""ExactRanker over the distance model: every expected ranking is computed by eye."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from app.errors import DeviceUnavailable
from app.ranking.exact import ExactRanker
from app.ranking.ranker import ItemSequence, Ranker
from tests.distance_model import distance_ranking, write_distance_graph

NUM_ITEMS = 9


def sequence(*items: int, timestamp_ms: int = 1, event_type: int = 0) -> ItemSequence:
    return ItemSequence(items, (timestamp_ms,) * len(items), (event_type,) * len(items))


@pytest.fixture
def ranker(tmp_path: Path) -> Ranker:
    graph = write_distance_graph(tmp_path / "model.onnx", NUM_ITEMS)
    return ExactRanker(tmp_path / "model.onnx", inputs=graph.inputs, num_items=NUM_ITEMS, max_length=3)


def test_nearest_items_come_first_and_ties_by_index(ranker: Ranker) -> None:
    ranking = ranker.rank([sequence(2, 5)], 4)[0]
    assert ranking.item_indices.tolist() == [5, 4, 6, 3]
    assert ranking.scores.tolist() == [0.0, -1.0, -1.0, -2.0]


def test_batch_of_unequal_lengths_equals_each_sequence_alone(ranker: Ranker) -> None:
    sequences = [sequence(1), sequence(9, 2, 7), sequence(4, 4), sequence(3, 1, 8, 6, 5)]
    for one, ranking in zip(sequences, ranker.rank(sequences, 9), strict=True):
        alone = ranker.rank([one], 9)[0]
        assert ranking.item_indices.tolist() == alone.item_indices.tolist() == distance_ranking(one.items[-1], 9, 9)[0]


def test_hidden_items_never_come_back_and_k_shrinks_to_what_is_eligible(ranker: Ranker) -> None:
    adjust_BV = np.zeros((1, NUM_ITEMS + 1), np.float32)
    adjust_BV[0, [5, 4, 1, 2, 3, 9]] = -np.inf
    assert ranker.rank([sequence(5)], 2, adjust_BV)[0].item_indices.tolist() == [6, 7]
    assert ranker.rank([sequence(5)], 9, adjust_BV)[0].item_indices.tolist() == [6, 7, 8]


def test_everything_hidden_gives_an_empty_ranking(ranker: Ranker) -> None:
    adjust_BV = np.full((1, NUM_ITEMS + 1), -np.inf, np.float32)
    assert len(ranker.rank([sequence(5)], 3, adjust_BV)[0].item_indices) == 0


def test_adjust_moves_an_item_up_by_its_amount(ranker: Ranker) -> None:
    adjust_BV = np.zeros((1, NUM_ITEMS + 1), np.float32)
    adjust_BV[0, 9] = 4.5  # distance 4, so 0.5 ahead of the item itself
    assert ranker.rank([sequence(5)], 2, adjust_BV)[0].item_indices.tolist() == [9, 5]


def test_scores_of_some_items_come_in_the_order_asked_for(ranker: Ranker) -> None:
    scores_BC = ranker.score([sequence(5), sequence(1, 9)], np.array([9, 5, 2]))
    assert scores_BC.tolist() == [[-4.0, 0.0, -3.0], [0.0, -4.0, -7.0]]


def test_k_above_the_catalogue_gives_the_whole_catalogue_and_never_padding(ranker: Ranker) -> None:
    assert sorted(ranker.rank([sequence(5)], 500)[0].item_indices.tolist()) == list(range(1, 10))


def test_only_the_newest_max_length_events_reach_the_graph(tmp_path: Path) -> None:
    graph = write_distance_graph(tmp_path / "model.onnx", NUM_ITEMS, clock=True)
    ranker = ExactRanker(tmp_path / "model.onnx", inputs=graph.inputs, num_items=NUM_ITEMS, max_length=2)
    long = ItemSequence((1, 2, 3, 4), (0, 0, 0, 7), (9, 9, 9, 0))
    short = ItemSequence((3, 4), (0, 7), (9, 0))
    assert ranker.rank([long], 9)[0].scores.tolist() == ranker.rank([short], 9)[0].scores.tolist()


def test_declared_clock_and_event_types_are_fed(tmp_path: Path) -> None:
    graph = write_distance_graph(tmp_path / "model.onnx", NUM_ITEMS, clock=True)
    ranker = ExactRanker(tmp_path / "model.onnx", inputs=graph.inputs, num_items=NUM_ITEMS, max_length=3)
    # item 1 lies 4 away from item 5; a newest event of type 6 lifts it to 2
    assert ranker.rank([sequence(5, event_type=6)], 1)[0].item_indices.tolist() == [1]
    assert ranker.rank([sequence(5, timestamp_ms=0)], 1)[0].scores.tolist() == [-1.0]


@pytest.mark.skipif(
    "CUDAExecutionProvider" in ort.get_available_providers(),
    reason="this runtime has the provider that is to be missing",
)
def test_missing_cuda_provider_is_refused_with_the_list_of_those_available(tmp_path: Path) -> None:
    graph = write_distance_graph(tmp_path / "model.onnx", NUM_ITEMS)
    with pytest.raises(DeviceUnavailable, match=r"CUDAExecutionProvider.*CPUExecutionProvider.*onnxruntime-gpu"):
        ExactRanker(tmp_path / "model.onnx", inputs=graph.inputs, num_items=9, max_length=3, device="cuda")
