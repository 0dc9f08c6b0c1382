"""One head per action over a shared body: the same history, asked for another action, gives another ranking."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.ranking.ranker import ItemSequence
from scripts.evaluate import main
from scripts.training.comparison import compare
from scripts.training.evaluation import evaluate
from scripts.training.fitting import fuse
from scripts.training.fusion import FusedModel
from scripts.training.interactions import PreparedData
from scripts.training.learner import Learner
from scripts.training.report import report_html
from scripts.training.rules import learn_rules
from scripts.training.run_folder import RunConfig, RunError, load_run, start_run
from scripts.training.scorer import ModelScorer, metrics_at_10, validate
from scripts.training.synthetic import BEHAVIOURS, behaviour_sequences, write_sequences
from scripts.training.trainer import train
from tests.accuracy.conftest import SMALL, SilentObserver

NUM_ITEMS = 90
SIZE = NUM_ITEMS // 3


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    items, types = behaviour_sequences(num_users=500, num_items=NUM_ITEMS, length=16, seed=3)
    folder = tmp_path_factory.mktemp("behaviours")
    return write_sequences(folder, items, name="behaviours", num_items=NUM_ITEMS, types=types, event_types=BEHAVIOURS)


@pytest.fixture(scope="module")
def folder(data: PreparedData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    config = SMALL.with_values({"event_types": True})
    start_run(folder, RunConfig(config, str(data.folder), data.fingerprint, NUM_ITEMS, {}), resume=False)
    train(data, config, folder, observer=SilentObserver())
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> FusedModel:
    return load_run(folder).model


def test_head_of_an_action_ranks_the_items_of_that_action_first(data: PreparedData, model: FusedModel) -> None:
    """After a view of item a, a purchase is of item 60 + a, a cart of 30 + a: known for certain."""
    histories = data.cases("test").histories
    sequences = [histories.item_sequence(user) for user in range(histories.num_users)]
    viewed = [sequence for sequence in sequences if sequence.event_types[-1] == 1]
    last = np.array([sequence.items[-1] for sequence in viewed])
    assert len(viewed) > 100
    for name in ("cart", "purchase"):
        index = BEHAVIOURS[name].index
        best = ModelScorer(model, target_type=index)(viewed).argmax(axis=1)
        assert np.mean(best == last + SIZE * (index - 1)) > 0.9, f"another item comes first when {name} is asked for"

    # Asked for any action, the three possible items come first, each about as likely.
    top = np.argsort(-ModelScorer(model)(viewed), axis=1)[:, :3]
    assert np.mean([item in row for row, item in zip(top, last + SIZE, strict=True)]) > 0.9
    assert np.mean([item in row for row, item in zip(top, last + 2 * SIZE, strict=True)]) > 0.9


def test_events_of_a_type_are_ranked_best_by_its_own_head(data: PreparedData, model: FusedModel) -> None:
    """Its own head knows the item for certain; another one has learnt that items of that kind do not follow; that of
    any type hits one in three times."""
    cases = data.cases("test")
    hits = {
        head: evaluate(
            ModelScorer(model, target_type=head),
            cases,
            num_items=NUM_ITEMS,
            item_counts=data.train.item_counts(NUM_ITEMS),
            exclude_seen=False,
            cutoffs=(1,),
        ).values("hit_rate@1")
        for head in (0, 1, 2, 3)
    }
    for index in (1, 2, 3):
        is_of_type = (cases.targets - 1) // SIZE + 1 == index
        of_heads = [float(hits[head][is_of_type].mean()) for head in (0, 1, 2, 3)]
        assert of_heads.pop(index) > 0.85
        assert of_heads.pop(0) < 0.6
        assert max(of_heads) < 0.1


def test_validation_asks_for_the_type_of_what_came(data: PreparedData, model: FusedModel) -> None:
    """Three items are possible for who does not know the type: an NDCG of (1 + 1 / log₂ 3 + 1 / 2) / 3 = 0.71."""
    cases = data.cases("validation")
    assert metrics_at_10(ModelScorer(model), data, cases)["ndcg@10"] == pytest.approx(0.71, abs=0.05)
    assert validate(model, data, cases)["ndcg@10"] > 0.9


def test_shares_are_chosen_by_the_same_question(data: PreparedData, model: FusedModel) -> None:
    cases = data.cases("validation")
    _, reached = fuse(model.attention, learn_rules(data.train, NUM_ITEMS, followers=5), data, cases)
    assert reached[0.0] == validate(model, data, cases)["ndcg@10"]


def test_cases_without_types_cannot_ask_for_them(data: PreparedData) -> None:
    with pytest.raises(ValueError, match="types are not known"):
        replace(data.cases("test"), target_types=None, asks_type=True)


def test_the_command_reports_both_questions(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--run", str(folder), "--quiet", "--history-cap", "8"]) == 0
    printed, figures = capsys.readouterr().out, json.loads((folder / "evaluation.json").read_text())
    assert figures["model"]["ndcg@10"] == pytest.approx(0.71, abs=0.05)
    assert figures["asked_for_type"]["ndcg@10"] > 0.9
    assert printed.count("Asked for the type") == 3, "in the table, by repeats, as served; it is no rival of Segue"
    assert "asked_for_type" not in {**figures["parts"], **figures["baselines"], **figures["differences"]}
    assert "a head for each event type" in (folder / "report.html").read_text()


def test_the_report_says_nothing_of_heads_that_were_not_asked(data: PreparedData, model: FusedModel) -> None:
    comparison = compare(ModelScorer(model), data, "test", history_cap=8)
    assert "a head for each" not in report_html("x", comparison, data, [], {})


def test_model_without_heads_has_no_parameter_for_them(data: PreparedData) -> None:
    names = [name for name, _ in Learner(SMALL, data, data.train).model.named_parameters()]
    assert not [name for name in names if name.startswith(("event_embedding", "target"))]


def test_same_items_with_other_event_types_are_another_history(data: PreparedData) -> None:
    model = Learner(SMALL.with_values({"event_types": True}), data, data.train).averaged_model()
    scores = ModelScorer(model)([ItemSequence([3, 5], [0, 1], types) for types in ([1, 1], [1, 3])])
    assert not np.allclose(scores[0, 1:], scores[1, 1:])


def test_heads_over_one_type_of_event_are_refused(tmp_path: Path) -> None:
    data = write_sequences(tmp_path, [np.array([1, 2, 3], dtype=np.int32)], name="x", num_items=3)
    with pytest.raises(RunError, match="event_types needs events of several types"):
        Learner(SMALL.with_values({"event_types": True}), data, data.train)
    with pytest.raises(RunError, match="time_bias needs times that are a clock"):
        Learner(SMALL.with_values({"time_bias": True}), data, data.train)
