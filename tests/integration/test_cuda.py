"""What a GPU computes is what a processor computes: ranking with onnxruntime-gpu, training with torch's CUDA build."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch

from app.artifacts.registry import load_model
from app.ranking.exact import Device, ExactRanker
from app.ranking.ranker import ItemSequence
from scripts.export import main as export
from scripts.training.run_folder import RunConfig, load_run, start_run
from scripts.training.scorer import evaluate_at_10
from scripts.training.synthetic import markov_sequences, write_sequences
from scripts.training.trainer import refit, train
from tests.accuracy.conftest import SMALL, SilentObserver
from tests.make_tiny_artifact import ARTIFACTS
from tests.service import serving

ranks_on_gpu = pytest.mark.skipif(
    "CUDAExecutionProvider" not in ort.get_available_providers(), reason="needs onnxruntime-gpu and a GPU"
)
trains_on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs torch's CUDA build and a GPU")


@pytest.fixture
def version() -> Path:
    return ARTIFACTS / (ARTIFACTS / "CURRENT").read_text().strip()


def loaded(version: Path, device: Device) -> ExactRanker:
    """Its reference cases, which torch computed, have been replayed on the device."""
    ranker = load_model(version, history_cap=200, device=device).ranker
    assert isinstance(ranker, ExactRanker)
    return ranker


@ranks_on_gpu
def test_both_devices_rank_alike_at_every_length_and_after_a_change_of_tables(version: Path) -> None:
    of_processor, of_gpu = loaded(version, "cpu"), loaded(version, "cuda")
    rng = np.random.default_rng(3)
    items = [tuple(map(int, rng.integers(1, of_gpu.num_items + 1, length))) for length in (0, 1, 2, 5, 9, 30)]
    sequences = [ItemSequence(each, tuple(range(len(each))), (1,) * len(each)) for each in items]
    tables = {name: table.copy() for name, table in of_gpu.tables.items()}
    tables["item_vectors"] = tables["item_vectors"][::-1].copy()
    tables["item_vectors"][0] = 0
    pairs = [(of_processor, of_gpu), (of_processor.with_tables(tables), of_gpu.with_tables(tables))]
    lists = []
    for expected, found in pairs:
        k = expected.num_items
        for theirs, ours in zip(expected.rank(sequences, k), found.rank(sequences, k), strict=True):
            # Items whose scores the last digit decides may change places: each item's score is compared.
            np.testing.assert_allclose(
                ours.scores[np.argsort(ours.item_indices)], theirs.scores[np.argsort(theirs.item_indices)], atol=1e-3
            )
            lists.append(ours.item_indices.tolist())
    half = len(lists) // 2
    assert lists[1:half] != lists[half + 1 :], "other tables rank otherwise"


@ranks_on_gpu
def test_service_on_a_gpu_answers_as_one_on_a_processor(tmp_path: Path) -> None:
    answers: dict[str, list[dict[str, Any]]] = {}
    for device in ("cpu", "cuda"):
        folder = tmp_path / device
        shutil.copytree(ARTIFACTS, folder / "artifacts")
        with serving(folder, device=device) as client:
            assert client.get("/readyz").status_code == 200
            vocabulary = [item["item_id"] for item in client.post("/recommend", json={"history": []}).json()["items"]]
            answers[device] = []
            for item_id in vocabulary[:3]:
                client.post("/events", json={"user_id": "u", "item_id": item_id, "event_type": "view"})
                answers[device].append(client.post("/recommend", json={"user_id": "u", "k": 5}).json())
    assert [answer["strategy"] for answer in answers["cuda"]] == ["model"] * 3
    for expected, found in zip(answers["cpu"], answers["cuda"], strict=True):
        assert [item["item_id"] for item in found["items"]] == [item["item_id"] for item in expected["items"]]
        scores = [item["score"] for item in expected["items"]]
        assert [item["score"] for item in found["items"]] == pytest.approx(scores, abs=1e-3)


@trains_on_gpu
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"loss": "sampled_softmax", "num_negatives": 32, "precision": "float32"},
        {"members": 2, "followers": 20, "rerank": True, "temporal": "conv"},
        {"position_bias": True, "layer": "ligr", "denoise": 0.1, "attributes": "none"},
    ],
    ids=str,
)
def test_what_a_gpu_has_trained_ranks_the_same_without_one(tmp_path: Path, changes: dict[str, Any]) -> None:
    """The walk is that of `test_learning.py`, whose bounds these are; the graph is held against torch by the export,
    on the processor."""
    sequences = markov_sequences(num_users=500, num_items=100, length=15, predictability=0.9, seed=3)
    data = write_sequences(tmp_path / "data", sequences, name="markov", num_items=100)
    config = SMALL.with_values({"device": "cuda", "precision": "auto", **changes})
    run = tmp_path / "run"
    start_run(run, RunConfig(config, str(data.folder), data.fingerprint, data.num_items, {}), resume=False)
    outcome = train(data, config, run, observer=SilentObserver())
    refit(data, config, run, num_epochs=outcome.best_epochs, observer=SilentObserver())
    on_processor = evaluate_at_10(load_run(run).scorer, data, data.cases("test"))
    moved = load_run(run)
    moved.model.to("cuda")
    on_gpu = evaluate_at_10(moved.scorer, data, data.cases("test"))
    assert 0.80 <= np.mean(on_processor.ranks == 1) <= 0.901 + 4 * 0.013
    assert np.mean(on_processor.ranks != on_gpu.ranks) < 0.02
    assert export(["--run", str(run), "--artifacts", str(tmp_path / "artifacts")]) == 0
