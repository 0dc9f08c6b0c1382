"""`python -m scripts.benchmark evaluation`, small."""

import sys
from pathlib import Path

import pytest

from scripts.benchmark import main
from scripts.benchmarks.errors import ProcessFailed
from scripts.benchmarks.processes import measured


def test_a_thousand_users_over_two_thousand_items(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluation", "--users", "1000", "--items", "2000", "--page", str(tmp_path / "page.md")]
    assert main(words) == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith("1,000 users × 2,000 items ranked in ")
    assert "(chance 0.00503)" in line  # ten places among the 1,990 items that are not in the history
    assert line in (tmp_path / "page.md").read_text()


def test_the_peak_is_that_of_the_measured_process() -> None:
    cost = measured([sys.executable, "-c", "x = b'1' * 700_000_000; print(len(x))"])
    assert cost.output == "700000000\n"
    assert cost.peak_bytes > 700e6
    assert cost.seconds > 0 < cost.cpu_seconds


def test_a_process_that_fails_is_no_measurement() -> None:
    with pytest.raises(ProcessFailed, match="ended with 3"):
        measured([sys.executable, "-c", "raise SystemExit(3)"])
