"""`python -m scripts.benchmark recipes`: what is counted and chosen, beside why."""

import re
from pathlib import Path

from scripts.benchmark import main
from tests.walk_set import write_walk_set


def test_the_page_holds_counts_choices_and_reasons(tmp_path: Path) -> None:
    """60 users with 9 events of 30 items: 7 each to learn from, in a full cross-entropy over all items."""
    folders = ["--data-folder", str(write_walk_set(tmp_path)), "--output", str(tmp_path / "runs")]
    assert main(["recipes", *folders, "--page", str(tmp_path / "page.md"), "--sets", "walk"]) == 0
    page = (tmp_path / "page.md").read_text()
    rows = dict(re.findall(r"^\| ([^|]+) \| ([^|]*) \|$", page, re.MULTILINE))
    assert {key: rows[key] for key in ("num items", "num steps", "median history", "events per item", "has clock")} == {
        "num items": "30", "num steps": "360", "median history": "7", "events per item": "14", "has clock": "no"
    }  # fmt: skip
    assert rows["`loss`"] == "cross_entropy"
    assert "- `loss` cross_entropy: 30 items: all of them against each target" in page
    assert not list((tmp_path / "runs").glob("walk-*")), "nothing is trained"
