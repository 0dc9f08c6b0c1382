"""The mixture against probabilities computed one by one."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from app.ranking.exact import ExactRanker
from app.ranking.ranker import ItemSequence
from scripts.training.config import TrainingConfig
from scripts.training.ensemble import Ensemble
from scripts.training.fitting import SHARES, add_returns, fit_fusion, fuse, inner_hold_out
from scripts.training.fusion import RETURNS_READ, FusedModel
from scripts.training.graph import check_parity, export_graph, graph_of, tables_of
from scripts.training.interactions import Interactions
from scripts.training.model import NextItemModel, SequenceModel
from scripts.training.model_config import ModelConfig
from scripts.training.rules import RuleTable, learn_rules
from scripts.training.scorer import validate
from scripts.training.synthetic import write_sequences

NUM_ITEMS, MAX_LENGTH = 12, 15


def attention() -> SequenceModel:
    torch.manual_seed(0)
    return SequenceModel(
        ModelConfig(num_items=NUM_ITEMS, max_length=MAX_LENGTH, dim=8, num_blocks=1, num_heads=1)
    ).eval()


def ranker_of(model: FusedModel, folder: Path) -> ExactRanker:
    inputs = graph_of(model).inputs
    return ExactRanker(
        folder / "model.onnx", inputs=inputs, num_items=NUM_ITEMS, max_length=MAX_LENGTH, tables=tables_of(model)
    )


def random_interactions(num_users: int = 30) -> Interactions:
    rng = np.random.default_rng(2)
    lengths = rng.integers(2, 20, num_users)
    items = rng.integers(1, NUM_ITEMS + 1, lengths.sum()).astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Interactions(items, np.arange(len(items), dtype=np.int64), np.ones(len(items), np.uint8), offsets)


def rules_by_hand() -> RuleTable:
    """After item 1: item 2 with weight 3, item 3 with weight 1. After item 2: item 3 with weight 2."""
    items_VN = np.zeros((NUM_ITEMS + 1, 2), dtype=np.int32)
    weights_VN = np.zeros((NUM_ITEMS + 1, 2), dtype=np.float32)
    items_VN[1], weights_VN[1] = [2, 3], [3.0, 1.0]
    items_VN[2], weights_VN[2] = [3, 0], [2.0, 0.0]
    return RuleTable(items_VN, weights_VN)


def test_rules_sum_over_the_newest_items_each_the_less_the_older(tmp_path: Path) -> None:
    """Attention that likes all items alike: what the rules add is what tells the scores apart."""
    model = FusedModel(attention(), rules_by_hand(), 0.5)
    with torch.no_grad():
        model.attention.item_embedding.weight.zero_()
    with torch.inference_mode():
        items_BL = torch.tensor([[1, 2, 0], [2, 1, 0], [5, 0, 0], [0, 0, 0]])
        shares_BV = 2 * model.next_scores(items_BL, model.item_vectors()).exp() - 1 / NUM_ITEMS
    # [1, 2]: item 2 is the newest, item 1 counts half.
    for row, weights in enumerate([{2: 0.5 * 3, 3: 0.5 * 1 + 2}, {2: 3, 3: 1 + 0.5 * 2}]):
        for item, weight in weights.items():
            assert shares_BV[row, item].item() == pytest.approx(weight / sum(weights.values()), abs=1e-5)
    # Without rules the mixture is half of attention's probability, no more.
    assert shares_BV[2:, 1:].abs().max() < 1e-5


def test_score_is_the_logarithm_of_the_mixed_probabilities() -> None:
    model = FusedModel(attention(), rules_by_hand(), 0.25)
    items_BL = torch.tensor([[4, 1]])
    with torch.inference_mode():
        logits = model.attention.next_scores(items_BL, model.item_vectors())[0, 1:].tolist()
        found = model.next_scores(items_BL, model.item_vectors())[0].tolist()
    total = sum(math.exp(logit) for logit in logits)
    rules = {2: 3 / 4, 3: 1 / 4}
    for item, logit in enumerate(logits, start=1):
        probability = 0.75 * math.exp(logit) / total + 0.25 * rules.get(item, 0)
        assert found[item] == pytest.approx(math.log(probability), abs=1e-5)
    assert found[0] == -math.inf
    assert sum(math.exp(score) for score in found) == pytest.approx(1, abs=1e-5)


def test_returns_mix_in_the_history_itself_newer_events_counting_more(tmp_path: Path) -> None:
    """History [4, 1, 4]: 4 counts 3^−¼ + 1, 1 counts 2^−¼; padding counts nothing, and the graph agrees."""
    plain, model = (FusedModel(attention(), rules_by_hand(), 0.25, returns=returns) for returns in (0.0, 0.4))
    items_BL = torch.tensor([[4, 1, 4, 0], [0, 0, 0, 0]])
    with torch.inference_mode():
        before, found = (each.next_scores(items_BL, each.item_vectors()).exp() for each in (plain, model))
    weights = {4: 3**-0.25 + 1, 1: 2**-0.25}
    for item in range(1, NUM_ITEMS + 1):
        expected = 0.6 * before[0, item].item() + 0.4 * weights.get(item, 0) / sum(weights.values())
        assert found[0, item].item() == pytest.approx(expected, abs=1e-5)
    torch.testing.assert_close(found[1], 0.6 * before[1])
    export_graph(model, tmp_path / "model.onnx")
    assert check_parity(model, tmp_path / "model.onnx", batch_sizes=(1, 5)) < 1e-3


def test_returns_look_further_back_than_attention() -> None:
    """Item 9 stands before the 15 events that attention reads, whatever else is in the row."""
    plain, model = (FusedModel(attention(), rules_by_hand(), 0.25, returns=returns) for returns in (0.0, 0.4))
    assert (plain.max_length, model.max_length) == (MAX_LENGTH, RETURNS_READ)
    newest = [4, 1] * 7 + [5]
    items_BL = torch.tensor([[9, 9, 3, *newest, 0], [2, 1, *[0] * 17]])
    with torch.inference_mode():
        before = plain.next_scores(torch.tensor([newest, [2, 1, *[0] * 13]]), plain.item_vectors()).exp()
        found, of_full_pass = (
            score(items_BL, model.item_vectors()).exp() for score in (model.next_scores, model.next_scores_of_full_pass)
        )
    total = sum(place**-0.25 for place in range(1, 19))
    returned = {9: 18**-0.25 + 17**-0.25, 3: 16**-0.25, 5: 1.0}
    for item, weight in returned.items():
        assert found[0, item].item() == pytest.approx(0.6 * before[0, item].item() + 0.4 * weight / total, abs=1e-5)
    assert found[1, 3].item() == pytest.approx(0.6 * before[1, 3].item(), abs=1e-5)
    torch.testing.assert_close(found, of_full_pass)


def test_history_without_rules_keeps_the_order_of_attention() -> None:
    model = FusedModel(attention(), rules_by_hand(), 0.5)
    items_BL = torch.tensor([[7, 9]])
    with torch.inference_mode():
        alone, fused = (
            model.attention.next_scores(items_BL, model.item_vectors())[0],
            model.next_scores(items_BL, model.item_vectors())[0],
        )
    assert alone.argsort(descending=True).tolist() == fused.argsort(descending=True).tolist()


def test_parts_are_what_each_says_alone() -> None:
    """After [1, 2] the rules name item 3 with 2 + 1/2 and item 2 with 3/2; attention orders the others."""
    both = [attention() for _ in range(2)]
    torch.nn.init.normal_(both[1].item_embedding.weight)
    model = FusedModel(Ensemble(both), rules_by_hand(), 0.3, returns=0.2)
    items_BL = torch.tensor([[1, 2]])

    def ranked(part: NextItemModel) -> list[int]:
        with torch.inference_mode():
            scores_V = part.next_scores(items_BL, part.item_vectors())[0, 1:]
        return [item + 1 for item in scores_V.argsort(descending=True).tolist()]

    parts = model.parts()
    assert list(parts) == ["first_member_alone", "attention_alone", "rules_alone", "without_returns"]
    of_both = ranked(model.attention)
    assert ranked(parts["attention_alone"]) == of_both
    assert ranked(parts["first_member_alone"]) == ranked(both[0]) != of_both
    assert ranked(parts["rules_alone"]) == [3, 2, *(item for item in of_both if item not in (2, 3))]
    assert ranked(parts["without_returns"]) == ranked(FusedModel(Ensemble(both), rules_by_hand(), 0.3))
    assert list(FusedModel(both[0], None, 0.0).parts()) == []


@pytest.mark.parametrize(("rules", "share"), [(None, 0.5), (rules_by_hand(), 0.0), (rules_by_hand(), 1.0)])
def test_share_that_does_not_fit_the_rules_is_refused(rules: RuleTable | None, share: float) -> None:
    with pytest.raises(ValueError, match="share"):
        FusedModel(attention(), rules, share)


def test_returns_without_rules_are_refused() -> None:
    with pytest.raises(ValueError, match="returns"):
        FusedModel(attention(), None, 0.0, returns=0.5)


def test_share_is_the_one_that_validation_likes_best(tmp_path: Path) -> None:
    """Everyone walks a ring and the attention is untrained: rules know the next item, attention nothing."""
    walks = [((np.arange(9) + start) % NUM_ITEMS + 1).astype(np.int32) for start in range(NUM_ITEMS)] * 3
    data = write_sequences(tmp_path / "ring", walks, name="ring", num_items=NUM_ITEMS, exclude_seen=True)
    rules = learn_rules(data.train, NUM_ITEMS, followers=5)
    model, reached = fuse(attention(), rules, data, data.cases("validation"))
    assert set(reached) == set(SHARES)
    assert model.share > 0
    assert reached[model.share] == max(reached.values()) == pytest.approx(1.0)
    assert reached[0.0] < 0.9


def test_returns_are_chosen_among_mixtures_that_validation_judges(tmp_path: Path) -> None:
    """Everyone walks a ring of three items: the next one is in the history, but not the newest."""
    walks = [((np.arange(9) + start) % 3 + 1).astype(np.int32) for start in range(3)] * 5
    data = write_sequences(tmp_path / "ring", walks, name="ring", num_items=NUM_ITEMS)
    rules, cases = learn_rules(data.train, NUM_ITEMS, followers=5), data.cases("validation")
    for share in (0.0, 0.2):
        plain = FusedModel(attention(), rules if share else None, share)
        model, reached = add_returns(plain, rules, {share: validate(plain, data, cases)["ndcg@10"]}, data, cases)
        assert list(reached) == list(SHARES)
        used = share or SHARES[1]
        for returns in SHARES[1:]:
            mixture = FusedModel(attention(), rules, used, returns=returns)
            assert reached[returns] == validate(mixture, data, cases)["ndcg@10"]
        assert reached[model.returns] == max(reached.values())
        assert model.share == (used if model.returns else share)


def test_few_cases_choose_the_share_and_all_of_them_judge_the_re_ranker(tmp_path: Path) -> None:
    """Three of four walk the ring one way, the others another way; the few cases are of the first alone."""
    starts = np.arange(NUM_ITEMS)
    steps = [1, 1, 1, 5]
    walks = [((np.arange(9) * step + start) % NUM_ITEMS + 1).astype(np.int32) for step in steps for start in starts]
    data = write_sequences(tmp_path / "ring", walks, name="ring", num_items=NUM_ITEMS, exclude_seen=True)
    config = TrainingConfig(rerank=True, followers=5, max_length=MAX_LENGTH)
    cases = data.cases("validation")
    some_cases = cases.chosen(np.arange(5))
    fitted = fit_fusion(attention(), data, config, inner_hold_out(data, config), cases, some_cases)

    mixture = fitted.model.parts().get("without_reranker", fitted.model)
    assert fitted.mixture == validate(mixture, data, cases)["ndcg@10"]
    assert fitted.by_share[fitted.model.share] == validate(mixture, data, some_cases)["ndcg@10"] != fitted.mixture
    assert fitted.reranked is not None
    assert (fitted.model.reranker is not None) == (fitted.reranked > fitted.mixture)
    assert fitted.reached == validate(fitted.model, data, cases)["ndcg@10"]


def test_exported_graph_of_a_mixture_ranks_as_the_model_does(tmp_path: Path) -> None:
    model = FusedModel(attention(), learn_rules(random_interactions(), NUM_ITEMS, followers=4), 0.6)
    export_graph(model, tmp_path / "model.onnx")
    assert check_parity(model, tmp_path / "model.onnx") < 1e-4
    ranker = ranker_of(model, tmp_path)
    (ranking,) = ranker.rank([ItemSequence([3, 5], [0, 0], [1, 1])], NUM_ITEMS)
    assert np.exp(ranking.scores).sum() == pytest.approx(1, abs=1e-5)


def test_normaliser_takes_the_likeliest_items_of_a_large_catalogue() -> None:
    """Z of 200 items is the sum over the 128 with the largest exponentials, whatever the rules name."""
    torch.manual_seed(0)
    large = SequenceModel(ModelConfig(num_items=200, max_length=MAX_LENGTH, dim=8, num_blocks=1, num_heads=1)).eval()
    with torch.no_grad():
        large.item_embedding.weight[1:].mul_(5)
    rules = RuleTable(np.zeros((201, 1), np.int32), np.zeros((201, 1), np.float32))
    rules.items_VN[1], rules.weights_VN[1] = 9, 2.0
    model = FusedModel(large, rules, 0.25)
    items_BL = torch.tensor([[4, 1]])
    with torch.inference_mode():
        logits = large.next_scores(items_BL, model.item_vectors())[0, 1:].tolist()
        found = model.next_scores(items_BL, model.item_vectors())[0, 1:].tolist()
    total = sum(sorted((math.exp(logit) for logit in logits), reverse=True)[:128])
    for item, (logit, score) in enumerate(zip(logits, found, strict=True), start=1):
        assert score == pytest.approx(math.log(0.75 * math.exp(logit) / total + 0.25 * (item == 9)), abs=1e-4)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[FusedModel, ExactRanker]:
    folder = tmp_path_factory.mktemp("graph")
    model = FusedModel(attention(), rules_by_hand(), 0.5)
    export_graph(model, folder / "model.onnx")
    return model, ranker_of(model, folder)


def test_tables_are_replaced_and_appended_to_without_another_graph(exported: tuple[FusedModel, ExactRanker]) -> None:
    """New rules for item 3 name a thirteenth item, which is item 5 once more."""
    model, ranker = exported
    tables = tables_of(model)
    history = [ItemSequence([3], [0], [1])]
    (before,) = ranker.rank(history, NUM_ITEMS)
    appended = {name: np.concatenate([table, table[5:6]]) for name, table in tables.items()}
    appended["rule_items"][3], appended["rule_weights"][3] = [13, 0], [1.0, 0.0]
    longer = ranker.with_tables(appended)
    (after,) = longer.rank(history, 99)
    assert longer.num_items == NUM_ITEMS + 1
    assert after.item_indices[0] == 13, "named by the only rule"
    assert after.item_indices[1:].tolist() == before.item_indices.tolist(), "the order of attention"
    (again,) = ranker.rank(history, NUM_ITEMS)
    np.testing.assert_array_equal(again.scores, before.scores)


def test_item_that_only_the_vectors_have_is_ranked_and_read_without_rules(
    exported: tuple[FusedModel, ExactRanker],
) -> None:
    """Item 13 is item 5 once more; nothing follows item 5 either."""
    model, ranker = exported
    tables = tables_of(model)
    tables["item_vectors"] = np.concatenate([tables["item_vectors"], tables["item_vectors"][5:6]])
    longer = ranker.with_tables(tables)
    of_13, of_5 = longer.rank([ItemSequence([2, 13], [0, 0], [1, 1]), ItemSequence([2, 5], [0, 0], [1, 1])], 13)
    assert of_13.item_indices.tolist() == of_5.item_indices.tolist()
    np.testing.assert_allclose(of_13.scores, of_5.scores, atol=1e-6)
    scores = dict(zip(of_5.item_indices.tolist(), of_5.scores.tolist(), strict=True))
    assert scores[13] == pytest.approx(scores[5], abs=1e-6)
    with pytest.raises(ValueError, match="rule_items has 13 rows, there are only 12"):
        ranker.with_tables({**tables, "item_vectors": tables["item_vectors"][:12]})


def test_states_times_item_vectors_are_the_scores_of_attention(exported: tuple[FusedModel, ExactRanker]) -> None:
    model, ranker = exported
    histories = [ItemSequence([3, 1], [0, 0], [1, 1]), ItemSequence([7], [0], [1])]
    states_BD = ranker.states(histories)
    with torch.inference_mode():
        expected_BV = model.attention.next_scores(torch.tensor([[3, 1], [7, 0]]), model.item_vectors()).numpy()
    found_BV = states_BD @ tables_of(model)["item_vectors"].T
    np.testing.assert_allclose(found_BV[:, 1:], expected_BV[:, 1:], atol=1e-5)


def test_item_named_by_several_rules_is_summed_in_the_graph(exported: tuple[FusedModel, ExactRanker]) -> None:
    model, ranker = exported
    items_BL = torch.tensor([[1, 2]])
    with torch.inference_mode():
        logits = model.attention.next_scores(items_BL, model.item_vectors())[0, 1:].tolist()
    total = sum(math.exp(logit) for logit in logits)
    # Item 3 follows 2 (newest, weight 2) and 1 (half of 1): 2.5 of 4 in all, the other 1.5 are item 2's.
    (scores_C,) = ranker.score([ItemSequence([1, 2], [0, 0], [1, 1])], np.array([2, 3, 4]))
    shares = {2: 1.5 / 4, 3: 2.5 / 4, 4: 0.0}
    for item, score in zip((2, 3, 4), scores_C.tolist(), strict=True):
        assert score == pytest.approx(math.log(0.5 * math.exp(logits[item - 1]) / total + 0.5 * shares[item]), abs=1e-5)
