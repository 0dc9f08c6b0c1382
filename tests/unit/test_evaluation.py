"""Metrics as fractions worked out by hand, and against a reference that sorts every catalogue in plain Python."""

import tracemalloc
from collections.abc import Sequence
from dataclasses import astuple
from math import log2

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from app.ranking.ranker import ItemSequence
from scripts.training.evaluation import (
    SCORES_PER_BATCH,
    EvaluationResult,
    bootstrap_interval,
    evaluate,
    paired_bootstrap_interval,
    popularity_groups,
)
from scripts.training.interactions import Cases, Interactions


def cases_of(histories: Sequence[Sequence[int]], targets: Sequence[int]) -> Cases:
    items = np.array([item for history in histories for item in history], np.int32)
    offsets = np.concatenate([[0], np.cumsum([len(history) for history in histories])]).astype(np.int64)
    interactions = Interactions(items, np.arange(len(items)), np.ones(len(items), np.uint8), offsets)
    return Cases(interactions, np.array(targets, np.int32), np.arange(len(targets)))


class Table:
    """Scores looked up by the newest item of the history."""

    def __init__(self, rows: dict[int, Sequence[float]]) -> None:
        self.rows = rows
        self.lengths: list[list[int]] = []

    def __call__(self, histories: Sequence[ItemSequence]) -> NDArray[np.float32]:
        self.lengths.append([len(history.items) for history in histories])
        return np.array([self.rows[history.items[-1]] for history in histories], np.float32)


def run(
    rows: dict[int, Sequence[float]], cases: Cases, *, exclude_seen: bool = True, cutoffs: Sequence[int] = (1, 2, 3),
    batch_size: int | None = None, history_cap: int | None = None,
) -> EvaluationResult:  # fmt: skip
    num_items = len(next(iter(rows.values()))) - 1
    return evaluate(
        Table(rows), cases, num_items=num_items, item_counts=np.arange(num_items + 1), exclude_seen=exclude_seen,
        cutoffs=cutoffs, batch_size=batch_size, history_cap=history_cap,
    )  # fmt: skip


def test_a_target_in_the_history_is_a_repeat_told_apart_where_it_may_be_ranked() -> None:
    """Targets 2, 5 and 4: the first and the last are in their histories, and rank first and third."""
    cases = cases_of([[1, 2], [3], [4, 4]], [2, 5, 4])
    rows = {2: [99, 8, 9, 7, 6, 5], 3: [99, 5, 6, 7, 8, 9], 4: [99, 8, 9, 6, 7, 5]}
    groups = run(rows, cases, exclude_seen=False).by_repeat
    found = [(group.name, group.num_cases, group.metrics["hit_rate@1"], group.metrics["mrr@3"]) for group in groups]
    assert found == [("repeats", 2, 1 / 2, pytest.approx((1 + 1 / 3) / 2)), ("new items", 1, 1, 1)]
    assert run(rows, cases, exclude_seen=True).by_repeat == []


def test_metrics_are_the_fractions_on_paper() -> None:
    # Column 0 is ignored, however high. Ranks of the targets: 1, 2 and 3 of the items not in the history.
    result = run(
        {1: [99, 0, 8, 7, 6, 5], 2: [99, 9, 0, 7, 6, 5], 3: [99, 9, 8, 0, 7, 5]}, cases_of([[1], [2], [3]], [2, 3, 4])
    )
    assert result.ranks.tolist() == [1, 2, 3]
    assert result.metrics["hit_rate@1"] == pytest.approx(1 / 3)
    assert result.metrics["hit_rate@2"] == pytest.approx(2 / 3)
    assert result.metrics["ndcg@3"] == pytest.approx((1 + 1 / log2(3) + 1 / 2) / 3)
    assert result.metrics["ndcg@2"] == pytest.approx((1 + 1 / log2(3)) / 3)
    assert result.metrics["mrr@3"] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    # First items: 2, 1, 1. First three: {2, 3, 4}, {1, 3, 4}, {1, 2, 4}.
    assert result.metrics["coverage@1"] == pytest.approx(2 / 5)
    assert result.metrics["coverage@3"] == pytest.approx(4 / 5)


def test_ties_count_against_the_model() -> None:
    assert run({1: [0, 0, 0, 0, 0]}, cases_of([[1]], [3]), exclude_seen=False).ranks.tolist() == [4]
    assert run({1: [0, 0, 0, 0, 0]}, cases_of([[1]], [3])).ranks.tolist() == [3]


def test_a_masked_target_is_no_hit_even_in_a_catalogue_smaller_than_the_cutoff() -> None:
    seen = cases_of([[1, 2]], [1])
    rows = {2: [0.0, 9, 8, 7]}
    assert run(rows, seen, cutoffs=(10,)).metrics["hit_rate@10"] == 0
    assert run(rows, seen, exclude_seen=False, cutoffs=(10,)).metrics["hit_rate@10"] == 1


def test_the_cap_holds_for_the_scorer_and_for_the_mask() -> None:
    # Item 1 left the capped history, so it is eligible again and, scoring best, pushes the target to rank 2.
    cases = cases_of([[1, 2, 3]], [4])
    table = Table({3: [0, 9, 8, 7, 6.5, 5]})
    ranks = {}
    for cap in (None, 2):
        ranks[cap] = evaluate(
            table, cases, num_items=5, item_counts=np.ones(6, np.int64), exclude_seen=True, history_cap=cap
        ).ranks.tolist()
    assert ranks == {None: [1], 2: [2]}
    assert table.lengths == [[3], [2]]


def test_minus_infinity_is_a_score_and_nan_is_an_error() -> None:
    infinity = float("-inf")
    assert run({1: [infinity, 0, infinity, 1, infinity]}, cases_of([[1]], [4])).ranks.tolist() == [3]
    with pytest.raises(ValueError, match="NaN"):
        run({1: [0, 0, float("nan"), 1]}, cases_of([[1]], [3]))


def test_scores_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(1, 3\), expected \(1, 6\)"):
        evaluate(
            Table({1: [0, 1, 2]}), cases_of([[1]], [2]), num_items=5, item_counts=np.ones(6, np.int64),
            exclude_seen=True,
        )  # fmt: skip


def test_no_cases_is_an_error_rather_than_a_metric() -> None:
    with pytest.raises(ValueError, match="no cases"):
        run({1: [0, 1]}, cases_of([], []))


def test_head_holds_half_of_the_events_middle_the_next_three_tenths_tail_the_rest() -> None:
    # 100 events. By falling count, items 2, 1, 3, 4 begin at the shares 0, .50, .70, .85; item 5 was never met.
    counts = np.array([0, 20, 50, 15, 15, 0])
    groups = popularity_groups(counts, np.array([1, 2, 3, 4, 5], np.int32))
    assert groups["head"].tolist() == [False, True, False, False, False]
    assert groups["middle"].tolist() == [True, False, True, False, False]
    assert groups["tail"].tolist() == [False, False, False, True, True]


def test_groups_part_the_cases_and_average_to_the_whole() -> None:
    random = np.random.default_rng(0)
    cases = cases_of(
        [random.integers(1, 21, length).tolist() for length in (1, 5, 6, 40, 250)], random.integers(1, 21, 5).tolist()
    )
    rows = {item: random.random(21).tolist() for item in range(1, 21)}
    result = run(rows, cases, exclude_seen=False, cutoffs=(10,))
    assert [group.num_cases for group in result.by_history_length] == [2, 1, 0, 1, 0, 0, 1]
    for groups in (result.by_history_length, result.by_popularity):
        total = sum(group.num_cases * group.metrics.get("ndcg@10", 0) for group in groups)
        assert total / 5 == pytest.approx(result.metrics["ndcg@10"])


@given(data=st.data())
def test_equals_a_reference_that_sorts_every_catalogue(data: st.DataObject) -> None:
    num_items = data.draw(st.integers(2, 8))
    item = st.integers(1, num_items)
    histories = data.draw(st.lists(st.lists(item, min_size=1, max_size=6), min_size=1, max_size=6))
    targets = data.draw(st.lists(item, min_size=len(histories), max_size=len(histories)))
    # Few distinct values, so that ties are common.
    row = st.lists(st.integers(0, 3).map(float), min_size=num_items + 1, max_size=num_items + 1)
    rows = {each: data.draw(row) for each in range(1, num_items + 1)}
    exclude_seen = data.draw(st.booleans())
    k = data.draw(st.integers(1, num_items))

    hits, firsts = 0, set()
    for history, target in zip(histories, targets, strict=True):
        scores = rows[history[-1]]
        eligible = [each for each in range(1, num_items + 1) if not (exclude_seen and each in history)]
        # Against the model: among equals the target comes last.
        order = sorted(eligible, key=lambda each: (-scores[each], each == target))
        hits += target in order[:k]
        firsts |= set(sorted(eligible, key=lambda each: (-scores[each], each))[:k])

    batch_size = data.draw(st.sampled_from([1, 2, None]))
    result = run(rows, cases_of(histories, targets), exclude_seen=exclude_seen, cutoffs=(k,), batch_size=batch_size)
    assert result.metrics[f"hit_rate@{k}"] == pytest.approx(hits / len(histories))
    assert result.metrics[f"coverage@{k}"] == pytest.approx(len(firsts) / num_items)


def test_memory_is_that_of_one_batch_however_many_cases_there_are() -> None:
    """At 100,000 items a batch of scores takes 64 MiB. Beside it stands the copy that is masked, and comparisons of a
    byte each; what grows with the cases is their ranks."""
    num_items, batch_bytes = 100_000, 4 * SCORES_PER_BATCH
    row = np.random.default_rng(0).random(num_items + 1, np.float32)

    def peak(num_cases: int) -> int:
        cases = cases_of([[1, 2, 3]] * num_cases, [4] * num_cases)
        counts = np.ones(num_items + 1, np.int64)
        tracemalloc.start()
        try:
            evaluate(
                lambda histories: np.tile(row, (len(histories), 1)), cases, num_items=num_items, item_counts=counts,
                exclude_seen=True,
            )  # fmt: skip
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    one_batch, three_batches = peak(160), peak(480)
    assert one_batch < 2.5 * batch_bytes
    assert three_batches - one_batch < 0.1 * batch_bytes


def test_bootstrap_interval_agrees_with_the_normal_approximation() -> None:
    values = np.random.default_rng(1).random(2000)
    interval = bootstrap_interval(values)
    half = 1.96 * values.std() / np.sqrt(2000)
    assert interval.mean == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=half / 10)
    assert interval.high == pytest.approx(values.mean() + half, abs=half / 10)


def test_cases_of_one_user_tell_no_more_than_one_of_them() -> None:
    """Every value four times: taken one by one the interval would shrink by half, taken by user it stays."""
    values = np.random.default_rng(1).random(500)
    once = bootstrap_interval(values)
    often = bootstrap_interval(np.repeat(values, 4), clusters=np.repeat(np.arange(500) * 7, 4))
    assert astuple(often) == pytest.approx(astuple(once))


def test_a_paired_interval_is_narrow_where_results_agree_case_by_case() -> None:
    # Both are right on half of the cases; the second misses one hit in ten of the first and is never better.
    first = np.tile([1, 9], 500)
    second = first.copy()
    second[:200:2] = 9
    results = [
        EvaluationResult(
            ranks=ranks, cutoffs=(5,), metrics={}, by_history_length=[], by_popularity=[], by_repeat=[], protocol={}
        )
        for ranks in (first, second)
    ]
    interval = paired_bootstrap_interval(*results, metric="hit_rate@5")
    assert interval.mean == pytest.approx(100 / 1000)
    # sd of the difference = sqrt(.1 × .9); two independent hit rates of .5 and .4 would have 2.3 times that.
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * np.sqrt(0.1 * 0.9 / 1000), rel=0.1)
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_bootstrap_interval(results[0], run({1: [0, 1, 2]}, cases_of([[1]], [2])), "hit_rate@5")
