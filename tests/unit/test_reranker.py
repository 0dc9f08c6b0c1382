"""The re-ranker: its statistics, features and arithmetic by hand, and that it learns what the mixture does not know."""

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from app.ranking.exact import ExactRanker
from app.ranking.ranker import ItemSequence
from scripts.training import fitting
from scripts.training.fitting import fit_reranker
from scripts.training.fusion import FusedModel
from scripts.training.graph import ExportError, check_parity, export_graph, graph_of, tables_of
from scripts.training.holdout import EVENTS_LEFT, SHARE, hold_out
from scripts.training.interactions import Interactions
from scripts.training.model import NO_CONTEXT, SequenceModel
from scripts.training.model_config import ModelConfig
from scripts.training.reranker import CANDIDATES, FEATURES, Candidates, Reranker, item_statistics, learn_reranker
from scripts.training.rules import RuleTable
from tests.unit.test_evaluation import cases_of


def interactions_of(*sequences: list[int]) -> Interactions:
    items = np.concatenate([np.array(sequence, dtype=np.int32) for sequence in sequences])
    offsets = np.concatenate([[0], np.cumsum([len(sequence) for sequence in sequences])]).astype(np.int64)
    return Interactions(items, np.arange(len(items), dtype=np.int64), np.ones(len(items), np.uint8), offsets)


def test_statistics_are_counts_and_places_in_histories() -> None:
    statistics_VS = item_statistics(interactions_of([1, 2, 3], [3, 2], [2]), num_items=4)
    # Item 2: in the middle (0 off it), last of two (½), alone in its history (first: −½); 3 events and 2 of the prior.
    # Item 3: last of three (½) and first of two (−½).
    expected = [[0, 0], [math.log(2), -0.5 / 3], [math.log(4), 0.0], [math.log(3), 0.0], [0, 0]]
    np.testing.assert_allclose(statistics_VS, expected, atol=1e-6)


@settings(deadline=None)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=40), st.integers(0, 5))
def test_hold_out_takes_newest_events_and_leaves_the_rest(lengths: list[int], seed: int) -> None:
    sequences = [list(range(1, length + 1)) for length in lengths]
    interactions = interactions_of(*sequences, [])
    left, cases = hold_out(interactions, seed=seed)
    assert len(left) + len(cases) == len(interactions)
    assert len(cases) <= SHARE * len(interactions) + len(lengths)
    for user, length in enumerate(lengths):
        kept = left.sequence(user)[0].tolist()
        rows = np.flatnonzero(cases.user_indices == user)
        assert kept + cases.targets[rows].tolist() == sequences[user]
        assert len(kept) == length if length <= EVENTS_LEFT else len(kept) >= EVENTS_LEFT
        for row in rows:
            before = cases.histories.sequence(int(row))[0].tolist()
            assert [*before, cases.targets[row]] == sequences[user][: len(before) + 1]


def test_hold_out_of_many_users_takes_one_event_of_some() -> None:
    left, cases = hold_out(interactions_of(*[[1, 2, 3, 4]] * 100), seed=1)
    assert len(cases) == int(SHARE * 400)
    assert len(set(cases.user_indices.tolist())) == len(cases)
    assert sorted(left.lengths.tolist()) == [3] * 12 + [4] * 88


def test_hold_out_takes_events_of_one_time_together_and_none_is_in_anothers_history() -> None:
    """Four receipts of three lines each: one event would be due of every user, so one receipt goes."""
    interactions = replace(
        interactions_of(*[list(range(1, 13))] * 20), timestamps_ms=np.tile(np.repeat(np.arange(4), 3), 20)
    )
    left, cases = hold_out(interactions, seed=1, by_time=True)
    chosen = np.unique(cases.user_indices)
    assert len(chosen) == int(SHARE * 240)
    assert [left.sequence(user)[0].tolist() for user in chosen] == [list(range(1, 10))] * len(chosen)
    assert cases.targets.tolist() == [10, 11, 12] * len(chosen)
    assert cases.histories.lengths.tolist() == [9] * len(cases)


def test_statistics_of_returns_are_the_events_that_are_not_a_users_first() -> None:
    statistics_VS = item_statistics(interactions_of([1, 2, 1, 1], [1, 2]), num_items=3, with_returns=True)
    np.testing.assert_allclose(statistics_VS[:, 2], [0, 2 / (4 + 2), 0, 0], atol=1e-6)


def some_candidates(num_cases: int, seed: int = 0) -> Candidates:
    generator = torch.Generator().manual_seed(seed)
    items_BC = torch.stack([torch.randperm(30, generator=generator)[:8] + 1 for _ in range(num_cases)])
    scores_BC = torch.randn(num_cases, 8, generator=generator).sort(dim=1, descending=True).values
    return Candidates(items_BC, scores_BC, torch.randn(num_cases, 8, FEATURES, generator=generator))


def with_random_weights(reranker: Reranker) -> Reranker:
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in reranker.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    return reranker.eval()


def test_untaught_reranker_changes_nothing() -> None:
    candidates = some_candidates(5)
    torch.testing.assert_close(Reranker(excludes_seen=True)(candidates), candidates.scores_BC)


def test_candidates_keep_their_probability_together_and_what_is_none_stays_none() -> None:
    candidates = some_candidates(5)
    candidates.scores_BC[2, 5:] = -math.inf
    candidates.scores_BC[3] = -math.inf
    moved_BC = with_random_weights(Reranker(excludes_seen=True))(candidates)
    assert not torch.allclose(moved_BC[0], candidates.scores_BC[0], atol=0.05)
    torch.testing.assert_close(moved_BC.exp().sum(dim=1), candidates.scores_BC.exp().sum(dim=1))
    assert torch.equal(moved_BC == -math.inf, candidates.scores_BC == -math.inf)


def test_learns_what_the_scores_do_not_know() -> None:
    """The target is the candidate with the largest fourth feature, whatever its score."""
    learnt_from, unseen = some_candidates(600), some_candidates(200, seed=1)
    targets_B = learnt_from.items_BC.gather(1, learnt_from.features_BCF[:, :, 3].argmax(dim=1, keepdim=True))[:, 0]
    reranker = learn_reranker(learnt_from, targets_B, excludes_seen=False, seed=1)
    assert reranker is not None
    with torch.inference_mode():
        found = reranker(unseen).argmax(dim=1)
    wanted = unseen.features_BCF[:, :, 3].argmax(dim=1)
    assert (found == wanted).float().mean() > 0.9
    assert (unseen.scores_BC.argmax(dim=1) == wanted).float().mean() < 0.3


def test_nothing_to_learn_from_targets_that_are_no_candidates() -> None:
    candidates = some_candidates(10)
    assert learn_reranker(candidates, torch.full((10,), 99), excludes_seen=False, seed=1) is None


NUM_ITEMS = CANDIDATES + 20


def reranked_model(*, excludes_seen: bool, returns: float = 0.0) -> FusedModel:
    torch.manual_seed(0)
    attention = SequenceModel(ModelConfig(num_items=NUM_ITEMS, max_length=10, dim=8, num_blocks=1, num_heads=1)).eval()
    with torch.no_grad():
        attention.item_embedding.weight[1:].mul_(5)
    rng = np.random.default_rng(0)
    rules = RuleTable(
        rng.integers(1, NUM_ITEMS + 1, (NUM_ITEMS + 1, 4)).astype(np.int32),
        rng.random((NUM_ITEMS + 1, 4)).astype(np.float32),
    )
    rules.items_VN[0], rules.weights_VN[0] = 0, 0
    statistics_VS = rng.random((NUM_ITEMS + 1, 3 if returns else 2)).astype(np.float32)
    num_features = FEATURES + 4 if returns else FEATURES
    reranker = with_random_weights(Reranker(excludes_seen=excludes_seen, num_features=num_features))
    return FusedModel(attention, rules, 0.4, reranker, statistics_VS, returns=returns)


def test_features_are_what_the_parts_give() -> None:
    """Computed item by item from the history [7, 3]."""
    model = reranked_model(excludes_seen=True)
    rules, statistics = model.rules, model.statistics_VS.numpy()
    assert rules is not None
    items_BL = torch.tensor([[7, 3, 0]])
    with torch.inference_mode():
        found = model.candidates(items_BL, model.item_vectors(), NO_CONTEXT, excludes_seen=True)
        logits = model.attention.next_scores(items_BL, model.item_vectors())[0].numpy().astype(np.float64)
    largest = np.sort(logits)[-CANDIDATES:]
    attention = logits - np.log(np.exp(largest).sum())
    newest, both = np.zeros(NUM_ITEMS + 1), np.zeros(NUM_ITEMS + 1)
    for item, weight in zip(rules.items_VN[3].tolist(), rules.weights_VN[3].tolist(), strict=True):
        newest[item] += weight
        both[item] += weight
    for item, weight in zip(rules.items_VN[7].tolist(), rules.weights_VN[7].tolist(), strict=True):
        both[item] += weight / 2
    newest, both = newest / newest.sum(), both / both.sum()
    mixed = 0.6 * np.exp(attention) + 0.4 * both
    assert not {3, 7} & set(found.items_BC[0].tolist())
    for place, item in enumerate(found.items_BC[0].tolist()):
        expected = [
            attention[item],
            math.log(max(both[item], 1e-5)),
            math.log(max(newest[item], 1e-5)),
            math.log(mixed[item]),
            *statistics[item],
            attention[1:].max(),
            both.max(),
            statistics[3, 0],
            math.log(3),
        ]
        np.testing.assert_allclose(found.features_BCF[0, place].numpy(), expected, atol=2e-4)


def test_features_of_returns_are_what_the_history_says() -> None:
    """By hand, of the history [7, 3, 7, 5]: the newest counts 1, the one before it 2^−¼, and so on."""
    model = reranked_model(excludes_seen=False, returns=0.5)
    with torch.inference_mode():
        found = model.candidates(torch.tensor([[7, 3, 7, 5, 0]]), model.item_vectors(), NO_CONTEXT, excludes_seen=False)
    weights = [4**-0.25, 3**-0.25, 2**-0.25, 1.0]
    # Item → share of the history, how often, how many events ago it was last.
    history = {7: ((weights[0] + weights[2]) / sum(weights), 2, 1), 3: (weights[1] / sum(weights), 1, 2)}
    history[5] = (weights[3] / sum(weights), 1, 0)
    items = found.items_BC[0].tolist()
    assert set(history) < set(items)
    for place, item in enumerate(items):
        share, times, ago = history.get(item, (1e-5, 0, 4))
        expected = [model.statistics_VS[item, 2].item(), math.log(share), math.log1p(times), math.log1p(ago)]
        np.testing.assert_allclose(found.features_BCF[0, place, 6:10].numpy(), expected, atol=1e-5)


def test_items_beyond_the_candidates_keep_their_scores() -> None:
    model = reranked_model(excludes_seen=True)
    mixture = FusedModel(model.attention, RuleTable(model.items_VN.numpy(), model.weights_VN.numpy()), model.share)
    items_BL = torch.tensor([[5, 9, 2]])
    with torch.inference_mode():
        before, after = (each.next_scores(items_BL, each.item_vectors())[0] for each in (mixture, model))
        candidates = model.candidates(items_BL, model.item_vectors(), NO_CONTEXT, excludes_seen=True).items_BC[0]
    others = sorted(set(range(1, NUM_ITEMS + 1)) - set(candidates.tolist()))
    assert {2, 5, 9} <= set(others)
    torch.testing.assert_close(after[others], before[others])
    assert (after[candidates] - before[candidates]).abs().max() > 0.01


@pytest.mark.parametrize(("excludes_seen", "returns"), [(True, 0.0), (False, 0.0), (False, 0.5)])
def test_graph_reorders_as_the_model_does(tmp_path: Path, excludes_seen: bool, returns: float) -> None:
    model = reranked_model(excludes_seen=excludes_seen, returns=returns)
    export_graph(model, tmp_path / "model.onnx")
    assert check_parity(model, tmp_path / "model.onnx", batch_sizes=(1, 5)) < 1e-3


@pytest.mark.parametrize("excludes_seen", [True, False])
def test_items_as_good_as_the_last_candidate_are_no_fault_of_a_graph(tmp_path: Path, excludes_seen: bool) -> None:
    """Items in threes that attention cannot tell apart and no rule names: 128 candidates cannot be whole threes, and
    which of the last three is one is for rounding to say. Statistics tell them apart, so scores differ all the same."""
    model = reranked_model(excludes_seen=excludes_seen)
    with torch.no_grad():
        model.items_VN.zero_()
        model.weights_VN.zero_()
        model.items_VN[1], model.weights_VN[1] = 2, 1
        weight_VD = model.attention.item_embedding.weight
        weight_VD[1:] = weight_VD[1 + torch.arange(NUM_ITEMS) // 3 * 3]
        weight_VD[1:] += 1e-7 * torch.randn_like(weight_VD[1:])
    export_graph(model, tmp_path / "model.onnx")
    check_parity(model, tmp_path / "model.onnx", batch_sizes=(1, 5))
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.attention.norm.bias[0].add_(0.5)
    with pytest.raises(ExportError, match="off"):
        check_parity(other, tmp_path / "model.onnx", batch_sizes=(1,))


def test_item_added_since_is_a_candidate_without_events(tmp_path: Path) -> None:
    """A row more than the statistics have, which attention likes best: as if its statistics were 0."""
    model = reranked_model(excludes_seen=True)
    export_graph(model, tmp_path / "model.onnx")
    tables = tables_of(model)
    history = ItemSequence([NUM_ITEMS + 1, 4], [0, 0], [1, 1])
    vectors_VD = np.concatenate([tables["item_vectors"], tables["item_vectors"][[4]] * 3])
    zeros = {
        name: np.concatenate([table, np.zeros_like(table[:1])])
        for name, table in tables.items()
        if name != "item_vectors"
    }
    rankings = [
        ExactRanker(
            tmp_path / "model.onnx",
            inputs=graph_of(model).inputs,
            num_items=NUM_ITEMS + 1,
            max_length=10,
            tables={**tables, **others, "item_vectors": vectors_VD},
        ).rank([history], NUM_ITEMS + 1)[0]
        for others in ({}, zeros)
    ]
    assert rankings[0].item_indices.tolist() == rankings[1].item_indices.tolist()
    np.testing.assert_array_equal(rankings[0].scores, rankings[1].scores)


def test_candidates_are_collected_in_the_batches_of_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few the items: each candidate is compared with up to 500 events of a history."""
    model = reranked_model(excludes_seen=False, returns=0.5)
    sizes, taught = [], []
    collect = model.candidates

    def counted(items_BL: torch.Tensor, *rest: Any, **more: Any) -> Candidates:
        sizes.append(len(items_BL))
        return collect(items_BL, *rest, **more)

    monkeypatch.setattr(model, "candidates", counted)
    monkeypatch.setattr(
        fitting, "learn_reranker", lambda candidates, targets_B, **_: taught.append((candidates, targets_B))
    )
    targets = [case % NUM_ITEMS + 1 for case in range(600)]
    fit_reranker(model, cases_of([[target, 3, 7] for target in targets], targets), excludes_seen=False, seed=1)
    ((candidates, targets_B),) = taught
    assert sizes == [512, 88]
    assert len(candidates.items_BC) == 600
    assert targets_B.tolist() == targets


def test_reranker_without_rules_is_refused() -> None:
    attention = SequenceModel(ModelConfig(num_items=5, max_length=4, dim=8))
    with pytest.raises(ValueError, match="belongs to rules"):
        FusedModel(attention, None, 0.0, Reranker(excludes_seen=False), np.zeros((6, 2), np.float32))
