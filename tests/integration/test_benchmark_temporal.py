"""`python -m scripts.benchmark temporal`: a lead over users, and repeats told apart."""

from pathlib import Path

import numpy as np
import pytest

from scripts.benchmark import main
from scripts.benchmarks.experiments import Evaluated
from scripts.benchmarks.pages import write_section
from scripts.benchmarks.temporal import TemporalResult, temporal_table, verdicts
from tests.walk_set import settings, write_walk_set


def test_the_command_reports_both_kinds_of_cases(tmp_path: Path) -> None:
    folders = ["--data-folder", str(write_walk_set(tmp_path, has_clock=True)), "--output", str(tmp_path / "runs")]
    words = ["temporal", *folders, "--page", str(tmp_path / "page.md"), "--sets", "walk", "--seeds", "1", *settings()]
    write_section(tmp_path / "page.md", "temporal split of another", "Of an earlier call.")
    assert main(words) == 0
    page = (tmp_path / "page.md").read_text()
    assert "Of an earlier call." in page
    assert "<!-- temporal split of walk: written by the command below -->\n## walk: global-temporal split" in page
    # 540 events at nine times: the quantiles .8 and .9 leave the last two times for validation and test.
    assert "| walk-temporal | every: 60 cases | every, repeats: 6 cases |" in page
    assert "the bar of +10% is" in page


def result(ranks: list[int], baseline: list[int], users: list[int], *, exclude_seen: bool = True) -> TemporalResult:
    ours, theirs = (Evaluated({}, {}, np.array(each)) for each in (ranks, baseline))
    is_repeat = np.array([True] + [False] * (len(ranks) - 1))
    return TemporalResult("walk", "first", np.array(users), is_repeat, exclude_seen, [ours], {"markov": theirs})


def test_the_lead_is_a_share_of_the_best_baseline() -> None:
    """Ranks 1, 1, none against 1, none, none: NDCG 2/3 against 1/3."""
    found = result([1, 1, 11], [1, 11, 11], [0, 1, 2])
    assert found.relative_lead == pytest.approx(1.0)
    assert "+100.0%; the bar of +10% is reached" in verdicts([found])
    assert "the bar of +10% is missed" in verdicts([result([1, 11, 11], [1, 11, 11], [0, 1, 2])])


def test_a_lead_on_one_user_alone_is_no_lead() -> None:
    """A hundred cases of one user, all ahead, and three users without a difference: whoever draws users may miss the
    one, whoever draws cases may not."""
    found = result([1] * 100 + [11] * 3, [11] * 103, [0] * 100 + [1, 2, 3])
    assert found.lead.low == 0


def test_repeats_are_told_apart_where_seen_items_are_eligible() -> None:
    table = temporal_table([result([1, 11], [11, 11], [0, 1], exclude_seen=False)])
    assert "| walk | first: 2 cases | first, repeats: 1 cases | first, new items: 1 cases |" in table
    assert "| **Segue**, seeds: 1 | **.5000 / .5000** | **1.0000 / 1.0000** | **.0000 / .0000** |" in table
    assert "repeats" not in temporal_table([result([1, 11], [11, 11], [0, 1])])
