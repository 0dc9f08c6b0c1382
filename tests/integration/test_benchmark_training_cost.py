"""`python -m scripts.benchmark training-cost`, small."""

from pathlib import Path

import pytest

from scripts.benchmark import main
from scripts.benchmarks.training_cost import Cost, Point, points, slopes


def test_every_size_grows_from_one_base(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--users", "20", "40", "--length", "6", "--items", "50", "5000"]
    folders = ["--output", str(tmp_path / "work"), "--page", str(tmp_path / "page.md")]
    assert main(["training-cost", *words, *folders]) == 0
    page = (tmp_path / "page.md").read_text()
    assert "| users (6 steps a user, 50 items) |" in page
    assert "| 40 |" in page
    assert "| 5,000 |" in page
    assert "seconds grow as items^" in page
    assert "(page.svg)" in page
    assert (tmp_path / "page.svg").read_text().startswith("<?xml")
    assert not (tmp_path / "work").exists(), "nothing is left behind"
    lines = [
        line for line in capsys.readouterr().out.splitlines() if line.startswith("Point(users=20, length=6, items=50)")
    ]
    assert len(set(lines)) == 1, "the base is measured once"


def test_slopes_are_those_of_known_lines() -> None:
    """3 s + 2 s per ten steps and 1 MB per step; twice the items, four times the seconds."""
    lengths = points(Point(10, 5, 100), "length", [10, 20, 30])
    assert slopes("length", [Cost(point, 3 + point.length / 5, point.length * 10**6) for point in lengths]).startswith(
        "10 steps a user more: 2.0 s an epoch, 10 MB"
    )
    catalogues = points(Point(10, 5, 100), "items", [1000, 2000, 4000])
    grown = slopes("items", [Cost(point, point.items**2 / 1e6, 10**9) for point in catalogues])
    assert grown.endswith("0 MB; seconds grow as items^2.00")
