"""Every baseline against its definition, written as plain loops."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.ranking.ranker import ItemSequence
from scripts.training.baselines import (
    TIE_BREAK,
    PersonalPopularity,
    Popularity,
    fit_baselines,
    item_knn,
    markov,
    sequential_rules,
)
from scripts.training.evaluation import evaluate
from scripts.training.interactions import Cases, Interactions

NUM_ITEMS = 6
HISTORIES = st.lists(st.lists(st.integers(1, NUM_ITEMS), max_size=12), min_size=1, max_size=6).filter(any)


def interactions(histories: list[list[int]]) -> Interactions:
    items = np.array([item for history in histories for item in history], np.int32)
    offsets = np.concatenate([[0], np.cumsum([len(history) for history in histories])]).astype(np.int64)
    return Interactions(items, np.arange(len(items)), np.ones(len(items), np.uint8), offsets)


def query(items: list[int]) -> list[ItemSequence]:
    return [ItemSequence(items, [0] * len(items), [1] * len(items))]


def count(histories: list[list[int]], item: int) -> int:
    return sum(history.count(item) for history in histories)


def assert_scores(actual: np.ndarray, expected: dict[int, float]) -> None:
    """Up to the tie-break, which is at most 1e-6."""
    assert actual.shape == (1, NUM_ITEMS + 1)
    for item, score in expected.items():
        assert actual[0, item] == pytest.approx(score, rel=1e-4, abs=2 * float(TIE_BREAK))


@given(HISTORIES)
def test_popularity_counts(histories: list[list[int]]) -> None:
    scores = Popularity(interactions(histories), NUM_ITEMS)(query([1]))
    highest = max(count(histories, item) for item in range(1, NUM_ITEMS + 1))
    assert_scores(scores, {item: count(histories, item) / highest for item in range(1, NUM_ITEMS + 1)})


@given(HISTORIES, st.integers(1, NUM_ITEMS))
def test_markov_is_the_share_of_successors(histories: list[list[int]], newest: int) -> None:
    following = [b for history in histories for a, b in pairwise(history) if a == newest]
    expected = {item: following.count(item) / max(1, len(following)) for item in range(1, NUM_ITEMS + 1)}
    assert_scores(markov(interactions(histories), NUM_ITEMS)(query([3, newest])), expected)


@given(HISTORIES, st.lists(st.integers(1, NUM_ITEMS), max_size=5))
def test_sequential_rules_sum_inverse_distances(histories: list[list[int]], recent: list[int]) -> None:
    expected = dict.fromkeys(range(1, NUM_ITEMS + 1), 0.0)
    for age, a in enumerate(reversed(recent[-3:])):
        for history in histories:
            for place, item in enumerate(history):
                for step, b in enumerate(history[place + 1 : place + 5], start=1):
                    if item == a:
                        divisor = count(histories, a) ** 0.5 * count(histories, b) ** 0.25
                        expected[b] += 0.5**age / step / divisor
    rules = sequential_rules(interactions(histories), NUM_ITEMS, steps=4, length=3, decay=0.5)
    assert_scores(rules(query(recent)), expected)


@given(HISTORIES, st.integers(1, NUM_ITEMS))
def test_item_knn_is_the_cosine_of_sets_of_users(histories: list[list[int]], newest: int) -> None:
    users = {item: {u for u, h in enumerate(histories) if item in h} for item in range(1, NUM_ITEMS + 1)}
    expected = {
        item: len(users[newest] & users[item]) / math.sqrt(max(1, len(users[newest]) * len(users[item])))
        for item in users
    }
    assert_scores(item_knn(interactions(histories), NUM_ITEMS)(query([newest])), expected)


def test_item_knn_keeps_only_the_nearest() -> None:
    # Cosines of item 1: with 2 it shares 3 of 3 users, with 3 two, with 4 one.
    histories = [[1, 2, 3, 4], [1, 2, 3], [1, 2]]
    scores = item_knn(interactions(histories), NUM_ITEMS, neighbours=1)(query([1]))
    assert_scores(scores, {1: 1.0, 2: 1.0, 3: 0.0, 4: 0.0})


def test_personal_popularity_halves_in_90_days_and_popularity_orders_the_rest() -> None:
    day = 86_400_000
    scorer = PersonalPopularity(Popularity(interactions([[4, 4, 6]]), NUM_ITEMS))
    [scores_V] = scorer([ItemSequence([1, 1, 2, 1], [0, 90 * day, 180 * day, 180 * day], [1, 1, 1, 1])])
    assert_scores(scores_V[None], {1: 0.25 + 0.5 + 1, 2: 1.0})
    assert 0 < scores_V[6] < scores_V[4] < 1e-5
    assert "personal_popularity" not in fit_baselines(interactions([[1, 2]]), NUM_ITEMS, exclude_seen=True)


def test_personal_popularity_counts_alike_where_times_are_an_order() -> None:
    scorer = PersonalPopularity(Popularity(interactions([[4]]), NUM_ITEMS))
    assert_scores(scorer([ItemSequence([1, 2, 1], [0, 1, 2], [1, 1, 1])]), {1: 2.0, 2: 1.0})


def test_an_empty_history_gets_the_popular_ranking() -> None:
    train = interactions([[1, 2, 2], [2, 1, 3]])
    expected = np.argsort(-Popularity(train, NUM_ITEMS)(query([]))[0], kind="stable")
    for name, scorer in fit_baselines(train, NUM_ITEMS, exclude_seen=False).items():
        assert np.argsort(-scorer(query([]))[0], kind="stable").tolist() == expected.tolist(), name


def test_a_batch_scores_like_one_at_a_time() -> None:
    train = interactions([[1, 2, 3, 1], [2, 3, 4], [5, 1, 2]])
    histories = [*query([1, 2]), *query([]), *query([5]), *query([4, 3, 2, 1])]
    for name, scorer in fit_baselines(train, NUM_ITEMS, exclude_seen=False).items():
        together = scorer(histories)
        for place, history in enumerate(histories):
            np.testing.assert_allclose(together[place], scorer([history])[0], rtol=1e-6, err_msg=name)


def test_sequential_methods_read_a_cycle_and_the_others_cannot() -> None:
    # Every user walks 1 → 2 → … → 6 → 1: after any item the next is certain, and all items are equally popular.
    walks = [[(start + step) % NUM_ITEMS + 1 for step in range(12)] for start in range(NUM_ITEMS)]
    histories = [walk[:-1] for walk in walks]
    train = interactions(histories)
    cases = Cases(train, np.array([walk[-1] for walk in walks], np.int32), np.arange(NUM_ITEMS))
    first = {
        name: evaluate(
            scorer,
            cases,
            num_items=NUM_ITEMS,
            item_counts=train.item_counts(NUM_ITEMS),
            exclude_seen=False,
            cutoffs=(1,),
        ).metrics["hit_rate@1"]
        for name, scorer in fit_baselines(train, NUM_ITEMS, exclude_seen=False).items()
    }
    assert (first["markov"], first["sequential_rules"]) == (1.0, 1.0)
    assert first["popularity"] < 0.5
