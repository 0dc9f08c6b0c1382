"""A comparison and its page, over a model that knows the answer."""

import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from app.ranking.ranker import ItemSequence
from scripts.evaluate import table
from scripts.training.comparison import Comparison, compare
from scripts.training.evaluation import Group, evaluate
from scripts.training.interactions import PreparedData
from scripts.training.plots import comparison_figure, groups_figure, length_figure, scorer_label
from scripts.training.report import report_html
from tests.unit.test_interactions import prepared


class NextItem:
    """Users walk a → b → … → e → a, and this model knows."""

    def __call__(self, histories: Sequence[ItemSequence]) -> NDArray[np.float32]:
        scores = np.zeros((len(histories), 6), np.float32)
        scores[np.arange(len(histories)), [history.items[-1] % 5 + 1 for history in histories]] = 1
        return scores


@pytest.fixture
def data(tmp_path: Path) -> PreparedData:
    walks = [[(start + step) % 5 + 1 for step in range(4 + start)] for start in range(5)]
    return prepared(tmp_path, [[(item, time) for time, item in enumerate(walk)] for walk in walks])


@pytest.fixture
def comparison(data: PreparedData) -> Comparison:
    return compare(NextItem(), data, "test", history_cap=4, exclude_seen=False)


def test_the_model_stands_first_beside_every_baseline(comparison: Comparison) -> None:
    content = comparison.as_json()
    assert content["model"]["hit_rate@5"] == content["model"]["ndcg@5"] == 1
    assert list(content["baselines"]) == ["popularity", "personal_popularity", "markov", "item_knn", "sequential_rules"]
    assert {"hit_rate@10", "ndcg@10", "mrr@10", "coverage@10"} <= content["model"].keys()
    assert content["protocol"]["num_cases"] == 5
    assert content["protocol"]["exclude_seen"] is False
    for metric in ("hit_rate@10", "ndcg@10"):
        expected = content["model"][metric] - content["baselines"]["popularity"][metric]
        assert content["differences"]["popularity"][metric]["mean"] == pytest.approx(expected)


def test_as_served_is_reported_only_where_histories_exceed_the_cap(data: PreparedData, comparison: Comparison) -> None:
    assert comparison.as_json()["as_served"]["history_cap"] == 4
    assert compare(NextItem(), data, "test", history_cap=7, exclude_seen=False).as_json()["as_served"] is None


def test_as_served_is_what_all_cases_come_to_with_the_newest_events_alone(data: PreparedData) -> None:
    """Of a scorer that reads the oldest event and their number; three of the five histories are longer than four."""

    def scorer(histories: Sequence[ItemSequence]) -> NDArray[np.float32]:
        scores = np.zeros((len(histories), 6), np.float32)
        for row, history in zip(scores, histories, strict=True):
            row[1:] = [(history.items[0] * item + len(history.items)) % 7 for item in range(1, 6)]
        return scores

    found = compare(scorer, data, "test", history_cap=4, exclude_seen=False)
    counts = data.train.item_counts(data.num_items)
    cases = data.cases("test")
    assert (cases.histories.lengths > 4).sum() == 3
    expected = evaluate(scorer, cases, num_items=5, item_counts=counts, exclude_seen=False, history_cap=4)
    assert found.as_served is not None
    assert found.as_served["model"] == {name: expected.metrics[name] for name in found.as_served["model"]}
    assert found.as_served["model"] != {name: found.metrics["model"][name] for name in found.as_served["model"]}
    assert found.as_served.keys() == found.metrics.keys()


class Page(HTMLParser):
    """Collects tags and what a browser would have to fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href") and not value.startswith("#")]


def test_the_page_is_self_contained_and_names_the_run(data: PreparedData, comparison: Comparison) -> None:
    history = [{"epoch": epoch, "loss": 3 - epoch, "ndcg@10": epoch / 10} for epoch in (1, 2)]
    text = report_html("run <one>", comparison, data, history, {"learning_rate": 0.001})
    page = Page(text)
    assert page.tags.count("svg") == 4
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert page.fetched == []
    assert len(page.ids) == len(set(page.ids)), "figures share one space of ids"
    assert "run &lt;one&gt;" in text
    assert "best 0.2000, epoch 2" in text
    # No stand-in colour is left, so every line follows the page's light or dark colours.
    assert not re.search(r"#(0[1-9a-f])\1\1\b", text)


def test_a_run_without_epochs_has_a_page_without_a_curve(data: PreparedData, comparison: Comparison) -> None:
    assert Page(report_html("x", comparison, data, [], {})).tags.count("svg") == 3


def test_repeats_are_told_apart_where_seen_items_are_eligible(data: PreparedData, comparison: Comparison) -> None:
    """Walks of four and five steps end with an item that is new to them, those of six to eight do not."""
    (line,) = [line for line in table(comparison).splitlines() if line.lstrip().startswith("repeats")]
    assert line.split() == ["repeats:", "3", "cases", "new", "items:", "2", "cases"]
    assert "NDCG@10 of 3 repeats" in report_html("r", comparison, data, [], {})
    masked = compare(NextItem(), data, "test", history_cap=7, exclude_seen=True)
    assert "repeats" not in table(masked)
    assert "Repeats and new items" not in report_html("r", masked, data, [], {})


def test_eight_lines_beside_the_model_have_a_colour_each_on_light_and_on_dark(data: PreparedData) -> None:
    """Three parts and, where seen items are eligible, five baselines; bars show all parts."""
    drawn = ("attention_alone", "rules_alone", "without_discount")
    parts = dict.fromkeys(("first_member_alone", *drawn, "without_returns", "without_reranker"), NextItem())
    comparison = compare(NextItem(), data, "test", parts=parts, history_cap=4, exclude_seen=False)
    lines = length_figure(comparison)
    assert {f"--series-{number}" for number in range(1, 9)} <= set(re.findall(r"--series-\d+", lines))
    for name in comparison.results:
        assert (scorer_label(name) in lines) == (name in drawn or name not in parts)
        assert scorer_label(name) in comparison_figure(comparison.intervals)
    text = report_html("x", comparison, data, [], {})
    for number in range(1, 9):
        assert len(set(re.findall(rf"--series-{number}: (#[0-9a-f]{{6}});", text))) == 2
    named = dict(re.findall(r"--(series-\d+|accent): (#[0-9a-f]{6})", text.split("@media", 1)[0]))
    assert len(set(named.values())) == len(named) == 9


def test_groups_of_few_cases_are_drawn_only_where_all_are_small() -> None:
    def drawn(*counts: int) -> list[str]:
        members = [
            Group(f"group {place}", count, {"ndcg@10": 0.5}, {"ndcg@10": 0.1} if count else {})
            for place, count in enumerate(counts)
        ]
        return re.findall(r"group \d", groups_figure({"model": members}, "ndcg@10", "groups", "figure"))

    assert drawn(500, 29, 30, 0) == ["group 0", "group 2"]
    assert drawn(29, 1, 0) == ["group 0", "group 1"]


def test_a_scorer_without_a_colour_is_an_error_and_no_line_less(data: PreparedData) -> None:
    parts = {f"part {number}": NextItem() for number in range(4)}
    comparison = compare(NextItem(), data, "test", parts=parts, history_cap=4, exclude_seen=False)
    with pytest.raises(ValueError, match="zip"):
        length_figure(comparison)


def test_the_printed_table_has_a_line_per_scorer(comparison: Comparison) -> None:
    lines = table(comparison).splitlines()
    assert sum(line.startswith("Sequential rules") for line in lines) == 4
    assert next(line for line in lines if line.startswith("Segue ")).split()[1] == "1.0000"


def test_page_says_which_labels_each_part_has_seen(data: PreparedData, comparison: Comparison) -> None:
    mixed = {"followers": 100, "rerank": True, "validation_cases": 10_000}
    text = report_html("x", comparison, data, [], mixed)
    assert "training part without the inner hold-out" in text
    assert "validation, 30,000 cases at most" in text
    assert "hold-out" not in report_html("x", comparison, data, [], {**mixed, "rerank": False})
    assert "rules" not in report_html("x", comparison, data, [], {**mixed, "followers": 0}).split("What learnt")[1]


def test_parts_of_the_model_are_explained_and_keep_the_columns_aligned(data: PreparedData) -> None:
    parts = {"attention_alone": NextItem(), "without_reranker": NextItem()}
    comparison = compare(NextItem(), data, "test", parts=parts, history_cap=4, exclude_seen=False)
    text = report_html("x", comparison, data, [], {})
    assert "mixes attention with sequential rules" in text
    assert "reorders the first of the mixture" in text
    assert "popular items lose" not in text, "there is no discount"
    lines = table(comparison).splitlines()
    metrics = lines[2 : lines.index("", 2)]
    assert next(line for line in metrics if line.startswith("Without the re-ranker"))
    assert len({len(line) for line in metrics}) == 1, "every row ends in the same column"
    assert len({line.index("]") for line in lines if "]" in line}) == 1
