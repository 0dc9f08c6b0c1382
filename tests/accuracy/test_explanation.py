"""What an explanation names is what the trained model goes by."""

from pathlib import Path

import numpy as np

from app.ranking.explanation import contributions, without
from app.ranking.ranker import ItemSequence
from scripts.training.graph import export_graph, ranker_of
from scripts.training.run_folder import RunConfig, load_run, start_run
from scripts.training.synthetic import markov_sequences, write_sequences
from scripts.training.trainer import train
from tests.accuracy.conftest import SMALL, SilentObserver

NUM_ITEMS, LENGTH = 60, 12


def test_without_the_named_event_an_item_falls_further_than_without_a_random_one(tmp_path: Path) -> None:
    """Ranks are the graph's own over the whole catalogue, not the probabilities that the contributions are made of."""
    walks = markov_sequences(num_users=500, num_items=NUM_ITEMS, length=LENGTH, predictability=0.8, seed=5)
    data = write_sequences(tmp_path / "data", walks, name="markov", num_items=NUM_ITEMS)
    run = tmp_path / "run"
    start_run(run, RunConfig(SMALL, str(data.folder), data.fingerprint, NUM_ITEMS, {}), resume=False)
    train(data, SMALL, run, observer=SilentObserver())
    model = load_run(run).model
    export_graph(model, tmp_path / "model.onnx")
    ranker = ranker_of(model, tmp_path / "model.onnx")

    def place_of(item: int, history: ItemSequence) -> int:
        return ranker.rank([history], NUM_ITEMS)[0].item_indices.tolist().index(item)

    rng = np.random.default_rng(0)
    fresh = markov_sequences(num_users=60, num_items=NUM_ITEMS, length=LENGTH, predictability=0.8, seed=5)
    named_falls, random_falls = [], []
    for walk in fresh:
        history = ItemSequence(walk.tolist(), [0] * LENGTH, [1] * LENGTH)
        best = int(ranker.rank([history], 1)[0].item_indices[0])
        lost_L = contributions(ranker, history, [best], range(1, NUM_ITEMS + 1), max_rows=100)[:, 0]
        named_falls.append(place_of(best, without(history, int(np.argmax(lost_L)))))
        random_falls.append(place_of(best, without(history, int(rng.integers(LENGTH)))))
    # Of 12 events one decides nearly every step of such a walk; a random choice meets it once in 12.
    assert np.mean(named_falls) > 3 * np.mean(random_falls) > 0
    assert np.mean(np.array(named_falls) >= np.array(random_falls)) > 0.95
