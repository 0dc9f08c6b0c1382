"""Several models as one: the mean of what each says alone, in training's folders and in the graph."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from app.ranking.ranker import ItemSequence
from scripts.training.attributes import shared_attributes
from scripts.training.blocks import FeedForward
from scripts.training.ensemble import Ensemble
from scripts.training.fusion import FusedModel
from scripts.training.graph import check_parity, export_graph, tables_of
from scripts.training.model import SequenceModel
from scripts.training.model_config import ModelConfig
from scripts.training.run_folder import (
    CHECKPOINT_FILE,
    RunConfig,
    RunError,
    load_run,
    read_history,
    read_weights,
    start_run,
)
from scripts.training.smaller import pruned
from scripts.training.synthetic import markov_sequences, write_sequences
from scripts.training.trainer import refit, train
from tests.accuracy.conftest import SMALL, SilentObserver

NUM_ITEMS = 30
ATTRIBUTES = [{"colour": item % 4} for item in range(NUM_ITEMS)]


def members(**changes: Any) -> list[SequenceModel]:
    config = ModelConfig(num_items=NUM_ITEMS, max_length=10, **{"dim": 8, "num_blocks": 1, "num_heads": 2, **changes})
    attributes = shared_attributes(ATTRIBUTES) if config.attributes != "none" else None
    models = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        models.append(SequenceModel(config, attributes).eval())
    return models


@pytest.mark.parametrize("changes", [{"temporal": "conv"}, {"attributes": "embedding", "position_bias": True}], ids=str)
def test_scores_are_the_mean_in_torch_and_in_the_graph(tmp_path: Path, changes: dict[str, Any]) -> None:
    models = members(**changes)
    ensemble = Ensemble(models)
    items_BL = torch.tensor([[3, 9, 4], [7, 0, 0]])
    with torch.inference_mode():
        expected_BV = sum(model.next_scores(items_BL, model.item_vectors()) for model in models) / 2
        torch.testing.assert_close(ensemble.next_scores(items_BL, ensemble.item_vectors()), expected_BV)
    model = FusedModel(ensemble, None, 0.0).eval()
    export_graph(model, tmp_path / "model.onnx")
    assert tables_of(model)["item_vectors"].shape == (NUM_ITEMS + 1, 16)
    assert check_parity(model, tmp_path / "model.onnx", batch_sizes=(1, 3)) < 1e-4


def test_item_never_seen_has_the_vectors_of_its_attributes_in_every_member() -> None:
    models = members(attributes="embedding")
    vectors_AE = Ensemble(models).attribute_vectors()
    assert vectors_AE is not None
    for place, model in enumerate(models):
        torch.testing.assert_close(vectors_AE[:, 8 * place : 8 * place + 8], model.attribute_vectors())
    assert Ensemble(members()).attribute_vectors() is None


def test_models_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(ValueError, match="one configuration"):
        Ensemble([members()[0], members(num_heads=1)[1]])


def test_every_member_is_pruned() -> None:
    histories = [ItemSequence([1, 2, 3], [0] * 3, [1] * 3), ItemSequence([4, 5], [0] * 2, [1] * 2)]
    smaller = pruned(FusedModel(Ensemble(members()), None, 0.0), 0.5, histories).attention
    assert isinstance(smaller, Ensemble)
    widths = [module.narrow.in_features for module in smaller.modules() if isinstance(module, FeedForward)]
    assert widths == [16, 16]


def test_members_are_trained_from_their_own_seeds_resumed_and_taken_over_by_refit(tmp_path: Path) -> None:
    sequences = markov_sequences(num_users=80, num_items=NUM_ITEMS, length=9, predictability=0.9, seed=1)
    data = write_sequences(tmp_path / "data", sequences, name="markov", num_items=NUM_ITEMS)
    config = SMALL.with_values({"members": 2, "max_epochs": 2, "max_length": 10, "dim": 16})
    run = tmp_path / "run"
    kept = RunConfig(config, str(data.folder), data.fingerprint, data.num_items, {})
    start_run(run, kept, resume=False)
    train(data, config, run, observer=SilentObserver())
    models = [read_weights(folder / "best.pt", config, NUM_ITEMS).eval() for folder in (run, run / "member-2")]
    assert not torch.equal(models[0].item_vectors(), models[1].item_vectors())
    loaded = load_run(run)
    histories = [data.train.item_sequence(user) for user in range(5)]
    items_BL = torch.tensor([history.items for history in histories])
    with torch.inference_mode():
        expected = (sum(model.next_scores(items_BL, model.item_vectors()) for model in models) / 2).numpy()
    np.testing.assert_allclose(loaded.scorer(histories), expected, atol=1e-4)
    before = copy.deepcopy(models[1].state_dict())
    (run / CHECKPOINT_FILE).unlink()  # the first model was interrupted before its first epoch ended
    with pytest.raises(RunError, match="holds a training already"):
        start_run(run, kept, resume=False)
    start_run(run, kept, resume=True)
    outcome = train(data, config, run, observer=SilentObserver())
    after = read_weights(run / "member-2" / "best.pt", config, NUM_ITEMS).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    histories_of_both = [[record["ndcg@10"] for record in read_history(folder)] for folder in (run, run / "member-2")]
    assert list(outcome.best_epochs) == [1 + values.index(max(values)) for values in histories_of_both]
    refit(data, config, run, num_epochs=(2, 1), observer=SilentObserver())
    assert [len(read_history(run / "refit" / name)) for name in (".", "member-2")] == [2, 1]
    assert isinstance(load_run(run, refit=True).model.attention, Ensemble)
